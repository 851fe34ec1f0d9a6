//! Which sampler paints, and how: what a request says of it, and what it means for a model.

use std::str::FromStr;

use super::names::plain;
use super::noise_schedule::SigmaCurve;
use super::{NoiseSchedule, SamplerKind, SamplerOptions, SamplingConfig};
use crate::error::{Error, Result};

/// TCD's `eta` by the reference's default.
const TCD_ETA: f64 = 0.3;

/// A sampler with what requests may say of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplerChoice {
    /// The sampler.
    pub kind: SamplerKind,
    /// Its noise schedule; `None`: its own.
    pub schedule: Option<NoiseSchedule>,
    /// How much new noise a step adds, 0 to 1; `None`: as much as the sampler does by itself.
    pub eta: Option<f64>,
}

impl From<SamplerKind> for SamplerChoice {
    fn from(kind: SamplerKind) -> SamplerChoice {
        SamplerChoice { kind, schedule: None, eta: None }
    }
}

/// A sampler's name may have its noise schedule at its end, as A1111 had it until 1.8: "DPM++ 2M SDE Karras".
impl FromStr for SamplerChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<SamplerChoice> {
        let unknown = match text.parse::<SamplerKind>() {
            Ok(kind) => return Ok(kind.into()),
            Err(unknown) => unknown,
        };
        let whole = plain(text);
        let kind = |end: &str| whole.strip_suffix(end)?.strip_suffix('_')?.parse::<SamplerKind>().ok();
        let both = |schedule: NoiseSchedule| {
            let kind = kind(schedule.name()).or_else(|| kind(&plain(schedule.label())))?;
            Some(SamplerChoice { schedule: Some(schedule), ..SamplerChoice::from(kind) })
        };
        NoiseSchedule::ALL.into_iter().find_map(both).ok_or(unknown)
    }
}

impl SamplerChoice {
    /// The keys of a request that have no effect with this sampler.
    pub fn unused_keys(self) -> impl Iterator<Item = &'static str> {
        let schedule = self.schedule.filter(|schedule| !self.kind.takes(*schedule)).map(|_| "scheduler");
        let eta = self.eta.filter(|_| self.kind.default_eta().is_none()).map(|_| "eta");
        schedule.into_iter().chain(eta)
    }

    /// How much new noise a step adds.
    pub(super) fn eta(self) -> f64 {
        let default = self.kind.default_eta().unwrap_or(0.0);
        self.eta.unwrap_or(default)
    }

    /// What the sampler makes of the model: its configuration with the spacing of this choice, and the curve of the
    /// sigmas. What the scheduler file says holds for the model's own sampler alone.
    pub(super) fn applied(self, config: &SamplingConfig) -> (SamplingConfig, Option<SigmaCurve>) {
        let (kind, karras) = self.kind.base();
        let own = kind == config.default.base().0;
        let mut config = SamplingConfig {
            rescale_betas_zero_snr: config.rescale_betas_zero_snr && kind.knows_zero_snr(),
            options: if own { config.options.clone() } else { SamplerOptions::default() },
            ..config.clone()
        };
        let schedule = self.schedule.filter(|schedule| kind.takes(*schedule));
        let of_model = config.schedule.filter(|_| own);
        let curve = match schedule.or(of_model) {
            Some(schedule) => schedule.curve(),
            None => karras.then_some(SigmaCurve::Karras),
        };
        if let Some(schedule) = schedule.filter(|schedule| of_model != Some(*schedule)) {
            config.spacing = Some(schedule.spacing());
            if schedule == NoiseSchedule::DdimUniform {
                config.steps_offset = Some(1);
            }
        }
        (config, curve)
    }
}

impl SamplerKind {
    /// The sampler without the noise schedule that is part of its name: Karras' or none.
    fn base(self) -> (SamplerKind, bool) {
        match self {
            SamplerKind::Dpmpp2mKarras => (SamplerKind::Dpmpp2m, true),
            kind => (kind, false),
        }
    }

    /// Whether the sampler can go through the noise schedule so.
    fn takes(self, schedule: NoiseSchedule) -> bool {
        match self {
            SamplerKind::Lcm | SamplerKind::Tcd => false,
            SamplerKind::Ddim | SamplerKind::Pndm => schedule.curve().is_none(),
            SamplerKind::Dpmpp2s => schedule.curve().is_some() || schedule.spacing() == super::Spacing::Linspace,
            _ => true,
        }
    }

    /// How much new noise a step adds by itself; `None` where nothing can be chosen.
    fn default_eta(self) -> Option<f64> {
        match self {
            SamplerKind::Ddim => Some(0.0),
            SamplerKind::EulerAncestral | SamplerKind::Dpm2Ancestral => Some(1.0),
            SamplerKind::Tcd => Some(TCD_ETA),
            _ => None,
        }
    }

    /// Whether the reference's scheduler has `rescale_betas_zero_snr`. The others sample a model that was trained so on
    /// the betas as they are.
    fn knows_zero_snr(self) -> bool {
        match self {
            SamplerKind::Ddim
            | SamplerKind::Euler
            | SamplerKind::EulerAncestral
            | SamplerKind::Dpmpp2m
            | SamplerKind::Dpmpp2mKarras
            | SamplerKind::Dpmpp2mSde
            | SamplerKind::Unipc
            | SamplerKind::Lcm
            | SamplerKind::Tcd => true,
            SamplerKind::Pndm
            | SamplerKind::Heun
            | SamplerKind::Lms
            | SamplerKind::Dpm2
            | SamplerKind::Dpm2Ancestral
            | SamplerKind::Dpmpp2s
            | SamplerKind::DpmppSde
            | SamplerKind::Deis => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_its_schedule_at_its_end() {
        let choice = |text: &str| text.parse::<SamplerChoice>().map(|choice| (choice.kind, choice.schedule)).unwrap();
        let karras = Some(NoiseSchedule::Karras);
        assert_eq!(choice("DPM++ 2M SDE Karras"), (SamplerKind::Dpmpp2mSde, karras));
        assert_eq!(choice("dpm2_ancestral_karras"), (SamplerKind::Dpm2Ancestral, karras));
        assert_eq!(choice("DPM++ 2M SDE Exponential"), (SamplerKind::Dpmpp2mSde, Some(NoiseSchedule::Exponential)));
        assert_eq!(choice("DPM++ 2M Karras"), (SamplerKind::Dpmpp2mKarras, None));
        assert_eq!(choice("Euler SGM Uniform"), (SamplerKind::Euler, Some(NoiseSchedule::SgmUniform)));
        assert_eq!(choice("Euler a"), (SamplerKind::EulerAncestral, None));
        for unknown in ["karras", "Euler b Karras", ""] {
            assert!(unknown.parse::<SamplerChoice>().is_err(), "{unknown}");
        }
    }

    #[test]
    fn what_has_no_effect_is_known() {
        let unused = |kind, schedule, eta| SamplerChoice { kind, schedule, eta }.unused_keys().collect::<Vec<_>>();
        let karras = Some(NoiseSchedule::Karras);
        assert_eq!(unused(SamplerKind::Ddim, karras, Some(0.5)), ["scheduler"]);
        assert_eq!(unused(SamplerKind::Euler, karras, Some(0.5)), ["eta"]);
        assert_eq!(unused(SamplerKind::Lcm, Some(NoiseSchedule::Uniform), Some(0.5)), ["scheduler", "eta"]);
        assert!(unused(SamplerKind::Ddim, Some(NoiseSchedule::SgmUniform), None).is_empty());
    }
}
