//! Euler's method (Karras et al. 2022, <https://arxiv.org/abs/2206.00364>, algorithm 2 without churn), as diffusers'
//! `EulerDiscreteScheduler`.

use serde::{Deserialize, Serialize};

use super::method::{Method, Mix, NoiseDraws};
use super::noise_schedule::SigmaCurve;
use super::options::FinalSigma;
use super::schedule;
use super::sigma_space::{SigmaSpace, input_divisor};
use super::sigmas::{Route, spread};
use super::{History, Prediction};

/// What a scheduler file may say of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EulerOptions {
    /// Where the last step ends.
    pub final_sigma: FinalSigma,
    /// Sigmas lie evenly in their logarithm from the largest to the smallest, and the last step ends there.
    pub log_linear: bool,
    /// A model that predicts velocity gets a quarter of sigma's logarithm as its timestep.
    pub continuous_timesteps: bool,
    /// The smallest sigma of a curve; `None`: the last timestep's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_min: Option<f64>,
    /// The largest sigma of a curve; `None`: the first timestep's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_max: Option<f64>,
}

#[derive(Debug)]
pub(super) struct Euler(SigmaSpace);

impl Euler {
    pub(super) fn new(route: &Route, options: &EulerOptions) -> Euler {
        let EulerOptions { final_sigma, log_linear, continuous_timesteps, sigma_min, sigma_max } = *options;
        let all = schedule::training_sigmas(route.config);
        let (low, high) = (all[0], all[all.len() - 1]);
        let bounds =
            if log_linear { (sigma_min.or(Some(low)), sigma_max.or(Some(high))) } else { (sigma_min, sigma_max) };
        let mut space = SigmaSpace::within(route, bounds, final_sigma);
        if log_linear && route.curve.is_none() {
            let sigmas = spread(SigmaCurve::Exponential, high, low, route.steps + 1);
            space.sigmas = sigmas.into_iter().map(|sigma| f64::from(sigma as f32)).collect();
        }
        if continuous_timesteps && route.config.prediction == Prediction::VPrediction {
            space.timesteps = space.sigmas[..route.steps].iter().map(|sigma| 0.25 * libm::log(*sigma)).collect();
        }
        Euler(space)
    }
}

impl Method for Euler {
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

    fn step(&self, call: usize, _: &mut History, output: Vec<f32>, latents: &[f32], _: &mut NoiseDraws) -> Vec<f32> {
        self.0.towards(self.0.sigmas[call], self.0.sigmas[call + 1]).of(latents, &output)
    }
}
