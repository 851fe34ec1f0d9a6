//! What a sampler is made of, and the arithmetic that several of them share.

use std::fmt::Debug;

use super::{History, Prediction, SamplingConfig, schedule};

/// What a sampler does at each call of the UNet. Calls are counted from 0, those that the strength leaves out included.
pub(super) trait Method: Debug + Send + Sync {
    /// The timestep of each call.
    fn timesteps(&self) -> &[f64];

    /// The first call of a step.
    fn first_call(&self, step: usize) -> usize {
        step
    }

    /// The deviation of text to image's first latents.
    fn noise_scale(&self) -> f64 {
        1.0
    }

    /// Factors of an image's latents and of noise, mixed as the latents before `call` are.
    fn noised(&self, call: usize) -> Mix;

    /// Factors of the image and of noise in the latents that the UNet sees at `call`.
    fn seen(&self, call: usize) -> Mix {
        self.noised(call)
    }

    /// The UNet's input is the latents divided by this.
    fn input_divisor(&self, _call: usize) -> f64 {
        1.0
    }

    /// The latents after `call`, see `Sampler::step`. What later calls need of this one goes into `history`, whose count
    /// of calls is the sampler's.
    fn step(
        &self,
        call: usize,
        history: &mut History,
        output: Vec<f32>,
        latents: &[f32],
        draws: &mut NoiseDraws,
    ) -> Vec<f32>;
}

/// Where a step's noise comes from.
pub struct NoiseDraws<'a> {
    /// As many standard normals as there are latents, the next of the painting.
    pub next: &'a mut dyn FnMut() -> Vec<f32>,
    /// As many, the first of a generator with this seed.
    pub of_seed: &'a dyn Fn(u32) -> Vec<f32>,
    /// The painting's seed.
    pub seed: u64,
}

impl NoiseDraws<'_> {
    /// The next standard normals.
    pub(super) fn normals(&mut self) -> Vec<f32> {
        (self.next)()
    }
}

/// Factors of two values that are added, mostly latents and the UNet's output.
#[derive(Clone, Copy)]
pub(super) struct Mix(pub(super) f64, pub(super) f64);

impl Mix {
    /// Latents of an image (deviation 1) with so much noise that the cumulative alpha is `alpha`.
    pub(super) fn of_alpha(alpha: f64) -> Mix {
        Mix(alpha.sqrt(), (1.0 - alpha).sqrt())
    }

    pub(super) fn of(self, a: &[f32], b: &[f32]) -> Vec<f32> {
        a.iter().zip(b).map(|(a, b)| (self.0 * f64::from(*a) + self.1 * f64::from(*b)) as f32).collect()
    }
}

/// The sum of values, each times its weight.
pub(super) fn weighted(parts: &[(f64, &[f32])]) -> Vec<f32> {
    let len = parts.first().map_or(0, |(_, values)| values.len());
    (0..len).map(|i| parts.iter().map(|(weight, values)| weight * f64::from(values[i])).sum::<f64>() as f32).collect()
}

impl Prediction {
    /// The image in latents and the UNet's output (`alpha`: cumulative).
    pub(super) fn image(self, alpha: f64) -> Mix {
        let (signal, deviation) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        match self {
            Prediction::Epsilon => Mix(1.0 / signal, -deviation / signal),
            Prediction::VPrediction => Mix(signal, -deviation),
        }
    }

    /// The image in latents and the UNet's output, where the latents are a `Mix` of an image and of noise.
    pub(super) fn image_in(self, Mix(signal, deviation): Mix) -> Mix {
        match self {
            Prediction::Epsilon => Mix(1.0 / signal, -deviation / signal),
            Prediction::VPrediction => {
                let variance = signal * signal + deviation * deviation;
                Mix(signal / variance, -deviation / variance.sqrt())
            }
        }
    }

    /// The noise in latents and the UNet's output.
    pub(super) fn noise(self, alpha: f64) -> Mix {
        match self {
            Prediction::Epsilon => Mix(0.0, 1.0),
            Prediction::VPrediction => Mix((1.0 - alpha).sqrt(), alpha.sqrt()),
        }
    }
}

/// Cumulative alphas by timestep, for the samplers that work in them.
#[derive(Debug, Clone)]
pub(super) struct Alphas {
    training: Vec<f64>,
    /// After the last step.
    last: f64,
}

impl Alphas {
    /// `to_one`: the last step goes to alpha 1, not to the first training alpha.
    pub(super) fn new(config: &SamplingConfig, to_one: bool) -> Alphas {
        let training = schedule::alphas_cumprod(config);
        Alphas { last: if to_one { 1.0 } else { training[0] }, training }
    }

    /// At a timestep; those below 0 are after the last step.
    pub(super) fn at(&self, t: f64) -> f64 {
        if t < 0.0 { self.last } else { self.training[(t as usize).min(self.training.len() - 1)] }
    }
}
