//! `scheduler/scheduler_config.json`: how the model was trained and is sampled.
//!
//! A scheduler's class names its sampler; where the file is silent about what samplers do differently (spacing, offsets)
//! the bundle is, too, so that each sampler takes its own default as in diffusers.

use std::path::Path;

use diffused_engine::sampler::{BetaSchedule, Prediction, SamplerKind, SamplingConfig, Spacing};
use serde_json::{Value, json};

use super::keys::Keys;
use crate::error::Result;
use crate::options::SourceOptions;

/// Default number of steps.
const STEPS: usize = 20;
/// Default number of steps of a latent consistency model.
const LCM_STEPS: usize = 4;
/// Default guidance scale, diffusers' and A1111's (7 and 7.5 are both in use; diffusers' is taken).
const CFG_SCALE: f64 = 7.5;
/// diffusers' default guidance scale of a model that takes the scale as an input.
const EMBEDDED_CFG_SCALE: f64 = 8.5;

/// Keys that change nothing given what the other keys may be. `clip_sample` is here because diffusers' Stable Diffusion
/// pipelines turn it off whatever the file says.
const INERT: [&str; 16] = [
    "_class_name",
    "_diffusers_version",
    "_name_or_path",
    "_commit_hash",
    "clip_sample",
    "clip_sample_range",
    "dynamic_thresholding_ratio",
    "flow_shift",
    "lambda_min_clipped",
    "sample_max_value",
    "sigma_max",
    "sigma_min",
    "time_shift_type",
    "timestep_scaling",
    "timestep_type",
    "variance_type",
];

/// Sampling as the bundle has it, and warnings for whoever converts.
pub(crate) fn open(path: &Path, guidance_embedding: bool) -> Result<(SamplingConfig, Vec<String>)> {
    let mut keys = Keys::open(path)?;
    let class = keys.take("_class_name").unwrap_or_default();
    let class = class.as_str().unwrap_or_default();
    let mut warnings = Vec::new();
    let karras = keys.optional_flag("use_karras_sigmas")?.unwrap_or(false);
    let default = match (kind(class), karras) {
        (Some(SamplerKind::Dpmpp2m), true) => SamplerKind::Dpmpp2mKarras,
        (Some(_), true) => {
            return Err(keys.refuse("use_karras_sigmas", &json!(true), "false, or DPMSolverMultistepScheduler"));
        }
        (Some(kind), false) => kind,
        (None, _) => {
            warnings.push(unknown_class(&keys, class));
            SamplerKind::Dpmpp2m
        }
    };
    let known = warnings.is_empty();
    if known {
        refuse_variants(&mut keys)?;
    }
    let config = training(&mut keys, default, guidance_embedding)?;
    keys.ignore(&INERT);
    if known {
        keys.finish()?;
    } else if keys.left().next().is_some() {
        let left: Vec<&str> = keys.left().collect();
        warnings.push(format!("{}: not taken over: {}", path.display(), left.join(", ")));
    }
    Ok((config, warnings))
}

fn kind(class: &str) -> Option<SamplerKind> {
    match class {
        "DDIMScheduler" => Some(SamplerKind::Ddim),
        "PNDMScheduler" => Some(SamplerKind::Pndm),
        "EulerDiscreteScheduler" => Some(SamplerKind::Euler),
        "EulerAncestralDiscreteScheduler" => Some(SamplerKind::EulerAncestral),
        "DPMSolverMultistepScheduler" => Some(SamplerKind::Dpmpp2m),
        "LCMScheduler" => Some(SamplerKind::Lcm),
        _ => None,
    }
}

fn unknown_class(keys: &Keys, class: &str) -> String {
    let path = keys.path().display();
    format!("{path}: there is no sampler for {class:?}; the model's default sampler will be dpmpp_2m")
}

