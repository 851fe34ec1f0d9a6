//! UniPC (Zhao et al. 2023, <https://arxiv.org/abs/2302.04867>), as diffusers' `UniPCMultistepScheduler`: a multistep
//! predictor, and once the UNet has seen what it predicted, a corrector of the step before.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::dpm::{Algorithm, alpha_sigma, log_snr, noised};
use super::method::{Method, Mix, NoiseDraws, weighted};
use super::noise_schedule::SigmaCurve;
use super::options::FinalSigma;
use super::sigmas::{Route, Sigmas, last_sigma};
use super::{History, Prediction};

/// What a scheduler file may say of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UnipcOptions {
    /// How many model values a step uses, 1 to 3.
    pub solver_order: usize,
    /// The image is extrapolated, not the noise.
    pub predict_x0: bool,
    /// The function B(h).
    pub solver_type: UnipcSolverType,
    /// The last steps are of lower orders.
    pub lower_order_final: bool,
    /// Where the last step ends.
    pub final_sigma: FinalSigma,
    /// The steps that are not corrected, from 0.
    pub disable_corrector: Vec<usize>,
}

impl Default for UnipcOptions {
    fn default() -> UnipcOptions {
        UnipcOptions {
            solver_order: 2,
            predict_x0: true,
            solver_type: UnipcSolverType::Bh2,
            lower_order_final: true,
            final_sigma: FinalSigma::Zero,
            disable_corrector: vec![],
        }
    }
}

/// The paper's function B(h).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnipcSolverType {
    /// h.
    Bh1,
    /// e^h − 1.
    #[default]
    Bh2,
}

#[derive(Debug)]
pub(super) struct Unipc {
    prediction: Prediction,
    timesteps: Vec<f64>,
    /// Before each call and after the last.
    sigmas: Vec<f64>,
    algorithm: Algorithm,
    options: UnipcOptions,
}

impl Unipc {
    pub(super) fn new(route: &Route, options: UnipcOptions) -> Unipc {
        let on = Sigmas::of_solver(route, route.config.train_timesteps, false);
        let last = match (options.final_sigma, route.curve) {
            (FinalSigma::SigmaMin, Some(curve)) if curve != SigmaCurve::Lu => on.sigmas[on.sigmas.len() - 1],
            (last, _) => last_sigma(route.config, last),
        };
        let of_noise = !options.predict_x0;
        Unipc {
            prediction: route.config.prediction,
            sigmas: on.up_to(last),
            timesteps: on.timesteps,
            algorithm: Algorithm { of_noise, stochastic: false, clipping: route.config.options.clipping },
            options,
        }
    }

    /// Of the step from `call`, where `there` model values are known.
    fn order(&self, call: usize, there: usize) -> usize {
        let UnipcOptions { solver_order, lower_order_final, .. } = self.options;
        let left = self.timesteps.len() - call;
        let most = if lower_order_final { solver_order.min(left) } else { solver_order };
        most.min(there)
    }

    /// The step from `call`, from `sample`, with the model's last values, the newest last; `corrected` is the value at
    /// its end.
    fn update(
        &self,
        call: usize,
        order: usize,
        sample: &[f32],
        values: &[Arc<Vec<f32>>],
        corrected: Option<&[f32]>,
    ) -> Vec<f32> {
        let (sigma, next) = (self.sigmas[call], self.sigmas[call + 1]);
        let ((alpha, deviation), (next_alpha, next_deviation)) = (alpha_sigma(sigma), alpha_sigma(next));
        let h = log_snr(next) - log_snr(sigma);
        let (signed, keep, scale) = match self.options.predict_x0 {
            true => (-h, next_deviation / deviation, next_alpha),
            false => (h, next_alpha / alpha, next_deviation),
        };
        let places: Vec<f64> =
            (1..order).map(|back| (log_snr(self.sigmas[call - back]) - log_snr(sigma)) / h).collect();
        let phi = PhiFunctions::new(signed, self.options.solver_type);
        let weights = match corrected {
            None => phi.predictor_weights(&places),
            Some(_) => phi.corrector_weights(&places),
        };
        let newest = values.len() - 1;
        let slope = -scale * phi.divisor;
        let mut of_newest = -scale * phi.first;
        let mut parts = vec![(keep, sample)];
        for (back, (place, weight)) in places.iter().zip(&weights).enumerate() {
            let factor = slope * weight / place;
            of_newest -= factor;
            parts.push((factor, values[newest - 1 - back].as_slice()));
        }
        if let (Some(corrected), Some(weight)) = (corrected, weights.last()) {
            of_newest -= slope * weight;
            parts.push((slope * weight, corrected));
        }
        parts.push((of_newest, values[newest].as_slice()));
        weighted(&parts)
    }
}

