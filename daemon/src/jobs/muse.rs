//! When a muse paints and what: a pure state machine, to which the service gives the time. What it must remember
//! outlives the process.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::unwrap_used))]

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::{MuseConfig, PromptOrder};

/// No clock that was set shows an earlier time than this, the beginning of 2024, in seconds since 1970: boards without a
/// battery begin in 1970 or with their image's date.
const CLOCK_SET: i64 = 1_704_067_200;

/// A muse and what it remembers.
#[derive(Debug, Clone)]
pub struct Muse {
    /// Unique among the muses.
    pub name: String,
    /// Its keys.
    pub config: MuseConfig,
    /// What outlives the process.
    pub memory: MuseMemory,
}

/// What a muse remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MuseMemory {
    /// How many prompts had their turn.
    pub turn: u64,
    /// Up to when its times are dealt with, seconds since 1970.
    pub handled: Option<i64>,
    /// Makes its random order its own.
    pub salt: u64,
}

impl Muse {
    /// The time that it is to paint for, seconds since 1970: the latest that has come at `now` and is not dealt with. Of
    /// several that have passed, since the device was off, it is the last. `None` too while the clock is not set.
    pub fn due(&mut self, now: i64, zone: &TimeZone) -> Option<i64> {
        if now < CLOCK_SET {
            return None;
        }
        // A time in the future is of a clock that was wrong.
        let handled = self.memory.handled.map(|handled| handled.min(now));
        self.memory.handled = handled;
        match (self.config.every, handled) {
            (Some(_), None) => Some(now),
            (Some(period), Some(handled)) => {
                let period = i64::try_from(period.0.as_secs()).unwrap_or(i64::MAX);
                let periods = (now - handled) / period;
                (periods > 0).then(|| handled + periods * period)
            }
            // The first day begins when it is configured.
            (None, None) => {
                self.memory.handled = Some(now);
                None
            }
            (None, Some(handled)) => self.latest(now, zone).filter(|latest| *latest > handled),
        }
    }

    /// The latest of its times of day that is not after `now`. A time that summer time leaves out comes an hour later, and
    /// of one that there is twice, the first counts.
    fn latest(&self, now: i64, zone: &TimeZone) -> Option<i64> {
        let today = Timestamp::from_second(now).ok()?.to_zoned(zone.clone()).date();
        let days = [today.yesterday().ok(), Some(today)].into_iter().flatten();
        let times = days.flat_map(|day| self.config.at.iter().map(move |time| day.at(time.hour, time.minute, 0, 0)));
        let times = times.filter_map(|time| zone.to_timestamp(time).ok()).map(Timestamp::as_second);
        times.filter(|time| *time <= now).max()
    }

    /// What it paints next, out of all its prompts.
    pub fn prompt<'a>(&self, prompts: &'a [String]) -> Option<&'a str> {
        let count = prompts.len() as u64;
        let (round, place) = (self.memory.turn.checked_div(count)?, self.memory.turn % count);
        let index = match self.config.order {
            PromptOrder::InTurn => place as usize,
            PromptOrder::Random => {
                let key = |index: u64| xxh3_64([self.memory.salt, round, index].map(u64::to_le_bytes).as_flattened());
                let mut order: Vec<u64> = (0..count).collect();
                order.sort_by_key(|index| key(*index));
                *order.get(place as usize)? as usize
            }
        };
        prompts.get(index).map(String::as_str)
    }

    /// Whether a job of this id is one of its own.
    pub fn is_its(&self, id: &str) -> bool {
        let time = id.strip_prefix("muse-").and_then(|id| id.strip_prefix(&self.name)?.strip_prefix('-'));
        time.is_some_and(|time| time.parse::<i64>().is_ok())
    }

    /// The request for `prompt` at the time `due`. Its id tells it from all others, so a crash does not repeat it.
    pub fn request(&self, prompt: &str, due: i64) -> Value {
        let mut request = self.config.request.clone();
        request.insert("prompt".into(), json!(prompt));
        request.insert("id".into(), json!(format!("muse-{}-{due}", self.name)));
        Value::Object(request)
    }

    /// The time `due` is dealt with, and the prompt has had its turn if it was painted.
    pub fn handled(&mut self, due: i64, painted: bool) {
        self.memory.handled = Some(due);
        self.memory.turn += u64::from(painted);
    }
}

