//! `…/info`: what the device is and what it takes.

use diffused_engine::Resolver;
use diffused_engine::sampler::SamplerKind;
use serde_json::{Value, json};

use crate::config::Config;
use crate::contract::messages::SCHEMA;

/// The payload; `memory` is the budget in bytes.
pub(super) fn info(config: &Config, resolver: &Resolver, memory: Option<u64>) -> Value {
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
