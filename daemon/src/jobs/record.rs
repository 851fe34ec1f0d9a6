//! What is known of a job, from its acceptance to its end and for some time after.

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
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Expiry {
    /// What was left.
    pub left: Duration,
    /// When.
    pub at: SystemTime,
}

impl Expiry {
    /// What is left at `now`. A clock that went back does not give time.
    pub fn left(&self, now: SystemTime) -> Duration {
        self.left.saturating_sub(now.duration_since(self.at).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_runs_forward_only() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let expiry = Expiry { left: Duration::from_secs(60), at };
        assert_eq!(expiry.left(at + Duration::from_secs(20)), Duration::from_secs(40));
        assert_eq!(expiry.left(at + Duration::from_secs(90)), Duration::ZERO);
        assert_eq!(expiry.left(SystemTime::UNIX_EPOCH), Duration::from_secs(60));
    }
}
