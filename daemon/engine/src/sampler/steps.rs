//! What each sampler does at each step.

use super::schedule;
use super::{Config, Kind, Prediction};
use crate::error::{Error, Result};

/// LCM's constants: the data's deviation and the scale of its timesteps (Luo et al. 2023, section 4.1).
const SIGMA_DATA: f64 = 0.5;
const TIMESTEP_SCALE: f64 = 10.0;

/// What a sampler remembers of earlier steps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Steps that were made.
    pub made: usize,
    /// Outputs of the UNet (PNDM) or pictures foretold (DPM-Solver++), last one last.
    pub outputs: Vec<Vec<f32>>,
    /// Latents that a step of several calls began with (PNDM).
    pub sample: Option<Vec<f32>>,
    /// Sum of the outputs of such a step so far (PNDM).
    pub sum: Option<Vec<f32>>,
}

/// A sampler on its way.
#[derive(Debug, Clone)]
pub struct Sampler {
    kind: Kind,
    prediction: Prediction,
    /// One for each call of the UNet, those skipped by the strength included.
    timesteps: Vec<f64>,
    /// Where the strength makes it begin.
    begin: usize,
    /// Noise to picture at each timestep and at the end, for the samplers that work in sigmas.
    sigmas: Vec<f64>,
    alphas_cumprod: Vec<f64>,
    /// What a step beyond the first timestep arrives at.
    final_alpha: f64,
    /// Training timesteps of a step.
    stride: usize,
    steps: usize,
    /// PNDM's Runge-Kutta timesteps.
    runge_kutta: Vec<f64>,
    starts_at_sigma: bool,
    history: History,
}

/// Factors of latents and UNet output.
#[derive(Clone, Copy)]
struct Mix(f64, f64);

impl Sampler {
    /// A sampler that makes `steps` steps, or the last `strength` of them.
    ///
    /// # Errors
    ///
    /// `InvalidParam` if the model or the sampler does not bear so many or so few steps.
    pub fn new(kind: Kind, config: &Config, steps: usize, strength: Option<f64>) -> Result<Sampler> {
        check_steps(kind, config, steps)?;
        let mut alphas_cumprod = schedule::alphas_cumprod(config);
        if config.rescale_betas_zero_snr && works_in_sigmas(kind) {
            // As the reference: the last sigma would be infinite.
            let last = alphas_cumprod.len() - 1;
            alphas_cumprod[last] = 2f64.powi(-24);
        }
        let to_one = config.set_alpha_to_one.unwrap_or(kind != Kind::Pndm);
        let mut sampler = Sampler {
            kind,
            prediction: config.prediction,
            timesteps: schedule::timesteps(kind, config, steps),
            begin: 0,
            sigmas: Vec::new(),
            final_alpha: if to_one { 1.0 } else { alphas_cumprod[0] },
            alphas_cumprod,
            stride: config.train_timesteps / steps,
            steps,
            runge_kutta: Vec::new(),
            starts_at_sigma: schedule::starts_at_largest_sigma(kind, config),
            history: History::default(),
        };
        match kind {
            Kind::Pndm => sampler.pndm_timesteps(config.skip_prk_steps.unwrap_or(false)),
            Kind::Lcm => sampler.timesteps = schedule::lcm_timesteps(config, steps),
            _ => sampler.find_sigmas(config),
        }
        if let Some(strength) = strength {
            sampler.begin = steps - ((steps as f64 * strength) as usize).min(steps);
            if sampler.begin >= sampler.timesteps.len() {
                let message =
                    format!("{strength} of {steps} steps is no step; at least {} is needed", 1.0 / steps as f64);
                return Err(Error::InvalidParam { field: "denoising_strength", message });
            }
        }
        Ok(sampler)
    }

    fn find_sigmas(&mut self, config: &Config) {
        if !works_in_sigmas(self.kind) {
            return;
        }
        let all = schedule::sigmas(&self.alphas_cumprod);
        if self.kind == Kind::Dpmpp2mKarras {
            let round = config.beta_schedule != super::BetaSchedule::SquaredcosCapV2;
            (self.sigmas, self.timesteps) = schedule::karras(&all, self.steps, round);
        } else {
            self.sigmas = self.timesteps.iter().map(|t| schedule::interpolate(&all, *t)).collect();
        }
        self.sigmas.iter_mut().for_each(|sigma| *sigma = f64::from(*sigma as f32));
        self.sigmas.push(0.0);
    }

