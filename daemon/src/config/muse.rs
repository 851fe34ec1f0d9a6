//! `[[muse]]`: what the device paints by itself, and when.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::values::whole_path;
use crate::contract::topics::TopicLevel;

/// Keys of a request that a muse gives itself, or that belong to clients.
const NOT_ITS: [&str; 7] = ["prompt", "id", "transaction", "init_images", "mask", "not_after", "n_iter"];

/// `[[muse]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MuseConfig {
    /// Names it in the ids of its jobs; without one, its number from 1.
    pub name: Option<TopicLevel>,
    /// When it paints: times of day, as the clocks on the wall show them.
    #[serde(default)]
    pub at: Vec<TimeOfDay>,
    /// When it paints: once in each of these periods.
    pub every: Option<Period>,
    /// What it paints.
    #[serde(default)]
    pub prompts: Vec<String>,
    /// A file with a prompt in each line; empty lines and those that begin with `#` are left out.
    #[serde(default, deserialize_with = "whole_path")]
    pub prompts_file: Option<PathBuf>,
    /// In which order.
    #[serde(default)]
    pub order: PromptOrder,
    /// All other keys are those of a request.
    #[serde(flatten)]
    pub request: Map<String, Value>,
}

/// The order of a muse's prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum PromptOrder {
    /// Shuffled: each prompt once, then all again in another order.
    #[default]
    #[serde(rename = "random")]
    Random,
    /// As they stand.
    #[serde(rename = "in turn")]
    InTurn,
}

/// A time of day, as in `07:30`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TimeOfDay {
    /// 0 to 23.
    pub hour: i8,
    /// 0 to 59.
    pub minute: i8,
}

impl TryFrom<String> for TimeOfDay {
    type Error = String;

    fn try_from(text: String) -> Result<TimeOfDay, String> {
        let number = |text: &str, end: i8| {
            let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|number| digits && *number < end)
        };
        let parts = text.split_once(':').map(|(hour, minute)| (number(hour, 24), number(minute, 60)));
        match parts {
            Some((Some(hour), Some(minute))) => Ok(TimeOfDay { hour, minute }),
            _ => Err(format!("`{text}` is not a time of day such as 07:30, from 00:00 to 23:59")),
        }
    }
}

/// A length of time, as in `6h`: at least a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Period(pub Duration);

impl TryFrom<String> for Period {
    type Error = String;

    fn try_from(text: String) -> Result<Period, String> {
        let wrong = || format!("`{text}` is not a period such as 90s, 15m, 6h or 1d");
        let (unit, seconds) = match text.chars().last() {
            Some(unit @ 's') => (unit, 1),
            Some(unit @ 'm') => (unit, 60),
            Some(unit @ 'h') => (unit, 3600),
            Some(unit @ 'd') => (unit, 86_400),
            _ => return Err(wrong()),
        };
        let number = text.strip_suffix(unit).and_then(|number| number.trim_end().parse::<u32>().ok());
        let number = number.filter(|number| *number > 0).ok_or_else(wrong)?;
        Ok(Period(Duration::from_secs(u64::from(number) * seconds)))
    }
}

/// Checks what no single value shows, and gives the muses with their names.
pub(super) fn check(muses: &[MuseConfig]) -> Result<()> {
    let mut names = vec![];
    for (index, muse) in muses.iter().enumerate() {
        let name = muse.name_at(index);
        let wrong = |why: &str| format!("muse `{name}`: {why}");
        match (muse.at.is_empty(), muse.every) {
            (true, None) => bail!(wrong("`at` or `every` is missing: when does it paint?")),
            (false, Some(_)) => bail!(wrong("`at` and `every` cannot stand beside each other")),
            _ => {}
        }
        match (muse.prompts.is_empty(), &muse.prompts_file) {
            (true, None) => bail!(wrong("`prompts` or `prompts_file` is missing: what does it paint?")),
            (false, Some(_)) => bail!(wrong("`prompts` and `prompts_file` cannot stand beside each other")),
            _ => {}
        }
        if let Some(key) = NOT_ITS.iter().find(|key| muse.request.contains_key(**key)) {
            bail!(wrong(&format!("`{key}` cannot be given here")));
        }
        if name.len() > 32 {
            bail!(wrong("a muse's name has at most 32 letters"));
        }
        if names.contains(&name) {
            bail!(wrong("there is another of this name; give each its own `name`"));
        }
        names.push(name);
    }
    Ok(())
}

impl MuseConfig {
    /// Its name, where it is the entry `index` of the list.
    pub fn name_at(&self, index: usize) -> String {
        self.name.as_ref().map_or_else(|| (index + 1).to_string(), |name| name.0.clone())
    }
}
