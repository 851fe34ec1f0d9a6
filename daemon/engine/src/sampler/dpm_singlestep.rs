//! DPM-Solver++ in steps that begin anew (Lu et al. 2022, <https://arxiv.org/abs/2211.01095>, algorithm 1), as diffusers'
//! `DPMSolverSinglestepScheduler`: a step of order n is n calls of the UNet, each of which ends at a timestep of its own.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::dpm::{Algorithm, DpmSolverType, log_snr, noised};
use super::method::{Method, Mix, NoiseDraws, weighted};
use super::options::FinalSigma;
use super::sigmas::{Route, Sigmas, last_sigma};
use super::{History, Prediction, SamplingConfig, Spacing, schedule};

/// What a scheduler file may say of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DpmSinglestepOptions {
    /// How many calls a step has, 1 to 3.
    pub solver_order: usize,
    /// `dpmsolver` instead of `dpmsolver++`: the noise is extrapolated, not the image.
    pub noise_prediction: bool,
    /// `sde-dpmsolver++`: each call adds noise.
    pub stochastic: bool,
    /// The rule of the second and third order.
    pub solver_type: DpmSolverType,
    /// The last calls are of lower orders, also where the number of steps does not ask for it.
    pub lower_order_final: bool,
    /// Where the last step ends.
    pub final_sigma: FinalSigma,
    /// Timesteps of a smaller log-SNR are left out.
    pub lambda_min_clipped: Option<f64>,
}

impl Default for DpmSinglestepOptions {
    fn default() -> DpmSinglestepOptions {
        DpmSinglestepOptions {
            solver_order: 2,
            noise_prediction: false,
            stochastic: false,
            solver_type: DpmSolverType::Midpoint,
            lower_order_final: false,
            final_sigma: FinalSigma::Zero,
            lambda_min_clipped: None,
        }
    }
}

#[derive(Debug)]
pub(super) struct DpmSinglestep {
    prediction: Prediction,
    timesteps: Vec<f64>,
    /// Before each call and after the last.
    sigmas: Vec<f64>,
    /// Of each call: how many since the step began, this one included.
    orders: Vec<usize>,
    algorithm: Algorithm,
    options: DpmSinglestepOptions,
}

impl DpmSinglestep {
    /// Timesteps lie evenly, whatever the model's spacing is.
    pub(super) fn new(route: &Route, options: DpmSinglestepOptions) -> DpmSinglestep {
        let config = &SamplingConfig { spacing: Some(Spacing::Linspace), ..route.config.clone() };
        let route = Route { config, ..*route };
        let end = options.lambda_min_clipped.map_or(config.train_timesteps, |lambda| {
            let clipped = schedule::training_sigmas(config).into_iter().filter(|sigma| log_snr(*sigma) < lambda);
            (config.train_timesteps - clipped.count()).max(1)
        });
        let on = Sigmas::of_solver(&route, end, false);
        DpmSinglestep {
            prediction: config.prediction,
            sigmas: on.up_to(last_sigma(config, options.final_sigma)),
            orders: orders(on.timesteps.len(), &options),
            timesteps: on.timesteps,
            algorithm: Algorithm {
                of_noise: options.noise_prediction,
                stochastic: options.stochastic,
                clipping: config.options.clipping,
            },
            options,
        }
    }
}

/// Orders rise from 1 to the solver's in each step; what is left at the end, or is asked for, ends lower.
fn orders(calls: usize, options: &DpmSinglestepOptions) -> Vec<usize> {
    let order = options.solver_order;
    let lowers = options.lower_order_final || !calls.is_multiple_of(order) || options.final_sigma == FinalSigma::Zero;
    let mut orders: Vec<usize> = (0..calls).map(|call| call % order + 1).collect();
    if lowers && order > 1 {
        let last = calls - 1;
        orders[last] = 1;
        if order == 3 && calls.is_multiple_of(3) {
            orders[last - 1] = 2;
        }
        if order == 3 && calls % 3 == 2 {
            orders[last] = 2;
        }
    }
    if options.final_sigma == FinalSigma::Zero {
        orders[calls - 1] = 1;
    }
    orders
}

impl Method for DpmSinglestep {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn noised(&self, call: usize) -> Mix {
        noised(self.sigmas[call])
    }

    /// Each call goes from where the step began.
    fn step(
        &self,
        call: usize,
        history: &mut History,
        output: Vec<f32>,
        latents: &[f32],
        draws: &mut NoiseDraws,
    ) -> Vec<f32> {
        let newest = self.algorithm.model_value(self.prediction, self.sigmas[call], latents, &output);
        let order = self.orders[call].min(history.outputs.len() + 1);
        if order == 1 {
            history.sample = Some(Arc::new(latents.to_vec()));
        }
        let start = call + 1 - order;
        let step = self.algorithm.step(self.sigmas[start], self.sigmas[call + 1]);
        let sample = history.sample.as_deref().map_or(latents, Vec::as_slice);
        let first = history.outputs.len() + 1 - order;
        let value = |since: usize| history.outputs.get(first + since).map_or(newest.as_slice(), |value| value);
        // How far the call is from the beginning, relative to the whole step.
        let place = |since: usize| (log_snr(self.sigmas[start + since]) - log_snr(self.sigmas[start])) / step.h;
        let new_noise = if self.algorithm.stochastic { draws.normals() } else { vec![] };
        let mut parts: Vec<(f64, &[f32])> = match (order, self.options.solver_type) {
            (1, _) => vec![(step.keep, sample), (step.value, value(0))],
            (2, solver) => {
                let slope = step.slope_by(solver) / place(1);
                vec![(step.keep, sample), (step.value - slope, value(0)), (slope, value(1))]
            }
            (_, DpmSolverType::Midpoint) => {
                let slope = step.slope / place(2);
                vec![(step.keep, sample), (step.value - slope, value(0)), (slope, value(2))]
            }
            (_, DpmSolverType::Heun) => {
                let (r1, r2) = (place(1), place(2));
                let first = (step.slope * r2 - 2.0 * step.curvature) / (r2 - r1) / r1;
                let second = (2.0 * step.curvature - step.slope * r1) / (r2 - r1) / r2;
                vec![
                    (step.keep, sample),
                    (step.value - first - second, value(0)),
                    (first, value(1)),
                    (second, value(2)),
                ]
            }
        };
        if self.algorithm.stochastic {
            parts.push((step.noise, &new_noise));
        }
        let next_latents = weighted(&parts);
        history.push(Arc::new(newest), self.options.solver_order - 1);
        next_latents
    }
}
