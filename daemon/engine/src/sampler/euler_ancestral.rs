//! Euler's method with ancestral noise, as diffusers' `EulerAncestralDiscreteScheduler` and k-diffusion's
//! `sample_euler_ancestral`: a step to less noise than the next timestep's, and new noise up to that.

use super::History;
use super::method::{Method, Mix, NoiseDraws};
use super::sigma_space::{SigmaSpace, ancestral, input_divisor};
use super::sigmas::Route;

#[derive(Debug)]
pub(super) struct EulerAncestral {
    space: SigmaSpace,
    eta: f64,
}

impl EulerAncestral {
    pub(super) fn new(route: &Route, eta: f64) -> EulerAncestral {
        EulerAncestral { space: SigmaSpace::new(route), eta }
    }
}

impl Method for EulerAncestral {
    fn timesteps(&self) -> &[f64] {
        &self.space.timesteps
    }

    fn noise_scale(&self) -> f64 {
        self.space.noise_scale()
    }

    fn noised(&self, call: usize) -> Mix {
        Mix(1.0, self.space.sigmas[call])
    }

    fn input_divisor(&self, call: usize) -> f64 {
        input_divisor(self.space.sigmas[call])
    }

    fn step(
        &self,
        call: usize,
        _: &mut History,
        output: Vec<f32>,
        latents: &[f32],
        draws: &mut NoiseDraws,
    ) -> Vec<f32> {
        let (from, to) = (self.space.sigmas[call], self.space.sigmas[call + 1]);
        let (down, up) = ancestral(from, to, self.eta);
        let moved = self.space.towards(from, down).of(latents, &output);
        Mix(1.0, up).of(&moved, &draws.normals())
    }
}
