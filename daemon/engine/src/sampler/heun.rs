//! Heun's method (Karras et al. 2022, <https://arxiv.org/abs/2206.00364>, algorithm 2 without churn), as diffusers'
//! `HeunDiscreteScheduler`: a step of Euler's, and once more with the mean of the derivatives at both ends. A step is two
//! calls of the UNet, but for the last.

use std::sync::Arc;

use super::History;
use super::clipping::Clipping;
use super::method::{Method, Mix, NoiseDraws, weighted};
use super::sigma_space::{SigmaSpace, input_divisor};
use super::sigmas::Route;

#[derive(Debug)]
pub(super) struct Heun {
    space: SigmaSpace,
    timesteps: Vec<f64>,
    clipping: Option<Clipping>,
}

impl Heun {
    pub(super) fn new(route: &Route) -> Heun {
        let space = SigmaSpace::new(route);
        let twice = space.timesteps.iter().flat_map(|t| [*t, *t]);
        Heun { timesteps: twice.skip(1).collect(), clipping: route.config.options.clipping, space }
    }

    /// The sigma of the latents that the UNet sees.
    fn sigma(&self, call: usize) -> f64 {
        self.space.sigmas[call.div_ceil(2)]
    }

    /// How latents change with sigma.
    fn derivative(&self, sigma: f64, latents: &[f32], output: &[f32]) -> Vec<f32> {
        match self.clipping {
            None => self.space.derivative(sigma).of(latents, output),
            Some(clipping) => {
                let image = clipping.image(self.space.image(sigma), latents, output);
                Mix(1.0 / sigma, -1.0 / sigma).of(latents, &image)
            }
        }
    }
}

impl Method for Heun {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn first_call(&self, step: usize) -> usize {
        2 * step
    }

    fn noise_scale(&self) -> f64 {
        self.space.noise_scale()
    }

    fn noised(&self, call: usize) -> Mix {
        Mix(1.0, self.sigma(call))
    }

    fn input_divisor(&self, call: usize) -> f64 {
        input_divisor(self.sigma(call))
    }

    fn step(
        &self,
        call: usize,
        history: &mut History,
        output: Vec<f32>,
        latents: &[f32],
        _: &mut NoiseDraws,
    ) -> Vec<f32> {
        let (sigma, next) = (self.space.sigmas[call / 2], self.space.sigmas[call / 2 + 1]);
        let derivative = self.derivative(self.sigma(call), latents, &output);
        match (history.sample.take(), history.outputs.pop()) {
            (Some(sample), Some(first)) => {
                let half = 0.5 * (next - sigma);
                weighted(&[(1.0, sample.as_slice()), (half, &first), (half, &derivative)])
            }
            _ => {
                let moved = Mix(1.0, next - sigma).of(latents, &derivative);
                if call + 1 < self.timesteps.len() {
                    history.sample = Some(Arc::new(latents.to_vec()));
                    history.outputs.push(Arc::new(derivative));
                }
                moved
            }
        }
    }
}
