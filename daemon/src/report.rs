//! The payloads of the contract's topics, in one place.

use diffused_engine::Resolver;
use diffused_engine::request::Parameters;
use diffused_engine::sampler::SamplerKind;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::Config;
use crate::fault::Fault;
use crate::pictures::ImageFile;
use crate::progress::Timings;
use crate::queue::Ending;
use crate::worker::Painted;

/// The version of the topics and payloads.
pub const SCHEMA: u32 = 1;

/// `…/info`
pub fn info(config: &Config, resolver: &Resolver, memory: Option<u64>) -> Value {
    let (manifest, model_sha256) = (resolver.manifest(), resolver.model_sha256());
    let sizes = &manifest.picture;
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "schema": SCHEMA,
        "model": {"name": manifest.name, "sha256": model_sha256, "family": manifest.family, "weights": manifest.weights.name()},
        "samplers": SamplerKind::ALL,
        "defaults": {
            "sampler_name": manifest.sampling.default,
            "steps": manifest.sampling.steps,
            "cfg_scale": manifest.sampling.cfg_scale,
        },
        "sizes": {"default": sizes.default, "smallest": sizes.smallest, "multiple": sizes.factor},
        "limits": {"queue": config.queue_length.0, "packet": config.mqtt.max_packet.0, "memory": memory},
    })
}

/// `…/job/<id>/state`
#[derive(Debug, Serialize)]
pub struct JobState<'a> {
    /// The job.
    pub id: &'a str,
    /// The client's own name for it, returned as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<&'a Value>,
    /// `queued`, `running`, `done`, `failed`, `cancelled` or `rejected`.
    pub state: &'static str,
    /// Of a queued job: how many are before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// Why no image came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a Fault>,
    /// What the client should know of its request.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub warnings: &'a [String],
}

impl<'a> JobState<'a> {
    /// Of a job that ended.
    pub fn ended(id: &'a str, transaction: Option<&'a Value>, ending: &'a Ending) -> JobState<'a> {
        let (state, error) = match ending {
            Ending::Done => ("done", None),
            Ending::Cancelled(fault) => ("cancelled", Some(fault)),
            Ending::Failed(fault) => ("failed", Some(fault)),
            Ending::Rejected(fault) => ("rejected", Some(fault)),
        };
        JobState { id, transaction, state, position: None, error, warnings: &[] }
    }
}

/// `…/job/<id>/result`
#[derive(Debug, Serialize)]
pub struct JobResult<'a> {
    /// The job.
    pub id: &'a str,
    /// The client's own name for it, returned as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<&'a Value>,
    /// `done`
    pub status: &'static str,
    /// As resolved; each further image has the next seed.
    pub parameters: &'a Parameters,
    /// The model that painted it.
    pub model_sha256: &'a str,
    /// Where the time went.
    pub timings: &'a Timings,
    /// Its images.
    pub images: &'a [Image],
    /// What the client should know.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub warnings: &'a [String],
}

/// One of `images` in a result.
#[derive(Debug, Serialize, Deserialize)]
pub struct Image {
    /// Where it was published; without one, the rest describes the file at `path`.
    pub topic: Option<String>,
    /// MIME type.
    pub content_type: String,
    /// The file's length.
    pub bytes: usize,
    /// The file's checksum, hexadecimal.
    pub sha256: String,
    /// Where it is kept, in the format that was asked for.
    pub path: Option<std::path::PathBuf>,
}

impl Image {
    /// Of an image that is published to `topic` if it fits.
    pub fn new(painted: &Painted, topic: &str) -> Image {
        Image {
            topic: painted.fits.then(|| topic.to_owned()),
            content_type: painted.file.format.content_type().to_owned(),
            bytes: painted.file.bytes.len(),
            sha256: painted.file.sha256(),
            path: painted.path.clone(),
        }
    }
}

impl Image {
    /// `file` was published instead, or nothing: then the rest describes the file at `path`.
    pub fn replace(&mut self, file: Option<&ImageFile>) {
        let kept = self.path.as_deref().filter(|_| file.is_none()).and_then(|path| ImageFile::read(path).ok());
        if file.is_none() {
            self.topic = None;
        }
        if let Some(file) = file.or(kept.as_ref()) {
            file.format.content_type().clone_into(&mut self.content_type);
            (self.bytes, self.sha256) = (file.bytes.len(), file.sha256());
        }
    }
}

/// `…/response/<command>`, in zigbee2mqtt's form.
pub fn response(outcome: Result<Value, String>, transaction: Option<Value>) -> Value {
    let mut message = match outcome {
        Ok(data) => json!({"status": "ok", "data": data}),
        Err(error) => json!({"status": "error", "data": {}, "error": error}),
    };
    if let Some(transaction) = transaction {
        message["transaction"] = transaction;
    }
    message
}
