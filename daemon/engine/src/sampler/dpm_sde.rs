//! DPM-Solver++ of the stochastic equation in sigma (k-diffusion's `sample_dpmpp_sde`), as diffusers'
//! `DPMSolverSDEScheduler`: ancestral steps to the geometric mean of a step's sigmas and, from the image predicted there,
//! over the whole step. Its noise is a Brownian motion of the seed. A step is two calls of the UNet, but for the last.

use std::sync::Arc;

use super::History;
use super::brownian::Brownian;
use super::method::{Method, Mix, NoiseDraws, weighted};
use super::sigma_space::{HalfwaySteps, SigmaSpace, ancestral, input_divisor};
use super::sigmas::Route;

#[derive(Debug)]
pub(super) struct DpmSde {
    halfway: HalfwaySteps,
}

impl DpmSde {
    pub(super) fn new(route: &Route) -> DpmSde {
        // The motion is asked for at sigmas that are rounded to six digits: the last bit counts.
        let space = SigmaSpace::exact(route);
        // 0 for the last step.
        let middles = space.sigmas.windows(2).map(|pair| middle(pair[0], pair[1])).collect();
        DpmSde { halfway: HalfwaySteps::new(space, middles) }
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
        &self.halfway.timesteps
    }

    fn first_call(&self, step: usize) -> usize {
        2 * step
    }

    fn noise_scale(&self) -> f64 {
        self.halfway.space.noise_scale()
    }

    fn noised(&self, call: usize) -> Mix {
        self.halfway.noised(call)
    }

    fn seen(&self, call: usize) -> Mix {
        Mix(1.0, self.halfway.sigma(call))
    }

    fn input_divisor(&self, call: usize) -> f64 {
        input_divisor(self.halfway.sigma(call))
    }

    fn step(
        &self,
        call: usize,
        history: &mut History,
        output: Vec<f32>,
        latents: &[f32],
        draws: &mut NoiseDraws,
    ) -> Vec<f32> {
        let (sigma, next) = (self.halfway.space.sigmas[call / 2], self.halfway.space.sigmas[call / 2 + 1]);
        if next == 0.0 {
            return self.halfway.space.towards(sigma, next).of(latents, &output);
        }
        let image = self.halfway.space.image(self.halfway.sigma(call)).of(latents, &output);
        let time = |sigma: f64| sigma_at(-(libm::log(sigma) as f32));
        let before = history.sample.take();
        let to = if before.is_some() { time(next) } else { self.halfway.middles[call / 2] };
        let (from, sample) = (time(sigma), before.as_deref().map_or(latents, Vec::as_slice));
        let (down, up) = ancestral(from, to, 1.0);
        let smallest =
            self.halfway.space.sigmas.iter().copied().filter(|sigma| *sigma > 0.0).fold(f64::INFINITY, f64::min);
        let largest = self.halfway.space.sigmas.iter().copied().fold(0.0, f64::max);
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