    /// PNDM calls the UNet twice at its second timestep, or begins with three Runge-Kutta steps of four calls.
    fn pndm_timesteps(&mut self, skip_runge_kutta: bool) {
        let plain = std::mem::take(&mut self.timesteps);
        if skip_runge_kutta {
            self.timesteps.extend(plain.first());
            self.timesteps.extend(plain.get(1));
            self.timesteps.extend(&plain[1.min(plain.len())..]);
            return;
        }
        let half = (self.stride / 2) as f64;
        let mut pairs: Vec<f64> = plain[..4].iter().rev().flat_map(|t| [*t, t + half]).collect();
        pairs.pop();
        let doubled: Vec<f64> = pairs.iter().flat_map(|t| [*t, *t]).collect();
        self.runge_kutta = doubled[1..doubled.len() - 1].iter().rev().copied().collect();
        self.timesteps = [self.runge_kutta.as_slice(), &plain[3..]].concat();
    }

    /// The timestep of each call of the UNet, in order.
    pub fn timesteps(&self) -> &[f64] {
        &self.timesteps[self.begin..]
    }

    /// What earlier steps left; with the latents it is all that a checkpoint needs.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Goes on from a checkpoint.
    pub fn resume(&mut self, history: History) {
        self.history = history;
    }

    /// The first latents, of pure noise.
    pub fn start(&self, noise: &[f32]) -> Vec<f32> {
        let scale = match (self.kind, self.sigmas.first()) {
            (Kind::Euler | Kind::EulerAncestral, Some(sigma)) if self.starts_at_sigma => *sigma,
            (Kind::Euler | Kind::EulerAncestral, Some(sigma)) => (sigma * sigma + 1.0).sqrt(),
            _ => 1.0,
        };
        noise.iter().map(|noise| (f64::from(*noise) * scale) as f32).collect()
    }

    /// The first latents of image to image: a picture's latents and as much noise as belongs to the first timestep.
    pub fn start_from(&self, latents: &[f32], noise: &[f32]) -> Vec<f32> {
        let mix = match self.kind {
            Kind::Euler | Kind::EulerAncestral => Mix(1.0, self.sigmas[self.begin]),
            Kind::Dpmpp2m | Kind::Dpmpp2mKarras => {
                let (alpha, sigma) = alpha_sigma(self.sigmas[self.begin]);
                Mix(alpha, sigma)
            }
            _ => {
                let alpha = self.alpha_at(self.timesteps[self.begin]);
                Mix(alpha.sqrt(), (1.0 - alpha).sqrt())
            }
        };
        mix.of(latents, noise)
    }

    /// What the UNet gets at call `index`.
    pub fn model_input(&self, index: usize, latents: &[f32]) -> Vec<f32> {
        match self.kind {
            Kind::Euler | Kind::EulerAncestral => {
                let sigma = self.sigmas[self.begin + index];
                let scale = (sigma * sigma + 1.0).sqrt();
                latents.iter().map(|x| (f64::from(*x) / scale) as f32).collect()
            }
            _ => latents.to_vec(),
        }
    }

    /// Turns `latents` into the next ones, with what the UNet gave at call `index`. `noise` draws as much noise as there are
    /// latents; it is called by the samplers that add some, in the reference's order.
    pub fn step(
        &mut self,
        index: usize,
        output: Vec<f32>,
        latents: &mut Vec<f32>,
        noise: &mut dyn FnMut() -> Vec<f32>,
    ) {
        let at = self.begin + index;
        match self.kind {
            Kind::Ddim => self.ddim(at, &output, latents),
            Kind::Pndm if self.history.made < self.runge_kutta.len() => self.runge_kutta(at, output, latents),
            Kind::Pndm => self.linear_multistep(at, output, latents),
            Kind::Euler => self.euler(at, &output, latents),
            Kind::EulerAncestral => self.euler_ancestral(at, &output, latents, noise),
            Kind::Dpmpp2m | Kind::Dpmpp2mKarras => self.dpm_solver(at, &output, latents),
            Kind::Lcm => self.lcm(at, &output, latents, noise),
        }
        self.history.made += 1;
    }

