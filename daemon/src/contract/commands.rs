//! Commands and their answers: `…/cancel` and `…/request/<command>`, answered on `…/response/<command>` in zigbee2mqtt's
//! form.

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[cfg(test)]
use crate::contract::asyncapi::types::{JobId, RequestSampler, RequestSchedule, Transaction};
use crate::contract::messages::Health;
use crate::contract::settings::PromptSettings;

/// `…/cancel`: one job by its id, the one that is painted, or all jobs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CancelRequest {
    /// The job to cancel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<JobId>"))]
    pub id: Option<String>,
    /// Cancel the job that is painted, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<bool>,
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

/// `…/request/pause`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PauseRequest {
    /// `false` goes on, as `…/request/resume` does; `true` where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// The client's own name for the command, returned as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Transaction>"))]
    pub transaction: Option<Value>,
}

/// `…/request/move`: a job that waits changes its place among those that wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MoveRequest {
    /// The job to move.
    #[cfg_attr(test, schemars(with = "JobId"))]
    pub id: String,
    /// How many of the waiting jobs are to go before it; 0, the next to be painted, where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<usize>,
    /// The client's own name for the command, returned as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Transaction>"))]
    pub transaction: Option<Value>,
}

/// `…/request/settings`: what prompts that come as plain text are painted with. A key that is left out stays as it is, and
/// `null` is the device's own choice again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SettingsRequest {
    /// What to avoid, up to 20,000 bytes of UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(length(max = 20_000)))]
    pub negative_prompt: Option<String>,
    /// Sampling steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 1, max = 1000)))]
    pub steps: Option<usize>,
    /// Guidance scale: 1 or less paints without guidance, in half the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 0, max = 50)))]
    pub cfg_scale: Option<f64>,
    /// The sampler. Any case, and blanks or underscores between the words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<RequestSampler>"))]
    pub sampler_name: Option<String>,
    /// The sampler's noise schedule. Any case, and blanks or underscores between the words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<RequestSchedule>"))]
    pub scheduler: Option<String>,
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
    /// Of `list`, `pause`, `resume` and `move`.
    Jobs(JobList),
    /// Of `cancel`.
    Cancelled(CancelledJobs),
    /// Of `reload`.
    Reload(Reloaded),
    /// Of `health`.
    Health(Box<Health>),
    /// Of `settings`.
    Settings(SettingsInUse),
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

/// What prompts that come as plain text are painted with from now on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SettingsInUse {
    /// As in `…/info`.
    pub settings: PromptSettings,
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
