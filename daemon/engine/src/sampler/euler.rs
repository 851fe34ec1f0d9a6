//! Euler's method (Karras et al. 2022, <https://arxiv.org/abs/2206.00364>, algorithm 2 without churn), as diffusers'
//! `EulerDiscreteScheduler`. Latents are the image plus `sigma` times standard normal noise.

use super::method::{Method, Mix};
use super::{History, Prediction, SamplingConfig, Spacing, schedule};

#[derive(Debug)]
pub(super) struct Euler {
    prediction: Prediction,
    timesteps: Vec<f64>,
    /// Before each call and after the last.
    pub(super) sigmas: Vec<f64>,
    /// The first latents' deviation is the first sigma, without the image's own.
    starts_at_sigma: bool,
}

impl Euler {
    pub(super) fn new(config: &SamplingConfig, steps: usize) -> Euler {
        let spacing = config.spacing.unwrap_or(Spacing::Linspace);
        let timesteps = schedule::timesteps(config, spacing, steps).into_iter().map(|t| f64::from(t as f32));
        let timesteps: Vec<f64> = timesteps.collect();
        Euler {
            prediction: config.prediction,
            sigmas: schedule::up_to_zero(schedule::sigmas(config, &timesteps)),
            timesteps,
            starts_at_sigma: spacing != Spacing::Leading,
        }
    }

    /// Equation 6 from `sigma` to `next`: `x + (x − image) / σ · (σ' − σ)`, as factors of latents and the UNet's output.
    pub(super) fn towards(&self, sigma: f64, next: f64) -> Mix {
        let image = match self.prediction {
            Prediction::Epsilon => Mix(1.0, -sigma),
            Prediction::VPrediction => {
                let variance = sigma * sigma + 1.0;
                Mix(1.0 / variance, -sigma / variance.sqrt())
            }
        };
        let part = (next - sigma) / sigma;
        Mix(1.0 + part * (1.0 - image.0), -part * image.1)
    }
}

impl Method for Euler {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn noise_scale(&self) -> f64 {
        if self.starts_at_sigma { self.sigmas[0] } else { self.input_divisor(0) }
    }

    fn noised(&self, call: usize) -> Mix {
        Mix(1.0, self.sigmas[call])
    }

    fn input_divisor(&self, call: usize) -> f64 {
        let sigma = self.sigmas[call];
        (sigma * sigma + 1.0).sqrt()
    }

    fn step(
        &self,
        call: usize,
        _: &mut History,
        output: Vec<f32>,
        latents: &[f32],
        _: &mut dyn FnMut() -> Vec<f32>,
    ) -> Vec<f32> {
        self.towards(self.sigmas[call], self.sigmas[call + 1]).of(latents, &output)
    }
}
