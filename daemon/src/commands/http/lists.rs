//! What the device is, as the lists of A1111's web API: samplers, noise schedules, upscalers, models, memory.

use diffused_engine::hires::HiresUpscaler;
use diffused_engine::sampler::{NoiseSchedule, SamplerKind};
use serde_json::{Value, json};

use crate::contract::info::DeviceInfo;
use crate::contract::messages::Health;

pub(super) fn samplers(info: &DeviceInfo) -> Value {
    let item = |kind: &SamplerKind| json!({"name": kind.label(), "aliases": [kind.name()], "options": {}});
    info.samplers.iter().map(item).collect()
}

pub(super) fn schedulers(info: &DeviceInfo) -> Value {
    let item = |name: &str, label: &str| json!({"name": name, "label": label, "aliases": null, "default_rho": -1, "need_inner_model": false});
    let known = info.schedulers.iter().copied();
    let own = known.map(|schedule: NoiseSchedule| item(schedule.name(), schedule.label()));
    std::iter::once(item("automatic", "Automatic")).chain(own).collect()
}

/// What may enlarge an image before its second pass, beside the latents' own ways.
pub(super) fn upscalers(info: &DeviceInfo) -> Value {
    let item = |name: &str, model: Option<&str>, scale: usize| json!({"name": name, "model_name": model, "model_path": null, "model_url": null, "scale": scale});
    let model = info.model.upscaler.as_ref().map(|upscaler| {
        let largest = upscaler.factors.iter().copied().max().unwrap_or(1);
        item(&HiresUpscaler::Model.to_string(), Some(&upscaler.name), largest)
    });
    let plain = [item("None", None, 1), item(&HiresUpscaler::Lanczos.to_string(), None, 4)];
    plain.into_iter().chain(model).collect()
}

pub(super) fn latent_upscale_modes() -> Value {
    let names = HiresUpscaler::NAMES.iter().map(|(_, name)| name).filter(|name| name.starts_with("Latent"));
    names.map(|name| json!({"name": name})).collect()
}

/// The device's one model.
pub(super) fn models(info: &DeviceInfo) -> Value {
    let model = &info.model;
    json!([{
        "title": model.name,
        "model_name": model.name,
        "hash": short_hash(info),
        "sha256": model.sha256,
        "filename": model.name,
        "config": null,
    }])
}

/// The first characters of a model's checksum, as A1111 shows them.
pub(super) fn short_hash(info: &DeviceInfo) -> &str {
    info.model.sha256.get(..10).unwrap_or(&info.model.sha256)
}

/// What the device holds of the memory that it may take, bytes.
pub(super) fn memory(health: &Health) -> Value {
    let (used, total) = (health.rss, health.memory_limit);
    let free = used.zip(total).map(|(used, total)| total.saturating_sub(used));
    json!({"ram": {"free": free, "used": used, "total": total}, "cuda": {"error": "devices paint on their processors"}})
}
