//! Latent consistency sampling (Luo et al. 2023, <https://arxiv.org/abs/2310.04378>, algorithm 3), as diffusers'
//! `LCMScheduler`.

use super::clipping::Clipping;
use super::method::{Alphas, Method, Mix, NoiseDraws};
use super::{History, Prediction, SamplingConfig};

/// The data's deviation and the scale of timesteps in the consistency function's boundary condition (section 4.1).
const SIGMA_DATA: f64 = 0.5;
const TIMESTEP_SCALE: f64 = 10.0;

#[derive(Debug)]
pub(super) struct Lcm {
    prediction: Prediction,
    alphas: Alphas,
    timesteps: Vec<f64>,
    clipping: Option<Clipping>,
}

/// The timesteps that the model was distilled with: the most steps that it can make.
pub(super) fn original_steps(config: &SamplingConfig) -> usize {
    config.original_inference_steps.unwrap_or(50).min(config.train_timesteps)
}

/// `steps` of the timesteps that the model was distilled with, from the last.
pub(super) fn timesteps(config: &SamplingConfig, steps: usize) -> Vec<f64> {
    let original = original_steps(config);
    let stride = config.train_timesteps / original;
    let index = |i: usize| (i as f64 * (original as f64 / steps as f64)) as usize;
    (0..steps).map(|i| ((original - index(i)) * stride - 1) as f64).collect()
}

impl Lcm {
    /// `steps` of the timesteps that the model was distilled with.
    pub(super) fn new(config: &SamplingConfig, steps: usize) -> Lcm {
        Lcm {
            prediction: config.prediction,
            alphas: Alphas::new(config, config.set_alpha_to_one.unwrap_or(true)),
            timesteps: timesteps(config, steps),
            clipping: config.options.clipping,
        }
    }
}

impl Method for Lcm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn noised(&self, call: usize) -> Mix {
        Mix::of_alpha(self.alphas.at(self.timesteps[call]))
    }

    /// The consistency function, and new noise for the next timestep.
    fn step(
        &self,
        call: usize,
        _: &mut History,
        output: Vec<f32>,
        latents: &[f32],
        draws: &mut NoiseDraws,
    ) -> Vec<f32> {
        let t = self.timesteps[call];
        let image = self.prediction.image(self.alphas.at(t));
        let scaled = t * TIMESTEP_SCALE;
        let variance = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
        let (skip, out) = (SIGMA_DATA * SIGMA_DATA / variance, scaled / variance.sqrt());
        let denoised = match self.clipping {
            None => Mix(out * image.0 + skip, out * image.1).of(latents, &output),
            Some(clipping) => Mix(out, skip).of(&clipping.image(image, latents, &output), latents),
        };
        match self.timesteps.get(call + 1) {
            Some(next) => Mix::of_alpha(self.alphas.at(*next)).of(&denoised, &draws.normals()),
            None => denoised,
        }
    }
}