/// The prompts in the text of a file.
pub fn prompts_of(text: &str) -> Vec<String> {
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn muse(keys: &str) -> Muse {
        let text = format!("[[muse]]\nprompts = [\"a\", \"b\", \"c\"]\n{keys}");
        let config = Config::parse(&text, Path::new("c.toml")).unwrap().muse.remove(0);
        Muse { name: "1".into(), config, memory: MuseMemory { turn: 0, handled: None, salt: 7 } }
    }

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    /// A time on Berlin's clocks, of which `offset` tells summer from winter.
    fn time(text: &str, offset: &str) -> i64 {
        format!("{text}:00{offset}").parse::<Timestamp>().unwrap().as_second()
    }

    fn winter(text: &str) -> i64 {
        time(text, "+01:00")
    }

    fn summer(text: &str) -> i64 {
        time(text, "+02:00")
    }

    #[test]
    fn times_of_day_come_once_each() {
        let mut muse = muse("at = [\"07:00\", \"19:30\"]");
        let mut due = |now: &str| {
            let due = muse.due(winter(now), &berlin());
            if let Some(due) = due {
                muse.handled(due, true);
            }
            due
        };
        assert_eq!(due("2026-01-05T12:00"), None, "its first time is to come");
        assert_eq!(due("2026-01-05T19:29"), None);
        assert_eq!(due("2026-01-05T19:30"), Some(winter("2026-01-05T19:30")));
        assert_eq!(due("2026-01-05T19:31"), None);
        assert_eq!(due("2026-01-06T09:00"), Some(winter("2026-01-06T07:00")), "late, but the same day");
        assert_eq!(due("2026-01-20T10:00"), Some(winter("2026-01-20T07:00")), "once for all that were missed");
        assert_eq!(due("2026-01-20T10:01"), None);
    }

    #[test]
    fn summer_time_neither_repeats_nor_loses_a_picture() {
        let mut muse = muse("at = [\"02:30\"]");
        muse.memory.handled = Some(winter("2026-03-28T12:00"));
        assert_eq!(muse.due(summer("2026-03-29T03:29"), &berlin()), None);
        let due = muse.due(summer("2026-03-29T03:31"), &berlin());
        assert_eq!(due, Some(summer("2026-03-29T03:30")), "that night has no half past two");
        muse.memory.handled = Some(summer("2026-10-24T12:00"));
        let first = muse.due(summer("2026-10-25T02:31"), &berlin()).unwrap();
        assert_eq!(first, summer("2026-10-25T02:30"));
        muse.handled(first, true);
        assert_eq!(muse.due(winter("2026-10-25T02:31"), &berlin()), None, "that night has two");
    }

    #[test]
    fn periods_begin_with_a_picture_and_keep_their_pace() {
        let mut muse = muse("every = \"6h\"");
        let start = winter("2026-01-05T12:00");
        assert_eq!(muse.due(start, &berlin()), Some(start));
        muse.handled(start, true);
        assert_eq!(muse.due(start + 6 * 3600 - 1, &berlin()), None);
        assert_eq!(muse.due(start + 6 * 3600 + 5, &berlin()), Some(start + 6 * 3600));
        muse.handled(start + 6 * 3600, true);
        assert_eq!(muse.due(start + 40 * 3600, &berlin()), Some(start + 36 * 3600), "once for all that were missed");
    }

    #[test]
    fn a_clock_that_is_wrong_is_waited_for() {
        let mut muse = muse("every = \"6h\"");
        assert_eq!(muse.due(100, &berlin()), None);
        let now = winter("2026-01-05T12:00");
        muse.memory.handled = Some(winter("2099-01-01T00:00"));
        assert_eq!(muse.due(now, &berlin()), None);
        assert_eq!(muse.due(now + 6 * 3600, &berlin()), Some(now + 6 * 3600));
    }

    #[test]
    fn each_prompt_has_its_turn() {
        let prompts = ["a", "b", "c", "d"].map(str::to_owned);
        let of_round = |muse: &mut Muse| {
            let turns: Vec<String> = (0..4)
                .map(|_| {
                    let prompt = muse.prompt(&prompts).unwrap().to_owned();
                    muse.handled(0, true);
                    prompt
                })
                .collect();
            turns
        };
        let mut in_turn = muse("every = \"1d\"\norder = \"in turn\"");
        assert_eq!([of_round(&mut in_turn), of_round(&mut in_turn)], [&prompts[..]; 2]);
        let mut random = muse("every = \"1d\"");
        let rounds: Vec<Vec<String>> = (0..20).map(|_| of_round(&mut random)).collect();
        let all = BTreeSet::from(prompts.clone());
        assert!(rounds.iter().all(|round| round.iter().cloned().collect::<BTreeSet<_>>() == all));
        assert!(rounds.iter().collect::<BTreeSet<_>>().len() > 5);
        assert_eq!(random.prompt(&[]), None);
    }

    #[test]
    fn a_request_has_the_muses_keys() {
        let request = muse("every = \"1d\"\nsteps = 7\nfit = \"cover\"").request("a cat", 1_800_000_000);
        let expected = json!({"prompt": "a cat", "id": "muse-1-1800000000", "steps": 7, "fit": "cover"});
        assert_eq!(request, expected);
        let muse = muse("every = \"1d\"");
        assert!(muse.is_its("muse-1-1800000000") && !muse.is_its("muse-1-a") && !muse.is_its("muse-1-2-1800000000"));
    }

    #[test]
    fn a_file_has_a_prompt_in_each_line() {
        assert_eq!(prompts_of("\u{feff}# mine\n a cat \r\n\n\ta dog\n#x"), ["a cat", "a dog"]);
    }
}
