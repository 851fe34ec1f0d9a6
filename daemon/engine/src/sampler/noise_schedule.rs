//! The noise schedules that a request may choose beside the sampler, under A1111's names: how the timesteps lie, or how
//! the sigmas do. Each is what diffusers' schedulers do with the option of that name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Spacing;
use super::names::plain;
use crate::error::Error;

/// How the steps lie in the noise schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoiseSchedule {
    /// Evenly from the last timestep to the first.
    Uniform,
    /// Karras et al. 2022, equation 5: more steps where there is little noise.
    Karras,
    /// Evenly in the logarithm of sigma.
    Exponential,
    /// From the last timestep, counted down by whole steps (diffusers: trailing).
    SgmUniform,
    /// As `SgmUniform`.
    Simple,
    /// As `Uniform`.
    Normal,
    /// Multiples of a whole step, and 1 more (diffusers: leading).
    DdimUniform,
    /// By the beta distribution: more steps at both ends (Lee et al. 2024).
    Beta,
    /// The sigmas that Sabour et al. 2024 found for Stable Diffusion 1.
    AlignYourSteps,
    /// The ones for SDXL.
    AlignYourStepsXl,
}

/// How sigmas lie that are not those of evenly spaced timesteps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum SigmaCurve {
    Karras,
    Exponential,
    Beta,
    /// Lu et al. 2022: evenly in the logarithm, and timesteps are rounded.
    Lu,
    /// Eleven sigmas for ten steps.
    AlignYourSteps(&'static [f64]),
}

impl SigmaCurve {
    /// Whether the solvers that take whole timesteps round those of this curve.
    pub(super) fn is_rounded(self) -> bool {
        matches!(self, SigmaCurve::Karras | SigmaCurve::Lu)
    }
}

/// As published with the paper for ten steps; the last is where the last step ends if noise is to be left.
const STABLE_DIFFUSION: [f64; 11] = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029];
const STABLE_DIFFUSION_XL: [f64; 11] = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029];

impl NoiseSchedule {
    /// Every schedule.
    pub const ALL: [NoiseSchedule; 10] = [
        NoiseSchedule::Uniform,
        NoiseSchedule::Karras,
        NoiseSchedule::Exponential,
        NoiseSchedule::SgmUniform,
        NoiseSchedule::Simple,
        NoiseSchedule::Normal,
        NoiseSchedule::DdimUniform,
        NoiseSchedule::Beta,
        NoiseSchedule::AlignYourSteps,
        NoiseSchedule::AlignYourStepsXl,
    ];

    /// Its name in requests and results.
    pub fn name(self) -> &'static str {
        match self {
            NoiseSchedule::Uniform => "uniform",
            NoiseSchedule::Karras => "karras",
            NoiseSchedule::Exponential => "exponential",
            NoiseSchedule::SgmUniform => "sgm_uniform",
            NoiseSchedule::Simple => "simple",
            NoiseSchedule::Normal => "normal",
            NoiseSchedule::DdimUniform => "ddim_uniform",
            NoiseSchedule::Beta => "beta",
            NoiseSchedule::AlignYourSteps => "align_your_steps",
            NoiseSchedule::AlignYourStepsXl => "align_your_steps_xl",
        }
    }

    /// Its name as A1111 shows it.
    pub fn label(self) -> &'static str {
        match self {
            NoiseSchedule::Uniform => "Uniform",
            NoiseSchedule::Karras => "Karras",
            NoiseSchedule::Exponential => "Exponential",
            NoiseSchedule::SgmUniform => "SGM Uniform",
            NoiseSchedule::Simple => "Simple",
            NoiseSchedule::Normal => "Normal",
            NoiseSchedule::DdimUniform => "DDIM",
            NoiseSchedule::Beta => "Beta",
            NoiseSchedule::AlignYourSteps | NoiseSchedule::AlignYourStepsXl => "Align Your Steps",
        }
    }

    /// How timesteps are spaced; where the sigmas lie otherwise, what they lie between.
    pub(super) fn spacing(self) -> Spacing {
        match self {
            NoiseSchedule::SgmUniform | NoiseSchedule::Simple => Spacing::Trailing,
            NoiseSchedule::DdimUniform => Spacing::Leading,
            _ => Spacing::Linspace,
        }
    }

    /// How the sigmas lie, unless as the timesteps do.
    pub(super) fn curve(self) -> Option<SigmaCurve> {
        match self {
            NoiseSchedule::Karras => Some(SigmaCurve::Karras),
            NoiseSchedule::Exponential => Some(SigmaCurve::Exponential),
            NoiseSchedule::Beta => Some(SigmaCurve::Beta),
            NoiseSchedule::AlignYourSteps => Some(SigmaCurve::AlignYourSteps(&STABLE_DIFFUSION)),
            NoiseSchedule::AlignYourStepsXl => Some(SigmaCurve::AlignYourSteps(&STABLE_DIFFUSION_XL)),
            NoiseSchedule::Uniform
            | NoiseSchedule::SgmUniform
            | NoiseSchedule::Simple
            | NoiseSchedule::Normal
            | NoiseSchedule::DdimUniform => None,
        }
    }
}

impl fmt::Display for NoiseSchedule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for NoiseSchedule {
    type Err = Error;

    /// Our names, A1111's, in any case, with blanks or underscores.
    fn from_str(text: &str) -> Result<NoiseSchedule, Error> {
        let wanted = plain(text);
        let known = |schedule: &NoiseSchedule| wanted == schedule.name() || wanted == plain(schedule.label());
        NoiseSchedule::ALL.into_iter().find(known).ok_or_else(|| Error::InvalidParam {
            field: "scheduler",
            message: format!(
                "\"{text}\" is unknown; known are automatic, {}",
                NoiseSchedule::ALL.map(NoiseSchedule::name).join(", ")
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_known() {
        for schedule in NoiseSchedule::ALL {
            assert_eq!(schedule.name().parse::<NoiseSchedule>().unwrap(), schedule);
            assert_eq!(serde_json::to_value(schedule).unwrap(), schedule.name());
            let labelled: NoiseSchedule = schedule.label().to_uppercase().parse().unwrap();
            assert_eq!(labelled.label(), schedule.label());
        }
        let message = "Turbo".parse::<NoiseSchedule>().unwrap_err().to_string();
        assert!(message.contains("Turbo") && message.contains("automatic, uniform"), "{message}");
    }
}