    /// DDIM with η = 0: Song et al. 2020, equation 12.
    fn ddim(&self, at: usize, output: &[f32], latents: &mut Vec<f32>) {
        let t = self.timesteps[at];
        let (alpha, next) = (self.alpha_at(t), self.alpha_at(t - self.stride as f64));
        let (picture, noise) = (self.picture(alpha), self.noise(alpha));
        let (signal, deviation) = (next.sqrt(), (1.0 - next).sqrt());
        let mix = Mix(signal * picture.0 + deviation * noise.0, signal * picture.1 + deviation * noise.1);
        *latents = mix.of(latents, output);
    }

    /// Liu et al. 2022, equation 13: four calls make a step.
    fn runge_kutta(&mut self, at: usize, output: Vec<f32>, latents: &mut Vec<f32>) {
        let call = self.history.made;
        let half = if call % 2 == 1 { 0 } else { self.stride / 2 };
        let to = self.timesteps[at] - half as f64;
        let from = self.runge_kutta[call / 4 * 4];
        let weight = [1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0][call % 4];
        let before = self.history.sum.take().unwrap_or_else(|| vec![0.0; output.len()]);
        let sum = Mix(1.0, weight).of(&before, &output);
        if call.is_multiple_of(4) {
            self.history.outputs.push(output.clone());
            self.history.sample = Some(latents.clone());
        }
        let sample = self.history.sample.clone().unwrap_or_else(|| latents.clone());
        if call % 4 == 3 {
            *latents = self.transfer(from, to, &sample, &sum);
        } else {
            *latents = self.transfer(from, to, &sample, &output);
            self.history.sum = Some(sum);
        }
    }

