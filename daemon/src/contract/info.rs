//! `…/info`: what the device is and what it takes.

use diffused_engine::sampler::{NoiseSchedule, SamplerKind};
use serde::{Deserialize, Serialize};

#[cfg(test)]
use crate::contract::asyncapi::types::{SamplerName, ScheduleName};
use crate::contract::settings::PromptSettings;

/// `…/info`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DeviceInfo {
    /// The daemon's version.
    pub version: String,
    /// The version of topics and payloads.
    pub schema: u32,
    /// The model.
    pub model: ModelInfo,
    /// The samplers that a request may name.
    #[cfg_attr(test, schemars(with = "Vec<SamplerName>"))]
    pub samplers: Vec<SamplerKind>,
    /// The displays that a request's `output` may name.
    #[serde(default)]
    pub panels: Vec<String>,
    /// The noise schedules that a request may name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(test, schemars(with = "Vec<ScheduleName>"))]
    pub schedulers: Vec<NoiseSchedule>,
    /// The names of the muses, which paint by themselves: their jobs' ids begin with `muse-<name>-`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub muses: Vec<String>,
    /// What prompts that come as plain text are painted with, where it is not the device's own choice.
    #[serde(default)]
    pub settings: PromptSettings,
    /// What a request that leaves these out is painted with.
    pub defaults: SamplingDefaults,
    /// The images' sides, pixels.
    pub sizes: SideLimits,
    /// What the device takes at most.
    pub limits: DeviceLimits,
}

/// A model as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ModelInfo {
    /// Its name in its bundle.
    pub name: String,
    /// Identifies it, and its weights: hexadecimal.
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9a-f]{64}$")))]
    pub sha256: String,
    /// The family of models: `sd1`, `sd2`, `sdxl`.
    pub family: String,
    /// How its weights are stored: `int8`, `f32`.
    pub weights: String,
    /// Its upscaler, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upscaler: Option<UpscalerInfo>,
}

/// A model's upscaler as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UpscalerInfo {
    /// Its name in the bundle.
    pub name: String,
    /// What `upscale` may be in a request.
    pub factors: Vec<usize>,
}

/// The model's own parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SamplingDefaults {
    /// The sampler.
    #[cfg_attr(test, schemars(with = "SamplerName"))]
    pub sampler_name: SamplerKind,
    /// Sampling steps.
    pub steps: usize,
    /// Guidance scale.
    pub cfg_scale: f64,
}

/// An image's width and height, pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SideLimits {
    /// Where a request leaves it out.
    pub default: usize,
    /// The smallest.
    pub smallest: usize,
    /// Every side is a multiple of this.
    pub multiple: usize,
}

/// What the device takes at most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DeviceLimits {
    /// Waiting jobs.
    pub queue: u32,
    /// Bytes of a request.
    pub packet: u32,
    /// Bytes of memory for painting; `null` where neither the configuration nor the system has a limit.
    pub memory: Option<u64>,
}
