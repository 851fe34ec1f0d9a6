//! The samplers: from noise to latents in a few calls of the UNet, each as diffusers' scheduler of that name does it.
//!
//! `SamplerKind` and `SamplingConfig` say which sampler and how the model was trained, `schedule` which timesteps are visited. Each
//! sampler is a `Method` in a file of its own: what happens at each call. Coefficients are f64, through `libm`, and latents
//! f32: the same bits on every platform.

mod ddim;
mod dpmpp_2m;
mod euler;
mod euler_ancestral;
mod history;
mod lcm;
mod method;
mod names;
mod pndm;
mod schedule;

use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
pub use history::History;
use method::Method;

/// A sampler's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplerKind {
    /// DDIM, η = 0 (Song et al. 2020).
    Ddim,
    /// Pseudo linear multistep (Liu et al. 2022), without Runge-Kutta start where the model says so.
    Pndm,
    /// Euler (Karras et al. 2022, algorithm 2 without churn).
    Euler,
    /// Euler with ancestral noise.
    EulerAncestral,
    /// DPM-Solver++ second order multistep (Lu et al. 2022).
    #[serde(rename = "dpmpp_2m")]
    Dpmpp2m,
    /// The same on Karras' sigmas.
    #[serde(rename = "dpmpp_2m_karras")]
    Dpmpp2mKarras,
    /// Latent consistency (Luo et al. 2023).
    Lcm,
}

/// A sampler with its timesteps. Where it is on its way through an image is in a [`History`].
#[derive(Debug, Clone)]
pub struct Sampler {
    method: Arc<dyn Method>,
    /// The first call of the UNet: in image to image the strength leaves out those before it.
    first: usize,
}

impl Sampler {
    /// A sampler that makes `steps` steps, or the last `strength` (0 to 1) of them.
    ///
    /// # Errors
    ///
    /// `InvalidParam` where the model or the sampler does not take that number of steps, or the strength leaves none.
    pub fn new(kind: SamplerKind, config: &SamplingConfig, steps: usize, strength: Option<f64>) -> Result<Sampler> {
        let allowed = allowed_steps(kind, config);
        if !allowed.contains(&steps) {
            let (least, most) = allowed.into_inner();
            let message = format!("{steps} is out of range; {kind} takes {least} to {most} with this model");
            return Err(Error::InvalidParam { field: "steps", message });
        }
        let config = &SamplingConfig {
            rescale_betas_zero_snr: config.rescale_betas_zero_snr && knows_zero_snr(kind),
            ..config.clone()
        };
        let method: Arc<dyn Method> = match kind {
            SamplerKind::Ddim => Arc::new(ddim::Ddim::new(config, steps)),
            SamplerKind::Pndm => Arc::new(pndm::Pndm::new(config, steps)),
            SamplerKind::Euler => Arc::new(euler::Euler::new(config, steps)),
            SamplerKind::EulerAncestral => Arc::new(euler_ancestral::EulerAncestral::new(config, steps)),
            SamplerKind::Dpmpp2m => Arc::new(dpmpp_2m::Dpmpp2m::new(config, steps)),
            SamplerKind::Dpmpp2mKarras => Arc::new(dpmpp_2m::Dpmpp2m::on_karras_sigmas(config, steps)),
            SamplerKind::Lcm => Arc::new(lcm::Lcm::new(config, steps)),
        };
        Ok(Sampler { method, first: strength.map_or(Ok(0), |strength| first_step(steps, strength))? })
    }

    /// The timestep of each call of the UNet, in order.
    pub fn timesteps(&self) -> &[f64] {
        &self.method.timesteps()[self.first..]
    }

    /// The first latents of text to image, from as many standard normals.
    pub fn noise_latents(&self, noise: &[f32]) -> Vec<f32> {
        let scale = self.method.noise_scale();
        noise.iter().map(|noise| (f64::from(*noise) * scale) as f32).collect()
    }

    /// The first latents of image to image: an image's latents and as much noise as belongs to the first timestep.
    pub fn image_latents(&self, latents: &[f32], noise: &[f32]) -> Vec<f32> {
        self.noised(0, latents, noise)
    }

    /// An image's latents with as much noise as those before call `index` have.
    pub fn noised(&self, index: usize, latents: &[f32], noise: &[f32]) -> Vec<f32> {
        self.method.noised(self.first + index).of(latents, noise)
    }

    /// The UNet's input at call `index`.
    pub fn model_input(&self, index: usize, latents: &[f32]) -> Vec<f32> {
        let divisor = self.method.input_divisor(self.first + index);
        latents.iter().map(|x| (f64::from(*x) / divisor) as f32).collect()
    }

    /// The latents after the next call, which is then part of `history`; `output` is the UNet's. `noise` draws as many
    /// standard normals as there are latents; the samplers that add noise call it, in the reference's order.
    pub fn step(
        &self,
        history: &mut History,
        output: Vec<f32>,
        latents: &[f32],
        noise: &mut dyn FnMut() -> Vec<f32>,
    ) -> Vec<f32> {
        let next = self.method.step(self.first + history.made, history, output, latents, noise);
        history.made += 1;
        next
    }
}

/// Whether the reference's scheduler has `rescale_betas_zero_snr`. The others sample a model that was trained so on the
/// betas as they are.
fn knows_zero_snr(kind: SamplerKind) -> bool {
    !matches!(kind, SamplerKind::Pndm)
}

fn allowed_steps(kind: SamplerKind, config: &SamplingConfig) -> RangeInclusive<usize> {
    match kind {
        SamplerKind::Pndm => pndm::least_steps(config)..=config.train_timesteps,
        SamplerKind::Lcm => 1..=lcm::original_steps(config),
        SamplerKind::Dpmpp2m | SamplerKind::Dpmpp2mKarras => 1..=config.train_timesteps.saturating_sub(1),
        SamplerKind::Ddim | SamplerKind::Euler | SamplerKind::EulerAncestral => 1..=config.train_timesteps,
    }
}

/// The first of `steps` steps that is made where only the last `strength` of them are.
fn first_step(steps: usize, strength: f64) -> Result<usize> {
    let made = ((steps as f64 * strength) as usize).min(steps);
    if made > 0 {
        return Ok(steps - made);
    }
    // Rounded up to four digits, so that it is enough as it is printed.
    let least = (1e4 / steps as f64).ceil() / 1e4;
    let message = format!("{strength} leaves none of {steps} steps; at least {least} is needed");
    Err(Error::InvalidParam { field: "denoising_strength", message })
}

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
    /// LCM's training steps that its timesteps are drawn from; `None`: 50.
    pub original_inference_steps: Option<usize>,
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
