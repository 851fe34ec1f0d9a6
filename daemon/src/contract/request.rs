//! A request as clients write it, under the names of the A1111 web API. The daemon reads requests key by key
//! (`jobs::request`), so that each error names its key; this type is what our own client sends, and its schema is the
//! contract's.

use std::str::FromStr;

use diffused_engine::bundle::AutoencoderKind;
use diffused_engine::hires::HiresRequest;
use diffused_engine::inpainting::MaskedContent;
use diffused_engine::picture::{Colour, Fit};
use diffused_engine::prompt::PromptSyntax;
use diffused_engine::sampler::{NoiseSchedule, SamplerKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[cfg(test)]
use crate::contract::asyncapi::types::{
    Interval, JobId, Name, RequestColour, RequestDecoder, RequestFit, RequestFlag, RequestFormat, RequestHires,
    RequestMaskedContent, RequestOutput, RequestSampler, RequestSchedule, RequestSettings, RequestSyntax,
};
use crate::display::spec::OutputRequest;

/// An image to paint. Only the prompt is needed; `null` is a key left out, whole numbers may be written as `42.0`, and
/// keys that are unknown are left out with a warning.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PaintRequest {
    /// What to paint, up to 20,000 bytes of UTF-8.
    #[cfg_attr(test, schemars(length(max = 20_000)))]
    pub prompt: String,
    /// What to avoid, up to 20,000 bytes of UTF-8. Nothing where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(length(max = 20_000)))]
    pub negative_prompt: Option<String>,
    /// Sampling steps; the model's own number where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 1, max = 1000)))]
    pub steps: Option<usize>,
    /// Guidance scale: how closely to follow the prompt. 1 or less paints without guidance; the model's own where it is
    /// left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 0, max = 50)))]
    pub cfg_scale: Option<f64>,
    /// The noise's seed; −1, the default, is a random one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = -1, max = 18_446_744_073_709_551_615_u64)))]
    pub seed: Option<u64>,
    /// Pixels, a multiple of 8. The model has a smallest size of its own, and its default where this is left out; with
    /// an init image, it follows from that image's shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 8, max = 2048), extend("multipleOf" = 8)))]
    pub width: Option<usize>,
    /// Pixels, as `width`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 8, max = 2048), extend("multipleOf" = 8)))]
    pub height: Option<usize>,
    /// The sampler; the model's own where it is left out. Any case, and blanks or underscores between the words.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<RequestSampler>"))]
    pub sampler_name: Option<SamplerKind>,
    /// The sampler's noise schedule; the sampler's own where it is left out, or `automatic`. Any case, and blanks or
    /// underscores between the words.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<RequestSchedule>"))]
    pub scheduler: Option<NoiseSchedule>,
    /// How much new noise a step adds: by itself, `ddim` 0, `tcd` 0.3, `euler_ancestral` and `dpm2_ancestral` 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 0, max = 1)))]
    pub eta: Option<f64>,
    /// How many images, with the seeds that follow; 1 where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 1, max = 16)))]
    pub n_iter: Option<u32>,
    /// The image to start from, a PNG, JPEG, WebP, BMP or GIF in base64, as an entry of a list; it may begin as a data
    /// URL does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(length(min = 1, max = 1)))]
    pub init_images: Option<Vec<String>>,
    /// How much of the init image is repainted, or of the image before its second pass; 0.75 where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 0, max = 1)))]
    pub denoising_strength: Option<f64>,
    /// What of the init image is repainted: white is, black is not. A PNG or JPEG in base64, in the init image's shape;
    /// of an image with transparency its alpha counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
    /// Deviation of the Gaussian that softens the mask's edges, pixels; 0 where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 0, max = 64)))]
    pub mask_blur: Option<f64>,
    /// The same along x alone; as `mask_blur` where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 0, max = 64)))]
    pub mask_blur_x: Option<f64>,
    /// The same along y alone; as `mask_blur` where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 0, max = 64)))]
    pub mask_blur_y: Option<f64>,
    /// What is under the mask at the beginning, by A1111's number or by name: 0 `fill` (colours from around it),
    /// 1 `original` (the image, the default), 2 `latent noise` or 3 `latent nothing`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<RequestMaskedContent>"))]
    pub inpainting_fill: Option<MaskedContent>,
    /// Black is repainted instead of white.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<RequestFlag>"))]
    pub inpainting_mask_invert: Option<bool>,
    /// The masked part alone is painted, in the request's size, and put back into the init image, which keeps its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<RequestFlag>"))]
    pub inpaint_full_res: Option<bool>,
    /// Pixels around that part that are painted with it; 32 where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 0, max = 8192)))]
    pub inpaint_full_res_padding: Option<u32>,
    /// What is not masked is the init image's in the end, to the bit. True where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<RequestFlag>"))]
    pub keep_unmasked: Option<bool>,
    /// The autoencoder that makes pixels, if the model has this one: `full`, or `tiny`, nearly the same in a fraction
    /// of the time. The device's own choice where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<RequestDecoder>"))]
    pub decoder: Option<AutoencoderKind>,
    /// How an init image of another shape becomes the image's: each side is scaled by itself (`stretch`, the default),
    /// it is cut to the middle (`cover`), or it lies on the background (`contain`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<RequestFit>"))]
    pub fit: Option<Fit>,
    /// The same as A1111 numbers it: 0 for `stretch`, 1 for `cover`, 2 for `contain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 0, max = 2)))]
    pub resize_mode: Option<u8>,
    /// What lies under an init image's transparency and beside it: `#rrggbb`, `white`, the default, or `black`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<RequestColour>"))]
    pub background: Option<Colour>,
    /// How the prompts are read: `a1111`, with weights, chunks and prompts that change with the steps, or `plain`, as text
    /// of one chunk. The device's own choice where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<RequestSyntax>"))]
    pub prompt_syntax: Option<PromptSyntax>,
    /// How many times as wide and high the image becomes in the end, by the model's upscaler, if it has one: what
    /// `info` lists. The device's own choice where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 1, max = 8)))]
    pub upscale: Option<usize>,
    /// At which of the text encoder's layers from the end the embeddings are taken: 1, the last, where it is left out and
    /// the model was not converted with another.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 1, max = 12)))]
    pub clip_skip: Option<usize>,
    /// From which part of the way from noise to image to which there is guidance, as two numbers. Outside of it a step takes
    /// half the time. `[0, 1]`, all of the way, or the device's own choice where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Interval>"))]
    pub guidance_interval: Option<[f64; 2]>,
    /// For how many calls of the UNet its deep features are computed once: the calls between take a fraction of the time.
    /// 1, for each call, or the device's own choice where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 1, max = 20)))]
    pub cache_interval: Option<usize>,
    /// The same as A1111 has it, `CLIP_stop_at_last_layers`; other settings are left out with a warning.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<RequestSettings>"))]
    pub override_settings: Option<Value>,
    /// What a display shows of the image, beside it: a panel's name or an object. The device's own choice where it is left
    /// out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<RequestOutput>"))]
    pub output: Option<OutputRequest>,
    /// Whether what the image looks like is published while it is painted. The device's own choice where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<RequestFlag>"))]
    pub preview: Option<bool>,
    /// A second pass at a larger size: an object, or how many times the width and the height. The web API's `enable_hr`
    /// and its keys, which begin with `hr_`, are taken, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<RequestHires>"))]
    pub hires: Option<HiresRequest>,
    /// Names the job in every topic and answer; without one, a `transaction` of this form does, else the device makes
    /// one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<JobId>"))]
    pub id: Option<String>,
    /// The client's own name for the job, returned as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Name>"))]
    pub transaction: Option<Value>,
    /// The image's file format, a PNG where it is left out. Both have their parameters in them as A1111 writes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<RequestFormat>"))]
    pub format: Option<FileFormat>,
    /// Larger goes first; 0 where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = -100, max = 100)))]
    pub priority: Option<i32>,
    /// Seconds since 1970, UTC: a job that has not started by then is not painted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(range(min = 0, max = 1e18)))]
    pub not_after: Option<f64>,
}

/// An image file's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// Exact.
    Png,
    /// Smaller.
    Jpeg,
    /// What a display's memory holds; no request names it.
    Raw,
}

/// The name of a format in any case, or what is allowed.
impl FromStr for FileFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<FileFormat, String> {
        match name.to_ascii_lowercase().as_str() {
            "png" => Ok(FileFormat::Png),
            "jpeg" | "jpg" => Ok(FileFormat::Jpeg),
            _ => Err(format!("`{name}` is unknown; png and jpeg are allowed")),
        }
    }
}

impl FileFormat {
    /// For MQTT 5's content type and the result.
    pub fn content_type(self) -> &'static str {
        match self {
            FileFormat::Png => "image/png",
            FileFormat::Jpeg => "image/jpeg",
            FileFormat::Raw => "application/octet-stream",
        }
    }

    /// A file name's ending.
    pub fn extension(self) -> &'static str {
        match self {
            FileFormat::Png => "png",
            FileFormat::Jpeg => "jpg",
            FileFormat::Raw => "bin",
        }
    }
}
