//! The schedulers that people's models name, by diffusers' classes: which of our samplers does the same, or comes
//! nearest, and which of a class's options ours do not have.

use diffused_engine::sampler::{BetaSchedule, SamplerKind};
use serde_json::{Value, json};

use super::keys::Keys;

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
    /// It clips the predicted image to -1..1 unless `clip_sample` is false.
    pub(super) clips: bool,
}

const LINEAR: (f64, f64, BetaSchedule) = (0.0001, 0.02, BetaSchedule::Linear);
const STABLE_LINEAR: (f64, f64, BetaSchedule) = (0.00085, 0.012, BetaSchedule::Linear);
const STABLE: (f64, f64, BetaSchedule) = (0.00085, 0.012, BetaSchedule::ScaledLinear);

const fn same(name: &'static str, kind: SamplerKind, betas: (f64, f64, BetaSchedule)) -> SchedulerClass {
    SchedulerClass { name, kind, same: true, betas, clips: matches!(kind, SamplerKind::Ddim) }
}

const fn near(name: &'static str, kind: SamplerKind, betas: (f64, f64, BetaSchedule)) -> SchedulerClass {
    SchedulerClass { name, kind, same: false, betas, clips: false }
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
    near("DDPMParallelScheduler", SamplerKind::EulerAncestral, LINEAR),
    near("DDPMScheduler", SamplerKind::EulerAncestral, LINEAR),
    near("DEISMultistepScheduler", SamplerKind::Dpmpp2m, LINEAR),
    near("DPMSolverSDEScheduler", SamplerKind::EulerAncestral, STABLE_LINEAR),
    near("DPMSolverSinglestepScheduler", SamplerKind::Dpmpp2m, LINEAR),
    near("HeunDiscreteScheduler", SamplerKind::Dpmpp2m, STABLE_LINEAR),
    near("IPNDMScheduler", SamplerKind::Pndm, LINEAR),
    near("KDPM2AncestralDiscreteScheduler", SamplerKind::EulerAncestral, STABLE_LINEAR),
    near("KDPM2DiscreteScheduler", SamplerKind::Dpmpp2m, STABLE_LINEAR),
    near("LMSDiscreteScheduler", SamplerKind::Dpmpp2m, LINEAR),
    near("SASolverScheduler", SamplerKind::Dpmpp2m, LINEAR),
    near("ScoreSdeVeScheduler", SamplerKind::EulerAncestral, LINEAR),
    near("TCDScheduler", SamplerKind::Lcm, STABLE),
    near("UniPCMultistepScheduler", SamplerKind::Dpmpp2m, LINEAR),
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

/// A class's options that none of our samplers has, with the values that change nothing.
fn options() -> Vec<(&'static str, Vec<Value>)> {
    let off = || vec![json!(false), Value::Null];
    vec![
        ("algorithm_type", vec![json!("dpmsolver++")]),
        ("euler_at_final", off()),
        ("final_sigmas_type", vec![json!("zero")]),
        ("interpolation_type", vec![json!("linear")]),
        ("lambda_min_clipped", vec![json!("-Infinity"), Value::Null]),
        ("lower_order_final", vec![json!(true)]),
        ("sigma_max", vec![Value::Null]),
        ("sigma_min", vec![Value::Null]),
        ("solver_order", vec![json!(2)]),
        ("solver_type", vec![json!("midpoint")]),
        ("timestep_scaling", vec![json!(10)]),
        ("timestep_type", vec![json!("discrete")]),
        ("use_beta_sigmas", off()),
        ("use_dynamic_shifting", off()),
        ("use_exponential_sigmas", off()),
        ("use_flow_sigmas", off()),
        ("use_lu_lambdas", off()),
        ("variance_type", vec![Value::Null, json!("fixed_small"), json!("fixed_large")]),
    ]
}

/// Options of other classes, which change nothing once their sampler is replaced by the nearest.
const OPTIONS_OF_OTHERS: [&str; 7] = [
    "disable_corrector",
    "predict_x0",
    "solver_p",
    "predictor_order",
    "corrector_order",
    "tau_func",
    "noise_sampler_seed",
];

/// Takes the options that our samplers do not have out of `keys`; those that ask for something, as `key = value`.
pub(super) fn missing_options(keys: &mut Keys) -> Vec<String> {
    let asked = |(key, inert): (&str, Vec<Value>)| {
        let value = keys.take(key)?;
        let changes = !inert.iter().any(|inert| super::keys::same(inert, &value));
        changes.then(|| format!("{key} = {value}"))
    };
    let asked = options().into_iter().filter_map(asked).collect();
    keys.ignore(&OPTIONS_OF_OTHERS);
    asked
}
