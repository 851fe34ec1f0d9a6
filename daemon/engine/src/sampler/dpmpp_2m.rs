//! DPM-Solver++(2M) (Lu et al. 2022, <https://arxiv.org/abs/2211.01095>, algorithm 2), as diffusers'
//! `DPMSolverMultistepScheduler`, on the model's own sigmas or on Karras'.

use std::sync::Arc;

use super::method::{Method, Mix, weighted};
use super::{BetaSchedule, History, Prediction, SamplingConfig, Spacing, schedule};

#[derive(Debug)]
pub(super) struct Dpmpp2m {
    prediction: Prediction,
    timesteps: Vec<f64>,
    /// Before each call and after the last.
    sigmas: Vec<f64>,
}

impl Dpmpp2m {
    /// On the sigmas of `steps` timesteps. The way is divided into one part more, and its end is left out.
    pub(super) fn new(config: &SamplingConfig, steps: usize) -> Dpmpp2m {
        let timesteps = match config.spacing.unwrap_or(Spacing::Linspace) {
            Spacing::Trailing => schedule::timesteps(config, Spacing::Trailing, steps),
            spacing => {
                let mut timesteps = schedule::timesteps(config, spacing, steps + 1);
                timesteps.pop();
                timesteps
            }
        };
        let timesteps: Vec<f64> = timesteps.into_iter().map(libm::rint).collect();
        Dpmpp2m::on(schedule::sigmas(config, &timesteps), timesteps, config)
    }

    /// On Karras' sigmas and the timesteps that are nearest to them.
    pub(super) fn on_karras_sigmas(config: &SamplingConfig, steps: usize) -> Dpmpp2m {
        let round = config.beta_schedule != BetaSchedule::SquaredcosCapV2;
        let (sigmas, timesteps) = schedule::karras(&schedule::training_sigmas(config), steps, round);
        Dpmpp2m::on(sigmas, timesteps, config)
    }

    fn on(sigmas: Vec<f64>, timesteps: Vec<f64>, config: &SamplingConfig) -> Dpmpp2m {
        let sigmas = schedule::up_to_zero(sigmas);
        Dpmpp2m { prediction: config.prediction, timesteps, sigmas }
    }
}

impl Method for Dpmpp2m {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn noised(&self, call: usize) -> Mix {
        let (alpha, sigma) = alpha_sigma(self.sigmas[call]);
        Mix(alpha, sigma)
    }

    /// The first and the last step are of first order; the second needs the image that the earlier call predicted.
    fn step(
        &self,
        call: usize,
        history: &mut History,
        output: Vec<f32>,
        latents: &[f32],
        _: &mut dyn FnMut() -> Vec<f32>,
    ) -> Vec<f32> {
        let (sigma, next) = (self.sigmas[call], self.sigmas[call + 1]);
        let (alpha, deviation) = alpha_sigma(sigma);
        let (next_alpha, next_deviation) = alpha_sigma(next);
        let image = self.prediction.image(alpha * alpha).of(latents, &output);
        let log_snr = |sigma: f64| -libm::log(sigma);
        let last = next == 0.0;
        let h = log_snr(next) - log_snr(sigma);
        let weight = -next_alpha * if last { -1.0 } else { libm::expm1(-h) };
        let keep = next_deviation / deviation;
        let next_latents = match history.outputs.pop() {
            Some(earlier) if !last => {
                let ratio = (log_snr(sigma) - log_snr(self.sigmas[call - 1])) / h;
                let slope = weight * 0.5 / ratio;
                weighted(&[(keep, latents), (weight + slope, &image), (-slope, &earlier)])
            }
            _ => Mix(keep, weight).of(latents, &image),
        };
        history.outputs.push(Arc::new(image));
        next_latents
    }
}

/// Signal and deviation of latents whose noise is `sigma` times their image.
fn alpha_sigma(sigma: f64) -> (f64, f64) {
    let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
    (alpha, sigma * alpha)
}
