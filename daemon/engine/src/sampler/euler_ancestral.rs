//! Euler's method with ancestral noise, as diffusers' `EulerAncestralDiscreteScheduler` and k-diffusion's
//! `sample_euler_ancestral`: a step to less noise than the next timestep's, and new noise up to that.

use super::euler::Euler;
use super::method::{Method, Mix};
use super::{History, SamplingConfig};

#[derive(Debug)]
pub(super) struct EulerAncestral(Euler);

impl EulerAncestral {
    pub(super) fn new(config: &SamplingConfig, steps: usize) -> EulerAncestral {
        EulerAncestral(Euler::new(config, steps))
    }
}

impl Method for EulerAncestral {
    fn timesteps(&self) -> &[f64] {
        self.0.timesteps()
    }

    fn noise_scale(&self) -> f64 {
        self.0.noise_scale()
    }

    fn noised(&self, call: usize) -> Mix {
        self.0.noised(call)
    }

    fn input_divisor(&self, call: usize) -> f64 {
        self.0.input_divisor(call)
    }

    fn step(
        &self,
        call: usize,
        _: &mut History,
        output: Vec<f32>,
        latents: &[f32],
        noise: &mut dyn FnMut() -> Vec<f32>,
    ) -> Vec<f32> {
        let (from, to) = (self.0.sigmas[call], self.0.sigmas[call + 1]);
        let up = (to * to * (from * from - to * to) / (from * from)).sqrt();
        let down = (to * to - up * up).sqrt();
        let moved = self.0.towards(from, down).of(latents, &output);
        Mix(1.0, up).of(&moved, &noise())
    }
}
