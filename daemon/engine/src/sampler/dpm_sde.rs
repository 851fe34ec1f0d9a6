//! DPM-Solver++ of the stochastic equation in sigma (k-diffusion's `sample_dpmpp_sde`), as diffusers'
//! `DPMSolverSDEScheduler`: ancestral steps to the geometric mean of a step's sigmas and, from the image predicted there,
//! over the whole step. Its noise is a Brownian motion of the seed. A step is two calls of the UNet, but for the last.

use std::sync::Arc;

use super::History;
use super::brownian::Brownian;
use super::method::{Method, Mix, NoiseDraws, weighted};
use super::sigma_space::{SigmaSpace, ancestral, input_divisor};
use super::sigmas::Route;

#[derive(Debug)]
pub(super) struct DpmSde {
    space: SigmaSpace,
    /// Of each call.
    timesteps: Vec<f64>,
    /// The geometric means of each step's sigmas; 0 for the last.
    middles: Vec<f64>,
}

impl DpmSde {
    pub(super) fn new(route: &Route) -> DpmSde {
        let space = SigmaSpace::new(route);
        let middles: Vec<f64> = space.sigmas.windows(2).map(|pair| middle(pair[0], pair[1])).collect();
        let both = space.timesteps.iter().zip(&middles).flat_map(|(t, middle)| [*t, space.timestep(*middle)]);
        DpmSde { timesteps: both.take(2 * route.steps - 1).collect(), middles, space }
    }

    /// The sigma of the latents that the UNet sees.
    fn sigma(&self, call: usize) -> f64 {
        if call.is_multiple_of(2) { self.space.sigmas[call / 2] } else { self.middles[call / 2] }
    }
}

/// In f32, as the reference has it: where the motion is asked for counts to the sixth digit.
fn middle(sigma: f64, next: f64) -> f64 {
    let time = |sigma: f64| -(libm::log(sigma) as f32);
    let (from, to) = (time(sigma), time(next));
    sigma_at(from + (to - from) * 0.5)
}

/// Sigma at minus its logarithm, rounded to f32.
fn sigma_at(time: f32) -> f64 {
    f64::from(libm::exp(f64::from(-time)) as f32)
}

impl Method for DpmSde {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn first_call(&self, step: usize) -> usize {
        2 * step
    }

    fn noise_scale(&self) -> f64 {
        self.space.noise_scale()
    }

    /// Between the calls of a step as at its end, as the reference has it.
    fn noised(&self, call: usize) -> Mix {
        Mix(1.0, self.space.sigmas[call.div_ceil(2)])
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
        draws: &mut NoiseDraws,
    ) -> Vec<f32> {
        let (sigma, next) = (self.space.sigmas[call / 2], self.space.sigmas[call / 2 + 1]);
        if next == 0.0 {
            return self.space.towards(sigma, next).of(latents, &output);
        }
        let image = self.space.image(self.sigma(call)).of(latents, &output);
        let time = |sigma: f64| sigma_at(-(libm::log(sigma) as f32));
        let before = history.sample.take();
        let to = if before.is_some() { time(next) } else { self.middles[call / 2] };
        let (from, sample) = (time(sigma), before.as_deref().map_or(latents, Vec::as_slice));
        let (down, up) = ancestral(from, to, 1.0);
        let smallest = self.space.sigmas.iter().copied().filter(|sigma| *sigma > 0.0).fold(f64::INFINITY, f64::min);
        let largest = self.space.sigmas.iter().copied().fold(0.0, f64::max);
        let noise = Brownian::new(draws.seed, smallest, largest).normals(to, from, draws.of_seed);
        let keep = down / from;
        // The motion goes from less noise to more, the way of the sampler back.
        let moved = weighted(&[(keep, sample), (1.0 - keep, image.as_slice()), (-up, noise.as_slice())]);
        if before.is_none() {
            history.sample = Some(Arc::new(latents.to_vec()));
        }
        moved
    }
}
