//! DPM-Solver++ over several steps (Lu et al. 2022, <https://arxiv.org/abs/2211.01095>, algorithm 2), deterministic and
//! stochastic, as diffusers' `DPMSolverMultistepScheduler`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::dpm::{Algorithm, DpmSolverType, log_snr, noised};
use super::method::{Method, Mix, NoiseDraws, weighted};
use super::noise_schedule::SigmaCurve;
use super::options::FinalSigma;
use super::sigmas::{Route, Sigmas, last_sigma};
use super::{BetaSchedule, History, Prediction, schedule};

/// From this many steps on, the reference lowers the order at the end only where it must.
const MANY_STEPS: usize = 15;

/// What a scheduler file may say of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DpmMultistepOptions {
    /// How many model values a step uses, 1 to 3.
    pub solver_order: usize,
    /// `dpmsolver` instead of `dpmsolver++`: the noise is extrapolated, not the image.
    pub noise_prediction: bool,
    /// The rule of the second order.
    pub solver_type: DpmSolverType,
    /// Fewer than 15 steps end with lower orders.
    pub lower_order_final: bool,
    /// The last step is of first order.
    pub euler_at_final: bool,
    /// Where the last step ends.
    pub final_sigma: FinalSigma,
    /// Steps lie evenly in log-SNR.
    pub use_lu_lambdas: bool,
    /// Timesteps of a smaller log-SNR are left out.
    pub lambda_min_clipped: Option<f64>,
}

impl Default for DpmMultistepOptions {
    fn default() -> DpmMultistepOptions {
        DpmMultistepOptions {
            solver_order: 2,
            noise_prediction: false,
            solver_type: DpmSolverType::Midpoint,
            lower_order_final: true,
            euler_at_final: false,
            final_sigma: FinalSigma::Zero,
            use_lu_lambdas: false,
            lambda_min_clipped: None,
        }
    }
}

#[derive(Debug)]
pub(super) struct DpmMultistep {
    prediction: Prediction,
    timesteps: Vec<f64>,
    /// Before each call and after the last.
    sigmas: Vec<f64>,
    algorithm: Algorithm,
    options: DpmMultistepOptions,
}

impl DpmMultistep {
    pub(super) fn new(route: &Route, options: DpmMultistepOptions, stochastic: bool) -> DpmMultistep {
        let config = route.config;
        let lu = options.use_lu_lambdas.then_some(SigmaCurve::Lu);
        let route = Route { curve: route.curve.or(lu), ..*route };
        let end = options.lambda_min_clipped.map_or(config.train_timesteps, |lambda| {
            let clipped = schedule::training_sigmas(config).into_iter().filter(|sigma| log_snr(*sigma) < lambda);
            (config.train_timesteps - clipped.count()).max(1)
        });
        let on = Sigmas::of_solver(&route, end, config.beta_schedule == BetaSchedule::SquaredcosCapV2);
        DpmMultistep {
            prediction: config.prediction,
            sigmas: on.up_to(last_sigma(config, options.final_sigma)),
            timesteps: on.timesteps,
            algorithm: Algorithm { of_noise: options.noise_prediction, stochastic, clipping: config.options.clipping },
            options,
        }
    }

    /// How many model values the step `call` uses where `there` are.
    fn order(&self, call: usize, there: usize) -> usize {
        let DpmMultistepOptions { solver_order, lower_order_final, euler_at_final, final_sigma, .. } = self.options;
        let lowers = lower_order_final && self.timesteps.len() < MANY_STEPS;
        let most = match self.timesteps.len() - call {
            1 if euler_at_final || lowers || final_sigma == FinalSigma::Zero => 1,
            2 if lowers => 2,
            _ => solver_order,
        };
        most.min(there)
    }
}

impl Method for DpmMultistep {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn noised(&self, call: usize) -> Mix {
        noised(self.sigmas[call])
    }

    /// Differences of the last values stand for the derivatives.
    fn step(
        &self,
        call: usize,
        history: &mut History,
        output: Vec<f32>,
        latents: &[f32],
        draws: &mut NoiseDraws,
    ) -> Vec<f32> {
        let (sigma, next) = (self.sigmas[call], self.sigmas[call + 1]);
        let value = self.algorithm.model_value(self.prediction, sigma, latents, &output);
        let earlier = |back: usize| history.outputs[history.outputs.len() - back].as_slice();
        let step = self.algorithm.step(sigma, next);
        // How long the step that ended `back` calls ago was, relative to this one.
        let ratio = |back: usize| (log_snr(self.sigmas[call - back]) - log_snr(self.sigmas[call - back - 1])) / step.h;
        let new_noise = if self.algorithm.stochastic { draws.normals() } else { vec![] };
        let mut parts: Vec<(f64, &[f32])> = match self.order(call, history.outputs.len() + 1) {
            1 => vec![(step.keep, latents), (step.value, &value)],
            2 => {
                let slope = step.slope_by(self.options.solver_type) / ratio(0);
                vec![(step.keep, latents), (step.value + slope, &value), (-slope, earlier(1))]
            }
            _ => {
                let (r0, r1) = (ratio(0), ratio(1));
                let (slope, curvature) = (step.slope, step.curvature / (r0 + r1));
                let share = slope * r0 / (r0 + r1) + curvature;
                let (near, far) = ((slope + share) / r0, share / r1);
                vec![(step.keep, latents), (step.value + near, &value), (-near - far, earlier(1)), (far, earlier(2))]
            }
        };
        if self.algorithm.stochastic {
            parts.push((step.noise, &new_noise));
        }
        let next_latents = weighted(&parts);
        history.push(Arc::new(value), self.options.solver_order - 1);
        next_latents
    }
}
