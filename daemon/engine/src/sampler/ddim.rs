//! DDIM (Song et al. 2020, <https://arxiv.org/abs/2010.02502>), as diffusers' `DDIMScheduler`.

use super::clipping::Clipping;
use super::method::{Alphas, Method, Mix, NoiseDraws, weighted};
use super::{History, Prediction, SamplingConfig, Spacing, schedule};

#[derive(Debug)]
pub(super) struct Ddim {
    prediction: Prediction,
    alphas: Alphas,
    timesteps: Vec<f64>,
    /// Training timesteps of a step.
    stride: usize,
    /// How much new noise a step adds: 0 without, 1 as DDPM.
    eta: f64,
    clipping: Option<Clipping>,
}

impl Ddim {
    pub(super) fn new(config: &SamplingConfig, steps: usize, eta: f64) -> Ddim {
        Ddim {
            prediction: config.prediction,
            alphas: Alphas::new(config, config.set_alpha_to_one.unwrap_or(true)),
            timesteps: whole_timesteps(config, steps),
            stride: config.train_timesteps / steps,
            eta,
            clipping: config.options.clipping,
        }
    }
}

/// Whole timesteps, by default with leading spacing.
pub(super) fn whole_timesteps(config: &SamplingConfig, steps: usize) -> Vec<f64> {
    let timesteps = schedule::timesteps(config, config.spacing.unwrap_or(Spacing::Leading), steps);
    timesteps.into_iter().map(libm::rint).collect()
}

impl Method for Ddim {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn noised(&self, call: usize) -> Mix {
        Mix::of_alpha(self.alphas.at(self.timesteps[call]))
    }

    /// Equation 12.
    fn step(
        &self,
        call: usize,
        _: &mut History,
        output: Vec<f32>,
        latents: &[f32],
        draws: &mut NoiseDraws,
    ) -> Vec<f32> {
        let t = self.timesteps[call];
        let (alpha, next) = (self.alphas.at(t), self.alphas.at(t - self.stride as f64));
        let (image, noise) = (self.prediction.image(alpha), self.prediction.noise(alpha));
        // Equation 16.
        let variance = self.eta * self.eta * (1.0 - next) / (1.0 - alpha) * (1.0 - alpha / next);
        let (signal, deviation) = (next.sqrt(), (1.0 - next - variance).sqrt());
        let moved = match self.clipping {
            None => {
                Mix(signal * image.0 + deviation * noise.0, signal * image.1 + deviation * noise.1).of(latents, &output)
            }
            // The noise stays what the UNet saw.
            Some(clipping) => weighted(&[
                (signal, &clipping.image(image, latents, &output)),
                (deviation * noise.0, latents),
                (deviation * noise.1, &output),
            ]),
        };
        if self.eta > 0.0 { Mix(1.0, variance.sqrt()).of(&moved, &draws.normals()) } else { moved }
    }
}
