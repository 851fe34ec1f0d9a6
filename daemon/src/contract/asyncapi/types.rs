//! The schemas of what is not a type of the contract's own: the engine's names and parameters, and what clients may
//! write in several ways.

use std::borrow::Cow;
use std::collections::BTreeSet;

use diffused_engine::bundle::AutoencoderKind;
use diffused_engine::hires::HiresUpscaler;
use diffused_engine::inpainting::MaskedContent;
use diffused_engine::picture::Fit;
use diffused_engine::prompt::PromptSyntax;
use diffused_engine::request::Stage;
use diffused_engine::sampler::{NoiseSchedule, SamplerKind};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Value, json};

use crate::display::spec::OutputRequest;

/// Gives a type this schema, written out wherever the type is used.
macro_rules! schema {
    ($type:ident, $schema:expr) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

/// What a client may call a job of its own: returned as it came.
pub(in crate::contract) struct Name;
schema!(Name, json_schema!({"type": ["string", "number"]}));

/// Of a command: returned as it came, whatever it is.
pub(in crate::contract) struct Transaction;
schema!(Transaction, json_schema!({}));

/// A job's id as clients may write it.
pub(in crate::contract) struct JobId;
schema!(
    JobId,
    json_schema!({"anyOf": [{"type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"}, {"type": "number"}]})
);

/// A sampler, as the daemon writes it.
pub(in crate::contract) struct SamplerName;
schema!(SamplerName, json_schema!({"type": "string", "enum": SamplerKind::ALL}));

/// A sampler, as clients may write it. More spellings are taken; these are those that are documented.
pub(in crate::contract) struct RequestSampler;
schema!(RequestSampler, json_schema!({"type": "string", "enum": sampler_names()}));

fn sampler_names() -> Vec<&'static str> {
    SamplerKind::ALL.map(SamplerKind::name).into_iter().chain(SamplerKind::ALL.map(SamplerKind::label)).collect()
}

/// A noise schedule, as the daemon writes it.
pub(in crate::contract) struct ScheduleName;
schema!(ScheduleName, json_schema!({"type": "string", "enum": NoiseSchedule::ALL}));

/// A noise schedule, as clients may write it. More spellings are taken; these are those that are documented.
pub(in crate::contract) struct RequestSchedule;
schema!(RequestSchedule, json_schema!({"type": "string", "enum": schedule_names()}));

fn schedule_names() -> BTreeSet<&'static str> {
    let names = NoiseSchedule::ALL.into_iter().flat_map(|schedule| [schedule.name(), schedule.label()]);
    names.chain(["automatic", "Automatic"]).collect()
}

/// An autoencoder, as the daemon writes it.
pub(in crate::contract) struct DecoderName;
schema!(DecoderName, json_schema!({"type": "string", "enum": AutoencoderKind::ALL}));

/// An autoencoder, as clients may write it.
pub(in crate::contract) struct RequestDecoder;
schema!(RequestDecoder, json_schema!({"type": "string", "pattern": "^([Ff][Uu][Ll][Ll]|[Tt][Ii][Nn][Yy])$"}));

/// How an init image fits, as the daemon writes it.
pub(in crate::contract) struct FitName;
schema!(FitName, json_schema!({"type": "string", "enum": Fit::ALL}));

/// How an init image fits, as clients may write it.
pub(in crate::contract) struct RequestFit;
schema!(
    RequestFit,
    json_schema!({
        "type": "string",
        "pattern": "^([Ss][Tt][Rr][Ee][Tt][Cc][Hh]|[Cc][Oo][Vv][Ee][Rr]|[Cc][Oo][Nn][Tt][Aa][Ii][Nn])$",
    })
);

/// A colour, as the daemon writes it.
pub(in crate::contract) struct ColourName;
schema!(ColourName, json_schema!({"type": "string", "pattern": "^#[0-9a-f]{6}$"}));

/// A colour, as clients may write it.
pub(in crate::contract) struct RequestColour;
schema!(
    RequestColour,
    json_schema!({
        "type": "string",
        "pattern": "^(#[0-9A-Fa-f]{6}|[Ww][Hh][Ii][Tt][Ee]|[Bb][Ll][Aa][Cc][Kk])$",
    })
);
/// A prompt's syntax, as the daemon writes it.
pub(in crate::contract) struct SyntaxName;
schema!(SyntaxName, json_schema!({"type": "string", "enum": PromptSyntax::ALL}));

/// Settings of A1111's own that a request overrides.
pub(in crate::contract) struct RequestSettings;
schema!(
    RequestSettings,
    json_schema!({
        "type": "object",
        "properties": {"CLIP_stop_at_last_layers": {"type": ["integer", "null"], "minimum": 1, "maximum": 12}}
    })
);

