//! How a model was trained and how it is sampled, as its bundle has it.

use serde::{Deserialize, Serialize};

use super::options::SamplerOptions;
use super::{NoiseSchedule, SamplerKind};

/// How a model was trained and is sampled, from its `scheduler_config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingConfig {
    /// The sampler that the model names, if it is one of ours.
    pub default: SamplerKind,
    /// Default number of steps.
    pub steps: usize,
    /// Default guidance scale.
    pub cfg_scale: f64,
    /// What the UNet predicts.
    pub prediction: Prediction,
    /// Betas from start to end.
    pub beta_start: f64,
    /// See `beta_start`.
    pub beta_end: f64,
    /// How betas lie between.
    pub beta_schedule: BetaSchedule,
    /// Training timesteps (1000).
    pub train_timesteps: usize,
    /// How timesteps are spaced; `None`: each sampler's own default in diffusers.
    pub spacing: Option<Spacing>,
    /// Added to `leading` timesteps; `None`: the sampler's own default.
    pub steps_offset: Option<usize>,
    /// The last step goes to alpha 1 instead of the first training alpha (DDIM, PNDM); `None`: the sampler's own default.
    pub set_alpha_to_one: Option<bool>,
    /// PNDM without its Runge-Kutta start; `None`: the sampler's own default (false).
    pub skip_prk_steps: Option<bool>,
    /// Betas rescaled to zero terminal signal-to-noise ratio, for the samplers that know this.
    pub rescale_betas_zero_snr: bool,
    /// LCM's and TCD's training steps that their timesteps are drawn from; `None`: 50.
    pub original_inference_steps: Option<usize>,
    /// The noise schedule of the default sampler; `None`: as the sampler has it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<NoiseSchedule>,
    /// What else the model's scheduler file says of the default sampler. The other samplers are as their names say.
    #[serde(default, skip_serializing_if = "SamplerOptions::is_default")]
    pub options: SamplerOptions,
}

/// What the UNet predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// Velocity (Salimans & Ho 2022).
    VPrediction,
}

/// How betas lie between the first and the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Evenly.
    Linear,
    /// Evenly in their square roots.
    ScaledLinear,
    /// From the squared-cosine alpha bar (Nichol & Dhariwal 2021).
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredcosCapV2,
}

/// How timesteps are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// Multiples of a whole step from 0 (plus the offset).
    Leading,
    /// Counted down from the last.
    Trailing,
    /// Evenly from 0 to the last.
    Linspace,
}
