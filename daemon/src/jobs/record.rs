//! What is known of a job, from its acceptance to its end and for some time after.

use std::fs;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract::messages::{Ending, Image, JobResult};
use crate::jobs::request::Job;

/// A job that waits or is painted.
#[derive(Debug, Clone)]
pub struct JobRecord {
    /// Counts the jobs of this installation.
    pub number: u64,
    /// The request.
    pub job: Job,
    /// How its request is recognised when it comes again.
    pub mark: RequestMark,
    /// Where copies of its messages go.
    pub reply: Option<Reply>,
    /// When it is no longer wanted.
    pub expiry: Option<Expiry>,
    /// What the client should know, each once.
    pub warnings: Vec<String>,
    /// What was painted so far.
    pub images: Vec<Image>,
    /// How often it was started since it last made progress: more than once after a crash.
    pub starts: u32,
    /// Whether it was started in an earlier run.
    pub interrupted: bool,
    /// Whether a client cancelled it while it was painted.
    pub cancelled: bool,
}

impl JobRecord {
    /// A job that was accepted just now.
    pub fn new(number: u64, job: Job, mark: RequestMark, reply: Option<Reply>, expiry: Option<Expiry>) -> JobRecord {
        JobRecord {
            number,
            warnings: job.warnings.clone(),
            job,
            mark,
            reply,
            expiry,
            images: vec![],
            starts: 0,
            interrupted: false,
            cancelled: false,
        }
    }
}

/// A job that has ended: a repeated request is answered with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndedJob {
    /// See [`JobRecord::number`].
    pub number: u64,
    /// Its id.
    pub id: String,
    /// The client's own name for it.
    pub transaction: Option<Value>,
    /// See [`JobRecord::mark`].
    pub mark: RequestMark,
    /// How it ended.
    pub ending: Ending,
    /// What was painted.
    pub result: Option<JobResult>,
}

/// How a request is recognised when it comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestMark {
    /// Checksum of topic, payload and correlation data.
    pub checksum: u64,
    /// Whether it had correlation data, which tells two requests of one content apart.
    pub correlated: bool,
    /// The packet id.
    pub packet: u16,
    /// The broker's session, in which the packet id means something.
    pub session: u64,
}

/// A client's response topic and correlation data (MQTT 5), checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// Where answers go.
    pub topic: String,
    /// Returned as it came.
    #[serde(with = "crate::mqtt::message::base64_bytes")]
    pub correlation: Option<Bytes>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_properties: Vec<(String, String)>,
}

/// How long a request is of use. It is kept as a time that is left, because the clock of a board may be wrong when a
/// request comes in and right later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expiry {
    /// What was left.
    pub left: Duration,
    /// When.
    pub at: Moment,
}

/// A point in time, as it can be compared in another run of the program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// What the clock showed.
    pub shown: SystemTime,
    /// Which start of the machine it was after.
    pub boot: String,
    /// How long after, seconds.
    pub uptime: f64,
}

impl Moment {
    /// As the system has it.
    pub fn now() -> Moment {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let uptime = read("/proc/uptime").split_whitespace().next().and_then(|seconds| seconds.parse().ok());
        let boot = read("/proc/sys/kernel/random/boot_id").trim().to_owned();
        Moment { shown: SystemTime::now(), boot, uptime: uptime.unwrap_or_default() }
    }

    /// The time since `earlier`. Where the machine has not been started in between, no clock that is set changes it.
    fn since(&self, earlier: &Moment) -> Duration {
        if self.boot == earlier.boot && !self.boot.is_empty() {
            return Duration::try_from_secs_f64(self.uptime - earlier.uptime).unwrap_or_default();
        }
        self.shown.duration_since(earlier.shown).unwrap_or_default()
    }
}

impl Expiry {
    /// What is left at `now`. A clock that went back does not give time.
    pub fn left(&self, now: &Moment) -> Duration {
        self.left.saturating_sub(now.since(&self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_runs_forward_only() {
        let moment = |boot: &str, uptime, shown| {
            let shown = SystemTime::UNIX_EPOCH + Duration::from_secs(shown);
            Moment { shown, boot: boot.into(), uptime }
        };
        let expiry = Expiry { left: Duration::from_secs(60), at: moment("a", 100.0, 1000) };
        let left = |now| expiry.left(&now).as_secs();
        assert_eq!(left(moment("a", 120.0, 99_999)), 40, "the clock was set");
        assert_eq!(left(moment("a", 190.0, 0)), 0);
        assert_eq!(left(moment("b", 5.0, 1020)), 40);
        assert_eq!(left(moment("b", 5.0, 1090)), 0);
        assert_eq!(left(moment("b", 5.0, 0)), 60, "the clock went back");
        assert!(Moment::now().uptime > 0.0);
    }
}
