//! DEIS (Zhang & Chen 2022, <https://arxiv.org/abs/2204.13902>), log-rho multistep, as diffusers'
//! `DEISMultistepScheduler`: the noise as a polynomial in the logarithm of sigma, integrated exactly.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::dpm::{Algorithm, alpha_sigma, noised};
use super::method::{Method, Mix, NoiseDraws, weighted};
use super::options::FinalSigma;
use super::sigmas::{Route, Sigmas, last_sigma};
use super::{History, Prediction};

/// From this many steps on, the reference does not lower the order at the end.
const MANY_STEPS: usize = 15;

/// What a scheduler file may say of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeisOptions {
    /// How many of the UNet's outputs a step uses, 1 to 3.
    pub solver_order: usize,
    /// Fewer than 15 steps end with lower orders.
    pub lower_order_final: bool,
}

impl Default for DeisOptions {
    fn default() -> DeisOptions {
        DeisOptions { solver_order: 2, lower_order_final: true }
    }
}

#[derive(Debug)]
pub(super) struct Deis {
    prediction: Prediction,
    timesteps: Vec<f64>,
    /// Before each call and after the last.
    sigmas: Vec<f64>,
    algorithm: Algorithm,
    options: DeisOptions,
}

impl Deis {
    /// The last step ends at the smallest training sigma; on a curve, whose last sigma that is, it stays there.
    pub(super) fn new(route: &Route, options: DeisOptions) -> Deis {
        let on = Sigmas::of_solver(route, route.config.train_timesteps, false);
        let last = match route.curve {
            Some(_) => on.sigmas[on.sigmas.len() - 1],
            None => last_sigma(route.config, FinalSigma::SigmaMin),
        };
        Deis {
            prediction: route.config.prediction,
            sigmas: on.up_to(last),
            timesteps: on.timesteps,
            algorithm: Algorithm { of_noise: true, stochastic: false, clipping: route.config.options.clipping },
            options,
        }
    }

    fn order(&self, call: usize, there: usize) -> usize {
        let lowers = self.options.lower_order_final && self.timesteps.len() < MANY_STEPS;
        let most = match self.timesteps.len() - call {
            left @ 1..=2 if lowers => left.min(self.options.solver_order),
            _ => self.options.solver_order,
        };
        most.min(there)
    }
}

impl Method for Deis {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn noised(&self, call: usize) -> Mix {
        noised(self.sigmas[call])
    }

    /// Equation 11 for the variance-exploding process, whose time is sigma.
    fn step(
        &self,
        call: usize,
        history: &mut History,
        output: Vec<f32>,
        latents: &[f32],
        _: &mut NoiseDraws,
    ) -> Vec<f32> {
        let (sigma, next) = (self.sigmas[call], self.sigmas[call + 1]);
        let (alpha, next_alpha) = (alpha_sigma(sigma).0, alpha_sigma(next).0);
        let noise = self.algorithm.model_value(self.prediction, sigma, latents, &output);
        let order = self.order(call, history.outputs.len() + 1);
        let nodes: Vec<f64> = (0..order).map(|back| self.sigmas[call - back]).collect();
        let factor = |node: usize| next_alpha * lagrange_integral(&nodes, node, sigma, next);
        let mut parts = vec![(next_alpha / alpha, latents), (factor(0), noise.as_slice())];
        parts.extend((1..order).map(|back| (factor(back), history.outputs[history.outputs.len() - back].as_slice())));
        let next_latents = weighted(&parts);
        history.push(Arc::new(noise), self.options.solver_order - 1);
        next_latents
    }
}

/// The integral from `from` to `to` of the polynomial in log t that is 1 at `nodes[one]` and 0 at the other nodes.
fn lagrange_integral(nodes: &[f64], one: usize, from: f64, to: f64) -> f64 {
    let others: Vec<f64> =
        nodes.iter().enumerate().filter(|(i, _)| *i != one).map(|(_, node)| libm::log(*node)).collect();
    let at = libm::log(nodes[one]);
    let scale: f64 = others.iter().map(|other| at - other).product();
    let antiderivative = |t: f64| {
        let log = libm::log(t);
        let value = match others.as_slice() {
            [] => t,
            [c] => t * (log - 1.0 - c),
            [c, d, ..] => t * (log * log - 2.0 * log + 2.0 - (c + d) * (log - 1.0) + c * d),
        };
        value / scale
    };
    antiderivative(to) - antiderivative(from)
}
