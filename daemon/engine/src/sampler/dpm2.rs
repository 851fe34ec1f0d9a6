//! DPM-Solver-2 in sigma (Karras et al. 2022, <https://arxiv.org/abs/2206.00364>, algorithm 2 with the midpoint rule), as
//! diffusers' `KDPM2DiscreteScheduler` and `KDPM2AncestralDiscreteScheduler`: the derivative at the geometric mean of a
//! step's sigmas leads over the whole step. A step is two calls of the UNet, but for the last.

use std::sync::Arc;

use super::History;
use super::method::{Method, Mix, NoiseDraws};
use super::noise_schedule::SigmaCurve;
use super::sigma_space::{HalfwaySteps, SigmaSpace, ancestral, input_divisor};
use super::sigmas::Route;

#[derive(Debug)]
pub(super) struct Dpm2 {
    halfway: HalfwaySteps,
    /// Where each step goes without new noise, and how much noise it adds.
    ends: Vec<(f64, f64)>,
    /// A step adds noise, even where it is none.
    stochastic: bool,
}

impl Dpm2 {
    /// With the ancestral noise of `eta`, if any.
    pub(super) fn new(route: &Route, eta: Option<f64>) -> Dpm2 {
        let mut space = SigmaSpace::new(route);
        if route.curve == Some(SigmaCurve::Karras) {
            space.timesteps.iter_mut().for_each(|t| *t = libm::rint(*t));
        }
        let ends: Vec<(f64, f64)> =
            space.sigmas.windows(2).map(|pair| ancestral(pair[0], pair[1], eta.unwrap_or(0.0))).collect();
        let middle = |(sigma, end): (&f64, &(f64, f64))| libm::exp(0.5 * (libm::log(*sigma) + libm::log(end.0)));
        let middles = space.sigmas.iter().zip(&ends).map(middle).collect();
        Dpm2 { ends, stochastic: eta.is_some(), halfway: HalfwaySteps::new(space, middles) }
    }
}

impl Method for Dpm2 {
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
        let sigma = self.halfway.space.sigmas[call / 2];
        let (end, up) = self.ends[call / 2];
        let derivative = self.halfway.space.derivative(self.halfway.sigma(call)).of(latents, &output);
        match history.sample.take() {
            Some(sample) => {
                let moved = Mix(1.0, end - sigma).of(&sample, &derivative);
                if self.stochastic { Mix(1.0, up).of(&moved, &draws.normals()) } else { moved }
            }
            None if call + 1 < self.halfway.timesteps.len() => {
                history.sample = Some(Arc::new(latents.to_vec()));
                Mix(1.0, self.halfway.middles[call / 2] - sigma).of(latents, &derivative)
            }
            None => Mix(1.0, end - sigma).of(latents, &derivative),
        }
    }
}
