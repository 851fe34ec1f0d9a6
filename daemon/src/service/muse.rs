//! The muses: requests that the device makes itself, on their way into the queue as those of clients.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use diffused_engine::Resolver;
use jiff::tz::TimeZone;
use tokio::task::spawn_blocking;
use tracing::{error, warn};

use super::Service;
use crate::config::{Config, MuseConfig};
use crate::files::write_atomically;
use crate::jobs::muse::{Muse, MuseMemory, prompts_of};
use crate::jobs::request::{Job, RequestMode};
use crate::random;

/// In the state folder: what the muses remember, by their names.
const MEMORY: &str = ".diffused-muses";
/// The most bytes of a file of prompts.
const MAX_PROMPTS: u64 = 1 << 20;

/// The muses of the configuration.
#[derive(Debug)]
pub(super) struct Muses {
    muses: Vec<Muse>,
    /// Where they remember.
    path: PathBuf,
    /// What is wrong with one, by its name.
    problems: BTreeMap<String, String>,
}

impl Muses {
    /// The muses with what they remember. A file of theirs that cannot be read is as one that is not there.
    pub(super) fn open(config: &Config, state_dir: &Path) -> Muses {
        let path = state_dir.join(MEMORY);
        let text = std::fs::read(&path).unwrap_or_default();
        let remembered: BTreeMap<String, MuseMemory> = serde_json::from_slice(&text).unwrap_or_default();
        let muses = config.muse.iter().enumerate().map(|(index, config)| {
            let name = config.name_at(index);
            let new = || MuseMemory { turn: 0, handled: None, salt: random::seed() };
            let memory = remembered.get(&name).copied().unwrap_or_else(new);
            Muse { name, config: config.clone(), memory }
        });
        Muses { muses: muses.collect(), path, problems: BTreeMap::new() }
    }

    /// What is wrong with them now.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        self.problems.iter().map(|(name, problem)| format!("muse `{name}`: {problem}"))
    }
}

/// Refuses muses whose keys are not those of a request that the model can paint.
pub(crate) fn check(config: &Config, resolver: &Resolver) -> Result<()> {
    let muses = Muses::open(config, Path::new("")).muses;
    for muse in muses {
        let wrong = || format!("muse `{}`", muse.name);
        let payload = muse.request("a", 0).to_string();
        let parsed = Job::parse(payload.as_bytes(), RequestMode::Txt2Img, Path::new(""));
        let (job, _) = parsed.map_err(|rejection| rejection.fault).with_context(wrong)?;
        if let Some(warning) = job.warnings.first() {
            bail!("{}: {warning}", wrong());
        }
        resolver.resolve(&job.request, None).with_context(wrong)?;
    }
    Ok(())
}

/// What is wrong with the files of prompts as they are now. The service tries them again each time.
pub(crate) fn unreadable_prompts(config: &Config) -> Vec<String> {
    let muses = config.muse.iter().enumerate();
    let wrong = |(index, muse): (usize, &MuseConfig)| {
        let path = muse.prompts_file.as_deref()?;
        let why = prompts_in(path).err()?;
        Some(format!("muse `{}`: {why}", muse.name_at(index)))
    };
    muses.filter_map(wrong).collect()
}

impl Service {
    /// Queues what is due.
    pub(super) async fn muse(&mut self) {
        if self.muses.muses.is_empty() {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        let zone = TimeZone::system();
        let before: Vec<MuseMemory> = self.muses.muses.iter().map(|muse| muse.memory).collect();
        for index in 0..before.len() {
            let Some(mut muse) = self.muses.muses.get(index).cloned() else { return };
            if let Some(due) = muse.due(now, &zone) {
                let outcome = self.inspire(&mut muse, due).await;
                self.note_problem(&muse.name, outcome.err());
            }
            if let Some(place) = self.muses.muses.get_mut(index) {
                *place = muse;
            }
        }
        if self.muses.muses.iter().map(|muse| muse.memory).ne(before) {
            self.remember().await;
        }
    }

    /// Queues the muse's next picture for the time `due`, unless its last one still waits. An error is tried again.
    async fn inspire(&mut self, muse: &mut Muse, due: i64) -> Result<(), String> {
        if self.queue.ids().iter().any(|id| muse.is_its(id)) {
            muse.handled(due, false);
            return Ok(());
        }
        let prompts = match muse.config.prompts_file.clone() {
            None => muse.config.prompts.clone(),
            Some(path) => {
                let read = spawn_blocking(move || prompts_in(&path)).await;
                read.unwrap_or_else(|error| Err(error.to_string()))?
            }
        };
        let Some(prompt) = muse.prompt(&prompts) else { return Err("there is no prompt".into()) };
        let request = muse.request(prompt, due);
        self.propose(request.to_string().as_bytes()).await.map_err(|fault| fault.one_line())?;
        muse.handled(due, true);
        Ok(())
    }

    fn note_problem(&mut self, name: &str, problem: Option<String>) {
        let before = self.muses.problems.remove(name);
        if let Some(problem) = problem {
            if before.as_ref() != Some(&problem) {
                error!("muse `{name}`: {problem}; it is tried again");
            }
            self.muses.problems.insert(name.to_owned(), problem);
        }
    }

    /// Without it a muse begins anew after a restart, so a full disk does not stop it.
    async fn remember(&self) {
        let memory: BTreeMap<&str, MuseMemory> =
            self.muses.muses.iter().map(|muse| (muse.name.as_str(), muse.memory)).collect();
        let (path, text) = (self.muses.path.clone(), serde_json::to_vec(&memory).unwrap_or_default());
        let written = spawn_blocking(move || write_atomically(&path, &text)).await;
        if let Err(error) = written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            warn!("what the muses remember cannot be written: {}: {error}", self.muses.path.display());
        }
    }
}

/// The prompts in a file, at least one.
fn prompts_in(path: &Path) -> Result<Vec<String>, String> {
    let wrong = |why: String| format!("prompts_file: {}: {why}", path.display());
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_PROMPTS).read_to_string(&mut text));
    read.map_err(|error| wrong(error.to_string()))?;
    let prompts = prompts_of(&text);
    if prompts.is_empty() {
        return Err(wrong("there is no prompt in it".into()));
    }
    Ok(prompts)
}
