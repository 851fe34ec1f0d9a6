//! Pseudo numerical methods (Liu et al. 2022, <https://arxiv.org/abs/2202.09778>), as diffusers' `PNDMScheduler`: linear
//! multistep over the last four outputs. It begins with three Runge-Kutta steps of four calls each, or, where the model says
//! so (`skip_prk_steps`), with two calls at the second timestep (known as PLMS).

use super::ddim::whole_timesteps;
use super::method::{Alphas, Method, Mix, weighted};
use super::{Prediction, SamplingConfig};

#[derive(Debug, Clone)]
pub(super) struct Pndm {
    prediction: Prediction,
    alphas: Alphas,
    timesteps: Vec<f64>,
    /// The timesteps of the Runge-Kutta calls.
    runge_kutta: Vec<f64>,
    /// Training timesteps of a step.
    stride: usize,
    /// Calls that were made.
    made: usize,
    /// The UNet's last outputs, newest last.
    outputs: Vec<Vec<f32>>,
    /// Latents before a step of several calls.
    sample: Option<Vec<f32>>,
    /// Weighted sum of such a step's outputs so far.
    sum: Option<Vec<f32>>,
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
            made: 0,
            outputs: vec![],
            sample: None,
            sum: None,
        }
    }

    /// Equation 13: four calls make a step.
    fn runge_kutta(&mut self, call: usize, output: Vec<f32>, latents: &mut Vec<f32>) {
        let part = self.made % 4;
        let half = if part % 2 == 1 { 0 } else { self.stride / 2 };
        let to = self.timesteps[call] - half as f64;
        let from = self.runge_kutta[self.made / 4 * 4];
        let weight = [1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0][part];
        let before = self.sum.take().unwrap_or_else(|| vec![0.0; output.len()]);
        let sum = Mix(1.0, weight).of(&before, &output);
        if part == 0 {
            self.outputs.push(output.clone());
            self.sample = Some(latents.clone());
        }
        let sample = self.sample.as_ref().unwrap_or(latents);
        if part == 3 {
            *latents = self.transfer(from, to, sample, &sum);
        } else {
            *latents = self.transfer(from, to, sample, &output);
            self.sum = Some(sum);
        }
    }

    /// Equation 12.
    fn linear_multistep(&mut self, call: usize, output: Vec<f32>, latents: &mut Vec<f32>) {
        let (mut from, mut to) = (self.timesteps[call], self.timesteps[call] - self.stride as f64);
        let mut sample = std::mem::take(latents);
        let again = self.made == 1;
        if again {
            // The second call repeats the first step with the mean of both outputs.
            (from, to) = (to + 2.0 * self.stride as f64, from);
        } else {
            self.outputs.drain(..self.outputs.len().saturating_sub(3));
            self.outputs.push(output.clone());
        }
        let last = |back: usize| self.outputs[self.outputs.len() - back].as_slice();
        let combined = match self.outputs.len() {
            1 if again => {
                sample = self.sample.take().unwrap_or(sample);
                Mix(0.5, 0.5).of(&output, last(1))
            }
            1 => {
                self.sample = Some(sample.clone());
                output
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
        *latents = self.transfer(from, to, &sample, &combined);
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

    fn step(&mut self, call: usize, output: Vec<f32>, latents: &mut Vec<f32>, _: &mut dyn FnMut() -> Vec<f32>) {
        if self.made < self.runge_kutta.len() {
            self.runge_kutta(call, output, latents);
        } else {
            self.linear_multistep(call, output, latents);
        }
        self.made += 1;
    }

    fn boxed(&self) -> Box<dyn Method> {
        Box::new(self.clone())
    }
}
