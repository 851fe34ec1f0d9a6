//! The samplers: from noise to latents in a few calls of the UNet, each as diffusers' scheduler of that name does it.
//!
//! `SamplerChoice` and `SamplingConfig` say which sampler and how the model was trained, `schedule` and `sigmas` which
//! timesteps are visited. Each sampler is a `Method` in a file of its own: what happens at each call. Coefficients are f64,
//! through `libm`, and latents f32: the same bits on every platform.

mod beta_distribution;
mod brownian;
mod choice;
mod clipping;
mod config;
mod ddim;
mod deis;
mod dpm;
mod dpm2;
mod dpm_multistep;
mod dpm_sde;
mod dpm_singlestep;
mod euler;
mod euler_ancestral;
mod heun;
mod history;
mod lcm;
mod lms;
mod method;
mod names;
mod noise_schedule;
mod options;
mod pndm;
mod schedule;
mod sigma_space;
mod sigmas;
mod tcd;
mod unipc;

use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
pub use choice::SamplerChoice;
pub use clipping::Clipping;
pub use config::{BetaSchedule, Prediction, SamplingConfig, Spacing};
pub use deis::DeisOptions;
pub use dpm::DpmSolverType;
pub use dpm_multistep::DpmMultistepOptions;
pub use dpm_singlestep::DpmSinglestepOptions;
pub use euler::EulerOptions;
pub use history::History;
use method::Method;
pub use method::NoiseDraws;
pub use noise_schedule::NoiseSchedule;
pub use options::{FinalSigma, MOST_ORDER, SamplerOptions};
use sigmas::Route;
pub use unipc::{UnipcOptions, UnipcSolverType};

/// A sampler's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplerKind {
    /// DDIM (Song et al. 2020), without new noise unless `eta` says otherwise.
    Ddim,
    /// Pseudo linear multistep (Liu et al. 2022), without Runge-Kutta start where the model says so.
    Pndm,
    /// Euler (Karras et al. 2022, algorithm 2 without churn).
    Euler,
    /// Euler with ancestral noise.
    EulerAncestral,
    /// Heun (Karras et al. 2022, algorithm 2): two calls a step.
    Heun,
    /// Linear multistep in sigma.
    Lms,
    /// DPM-Solver-2 in sigma (Karras et al. 2022): two calls a step.
    Dpm2,
    /// The same with ancestral noise.
    Dpm2Ancestral,
    /// DPM-Solver++ second order singlestep (Lu et al. 2022).
    #[serde(rename = "dpmpp_2s")]
    Dpmpp2s,
    /// DPM-Solver++ second order multistep (Lu et al. 2022).
    #[serde(rename = "dpmpp_2m")]
    Dpmpp2m,
    /// The same on Karras' sigmas.
    #[serde(rename = "dpmpp_2m_karras")]
    Dpmpp2mKarras,
    /// DPM-Solver++ second order multistep of the stochastic equation.
    #[serde(rename = "dpmpp_2m_sde")]
    Dpmpp2mSde,
    /// DPM-Solver++ of the stochastic equation, along a Brownian motion: two calls a step.
    DpmppSde,
    /// UniPC (Zhao et al. 2023).
    Unipc,
    /// DEIS (Zhang & Chen 2022).
    Deis,
    /// Latent consistency (Luo et al. 2023).
    Lcm,
    /// Trajectory consistency (Zheng et al. 2024).
    Tcd,
}

/// A sampler with its timesteps. Where it is on its way through an image is in a [`History`].
#[derive(Debug, Clone)]
pub struct Sampler {
    method: Arc<dyn Method>,
    prediction: Prediction,
    /// The first call of the UNet: in image to image the strength leaves out those before it.
    first: usize,
    /// Steps of the whole way from noise to image.
    steps: usize,
}

impl Sampler {
    /// A sampler that makes `steps` steps, or the last `strength` (0 to 1) of them.
    ///
    /// # Errors
    ///
    /// `InvalidParam` where the model or the sampler does not take that number of steps, or the strength leaves none.
    pub fn new(
        choice: impl Into<SamplerChoice>,
        config: &SamplingConfig,
        steps: usize,
        strength: Option<f64>,
    ) -> Result<Sampler> {
        let choice = choice.into();
        let kind = choice.kind;
        let allowed = allowed_steps(kind, config);
        if !allowed.contains(&steps) {
            let (least, most) = allowed.into_inner();
            let message = format!("{steps} is out of range; {kind} takes {least} to {most} with this model");
            return Err(Error::InvalidParam { field: "steps", message });
        }
        let (config, curve) = choice.applied(config);
        let method = method(choice, &Route { config: &config, curve, steps });
        let first = strength.map_or(Ok(0), |strength| first_step(steps, strength))?;
        Ok(Sampler { first: method.first_call(first), method, prediction: config.prediction, steps })
    }