    /// Liu et al. 2022, equation 12.
    fn linear_multistep(&mut self, at: usize, output: Vec<f32>, latents: &mut Vec<f32>) {
        let (mut from, mut to) = (self.timesteps[at], self.timesteps[at] - self.stride as f64);
        let outputs = &mut self.history.outputs;
        let mut sample = std::mem::take(latents);
        let again = self.history.made == 1;
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
                sample = self.history.sample.take().unwrap_or(sample);
                Mix(0.5, 0.5).of(&output, last(1))
            }
            1 => {
                self.history.sample = Some(sample.clone());
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

    /// Liu et al. 2022, equation 9 (without dividing by zero at the end).
    fn transfer(&self, from: f64, to: f64, sample: &[f32], output: &[f32]) -> Vec<f32> {
        let (alpha, next) = (self.alpha_at(from), self.alpha_at(to));
        let divisor = alpha * (1.0 - next).sqrt() + (alpha * (1.0 - alpha) * next).sqrt();
        let (keep, change) = ((next / alpha).sqrt(), -(next - alpha) / divisor);
        let noise = self.noise(alpha);
        Mix(keep + change * noise.0, change * noise.1).of(sample, output)
    }

    /// Karras et al. 2022, algorithm 1 with Euler's method: `x + (x − picture) / σ · (σ' − σ)`.
    fn euler(&self, at: usize, output: &[f32], latents: &mut Vec<f32>) {
        let (sigma, next) = (self.sigmas[at], self.sigmas[at + 1]);
        *latents = self.towards(sigma, next).of(latents, output);
    }

    /// Euler's step to less noise than the next timestep's, and new noise up to that.
    fn euler_ancestral(&self, at: usize, output: &[f32], latents: &mut Vec<f32>, noise: &mut dyn FnMut() -> Vec<f32>) {
        let (from, to) = (self.sigmas[at], self.sigmas[at + 1]);
        let up = (to * to * (from * from - to * to) / (from * from)).sqrt();
        let down = (to * to - up * up).sqrt();
        let moved = self.towards(from, down).of(latents, output);
        *latents = Mix(1.0, up).of(&moved, &noise());
    }

    /// Euler's step from `sigma` to `next`, where latents are picture plus `sigma` times noise.
    fn towards(&self, sigma: f64, next: f64) -> Mix {
        let picture = match self.prediction {
            Prediction::Epsilon => Mix(1.0, -sigma),
            Prediction::VPrediction => {
                let variance = sigma * sigma + 1.0;
                Mix(1.0 / variance, -sigma / variance.sqrt())
            }
        };
        let part = (next - sigma) / sigma;
        Mix(1.0 + part * (1.0 - picture.0), -part * picture.1)
    }

    /// Lu et al. 2022, algorithm 2 (DPM-Solver++(2M)); the first and the last step are of first order.
    fn dpm_solver(&mut self, at: usize, output: &[f32], latents: &mut Vec<f32>) {
        let (alpha, sigma) = alpha_sigma(self.sigmas[at]);
        let (next_alpha, next_sigma) = alpha_sigma(self.sigmas[at + 1]);
        let picture = self.picture(alpha * alpha).of(latents, output);
        let log_snr = |sigma: f64| -libm::log(sigma);
        let last = self.sigmas[at + 1] == 0.0;
        let h = log_snr(self.sigmas[at + 1]) - log_snr(self.sigmas[at]);
        let weight = -next_alpha * if last { -1.0 } else { libm::expm1(-h) };
        let keep = next_sigma / sigma;
        *latents = match self.history.outputs.last() {
            Some(earlier) if !last => {
                let ratio = (log_snr(self.sigmas[at]) - log_snr(self.sigmas[at - 1])) / h;
                let slope = weight * 0.5 / ratio;
                weighted(&[(keep, latents), (weight + slope, &picture), (-slope, earlier)])
            }
            _ => Mix(keep, weight).of(latents, &picture),
        };
        self.history.outputs = vec![picture];
    }

    /// Luo et al. 2023, algorithm 3: the consistency function, and new noise for the next timestep.
    fn lcm(&self, at: usize, output: &[f32], latents: &mut Vec<f32>, noise: &mut dyn FnMut() -> Vec<f32>) {
        let t = self.timesteps[at];
        let picture = self.picture(self.alpha_at(t));
        let scaled = t * TIMESTEP_SCALE;
        let variance = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
        let (skip, out) = (SIGMA_DATA * SIGMA_DATA / variance, scaled / variance.sqrt());
        let denoised = Mix(out * picture.0 + skip, out * picture.1).of(latents, output);
        *latents = match self.timesteps.get(at + 1) {
            Some(next) if at + 1 < self.steps => {
                let alpha = self.alpha_at(*next);
                Mix(alpha.sqrt(), (1.0 - alpha).sqrt()).of(&denoised, &noise())
            }
            _ => denoised,
        };
    }

    /// Cumulative alpha at a timestep, the final one before the first.
    fn alpha_at(&self, t: f64) -> f64 {
        if t < 0.0 { self.final_alpha } else { self.alphas_cumprod[(t as usize).min(self.alphas_cumprod.len() - 1)] }
    }

    /// The picture that latents and UNet output foretell (`alpha`: cumulative).
    fn picture(&self, alpha: f64) -> Mix {
        let (signal, deviation) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        match self.prediction {
            Prediction::Epsilon => Mix(1.0 / signal, -deviation / signal),
            Prediction::VPrediction => Mix(signal, -deviation),
        }
    }

    /// The noise that they foretell.
    fn noise(&self, alpha: f64) -> Mix {
        match self.prediction {
            Prediction::Epsilon => Mix(0.0, 1.0),
            Prediction::VPrediction => Mix((1.0 - alpha).sqrt(), alpha.sqrt()),
        }
    }
}

impl Mix {
    fn of(self, a: &[f32], b: &[f32]) -> Vec<f32> {
        a.iter().zip(b).map(|(a, b)| (self.0 * f64::from(*a) + self.1 * f64::from(*b)) as f32).collect()
    }
}

fn weighted(parts: &[(f64, &[f32])]) -> Vec<f32> {
    let len = parts.first().map_or(0, |(_, values)| values.len());
    (0..len).map(|i| parts.iter().map(|(weight, values)| weight * f64::from(values[i])).sum::<f64>() as f32).collect()
}

fn works_in_sigmas(kind: Kind) -> bool {
    matches!(kind, Kind::Euler | Kind::EulerAncestral | Kind::Dpmpp2m | Kind::Dpmpp2mKarras)
}

/// Signal and noise of latents whose noise is `sigma` times their picture.
fn alpha_sigma(sigma: f64) -> (f64, f64) {
    let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
    (alpha, sigma * alpha)
}

fn check_steps(kind: Kind, config: &Config, steps: usize) -> Result<()> {
    let largest = match kind {
        Kind::Lcm => config.original_inference_steps.unwrap_or(50),
        Kind::Dpmpp2m | Kind::Dpmpp2mKarras => config.train_timesteps - 1,
        _ => config.train_timesteps,
    };
    let smallest = if kind == Kind::Pndm && config.skip_prk_steps != Some(true) { 4 } else { 1 };
    if (smallest..=largest).contains(&steps) {
        return Ok(());
    }
    let message = format!("{steps} is out of range; {kind} takes {smallest} to {largest} with this model");
    Err(Error::InvalidParam { field: "steps", message })
}
