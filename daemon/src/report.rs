//! What the service says: the payloads of the contract's topics, in one place.

use diffused_engine::bundle::Manifest;
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::fault::Fault;
use crate::queue::Ending;
use crate::sampler_name;
use crate::worker::{Painted, Summary};

/// The version of the topics and payloads.
pub const SCHEMA: u32 = 1;

/// `…/info`
pub fn info(config: &Config, manifest: &Manifest, model_sha256: &str) -> Value {
    let multiple = manifest.picture.factor * manifest.picture.latent_multiple;
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "schema": SCHEMA,
        "model": {"name": manifest.name, "sha256": model_sha256, "family": manifest.family, "weights": manifest.weights},
        "samplers": sampler_name::all(),
        "defaults": {
            "sampler_name": manifest.sampling.default,
            "steps": manifest.sampling.steps,
            "cfg_scale": manifest.sampling.cfg_scale,
        },
        "sizes": {"default": manifest.picture.default, "multiple": multiple},
        "limits": {"queue": config.queue_length, "packet": config.mqtt.max_packet.0, "memory": config.memory.map(|m| m.0)},
    })
}

/// What every message about a job begins with.
fn about(id: &str, transaction: Option<&Value>) -> Map<String, Value> {
    let mut message = Map::from_iter([("id".to_owned(), json!(id))]);
    if let Some(transaction) = transaction {
        message.insert("transaction".into(), transaction.clone());
    }
    message
}

/// `…/job/<id>/state` of a job that waits or runs.
pub fn state(id: &str, transaction: Option<&Value>, state: &str, more: Value) -> Value {
    let mut message = about(id, transaction);
    message.insert("state".into(), json!(state));
    message.extend(more.as_object().cloned().unwrap_or_default());
    Value::Object(message)
}

/// `…/job/<id>/state` of a job that ended.
pub fn ended(id: &str, transaction: Option<&Value>, ending: &Ending) -> Value {
    let error = |fault: &Fault| json!({"error": fault});
    match ending {
        Ending::Done => state(id, transaction, "done", json!({})),
        Ending::Cancelled(fault) => state(id, transaction, "cancelled", error(fault)),
        Ending::Failed(fault) => state(id, transaction, "failed", error(fault)),
        Ending::Rejected(fault) => state(id, transaction, "rejected", error(fault)),
    }
}

/// One of `images` in a result. Without a topic, the checksum is that of the file at `path`.
pub fn image(painted: &Painted, topic: &str) -> Value {
    json!({
        "topic": painted.fits.then_some(topic),
        "content_type": painted.file.format.content_type(),
        "bytes": painted.file.bytes.len(),
        "sha256": painted.file.sha256(),
        "path": painted.path,
    })
}

/// `…/job/<id>/result`
pub fn result(
    id: &str,
    transaction: Option<&Value>,
    summary: &Summary,
    model_sha256: &str,
    images: &[Value],
    warnings: &[String],
) -> Value {
    let mut message = about(id, transaction);
    message.insert("status".into(), json!("done"));
    message.insert("parameters".into(), json!(summary.parameters));
    message.insert("model_sha256".into(), json!(model_sha256));
    message.insert("timings".into(), json!(summary.timings));
    message.insert("images".into(), json!(images));
    if !warnings.is_empty() {
        message.insert("warnings".into(), json!(warnings));
    }
    Value::Object(message)
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