/// What the weights of a step are made of.
struct PhiFunctions {
    h: f64,
    /// e^h − 1.
    first: f64,
    /// B(h).
    divisor: f64,
}

impl PhiFunctions {
    fn new(h: f64, solver: UnipcSolverType) -> PhiFunctions {
        let first = libm::expm1(h);
        let divisor = match solver {
            UnipcSolverType::Bh1 => h,
            UnipcSolverType::Bh2 => first,
        };
        PhiFunctions { h, first, divisor }
    }

    /// The paper's equation 9 for the predictor: weights of the differences at `places`. The one of second order is
    /// fixed.
    fn predictor_weights(&self, places: &[f64]) -> Vec<f64> {
        if places.len() == 1 { vec![0.5] } else { self.solve(places) }
    }

    /// The same for the corrector, whose last place is the step's end. The one of first order is fixed.
    fn corrector_weights(&self, places: &[f64]) -> Vec<f64> {
        if places.is_empty() { vec![0.5] } else { self.solve(&[places, &[1.0]].concat()) }
    }

    /// The weights w with Σ wⱼ·rⱼⁱ⁻¹ = i!·φᵢ₊₁(h)·h / B(h), i from 1.
    fn solve(&self, places: &[f64]) -> Vec<f64> {
        let (mut phi, mut factorial) = (self.first / self.h - 1.0, 1.0);
        let rows = (1..=places.len()).map(|i| {
            let right = phi * factorial / self.divisor;
            factorial *= (i + 1) as f64;
            phi = phi / self.h - 1.0 / factorial;
            let powers = places.iter().map(|place| (1..i).fold(1.0, |power, _| power * place));
            powers.chain([right]).collect()
        });
        eliminate(rows.collect())
    }
}

/// Gauss' elimination with the largest pivot: rows are equations, with their right side at the end.
fn eliminate(mut rows: Vec<Vec<f64>>) -> Vec<f64> {
    let count = rows.len();
    for column in 0..count {
        let size = |row: &Vec<f64>| row[column].abs();
        let pivot = (column..count).max_by(|a, b| size(&rows[*a]).total_cmp(&size(&rows[*b])));
        rows.swap(column, pivot.unwrap_or(column));
        let (above, below) = rows.split_at_mut(column + 1);
        for row in below {
            let factor = row[column] / above[column][column];
            row.iter_mut().zip(&above[column]).for_each(|(value, pivot)| *value -= factor * pivot);
        }
    }
    let mut solution = vec![0.0; count];
    for row in (0..count).rev() {
        let known: f64 = (row + 1..count).map(|column| rows[row][column] * solution[column]).sum();
        solution[row] = (rows[row][count] - known) / rows[row][row];
    }
    solution
}

impl Method for Unipc {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn noised(&self, call: usize) -> Mix {
        noised(self.sigmas[call])
    }

    /// The corrector of the step before, then the predictor of this one.
    fn step(
        &self,
        call: usize,
        history: &mut History,
        output: Vec<f32>,
        latents: &[f32],
        _: &mut NoiseDraws,
    ) -> Vec<f32> {
        let UnipcOptions { solver_order, disable_corrector, .. } = &self.options;
        let value = self.algorithm.model_value(self.prediction, self.sigmas[call], latents, &output);
        let sample = match &history.sample {
            Some(before) if !disable_corrector.contains(&(call - 1)) => {
                let order = self.order(call - 1, history.outputs.len());
                Arc::new(self.update(call - 1, order, before, &history.outputs, Some(&value)))
            }
            _ => Arc::new(latents.to_vec()),
        };
        history.push(Arc::new(value), *solver_order);
        let order = self.order(call, history.outputs.len());
        let next_latents = self.update(call, order, &sample, &history.outputs, None);
        history.sample = Some(sample);
        next_latents
    }
}
