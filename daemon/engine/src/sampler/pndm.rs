//! Pseudo numerical methods (Liu et al. 2022, <https://arxiv.org/abs/2202.09778>), as diffusers' `PNDMScheduler`: linear
//! multistep over the last four outputs. It begins with three Runge-Kutta steps of four calls each, or, where the model says
//! so (`skip_prk_steps`), with two calls at the second timestep (known as PLMS).

use std::sync::Arc;

use super::ddim::whole_timesteps;
use super::method::{Alphas, Method, Mix, NoiseDraws, weighted};
use super::{History, Prediction, SamplingConfig};

#[derive(Debug)]
pub(super) struct Pndm {
    prediction: Prediction,
    alphas: Alphas,
    timesteps: Vec<f64>,
    /// The timesteps of the Runge-Kutta calls.
    runge_kutta: Vec<f64>,
    /// Training timesteps of a step.
    stride: usize,
}

/// The fewest steps: the Runge-Kutta start alone takes four timesteps.
pub(super) fn least_steps(config: &SamplingConfig) -> usize {
    if skips_runge_kutta(config) { 1 } else { 4 }
}

fn skips_runge_kutta(config: &SamplingConfig) -> bool {
    config.skip_prk_steps.unwrap_or(false)
}

impl Pndm {
    /// At least `least_steps` steps.
    pub(super) fn new(config: &SamplingConfig, steps: usize) -> Pndm {
        let stride = config.train_timesteps / steps;
        let plain = whole_timesteps(config, steps);
        let (runge_kutta, timesteps) = if skips_runge_kutta(config) {
            let second = &plain[1.min(plain.len())..];
            (vec![], plain.iter().take(2).chain(second).copied().collect())
        } else {
            let start = runge_kutta_timesteps(&plain[..4], (stride / 2) as f64);
            let timesteps = [start.as_slice(), &plain[3..]].concat();
            (start, timesteps)
        };
        Pndm {
            prediction: config.prediction,
            alphas: Alphas::new(config, config.set_alpha_to_one.unwrap_or(false)),
            timesteps,
            runge_kutta,
            stride,
        }
    }

    /// Equation 13: four calls make a step.
    fn runge_kutta(&self, call: usize, history: &mut History, output: Vec<f32>, latents: &[f32]) -> Vec<f32> {
        let part = history.made % 4;
        let half = if part % 2 == 1 { 0 } else { self.stride / 2 };
        let to = self.timesteps[call] - half as f64;
        let from = self.runge_kutta[history.made / 4 * 4];
        let weight = [1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0][part];
        let output = Arc::new(output);
        let before = history.sum.take().unwrap_or_else(|| Arc::new(vec![0.0; output.len()]));
        let sum = Mix(1.0, weight).of(&before, &output);
        if part == 0 {
            history.outputs.push(output.clone());
            history.sample = Some(Arc::new(latents.to_vec()));
        }
        let sample = history.sample.as_deref().map_or(latents, Vec::as_slice);
        if part == 3 {
            return self.transfer(from, to, sample, &sum);
        }
        let next = self.transfer(from, to, sample, &output);
        history.sum = Some(Arc::new(sum));
        next
    }

    /// Equation 12.
    fn linear_multistep(&self, call: usize, history: &mut History, output: Vec<f32>, latents: &[f32]) -> Vec<f32> {
        let History { made, outputs, sample, .. } = history;
        let output = Arc::new(output);
        let (mut from, mut to) = (self.timesteps[call], self.timesteps[call] - self.stride as f64);
        let again = *made == 1;
        let mut from_sample = None;
        if again {
            // The second call repeats the first step with the mean of both outputs.
            (from, to) = (to + 2.0 * self.stride as f64, from);
        } else {
            outputs.drain(..outputs.len().saturating_sub(3));
            outputs.push(output.clone());
        }
        let last = |back: usize| outputs[outputs.len() - back].as_slice();
        let combined = match outputs.len() {
            1 if again => {
                from_sample = sample.take();
                Mix(0.5, 0.5).of(&output, last(1))
            }
            1 => {
                *sample = Some(Arc::new(latents.to_vec()));
                output.to_vec()
            }
            2 => Mix(1.5, -0.5).of(last(1), last(2)),
            3 => weighted(&[(23.0 / 12.0, last(1)), (-16.0 / 12.0, last(2)), (5.0 / 12.0, last(3))]),
            _ => weighted(&[
                (55.0 / 24.0, last(1)),
                (-59.0 / 24.0, last(2)),
                (37.0 / 24.0, last(3)),
                (-9.0 / 24.0, last(4)),
            ]),
        };
        self.transfer(from, to, from_sample.as_deref().map_or(latents, Vec::as_slice), &combined)
    }

    /// Equation 9 (without dividing by zero at the end).
    fn transfer(&self, from: f64, to: f64, sample: &[f32], output: &[f32]) -> Vec<f32> {
        let (alpha, next) = (self.alphas.at(from), self.alphas.at(to));
        let divisor = alpha * (1.0 - next).sqrt() + (alpha * (1.0 - alpha) * next).sqrt();
        let (keep, change) = ((next / alpha).sqrt(), -(next - alpha) / divisor);
        let noise = self.prediction.noise(alpha);
        Mix(keep + change * noise.0, change * noise.1).of(sample, output)
    }
}

/// Of the first `four` timesteps: each and the point half a step before it, but for the ends, twice.
fn runge_kutta_timesteps(four: &[f64], half: f64) -> Vec<f64> {
    let mut pairs: Vec<f64> = four.iter().rev().flat_map(|t| [*t, t + half]).collect();
    pairs.pop();
    let doubled: Vec<f64> = pairs.iter().flat_map(|t| [*t, *t]).collect();
    doubled[1..doubled.len() - 1].iter().rev().copied().collect()
}

impl Method for Pndm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn noised(&self, call: usize) -> Mix {
        Mix::of_alpha(self.alphas.at(self.timesteps[call]))
    }

    fn step(
        &self,
        call: usize,
        history: &mut History,
        output: Vec<f32>,
        latents: &[f32],
        _: &mut NoiseDraws,
    ) -> Vec<f32> {
        if history.made < self.runge_kutta.len() {
            self.runge_kutta(call, history, output, latents)
        } else {
            self.linear_multistep(call, history, output, latents)
        }
    }
}