    /// The timestep of each call of the UNet, in order.
    pub fn timesteps(&self) -> &[f64] {
        &self.method.timesteps()[self.first..]
    }

    /// The part of the way from noise to image that lies before the step of call `index`, from 0 to less than 1: steps that
    /// the strength leaves out are part of the way.
    pub(crate) fn progress(&self, index: usize) -> f64 {
        let call = self.first + index;
        let step = (0..self.steps).rev().find(|step| self.method.first_call(*step) <= call).unwrap_or(0);
        step as f64 / self.steps as f64
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

    /// The image that the UNet's `output` at call `index` stands for. Not finite where there is nothing of an image in the
    /// latents and the UNet predicts noise.
    pub fn predicted(&self, index: usize, latents: &[f32], output: &[f32]) -> Vec<f32> {
        self.prediction.image_in(self.method.seen(self.first + index)).of(latents, output)
    }

    /// The UNet's input at call `index`.
    pub fn model_input(&self, index: usize, latents: &[f32]) -> Vec<f32> {
        let divisor = self.method.input_divisor(self.first + index);
        latents.iter().map(|x| (f64::from(*x) / divisor) as f32).collect()
    }

    /// The latents after the next call, which is then part of `history`; `output` is the UNet's. The samplers that add
    /// noise take it from `draws`, in the reference's order.
    pub fn step(&self, history: &mut History, output: Vec<f32>, latents: &[f32], draws: &mut NoiseDraws) -> Vec<f32> {
        let next = self.method.step(self.first + history.made, history, output, latents, draws);
        history.made += 1;
        next
    }
}

fn method(choice: SamplerChoice, route: &Route) -> Arc<dyn Method> {
    let Route { config, steps, .. } = *route;
    let options = &config.options;
    let eta = choice.eta();
    match choice.kind {
        SamplerKind::Ddim => Arc::new(ddim::Ddim::new(config, steps, eta)),
        SamplerKind::Pndm => Arc::new(pndm::Pndm::new(config, steps)),
        SamplerKind::Euler => Arc::new(euler::Euler::new(route, &options.euler)),
        SamplerKind::EulerAncestral => Arc::new(euler_ancestral::EulerAncestral::new(route, eta)),
        SamplerKind::Heun => Arc::new(heun::Heun::new(route)),
        SamplerKind::Lms => Arc::new(lms::Lms::new(route)),
        SamplerKind::Dpm2 => Arc::new(dpm2::Dpm2::new(route, None)),
        SamplerKind::Dpm2Ancestral => Arc::new(dpm2::Dpm2::new(route, Some(eta))),
        SamplerKind::Dpmpp2s => Arc::new(dpm_singlestep::DpmSinglestep::new(route, options.dpm_singlestep.clone())),
        SamplerKind::Dpmpp2m | SamplerKind::Dpmpp2mKarras | SamplerKind::Dpmpp2mSde => {
            let stochastic = choice.kind == SamplerKind::Dpmpp2mSde;
            Arc::new(dpm_multistep::DpmMultistep::new(route, options.dpm_multistep.clone(), stochastic))
        }
        SamplerKind::DpmppSde => Arc::new(dpm_sde::DpmSde::new(route)),
        SamplerKind::Unipc => Arc::new(unipc::Unipc::new(route, options.unipc.clone())),
        SamplerKind::Deis => Arc::new(deis::Deis::new(route, options.deis.clone())),
        SamplerKind::Lcm => Arc::new(lcm::Lcm::new(config, steps)),
        SamplerKind::Tcd => Arc::new(tcd::Tcd::new(route, eta)),
    }
}

fn allowed_steps(kind: SamplerKind, config: &SamplingConfig) -> RangeInclusive<usize> {
    match kind {
        SamplerKind::Pndm => pndm::least_steps(config)..=config.train_timesteps,
        SamplerKind::Lcm | SamplerKind::Tcd => 1..=lcm::original_steps(config),
        SamplerKind::Dpmpp2s
        | SamplerKind::Dpmpp2m
        | SamplerKind::Dpmpp2mKarras
        | SamplerKind::Dpmpp2mSde
        | SamplerKind::Unipc
        | SamplerKind::Deis => 1..=config.train_timesteps.saturating_sub(1),
        SamplerKind::Ddim
        | SamplerKind::Euler
        | SamplerKind::EulerAncestral
        | SamplerKind::Heun
        | SamplerKind::Lms
        | SamplerKind::Dpm2
        | SamplerKind::Dpm2Ancestral
        | SamplerKind::DpmppSde => 1..=config.train_timesteps,
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