/// What our samplers do not do.
fn refuse_variants(keys: &mut Keys) -> Result<()> {
    keys.only("algorithm_type", &[json!("dpmsolver++")])?;
    keys.only("final_sigmas_type", &[json!("zero")])?;
    keys.only("interpolation_type", &[json!("linear")])?;
    keys.only("lower_order_final", &[json!(true)])?;
    keys.only("solver_order", &[json!(2)])?;
    keys.only("solver_type", &[json!("midpoint")])?;
    keys.only("timestep_scaling", &[json!(10)])?;
    keys.only("timestep_type", &[json!("discrete")])?;
    for key in [
        "euler_at_final",
        "thresholding",
        "use_beta_sigmas",
        "use_dynamic_shifting",
        "use_exponential_sigmas",
        "use_flow_sigmas",
        "use_lu_lambdas",
    ] {
        keys.only(key, &[json!(false), Value::Null])?;
    }
    for key in ["sigma_max", "sigma_min"] {
        keys.only(key, &[Value::Null])?;
    }
    keys.only("variance_type", &[Value::Null, json!("fixed_small"), json!("fixed_large")])?;
    keys.only("lambda_min_clipped", &[json!("-Infinity"), Value::Null])
}

/// What samplers have in common.
fn training(keys: &mut Keys, default: SamplerKind, guidance_embedding: bool) -> Result<SamplingConfig> {
    keys.only("trained_betas", &[Value::Null])?;
    let schedules = [
        (json!("linear"), BetaSchedule::Linear),
        (json!("scaled_linear"), BetaSchedule::ScaledLinear),
        (json!("squaredcos_cap_v2"), BetaSchedule::SquaredcosCapV2),
    ];
    let predictions = [(json!("epsilon"), Prediction::Epsilon), (json!("v_prediction"), Prediction::VPrediction)];
    let spacings = [
        (json!("leading"), Spacing::Leading),
        (json!("trailing"), Spacing::Trailing),
        (json!("linspace"), Spacing::Linspace),
    ];
    let lcm = default == SamplerKind::Lcm;
    let (start, end, schedule) = match default {
        SamplerKind::Lcm => (0.00085, 0.012, BetaSchedule::ScaledLinear),
        _ => (0.0001, 0.02, BetaSchedule::Linear),
    };
    Ok(SamplingConfig {
        default,
        steps: if lcm { LCM_STEPS } else { STEPS },
        cfg_scale: match (guidance_embedding, lcm) {
            (true, _) => EMBEDDED_CFG_SCALE,
            (false, true) => 1.0,
            (false, false) => CFG_SCALE,
        },
        prediction: keys.choice("prediction_type", &predictions)?.unwrap_or(Prediction::Epsilon),
        beta_start: keys.number("beta_start", start)?,
        beta_end: keys.number("beta_end", end)?,
        beta_schedule: keys.choice("beta_schedule", &schedules)?.unwrap_or(schedule),
        train_timesteps: keys.count("num_train_timesteps", 1000)?,
        spacing: keys.choice("timestep_spacing", &spacings)?,
        steps_offset: steps_offset(keys)?,
        set_alpha_to_one: keys.optional_flag("set_alpha_to_one")?,
        skip_prk_steps: keys.optional_flag("skip_prk_steps")?,
        rescale_betas_zero_snr: keys.flag("rescale_betas_zero_snr", false)?,
        original_inference_steps: keys.optional_count("original_inference_steps")?,
    })
}

fn steps_offset(keys: &mut Keys) -> Result<Option<usize>> {
    let Some(value) = keys.some("steps_offset") else { return Ok(None) };
    let offset = value.as_u64().and_then(|offset| usize::try_from(offset).ok());
    Ok(Some(offset.ok_or_else(|| keys.refuse("steps_offset", &value, "0 or a positive integer"))?))
}

/// Takes what the user said instead of what the source says.
pub(crate) fn overrule(sampling: &mut SamplingConfig, options: &SourceOptions) {
    sampling.default = options.sampler.unwrap_or(sampling.default);
    sampling.prediction = options.prediction.unwrap_or(sampling.prediction);
}
