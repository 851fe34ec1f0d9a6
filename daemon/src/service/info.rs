//! `…/info`: what the device is and what it takes.

use diffused_engine::Resolver;
use diffused_engine::bundle::UpscalerFields;
use diffused_engine::sampler::{NoiseSchedule, SamplerKind};

use super::Service;
use crate::config::Config;
use crate::contract::info::{DeviceInfo, DeviceLimits, ModelInfo, SamplingDefaults, SideLimits, UpscalerInfo};
use crate::contract::messages::SCHEMA;
use crate::contract::settings::PromptSettings;

impl Service {
    /// The payload as things are.
    pub(super) fn info(&self) -> DeviceInfo {
        info(&self.config, self.intake.resolver(), self.memory, &self.intake.settings)
    }
}

/// The payload; `memory` is the budget in bytes.
pub(super) fn info(config: &Config, resolver: &Resolver, memory: Option<u64>, settings: &PromptSettings) -> DeviceInfo {
    let (manifest, sampling) = (resolver.manifest(), &resolver.manifest().sampling);
    let sizes = &manifest.picture;
    DeviceInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema: SCHEMA,
        model: ModelInfo {
            name: manifest.name.clone(),
            sha256: resolver.model_sha256().to_owned(),
            family: manifest.family.name().to_owned(),
            weights: manifest.weights.name().to_owned(),
            upscaler: manifest.upscaler.as_ref().map(upscaler),
        },
        samplers: SamplerKind::ALL.to_vec(),
        panels: config.panels().names().into_iter().map(str::to_owned).collect(),
        schedulers: NoiseSchedule::ALL.to_vec(),
        muses: config.muse.iter().enumerate().map(|(index, muse)| muse.name_at(index)).collect(),
        settings: settings.clone(),
        defaults: SamplingDefaults {
            sampler_name: sampling.default,
            steps: sampling.steps,
            cfg_scale: sampling.cfg_scale,
        },
        sizes: SideLimits { default: sizes.default, smallest: sizes.smallest, multiple: sizes.factor },
        limits: DeviceLimits { queue: config.queue_length.0, packet: config.mqtt.max_packet.0, memory },
    }
}

fn upscaler(upscaler: &UpscalerFields) -> UpscalerInfo {
    UpscalerInfo { name: upscaler.name.clone(), factors: upscaler.factors().collect() }
}
