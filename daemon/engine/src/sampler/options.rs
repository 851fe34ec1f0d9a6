//! What a model's scheduler file says of its default sampler, each sampler's own in a type beside it. Without a word the
//! reference's defaults hold, and the manifest has none of this.

use serde::{Deserialize, Serialize};

use super::clipping::Clipping;
use super::deis::DeisOptions;
use super::dpm_multistep::DpmMultistepOptions;
use super::dpm_singlestep::DpmSinglestepOptions;
use super::euler::EulerOptions;
use super::unipc::UnipcOptions;

/// The options of each sampler that has some.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplerOptions {
    /// Of `euler`.
    #[serde(skip_serializing_if = "is_default")]
    pub euler: EulerOptions,
    /// Of `dpmpp_2m` and `dpmpp_2m_sde`.
    #[serde(skip_serializing_if = "is_default")]
    pub dpm_multistep: DpmMultistepOptions,
    /// Of `dpmpp_2s`.
    #[serde(skip_serializing_if = "is_default")]
    pub dpm_singlestep: DpmSinglestepOptions,
    /// Of `deis`.
    #[serde(skip_serializing_if = "is_default")]
    pub deis: DeisOptions,
    /// Of `unipc`.
    #[serde(skip_serializing_if = "is_default")]
    pub unipc: UnipcOptions,
    /// Bounds of the predicted image: of `ddim`, `heun` and `lcm` of either kind, of the solvers a quantile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clipping: Option<Clipping>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl SamplerOptions {
    /// Whether the reference's defaults hold for every sampler.
    pub fn is_default(&self) -> bool {
        is_default(self)
    }

    /// Every order is one that the solvers have, and the ways to the last sigma fit.
    pub(crate) fn check(&self) -> Result<(), String> {
        let SamplerOptions { euler, dpm_multistep, dpm_singlestep, deis, unipc, clipping } = self;
        clipping.map_or(Ok(()), Clipping::check)?;
        let orders = [
            ("dpm_multistep", dpm_multistep.solver_order),
            ("dpm_singlestep", dpm_singlestep.solver_order),
            ("deis", deis.solver_order),
            ("unipc", unipc.solver_order),
        ];
        if let Some((name, order)) = orders.into_iter().find(|(_, order)| !(1..=MOST_ORDER).contains(order)) {
            return Err(format!("sampling.options.{name}.solver_order is {order}; allowed are 1 to {MOST_ORDER}"));
        }
        let sigmas = [("sigma_min", euler.sigma_min), ("sigma_max", euler.sigma_max)];
        let positive = |sigma: f64| sigma > 0.0 && sigma.is_finite();
        if let Some((name, _)) = sigmas.into_iter().find(|(_, sigma)| sigma.is_some_and(|sigma| !positive(sigma))) {
            return Err(format!("sampling.options.euler.{name} is not above 0"));
        }
        let noise_to_zero = |noise_prediction, last| noise_prediction && last == FinalSigma::Zero;
        let clash = noise_to_zero(dpm_multistep.noise_prediction, dpm_multistep.final_sigma)
            || noise_to_zero(dpm_singlestep.noise_prediction, dpm_singlestep.final_sigma);
        match clash {
            true => Err("sampling.options: noise_prediction needs the final_sigma \"sigma_min\"".into()),
            false => Ok(()),
        }
    }
}

/// The highest order of a multistep solver.
pub const MOST_ORDER: usize = 3;

/// Where the last step ends (`final_sigmas_type`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigma {
    /// Without noise.
    #[default]
    Zero,
    /// At the smallest sigma of the training timesteps.
    SigmaMin,
}
