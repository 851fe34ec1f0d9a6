//! `scheduler/scheduler_config.json`: how the model was trained and is sampled.
//!
//! A scheduler's class names its sampler (`scheduler_class`); where the file is silent about what samplers do
//! differently (spacing, offsets) the bundle is, too, so that each sampler takes its own default as in diffusers. How
//! to sample is the user's choice, so what we lack is told of and the nearest sampler taken; how the model was trained
//! is not, so what we lack of that is refused.

use std::path::Path;

use diffused_engine::sampler::{
    BetaSchedule, Clipping, Prediction, SamplerKind, SamplerOptions, SamplingConfig, Spacing,
};
use serde_json::{Value, json};

use super::keys::{ConfigFiles, Keys};
use super::model_index::ModelIndex;
use super::scheduler_class::{self, SchedulerClass};
use super::scheduler_options::{self, SchedulerChoice};
use crate::error::Result;
use crate::options::{LoraOption, SourceOptions};

/// Default number of steps.
const STEPS: usize = 20;
/// Default number of steps of a latent consistency model.
const LCM_STEPS: usize = 4;
/// Default guidance scale, diffusers' and A1111's (7 and 7.5 are both in use; diffusers' is taken).
const CFG_SCALE: f64 = 7.5;
/// diffusers' default guidance scale of a model that takes the scale as an input.
const EMBEDDED_CFG_SCALE: f64 = 8.5;
/// The guidance scale that computes no guidance.
const NO_GUIDANCE: f64 = 1.0;

/// Keys that change nothing given what the other keys may be.
const INERT: [&str; 8] = [
    "_class_name",
    "_diffusers_version",
    "_name_or_path",
    "_commit_hash",
    "clip_sample_range",
    "dynamic_thresholding_ratio",
    "flow_shift",
    "sample_max_value",
];

/// The scheduler of Stable Diffusion 1, for models that do not bring one.
fn stable_diffusion() -> Value {
    json!({
        "_class_name": "PNDMScheduler",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
        "steps_offset": 1,
    })
}

/// What sampling depends on beside the scheduler's file.
#[derive(Debug, Clone, Copy)]
pub(super) struct SamplingContext<'a> {
    pub(super) index: &'a ModelIndex,
    /// The UNet takes the guidance scale as an input.
    pub(super) guidance_embedding: bool,
    pub(super) options: &'a SourceOptions,
}

/// The scheduler's file.
const FILE: &str = "scheduler/scheduler_config.json";

/// Sampling as the bundle has it; what the user should know of goes into `warnings`.
pub(super) fn open(
    files: &ConfigFiles,
    context: SamplingContext,
    warnings: &mut Vec<String>,
) -> Result<SamplingConfig> {
    let keys = if files.has(FILE) { Some(files.keys(FILE)?) } else { None };
    let of_scheduler = |keys: &Keys| keys.left().any(|key| key.starts_with("beta_") || key == "num_train_timesteps");
    let keys = match keys {
        Some(keys) if keys.has("_class_name") || of_scheduler(&keys) => keys,
        other => {
            let found = if other.is_some() { "is not a scheduler's configuration" } else { "there is no such file" };
            let path = files.path(FILE);
            warnings.push(format!("{}: {found}; Stable Diffusion 1's is taken (PNDM)", path.display()));
            Keys::of(&path, stable_diffusion())
        }
    };
    read(keys, context, warnings)
}

fn read(mut keys: Keys, context: SamplingContext, warnings: &mut Vec<String>) -> Result<SamplingConfig> {
    let SamplingContext { index, options, .. } = context;
    let path = keys.path().display().to_string();
    let name = keys.take("_class_name").unwrap_or_default();
    let name = name.as_str().unwrap_or_default();
    if scheduler_class::is_of_another_kind(name) {
        let supported = "a scheduler of Stable Diffusion; this one belongs to models of another kind";
        return Err(keys.refuse("_class_name", &json!(name), supported));
    }
    if let Some(other) = index.scheduler.as_deref().filter(|other| *other != name && !name.is_empty()) {
        warnings.push(format!(
            "{path}: names {name}, but model_index.json names {other}; {name} is taken (diffusers takes {other})"
        ));
    }
    let class = scheduler_class::known(name);
    let chosen = class.unwrap_or_else(scheduler_class::unknown);
    let mut choice = scheduler_options::read(&mut keys, chosen);
    choice.options.clipping = clipping(&mut keys, index, chosen, &choice.options)?;
    let (kind, missing) = (choice.kind, &choice.missing);
    if options.sampler.is_none() {
        let kind = kind.name();
        let told = match class {
            None => format!("there is no sampler for {name:?}"),
            Some(class) if !class.same => format!("there is no sampler for {name}"),
            Some(_) if missing.is_empty() => String::new(),
            Some(_) => format!("our sampler has no {}", missing.join(", ")),
        };
        if !told.is_empty() {
            warnings.push(format!("{path}: {told}; the nearest, {kind}, is taken (--sampler NAME takes another)"));
        }
    }
    keys.ignore(&["clip_sample", "thresholding"]);
    let config = training(&mut keys, choice, chosen, context, warnings)?;
    keys.ignore(&INERT);
    warnings.extend(keys.left_over());
    Ok(config)
}

