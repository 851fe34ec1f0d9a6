//! What the DPM-Solvers share (Lu et al. 2022, <https://arxiv.org/abs/2206.00927>, and DPM-Solver++,
//! <https://arxiv.org/abs/2211.01095>): the exact solution of the diffusion's linear part, and factors of what stands in
//! for the rest, as diffusers' `DPMSolverMultistepScheduler` and `DPMSolverSinglestepScheduler` have them.

use serde::{Deserialize, Serialize};

use super::Prediction;
use super::clipping::Clipping;
use super::method::Mix;

/// How the second order is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DpmSolverType {
    /// With half the slope.
    #[default]
    Midpoint,
    /// With the slope's own integral.
    Heun,
}

/// What is extrapolated, within which bounds, and whether noise is added.
#[derive(Debug, Clone, Copy)]
pub(super) struct Algorithm {
    /// The predicted noise, not the predicted image.
    pub(super) of_noise: bool,
    /// A step adds noise.
    pub(super) stochastic: bool,
    /// Bounds of the predicted image.
    pub(super) clipping: Option<Clipping>,
}

/// Signal and deviation of latents whose noise is `sigma` times their image.
pub(super) fn alpha_sigma(sigma: f64) -> (f64, f64) {
    let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
    (alpha, sigma * alpha)
}

/// An image's latents and noise, mixed as latents at `sigma` are.
pub(super) fn noised(sigma: f64) -> Mix {
    let (alpha, deviation) = alpha_sigma(sigma);
    Mix(alpha, deviation)
}

/// Half the logarithm of the signal-to-noise ratio.
pub(super) fn log_snr(sigma: f64) -> f64 {
    -libm::log(sigma)
}

impl Algorithm {
    /// What is extrapolated, from latents at `sigma` and the UNet's output.
    pub(super) fn model_value(self, prediction: Prediction, sigma: f64, latents: &[f32], output: &[f32]) -> Vec<f32> {
        let (alpha, deviation) = alpha_sigma(sigma);
        let (image, noise) = (prediction.image(alpha * alpha), prediction.noise(alpha * alpha));
        match (self.clipping, self.of_noise) {
            (None, of_noise) => if of_noise { noise } else { image }.of(latents, output),
            (Some(clipping), false) => clipping.image(image, latents, output),
            (Some(clipping), true) => {
                Mix(1.0 / deviation, -alpha / deviation).of(latents, &clipping.image(image, latents, output))
            }
        }
    }

    /// The step from `sigma` to `next`.
    pub(super) fn step(self, sigma: f64, next: f64) -> DpmStep {
        let (alpha, deviation) = alpha_sigma(sigma);
        let (next_alpha, next_deviation) = alpha_sigma(next);
        let h = log_snr(next) - log_snr(sigma);
        match self {
            Algorithm { of_noise: false, stochastic: false, .. } => {
                let value = -next_alpha * libm::expm1(-h);
                DpmStep {
                    h,
                    keep: next_deviation / deviation,
                    value,
                    half_slope: value * 0.5,
                    slope: next_alpha * (libm::expm1(-h) / h + 1.0),
                    curvature: -next_alpha * ((libm::expm1(-h) + h) / (h * h) - 0.5),
                    noise: 0.0,
                }
            }
            Algorithm { of_noise: true, stochastic: false, .. } => {
                let value = -next_deviation * libm::expm1(h);
                DpmStep {
                    h,
                    keep: next_alpha / alpha,
                    value,
                    half_slope: value * 0.5,
                    slope: -next_deviation * (libm::expm1(h) / h - 1.0),
                    curvature: -next_deviation * ((libm::expm1(h) - h) / (h * h) - 0.5),
                    noise: 0.0,
                }
            }
            Algorithm { of_noise: false, stochastic: true, .. } => {
                let twice = 2.0 * h;
                let value = -next_alpha * libm::expm1(-twice);
                DpmStep {
                    h,
                    keep: next_deviation / deviation * libm::exp(-h),
                    value,
                    half_slope: value * 0.5,
                    slope: next_alpha * (libm::expm1(-twice) / twice + 1.0),
                    curvature: next_alpha * ((-libm::expm1(-twice) - twice) / (twice * twice) - 0.5),
                    noise: next_deviation * (-libm::expm1(-twice)).sqrt(),
                }
            }
            Algorithm { of_noise: true, stochastic: true, .. } => {
                let value = -2.0 * next_deviation * libm::expm1(h);
                DpmStep {
                    h,
                    keep: next_alpha / alpha,
                    value,
                    half_slope: value * 0.5,
                    slope: -2.0 * next_deviation * (libm::expm1(h) / h - 1.0),
                    curvature: 0.0,
                    noise: next_deviation * libm::expm1(2.0 * h).sqrt(),
                }
            }
        }
    }
}

/// Factors of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct DpmStep {
    /// How far log-SNR goes.
    pub(super) h: f64,
    /// Of the latents.
    pub(super) keep: f64,
    /// Of the model's value.
    pub(super) value: f64,
    /// Of its slope, by the midpoint rule.
    half_slope: f64,
    /// Of its slope, integrated.
    pub(super) slope: f64,
    /// Of its second difference.
    pub(super) curvature: f64,
    /// Of new noise.
    pub(super) noise: f64,
}

impl DpmStep {
    /// The factor of the slope in a step of second order.
    pub(super) fn slope_by(&self, solver: DpmSolverType) -> f64 {
        match solver {
            DpmSolverType::Midpoint => self.half_slope,
            DpmSolverType::Heun => self.slope,
        }
    }
}
