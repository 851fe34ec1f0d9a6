//! The payloads that the device publishes, a type for each topic.

use std::path::PathBuf;

use diffused_engine::request::{Parameters, Stage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[cfg(test)]
use crate::contract::asyncapi::types::{Name, PaintedParameters, StageName};
use crate::contract::fault::Fault;

/// The version of the topics and payloads.
pub const SCHEMA: u32 = 1;

/// `…/job/<id>/state`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobState {
    /// The job.
    pub id: String,
    /// The client's own name for it, returned as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Name>"))]
    pub transaction: Option<Value>,
    /// What has become of it.
    pub state: State,
    /// Of a queued job: how many are before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// Why no image came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Fault>,
    /// What the client should know of its request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What has become of a job: `queued` and `running`, then one of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits.
    Queued,
    /// It is painted.
    Running,
    /// All its images were painted.
    Done,
    /// An error ended it.
    Failed,
    /// A client cancelled it.
    Cancelled,
    /// It was not accepted.
    Rejected,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// All its images were painted.
    Done,
    /// A client cancelled it.
    Cancelled(Fault),
    /// An error ended it.
    Failed(Fault),
    /// It was not accepted.
    Rejected(Fault),
}

impl JobState {
    /// Of a job that ended.
    pub fn ended(id: String, transaction: Option<Value>, ending: &Ending) -> JobState {
        let (state, error) = match ending {
            Ending::Done => (State::Done, None),
            Ending::Cancelled(fault) => (State::Cancelled, Some(fault)),
            Ending::Failed(fault) => (State::Failed, Some(fault)),
            Ending::Rejected(fault) => (State::Rejected, Some(fault)),
        };
        JobState { id, transaction, state, position: None, error: error.cloned(), warnings: vec![] }
    }
}

/// `…/job/<id>/progress`: how far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobProgress {
    /// 0 to 1.
    #[cfg_attr(test, schemars(range(min = 0, max = 1)))]
    pub progress: f64,
    /// Seconds to go, if the rest goes as the beginning did.
    pub eta_relative: Option<f64>,
    /// Where the engine is.
    #[cfg_attr(test, schemars(with = "StageName"))]
    pub stage: Stage,
    /// Sampling steps that are done.
    pub step: usize,
    /// Of so many, for each image.
    pub steps: usize,
    /// The image that is painted, from 0.
    pub image: u64,
    /// Of so many.
    pub images: u64,
}

/// `…/job/<id>/result`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobResult {
    /// The job.
    pub id: String,
    /// The client's own name for it, returned as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Name>"))]
    pub transaction: Option<Value>,
    /// `done`
    pub status: State,
    /// As resolved; each further image has the next seed.
    #[cfg_attr(test, schemars(with = "PaintedParameters"))]
    pub parameters: Parameters,
    /// The model that painted it.
    pub model_sha256: String,
    /// Where the time went.
    pub timings: Timings,
    /// Its images.
    pub images: Vec<Image>,
    /// What the client should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Where the time went, in seconds, and the memory that was needed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Timings {
    /// Prompts to embeddings.
    pub text_encoder: f64,
    /// Init image to latents.
    pub vae_encoder: f64,
    /// All sampling steps.
    pub unet: f64,
    /// Latents to pixels.
    pub vae_decoder: f64,
    /// Pixels to more pixels; only where an image was enlarged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upscaler: Option<f64>,
    /// In pauses to cool down (`max_temperature`); only where there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooling: Option<f64>,
    /// From the job's start to its end, files included.
    pub total: f64,
    /// The most memory that the process has held since it was started, bytes.
    pub peak_rss: Option<u64>,
}

/// One of `images` in a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Image {
    /// Where it was published; without one, the rest describes the file at `path`.
    pub topic: Option<String>,
    /// MIME type: `image/png` or `image/jpeg`.
    #[cfg_attr(test, schemars(regex(pattern = "^image/(png|jpeg)$")))]
    pub content_type: String,
    /// The file's length.
    pub bytes: usize,
    /// The file's checksum, hexadecimal.
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub sha256: String,
    /// Where it is kept, in the format that was asked for.
    pub path: Option<PathBuf>,
    /// Its prompt, where that was drawn from wildcards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// What a display shows of it, where the request or the device asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<DisplayFile>,
}

/// What a display shows of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DisplayFile {
    /// Where it was published; without one, the rest describes the file at `path`.
    pub topic: Option<String>,
    /// MIME type: `image/png`, or `application/octet-stream` for what a display's memory holds.
    #[cfg_attr(test, schemars(regex(pattern = "^(image/png|application/octet-stream)$")))]
    pub content_type: String,
    /// The display's width, pixels.
    pub width: usize,
    /// Its height, pixels.
    pub height: usize,
    /// The file's length.
    pub bytes: usize,
    /// The file's checksum, hexadecimal.
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub sha256: String,
    /// Where it is kept.
    pub path: Option<PathBuf>,
}

/// `…/activity`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Activity {
    /// In a word.
    pub state: ActivityState,
    /// The job that is painted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// How far it is, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 0, max = 1)))]
    pub progress: Option<f64>,
    /// Its seconds to go, if the rest goes as the beginning did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_relative: Option<f64>,
    /// Waiting jobs.
    pub waiting: usize,
    /// Whether the queue is paused.
    pub paused: bool,
}

/// What a device does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ActivityState {
    /// It waits for a request.
    Idle,
    /// It paints.
    Painting,
    /// It waits in the middle of a job until the processor has cooled down.
    Cooling,
    /// The queue is paused, and no job runs any more.
    Paused,
}

/// `…/health`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Health {
    /// Memory held, bytes.
    pub rss: Option<u64>,
    /// The most memory held since the start, bytes.
    pub peak_rss: Option<u64>,
    /// The most that painting may take, bytes: as configured, or what was free at the start.
    pub memory_limit: Option<u64>,
    /// Share of the last 10 s in which some process waited for memory, percent.
    pub memory_pressure: Option<f64>,
    /// The same for reading and writing.
    pub io_pressure: Option<f64>,
    /// The same for processors.
    pub cpu_pressure: Option<f64>,
    /// Of the processor, °C.
    pub temperature: Option<f64>,
    /// Whether the processor is slowed down now: for heat, or by a Raspberry Pi's firmware for low voltage.
    pub throttled: Option<bool>,
    /// Whether painting pauses now until the processor has cooled down (`max_temperature`).
    #[serde(default)]
    pub cooling: bool,
    /// What the program read from the card in the last minute, bytes a second.
    pub read_rate: Option<f64>,
    /// What the program has written to the card since its start, bytes.
    pub bytes_written: Option<u64>,
    /// Where images are kept, bytes.
    pub disk_free: Option<u64>,
    /// Waiting jobs.
    pub queue: usize,
    /// Whether a job runs.
    pub busy: bool,
    /// Whether the queue is paused.
    pub paused: bool,
    /// Of the last job.
    pub seconds_per_step: Option<f64>,
    /// Messages that the broker has not taken yet.
    pub undelivered: usize,
    /// What keeps the device from its work, for people.
    pub problems: Vec<String>,
}
