//! What the samplers share whose latents are the image plus `sigma` times standard normal noise (Karras et al. 2022,
//! <https://arxiv.org/abs/2206.00364>).

use super::method::Mix;
use super::options::FinalSigma;
use super::sigmas::{Route, Sigmas, last_sigma};
use super::{Prediction, Spacing, schedule};

/// The sigmas of a route and what the UNet makes of latents there.
#[derive(Debug)]
pub(super) struct SigmaSpace {
    prediction: Prediction,
    /// Before each step.
    pub(super) timesteps: Vec<f64>,
    /// Before each step and after the last.
    pub(super) sigmas: Vec<f64>,
    /// The first latents' deviation is the largest sigma, without the image's own.
    starts_at_sigma: bool,
    /// Of the training timesteps.
    training: Vec<f64>,
}

impl SigmaSpace {
    /// Ends without noise.
    pub(super) fn new(route: &Route) -> SigmaSpace {
        SigmaSpace::within(route, (None, None), FinalSigma::Zero)
    }

    /// Ends at `last`; `bounds` are a curve's smallest and largest sigma.
    pub(super) fn within(route: &Route, bounds: (Option<f64>, Option<f64>), last: FinalSigma) -> SigmaSpace {
        SigmaSpace::of(route, Sigmas::between_spaced(route, bounds), last)
    }

    /// Ends without noise, with the reference's sigmas to the last bit.
    pub(super) fn exact(route: &Route) -> SigmaSpace {
        SigmaSpace::of(route, Sigmas::between_spaced_exactly(route), FinalSigma::Zero)
    }

    fn of(route: &Route, on: Sigmas, last: FinalSigma) -> SigmaSpace {
        SigmaSpace {
            prediction: route.config.prediction,
            sigmas: on.up_to(last_sigma(route.config, last)),
            timesteps: on.timesteps,
            starts_at_sigma: route.config.spacing.unwrap_or(Spacing::Linspace) != Spacing::Leading,
            training: schedule::training_sigmas(route.config),
        }
    }

    /// Where training has the noise of `sigma`.
    pub(super) fn timestep(&self, sigma: f64) -> f64 {
        schedule::timestep(&self.training, sigma)
    }

    /// The deviation of text to image's first latents.
    pub(super) fn noise_scale(&self) -> f64 {
        let sigma = self.sigmas.iter().copied().fold(0.0, f64::max);
        if self.starts_at_sigma { sigma } else { input_divisor(sigma) }
    }

    /// The image in latents at `sigma` and the UNet's output.
    pub(super) fn image(&self, sigma: f64) -> Mix {
        match self.prediction {
            Prediction::Epsilon => Mix(1.0, -sigma),
            Prediction::VPrediction => {
                let variance = sigma * sigma + 1.0;
                Mix(1.0 / variance, -sigma / variance.sqrt())
            }
        }
    }

    /// Equation 3: how latents change with sigma, `(x − image) / σ`.
    pub(super) fn derivative(&self, sigma: f64) -> Mix {
        let image = self.image(sigma);
        Mix((1.0 - image.0) / sigma, -image.1 / sigma)
    }

    /// Equation 6 from `sigma` to `next`: `x + (x − image) / σ · (σ' − σ)`, as factors of latents and the UNet's output.
    pub(super) fn towards(&self, sigma: f64, next: f64) -> Mix {
        let image = self.image(sigma);
        let part = (next - sigma) / sigma;
        Mix(1.0 + part * (1.0 - image.0), -part * image.1)
    }
}

/// Steps of two calls, the second at a sigma in between, but for the last, which has one.
#[derive(Debug)]
pub(super) struct HalfwaySteps {
    pub(super) space: SigmaSpace,
    /// Of each call.
    pub(super) timesteps: Vec<f64>,
    /// Of each step's second call; of the last step without meaning.
    pub(super) middles: Vec<f64>,
}

impl HalfwaySteps {
    pub(super) fn new(space: SigmaSpace, middles: Vec<f64>) -> HalfwaySteps {
        let both = space.timesteps.iter().zip(&middles).flat_map(|(t, middle)| [*t, space.timestep(*middle)]);
        let calls = 2 * space.timesteps.len() - 1;
        HalfwaySteps { timesteps: both.take(calls).collect(), middles, space }
    }

    /// The sigma of the latents that the UNet sees.
    pub(super) fn sigma(&self, call: usize) -> f64 {
        if call.is_multiple_of(2) { self.space.sigmas[call / 2] } else { self.middles[call / 2] }
    }

    /// Between the calls of a step as at its end, as the reference has it.
    pub(super) fn noised(&self, call: usize) -> Mix {
        Mix(1.0, self.space.sigmas[call.div_ceil(2)])
    }
}

/// Latents at `sigma` are divided by this before the UNet sees them.
pub(super) fn input_divisor(sigma: f64) -> f64 {
    (sigma * sigma + 1.0).sqrt()
}

/// A step with new noise, from one sigma to another: how far it goes without noise, and how much noise leads up again
/// (k-diffusion's `get_ancestral_step`). With an `eta` of 0 there is none.
pub(super) fn ancestral(from: f64, to: f64, eta: f64) -> (f64, f64) {
    let up = (eta * (to * to * (from * from - to * to) / (from * from)).sqrt()).min(to);
    ((to * to - up * up).sqrt(), up)
}