/// A prompt's syntax, as clients may write it.
pub(in crate::contract) struct RequestSyntax;
schema!(RequestSyntax, json_schema!({"type": "string", "pattern": "^([Aa]1111|[Pp][Ll][Aa][Ii][Nn])$"}));

/// A part of the way from noise to image; the first number is the smaller one.
pub(in crate::contract) struct Interval;
schema!(Interval, {
    let share = json_schema!({"type": "number", "minimum": 0, "maximum": 1});
    json_schema!({"type": "array", "items": share, "minItems": 2, "maxItems": 2})
});

/// What makes an image larger, as the daemon writes it.
pub(in crate::contract) struct UpscalerName;
schema!(UpscalerName, json_schema!({"type": "string", "enum": HiresUpscaler::NAMES.map(|(_, name)| name)}));

/// A second pass, as clients may write it.
pub(in crate::contract) struct RequestHires;
schema!(RequestHires, {
    json_schema!({"anyOf": [
        {"type": "number", "minimum": 1, "maximum": 4},
        {"type": "boolean"},
        {"type": "object", "properties": hires_keys()},
    ]})
});

/// The keys of a second pass.
fn hires_keys() -> Value {
    let names: Vec<&str> = HiresUpscaler::NAMES.iter().map(|(_, name)| *name).chain(["None"]).collect();
    let samplers: Vec<&str> = sampler_names().into_iter().chain(["Use same sampler"]).collect();
    let schedules: Vec<&str> = schedule_names().into_iter().chain(["Use same scheduler"]).collect();
    let side = json!({"type": "integer", "minimum": 0, "maximum": 2048, "multipleOf": 8});
    json!({
        "scale": {"type": "number", "minimum": 1, "maximum": 4},
        "width": side,
        "height": side,
        "steps": {"type": "integer", "minimum": 0, "maximum": 1000},
        "denoising_strength": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "upscaler": {"type": "string", "enum": names},
        "prompt": {"type": "string", "maxLength": 20_000},
        "negative_prompt": {"type": "string", "maxLength": 20_000},
        "sampler_name": {"type": "string", "enum": samplers},
        "scheduler": {"type": "string", "enum": schedules},
        "cfg_scale": {"type": "number", "minimum": 0, "maximum": 50},
    })
}

/// Adds the web API's keys of a second pass to a request's.
pub(super) fn web_hires(properties: &mut Value) {
    let hires = hires_keys();
    properties["enable_hr"] = json!({"type": "boolean", "description": "Whether there is a second pass; see `hires`."});
    for (key, ours) in [
        ("hr_scale", "scale"),
        ("hr_resize_x", "width"),
        ("hr_resize_y", "height"),
        ("hr_second_pass_steps", "steps"),
        ("hr_upscaler", "upscaler"),
        ("hr_prompt", "prompt"),
        ("hr_negative_prompt", "negative_prompt"),
        ("hr_sampler_name", "sampler_name"),
        ("hr_scheduler", "scheduler"),
        ("hr_cfg", "cfg_scale"),
    ] {
        properties[key] = hires[ours].clone();
        properties[key]["description"] = format!("With `enable_hr`: `{ours}` of `hires`.").into();
    }
}

/// A second pass, with every default filled in: the engine's `Hires`.
#[derive(Serialize, JsonSchema)]
pub(in crate::contract) struct PaintedHires {
    /// Of the image, pixels.
    width: usize,
    /// Of the image, pixels.
    height: usize,
    /// Steps that were made in the second pass.
    steps: usize,
    /// How much of the image was repainted.
    denoising_strength: f64,
    /// What made it larger.
    #[schemars(with = "UpscalerName")]
    upscaler: String,
    /// What was painted in the second pass, where that was something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    /// What was avoided in the second pass, where that was something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    negative_prompt: Option<String>,
    /// The second pass's sampler, where it was another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<SamplerName>")]
    sampler_name: Option<String>,
    /// Its noise schedule, where it was another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ScheduleName>")]
    scheduler: Option<String>,
    /// The second pass's guidance scale, where it was another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    cfg_scale: Option<f64>,
}

/// True or false, as clients may write it.
pub(in crate::contract) struct RequestFlag;
schema!(RequestFlag, json_schema!({"enum": [true, false, 0, 1]}));

/// What is under a mask at the beginning, as the daemon writes it.
pub(in crate::contract) struct MaskedContentName;
schema!(MaskedContentName, json_schema!({"type": "string", "enum": MaskedContent::ALL}));

/// What is under a mask at the beginning, as clients may write it.
pub(in crate::contract) struct RequestMaskedContent;
schema!(RequestMaskedContent, {
    let names = MaskedContent::ALL.map(|content| json!(content)).into_iter();
    let labels = MaskedContent::ALL.map(|content| json!(content.label())).into_iter().skip(2);
    let all: Vec<Value> = (0..4).map(|number| json!(number)).chain(names).chain(labels).collect();
    json_schema!({"enum": all})
});

