//! `model_index.json`: which pipeline a diffusers folder is for and what classes its parts are of.

use serde_json::{Value, json};

use super::keys::Keys;
use crate::error::{Error, Result};

/// What is needed of `model_index.json`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ModelIndex {
    /// The pipeline's class.
    pub(crate) pipeline: String,
    /// The scheduler's class.
    pub(crate) scheduler: Option<String>,
    /// There is a second text encoder (SDXL).
    pub(crate) second_encoder: bool,
    /// Zeros stand for the embeddings of an absent negative prompt, as in SDXL's pipeline unless the file says
    /// otherwise.
    pub(crate) zeros_without_prompt: bool,
}

/// How the classes of pipelines begin that are something else, and what to say of them.
const OTHER_KINDS: [(&str, &str); 20] = [
    ("StableDiffusion3", "Stable Diffusion 3, a transformer"),
    ("StableDiffusionControlNet", "a ControlNet pipeline; convert the model that it steers"),
    ("StableDiffusionXLControlNet", "a ControlNet pipeline; convert the model that it steers"),
    ("StableDiffusionInstructPix2Pix", "InstructPix2Pix, which edits pictures"),
    ("StableDiffusionXLInstructPix2Pix", "InstructPix2Pix, which edits pictures"),
    ("StableDiffusionDepth2Img", "a model that needs a depth map"),
    ("StableDiffusionUpscale", "an upscaler"),
    ("StableDiffusionLatentUpscale", "an upscaler"),
    ("StableDiffusionGLIGEN", "GLIGEN, which needs boxes"),
    ("StableDiffusionImageVariation", "a model that varies pictures"),
    ("StableUnCLIP", "unCLIP"),
    ("StableCascade", "Stable Cascade"),
    ("StableVideo", "a model for video"),
    ("AltDiffusion", "AltDiffusion, whose text encoder is XLM-RoBERTa"),
    ("AnimateDiff", "a model for video"),
    ("Kandinsky", "Kandinsky"),
    ("OnnxStableDiffusion", "an ONNX export; take the original model that it was made of"),
    ("ORTStableDiffusion", "an ONNX export; take the original model that it was made of"),
    ("OVStableDiffusion", "an OpenVINO export; take the original model that it was made of"),
    ("FlaxStableDiffusion", "a Flax model; take the PyTorch files of the same model"),
];

/// Words in the names of pipelines of other architectures.
const OTHER_ARCHITECTURES: [&str; 21] = [
    "AuraFlow",
    "Bria",
    "Chroma",
    "CogVideo",
    "CogView",
    "Flux",
    "HiDream",
    "Hunyuan",
    "IFPipeline",
    "LTX",
    "Latte",
    "Lumina",
    "Mochi",
    "OmniGen",
    "PixArt",
    "QwenImage",
    "Sana",
    "Wan",
    "Wuerstchen",
    "ZImage",
    "UniDiffuser",
];

impl ModelIndex {
    /// Reads `model_index.json` and refuses pipelines of another kind by name, and parts of another class.
    pub(crate) fn open(mut keys: Keys, warnings: &mut Vec<String>) -> Result<ModelIndex> {
        let pipeline = keys.take("_class_name").unwrap_or_default().as_str().unwrap_or_default().to_owned();
        if let Some(kind) = other_kind(&pipeline) {
            let message = format!(
                "_class_name is {pipeline}: {kind}; model-prep converts Stable Diffusion 1, 2 and XL and what is built \
                 like them"
            );
            return Err(Error::file(keys.path(), message));
        }
        let scheduler = keys.take("scheduler").unwrap_or_default();
        let scheduler = scheduler.get(1).and_then(Value::as_str).map(str::to_owned);
        let second_encoder = check_parts(&mut keys)?;
        let zeros_without_prompt = keys.flag("force_zeros_for_empty_prompt", true)?;
        warnings.extend(keys.left_over());
        Ok(ModelIndex { pipeline, scheduler, second_encoder, zeros_without_prompt })
    }

    /// The pipeline sets `steps_offset` to 1, whatever the scheduler's file says.
    pub(crate) fn corrects_scheduler(&self) -> bool {
        !self.pipeline.contains("XL") && !self.pipeline.starts_with("LatentConsistency")
    }

    /// The pipeline turns `clip_sample` off, whatever the scheduler's file says.
    pub(crate) fn turns_clipping_off(&self) -> bool {
        self.corrects_scheduler() && !self.is_inpainting()
    }

    /// The pipeline repaints parts of pictures.
    pub(crate) fn is_inpainting(&self) -> bool {
        self.pipeline.contains("Inpaint")
    }
}

/// What a pipeline is that is not ours to convert.
fn other_kind(pipeline: &str) -> Option<String> {
    if let Some((_, kind)) = OTHER_KINDS.iter().find(|(prefix, _)| pipeline.starts_with(prefix)) {
        return Some((*kind).to_owned());
    }
    let architecture = OTHER_ARCHITECTURES.iter().find(|name| pipeline.contains(**name));
    architecture.map(|_| "another architecture".to_owned())
}

/// The parts' classes. The safety checker and its like are not part of painting. Returns whether there is a second text
/// encoder.
fn check_parts(keys: &mut Keys) -> Result<bool> {
    for (part, library, class) in
        [("text_encoder", "transformers", "CLIPTextModel"), ("unet", "diffusers", "UNet2DConditionModel")]
    {
        keys.only(part, &[json!([library, class])])?;
    }
    keys.only("vae", &["AutoencoderKL", "AutoencoderTiny"].map(|class| json!(["diffusers", class])))?;
    keys.only("tokenizer", &["CLIPTokenizer", "CLIPTokenizerFast"].map(|class| json!(["transformers", class])))?;
    keys.only("image_encoder", &[Value::Null, json!([null, null])])?;
    let second = json!(["transformers", "CLIPTextModelWithProjection"]);
    let choices = [(Value::Null, false), (json!([null, null]), false), (second, true)];
    let second_encoder = keys.choice("text_encoder_2", &choices)?.unwrap_or(false);
    let tokenizers = ["CLIPTokenizer", "CLIPTokenizerFast"].map(|class| json!(["transformers", class]));
    keys.only("tokenizer_2", &[&[Value::Null, json!([null, null])][..], &tokenizers].concat())?;
    keys.only("requires_aesthetics_score", &[Value::Null, json!(false)])?;
    for (part, kind) in [
        ("controlnet", "a ControlNet; convert the model without it"),
        ("prior", "unCLIP or Kandinsky"),
        ("movq", "Kandinsky"),
        ("decoder", "Wuerstchen"),
        ("low_res_scheduler", "an upscaler"),
        ("transformer", "a diffusion transformer"),
        ("motion_adapter", "a model for video"),
    ] {
        if let Some(value) = keys.some(part).filter(|value| *value != json!([null, null])) {
            return Err(keys.refuse(part, &value, &format!("a model without this part, which is of {kind}")));
        }
    }
    keys.ignore(&[
        "_diffusers_version",
        "_name_or_path",
        "add_watermarker",
        "feature_extractor",
        "requires_safety_checker",
        "safety_checker",
    ]);
    Ok(second_encoder)
}
