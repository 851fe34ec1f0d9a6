//! Linear multistep (Liu et al. 2022 for diffusion; Adams and Bashforth), as diffusers' `LMSDiscreteScheduler` and
//! k-diffusion's `sample_lms`: the polynomial through the last four derivatives, integrated over the step.

use std::sync::Arc;

use super::History;
use super::method::{Method, Mix, NoiseDraws, weighted};
use super::sigma_space::{SigmaSpace, input_divisor};
use super::sigmas::Route;

/// The most derivatives of a step.
const ORDER: usize = 4;

#[derive(Debug)]
pub(super) struct Lms(SigmaSpace);

impl Lms {
    pub(super) fn new(route: &Route) -> Lms {
        Lms(SigmaSpace::new(route))
    }

    /// The factors of the last derivatives, the newest first. Polynomials are of the third degree at most, so Simpson's
    /// rule is exact.
    fn coefficients(&self, call: usize) -> Vec<f64> {
        let sigmas = &self.0.sigmas;
        let order = (call + 1).min(ORDER);
        let (from, to) = (sigmas[call], sigmas[call + 1]);
        let integral = |one: usize| {
            let others = || (0..order).filter(|other| *other != one);
            let value = |sigma: f64| -> f64 {
                let factor = |other| (sigma - sigmas[call - other]) / (sigmas[call - one] - sigmas[call - other]);
                others().map(factor).product()
            };
            (to - from) / 6.0 * (value(from) + 4.0 * value(0.5 * (from + to)) + value(to))
        };
        (0..order).map(integral).collect()
    }
}

impl Method for Lms {
    fn timesteps(&self) -> &[f64] {
        &self.0.timesteps
    }

    fn noise_scale(&self) -> f64 {
        self.0.noise_scale()
    }

    fn noised(&self, call: usize) -> Mix {
        Mix(1.0, self.0.sigmas[call])
    }

    fn input_divisor(&self, call: usize) -> f64 {
        input_divisor(self.0.sigmas[call])
    }

    /// Image to image begins with fewer derivatives than factors; as in the reference, what is missing counts as 0.
    fn step(
        &self,
        call: usize,
        history: &mut History,
        output: Vec<f32>,
        latents: &[f32],
        _: &mut NoiseDraws,
    ) -> Vec<f32> {
        let derivative = self.0.derivative(self.0.sigmas[call]).of(latents, &output);
        let derivatives =
            std::iter::once(derivative.as_slice()).chain(history.outputs.iter().rev().map(|d| d.as_slice()));
        let mut parts = vec![(1.0, latents)];
        parts.extend(self.coefficients(call).into_iter().zip(derivatives));
        let next_latents = weighted(&parts);
        history.push(Arc::new(derivative), ORDER - 1);
        next_latents
    }
}