/// A file format, as clients may write it.
pub(in crate::contract) struct RequestFormat;
schema!(RequestFormat, json_schema!({"type": "string", "pattern": "^([Pp][Nn][Gg]|[Jj][Pp][Ee]?[Gg])$"}));

/// What a display shows, as clients may write it: by a panel's name alone or key by key.
pub(in crate::contract) struct RequestOutput;

impl JsonSchema for RequestOutput {
    fn schema_name() -> Cow<'static, str> {
        "RequestOutput".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let keys = generator.subschema_for::<OutputRequest>();
        json_schema!({"anyOf": [{"type": "string"}, keys]})
    }
}

/// Where the engine is.
pub(in crate::contract) struct StageName;
schema!(StageName, {
    let all = [Stage::TextEncoder, Stage::VaeEncoder, Stage::Unet, Stage::VaeDecoder, Stage::Upscaler];
    // Who adds a stage is led here.
    let _ = |stage| match stage {
        Stage::TextEncoder | Stage::VaeEncoder | Stage::Unet | Stage::VaeDecoder | Stage::Upscaler => {}
    };
    json_schema!({"type": "string", "enum": all})
});

/// What was painted, with every default filled in: the engine's `Parameters`.
#[derive(Serialize, JsonSchema)]
pub(in crate::contract) struct PaintedParameters {
    /// As asked.
    prompt: String,
    /// As asked.
    negative_prompt: String,
    /// Pixels; of the first pass if there was a second.
    width: usize,
    /// Pixels; of the first pass if there was a second.
    height: usize,
    /// Sampling steps; of the first pass if there was a second.
    steps: usize,
    /// Guidance scale.
    cfg_scale: f64,
    /// The noise's seed.
    seed: u64,
    /// The sampler.
    #[schemars(with = "SamplerName")]
    sampler_name: String,
    /// The sampler's noise schedule, where it is not the sampler's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ScheduleName>")]
    scheduler: Option<String>,
    /// How much new noise a step added, where it was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    eta: Option<f64>,
    /// How much of the init image was repainted; only for image to image.
    #[serde(skip_serializing_if = "Option::is_none")]
    denoising_strength: Option<f64>,
    /// The autoencoder that made pixels of latents.
    #[schemars(with = "DecoderName")]
    decoder: String,
    /// How the init image became one of this size, unless each side was scaled by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<FitName>")]
    fit: Option<Fit>,
    /// What lay under the init image's transparency and beside it, unless it was white.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ColourName>")]
    background: Option<String>,
    /// How the prompts were read, where that is not A1111's way.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<SyntaxName>")]
    prompt_syntax: Option<String>,
    /// How many times as wide and high as `width` and `height` say the image is; only where it was enlarged.
    #[serde(skip_serializing_if = "Option::is_none")]
    upscale: Option<usize>,
    /// The upscaler's name, where there is an `upscale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    upscaler: Option<String>,
    /// At which of the text encoder's layers from the end the embeddings were taken, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    clip_skip: Option<usize>,
    /// From which part of the way from noise to image to which there was guidance, where that is not all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Interval>")]
    guidance_interval: Option<[f64; 2]>,
    /// For how many calls of the UNet its deep features were computed once, where that is not each.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_interval: Option<usize>,
    /// What the prompt was drawn from, where it had wildcards.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_template: Option<String>,
    /// What the negative prompt was drawn from, where it had wildcards.
    #[serde(skip_serializing_if = "Option::is_none")]
    negative_prompt_template: Option<String>,
    /// The second pass; only if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    hires: Option<PaintedHires>,
    /// How what was masked was repainted; only with a mask.
    #[serde(skip_serializing_if = "Option::is_none")]
    inpainting: Option<PaintedMask>,
}

/// How what was masked was repainted: the engine's `Inpainting`.
#[derive(Serialize, JsonSchema)]
pub(in crate::contract) struct PaintedMask {
    /// Deviation of the blur along x, pixels.
    mask_blur_x: f64,
    /// Deviation of the blur along y, pixels.
    mask_blur_y: f64,
    /// What was under the mask at the beginning.
    #[schemars(with = "MaskedContentName")]
    inpainting_fill: String,
    /// Whether black was repainted instead of white.
    inpainting_mask_invert: bool,
    /// Whether the masked part alone was painted.
    inpaint_full_res: bool,
    /// Pixels around that part that were painted with it.
    inpaint_full_res_padding: u32,
    /// Whether what is not masked is the init image's.
    keep_unmasked: bool,
}