/// What bounds the predicted image, of the classes whose steps heed it: `thresholding`, and `clip_sample` in those
/// pipelines that do not turn it off whatever the file says.
fn clipping(
    keys: &mut Keys,
    index: &ModelIndex,
    class: SchedulerClass,
    options: &SamplerOptions,
) -> Result<Option<Clipping>> {
    let kind = class.kind;
    let (cuts, thresholds) = match kind {
        _ if !class.same => (false, false),
        SamplerKind::Ddim | SamplerKind::Lcm => (true, true),
        SamplerKind::Heun => (true, false),
        SamplerKind::Dpmpp2m | SamplerKind::Dpmpp2s | SamplerKind::Deis => (false, true),
        SamplerKind::Unipc => (false, options.unipc.predict_x0),
        _ => (false, false),
    };
    if thresholds && keys.optional_flag("thresholding")?.unwrap_or(false) {
        let ratio = keys.number("dynamic_thresholding_ratio", 0.995)?;
        return Ok(Some(Clipping::Quantile { ratio, largest: keys.number("sample_max_value", 1.0)? }));
    }
    let cuts = cuts && !index.turns_clipping_off();
    match cuts && keys.optional_flag("clip_sample")?.unwrap_or(kind == SamplerKind::Ddim) {
        true => Ok(Some(Clipping::Range(keys.number("clip_sample_range", 1.0)?))),
        false => Ok(None),
    }
}

/// What samplers have in common.
fn training(
    keys: &mut Keys,
    choice: SchedulerChoice,
    class: SchedulerClass,
    context: SamplingContext,
    warnings: &mut Vec<String>,
) -> Result<SamplingConfig> {
    let SamplingContext { index, guidance_embedding, options } = context;
    keys.only("trained_betas", &[Value::Null])?;
    let schedules = [
        (json!("linear"), BetaSchedule::Linear),
        (json!("scaled_linear"), BetaSchedule::ScaledLinear),
        (json!("squaredcos_cap_v2"), BetaSchedule::SquaredcosCapV2),
    ];
    let spacings = [
        (json!("leading"), Spacing::Leading),
        (json!("trailing"), Spacing::Trailing),
        (json!("linspace"), Spacing::Linspace),
    ];
    let SchedulerChoice { kind, schedule: noise_schedule, options: sampler_options, .. } = choice;
    // Consistency models were distilled to paint in a few steps without guidance.
    let lcm = matches!(kind, SamplerKind::Lcm | SamplerKind::Tcd);
    let (start, end, schedule) = class.betas;
    let offset = steps_offset(keys)?;
    let skip_prk = keys.optional_flag("skip_prk_steps")?;
    let mut config = SamplingConfig {
        default: kind,
        steps: if lcm { LCM_STEPS } else { STEPS },
        cfg_scale: match (guidance_embedding, lcm) {
            (true, _) => EMBEDDED_CFG_SCALE,
            (false, true) => NO_GUIDANCE,
            (false, false) => CFG_SCALE,
        },
        prediction: prediction(keys, options)?,
        beta_start: keys.number("beta_start", start)?,
        beta_end: keys.number("beta_end", end)?,
        beta_schedule: keys.choice("beta_schedule", &schedules)?.unwrap_or(schedule),
        train_timesteps: keys.count("num_train_timesteps", 1000)?,
        spacing: keys.choice("timestep_spacing", &spacings)?,
        steps_offset: if index.corrects_scheduler() { Some(1) } else { offset },
        set_alpha_to_one: keys.optional_flag("set_alpha_to_one")?,
        skip_prk_steps: if index.is_inpainting() { Some(true) } else { skip_prk },
        rescale_betas_zero_snr: keys.flag("rescale_betas_zero_snr", false)?,
        original_inference_steps: keys.optional_count("original_inference_steps")?,
        schedule: noise_schedule,
        options: sampler_options,
    };
    if let Some(sampler) = options.sampler {
        take_sampler(&mut config, sampler);
    }
    let path = keys.path().display();
    if !lcm && let Some(told) = FewSteps::of_training(&config) {
        warnings.push(format!(
            "{path}: by its scheduler (trailing timesteps, epsilon) it paints in a single step; {}",
            told.apply(&mut config)
        ));
    }
    Ok(config)
}

