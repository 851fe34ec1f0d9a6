//! Commands and their answers: `…/cancel` and `…/request/<command>`, answered on `…/response/<command>` in zigbee2mqtt's
//! form.

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[cfg(test)]
use crate::contract::asyncapi::types::{JobId, Transaction};
use crate::contract::messages::Health;

/// `…/cancel`: one job by its id, or all jobs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CancelRequest {
    /// The job to cancel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<JobId>"))]
    pub id: Option<String>,
    /// Cancel all jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// The client's own name for the command, returned as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Transaction>"))]
    pub transaction: Option<Value>,
}

/// `…/request/<command>`; an empty payload is the same as `{}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CommandRequest {
    /// The client's own name for the command, returned as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Transaction>"))]
    pub transaction: Option<Value>,
}

/// `…/response/<command>`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Response {
    /// Whether the command was carried out.
    pub status: Outcome,
    /// What it gave; an empty object after an error.
    pub data: ResponseData,
    /// Why it was not carried out, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The client's own name for the command, returned as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Transaction>"))]
    pub transaction: Option<Value>,
}

/// Whether a command was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was.
    Ok,
    /// It was not.
    Error,
}

/// What a command gives, by the command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum ResponseData {
    /// Of `list`, `pause` and `resume`.
    Jobs(JobList),
    /// Of `cancel`.
    Cancelled(CancelledJobs),
    /// Of `reload`.
    Reload(Reloaded),
    /// Of `health`.
    Health(Box<Health>),
    /// Of `self_test`.
    SelfTest(SelfTestJob),
    /// Of an error.
    Nothing(NoData),
}

/// The queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobList {
    /// The job that is painted.
    pub running: Option<String>,
    /// The jobs that wait, the next one first.
    pub waiting: Vec<String>,
    /// Whether the queue is paused.
    pub paused: bool,
}

/// What `cancel` ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CancelledJobs {
    /// The jobs; the running one ends a moment later.
    pub cancelled: Vec<String>,
}

/// What `reload` found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Reloaded {
    /// Whether the configuration has changed since the start, or since what `reload` took over last.
    pub changed: bool,
    /// The keys that have changed and that only a restart takes over; all others are in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart: Vec<String>,
}

/// What `self_test` has queued: an image whose bytes are the same on every device that has the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SelfTestJob {
    /// The job, which goes before those that wait. Its result has the image's SHA-256.
    pub job: String,
}

/// An empty object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NoData {}

impl Response {
    /// The answer to a command, with its `transaction` where it had one.
    pub fn new(outcome: Result<ResponseData, String>, transaction: Option<Value>) -> Response {
        match outcome {
            Ok(data) => Response { status: Outcome::Ok, data, error: None, transaction },
            Err(error) => {
                let data = ResponseData::Nothing(NoData {});
                Response { status: Outcome::Error, data, error: Some(error), transaction }
            }
        }
    }
}
