//! The schedulers that people's models name, by diffusers' classes: which of our samplers does the same, or comes nearest.

use diffused_engine::sampler::{BetaSchedule, SamplerKind};

/// A scheduler of diffusers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SchedulerClass {
    /// Its name, the value of `_class_name`.
    pub(super) name: &'static str,
    /// Our sampler.
    pub(super) kind: SamplerKind,
    /// Ours does the same; else it is the nearest.
    pub(super) same: bool,
    /// `beta_start`, `beta_end` and `beta_schedule` where the file is silent.
    pub(super) betas: (f64, f64, BetaSchedule),
}

const LINEAR: (f64, f64, BetaSchedule) = (0.0001, 0.02, BetaSchedule::Linear);
const STABLE_LINEAR: (f64, f64, BetaSchedule) = (0.00085, 0.012, BetaSchedule::Linear);
const STABLE: (f64, f64, BetaSchedule) = (0.00085, 0.012, BetaSchedule::ScaledLinear);

const fn same(name: &'static str, kind: SamplerKind, betas: (f64, f64, BetaSchedule)) -> SchedulerClass {
    SchedulerClass { name, kind, same: true, betas }
}

const fn near(name: &'static str, kind: SamplerKind, betas: (f64, f64, BetaSchedule)) -> SchedulerClass {
    SchedulerClass { name, kind, same: false, betas }
}

/// Every class that samples models of this kind. Solvers of the same order come nearest: DPM++ 2M for those that add no
/// noise, Euler with ancestral noise for those that do.
const CLASSES: [SchedulerClass; 21] = [
    same("DDIMScheduler", SamplerKind::Ddim, LINEAR),
    same("DDIMParallelScheduler", SamplerKind::Ddim, LINEAR),
    same("PNDMScheduler", SamplerKind::Pndm, LINEAR),
    same("EulerDiscreteScheduler", SamplerKind::Euler, LINEAR),
    same("EulerAncestralDiscreteScheduler", SamplerKind::EulerAncestral, LINEAR),
    same("DPMSolverMultistepScheduler", SamplerKind::Dpmpp2m, LINEAR),
    same("LCMScheduler", SamplerKind::Lcm, STABLE),
    same("DEISMultistepScheduler", SamplerKind::Deis, LINEAR),
    same("DPMSolverSDEScheduler", SamplerKind::DpmppSde, STABLE_LINEAR),
    same("DPMSolverSinglestepScheduler", SamplerKind::Dpmpp2s, LINEAR),
    same("HeunDiscreteScheduler", SamplerKind::Heun, STABLE_LINEAR),
    same("KDPM2AncestralDiscreteScheduler", SamplerKind::Dpm2Ancestral, STABLE_LINEAR),
    same("KDPM2DiscreteScheduler", SamplerKind::Dpm2, STABLE_LINEAR),
    same("LMSDiscreteScheduler", SamplerKind::Lms, LINEAR),
    same("TCDScheduler", SamplerKind::Tcd, STABLE),
    same("UniPCMultistepScheduler", SamplerKind::Unipc, LINEAR),
    near("DDPMParallelScheduler", SamplerKind::EulerAncestral, LINEAR),
    near("DDPMScheduler", SamplerKind::EulerAncestral, LINEAR),
    near("IPNDMScheduler", SamplerKind::Pndm, LINEAR),
    near("SASolverScheduler", SamplerKind::Dpmpp2m, LINEAR),
    near("ScoreSdeVeScheduler", SamplerKind::EulerAncestral, LINEAR),
];

/// How the names of schedulers begin that work on another kind of noise (flow matching, EDM's preconditioning), so that
/// no sampler of ours paints with their models.
const OTHER_KINDS: [&str; 5] = ["Flow", "EDM", "CosineDPM", "CMStochastic", "VQDiffusion"];

/// The class of that name.
pub(super) fn known(name: &str) -> Option<SchedulerClass> {
    CLASSES.into_iter().find(|class| class.name == name)
}

/// What stands in for a class that is not known.
pub(super) fn unknown() -> SchedulerClass {
    near("", SamplerKind::Dpmpp2m, LINEAR)
}

/// The class belongs to models of another kind.
pub(super) fn is_of_another_kind(name: &str) -> bool {
    OTHER_KINDS.iter().any(|prefix| name.starts_with(prefix))
}