/// Another default sampler, whose options are its own: those of the scheduler's file belong to the file's sampler.
fn take_sampler(config: &mut SamplingConfig, sampler: SamplerKind) {
    if sampler != config.default {
        config.default = sampler;
        config.schedule = None;
        config.options = SamplerOptions::default();
    }
}

fn prediction(keys: &mut Keys, options: &SourceOptions) -> Result<Prediction> {
    let value = keys.some("prediction_type");
    match (options.prediction, value.as_ref().map(|value| value.as_str().unwrap_or_default())) {
        (Some(prediction), _) => Ok(prediction),
        (None, None | Some("epsilon")) => Ok(Prediction::Epsilon),
        (None, Some("v_prediction")) => Ok(Prediction::VPrediction),
        (None, Some(_)) => {
            let supported = "\"epsilon\", \"v_prediction\"; --prediction overrides it";
            Err(keys.refuse("prediction_type", &value.unwrap_or_default(), supported))
        }
    }
}

fn steps_offset(keys: &mut Keys) -> Result<Option<usize>> {
    let Some(value) = keys.some("steps_offset") else { return Ok(None) };
    let offset = value.as_u64().and_then(|offset| usize::try_from(offset).ok());
    Ok(Some(offset.ok_or_else(|| keys.refuse("steps_offset", &value, "0 or a positive integer"))?))
}

/// Takes the defaults that the name of a single file tells, which says nothing else of its sampling.
pub(crate) fn follow_name(
    config: &mut SamplingConfig,
    path: &Path,
    options: &SourceOptions,
    warnings: &mut Vec<String>,
) {
    if let Some(told) = FewSteps::of_model(path) {
        let told = FewSteps { sampler: options.sampler.or(told.sampler), ..told };
        let message = told.apply(config);
        warnings.push(format!("{}: by its name it paints in few steps; {message}", path.display()));
    }
}

/// Takes the defaults of the last of the LoRAs that make a model paint in few steps.
pub(crate) fn follow_loras(config: &mut SamplingConfig, options: &SourceOptions, warnings: &mut Vec<String>) {
    let few_steps = |lora: &LoraOption| Some((lora.path.display().to_string(), FewSteps::of_lora(&lora.path)?));
    if let Some((path, told)) = options.lora.iter().rev().find_map(few_steps) {
        let told = FewSteps { sampler: options.sampler.or(told.sampler), ..told };
        let message = told.apply(config);
        warnings.push(format!("{path}: by its name it makes a model paint in few steps; {message}"));
    }
}

/// The defaults of a model that was distilled to paint in few steps and without guidance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct FewSteps {
    /// The steps that it was made for.
    pub(crate) steps: usize,
    /// The sampler that it was made for; `None`: the one that the model names.
    pub(crate) sampler: Option<SamplerKind>,
    /// The spacing that it was made for; `None`: as the model has it.
    pub(crate) spacing: Option<Spacing>,
    /// The guidance scale that it was made for; `None`: it was made to paint without guidance.
    pub(crate) cfg_scale: Option<f64>,
}

impl FewSteps {
    /// What tells SD-Turbo and its like from ordinary models: trailing timesteps, though the noise is predicted and the
    /// last timestep is not pure noise.
    fn of_training(config: &SamplingConfig) -> Option<FewSteps> {
        let distilled = config.spacing == Some(Spacing::Trailing)
            && config.prediction == Prediction::Epsilon
            && !config.rescale_betas_zero_snr;
        distilled.then_some(FewSteps { steps: 1, sampler: None, spacing: None, cfg_scale: None })
    }

    /// Sets these defaults; what is said of it.
    pub(crate) fn apply(self, config: &mut SamplingConfig) -> String {
        config.steps = self.steps;
        config.cfg_scale = self.cfg_scale.unwrap_or(NO_GUIDANCE);
        if let Some(sampler) = self.sampler {
            take_sampler(config, sampler);
        }
        config.spacing = self.spacing.or(config.spacing);
        let (steps, sampler) = (self.steps, config.default);
        let word = if steps == 1 { "step" } else { "steps" };
        let guidance =
            self.cfg_scale.map_or("without guidance".to_owned(), |scale| format!("at a guidance scale of {scale}"));
        format!(
            "the defaults are {steps} {word} of {sampler} {guidance}; --steps, --cfg-scale and --sampler change them"
        )
    }
}
