//! What can be asked of the engine, what it paints, and how it reports on the way.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use image::RgbImage;

use crate::bundle::{AutoencoderKind, Manifest};
use crate::checkpoint::StepCheckpoint;
use crate::hires::{Hires, HiresRequest, SamplingPass};
use crate::inpainting::{Inpainting, Mask};
use crate::picture::{Colour, Fit};
use crate::prompt::PromptSyntax;
use crate::sampler::{NoiseSchedule, SamplerChoice, SamplerKind};
use crate::unet_calls::Savings;

/// An image to paint. `None` means the model's own default.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Request {
    /// What to paint.
    pub prompt: String,
    /// What to avoid; used only where guidance is on.
    pub negative_prompt: String,
    /// Width in pixels, a multiple of 8; `None` with an init image: in that image's shape, at its own size or, where
    /// that is larger, at the model's number of pixels.
    pub width: Option<usize>,
    /// Height in pixels, as `width`.
    pub height: Option<usize>,
    /// Sampling steps.
    pub steps: Option<usize>,
    /// Guidance scale; 1 or less paints without guidance.
    pub cfg_scale: Option<f64>,
    /// The noise's seed.
    pub seed: u64,
    /// The sampler.
    pub sampler: Option<SamplerKind>,
    /// The sampler's noise schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<NoiseSchedule>,
    /// How much new noise a step adds, 0 to 1, where the sampler lets that be chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<f64>,
    /// How much of the init image is repainted, 0 to 1; without one, of the image before its second pass, unless `hires` says
    /// it.
    pub strength: Option<f64>,
    /// The autoencoder that makes pixels of latents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<AutoencoderKind>,
    /// How an init image of another shape becomes the image's; only for image to image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
    /// What lies under an init image's transparency and beside it; only for image to image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<Colour>,
    /// With an init image and a mask: how what is masked is repainted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inpainting: Option<Inpainting>,
    /// How the prompts are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_syntax: Option<PromptSyntax>,
    /// How many times as wide and high the image becomes in the end, by the model's upscaler; 1: it stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upscale: Option<usize>,
    /// At which of the text encoder's layers from the end the embeddings are taken; 1 is the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_skip: Option<usize>,
    /// From which part of the way from noise to image to which there is guidance, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_interval: Option<[f64; 2]>,
    /// For how many calls of the UNet its deep features are computed once; 1: for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_interval: Option<usize>,
    /// What the prompt was drawn from, for the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_template: Option<String>,
    /// What the negative prompt was drawn from, for the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_prompt_template: Option<String>,
    /// A second pass at a larger size; only for text to image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hires: Option<HiresRequest>,
}

/// A request with every default filled in and every value checked: what is really painted.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Parameters {
    /// As asked.
    pub prompt: String,
    /// As asked.
    pub negative_prompt: String,
    /// Pixels; of the first pass if there is a second.
    pub width: usize,
    /// Pixels; of the first pass if there is a second.
    pub height: usize,
    /// Sampling steps; of the first pass if there is a second.
    pub steps: usize,
    /// Guidance scale.
    pub cfg_scale: f64,
    /// The noise's seed.
    pub seed: u64,
    /// The sampler.
    #[serde(rename = "sampler_name")]
    pub sampler: SamplerKind,
    /// The sampler's noise schedule, where it is not the sampler's own.
    #[serde(rename = "scheduler", default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<NoiseSchedule>,
    /// How much new noise a step adds, where it was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<f64>,
    /// Only for image to image.
    #[serde(rename = "denoising_strength", default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// The autoencoder that makes pixels of latents, and, if it can, latents of the init image.
    #[serde(default)]
    pub decoder: AutoencoderKind,
    /// How the init image became one of this size.
    #[serde(default, skip_serializing_if = "is_default")]
    pub fit: Fit,
    /// What lay under the init image's transparency and beside it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub background: Colour,
    /// Only where a mask says what of the init image is repainted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inpainting: Option<Inpainting>,
    /// How the prompts are read.
    #[serde(default, skip_serializing_if = "is_default")]
    pub prompt_syntax: PromptSyntax,
    /// How many times as wide and high as `width` and `height` say the image is in the end; `None`: just so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upscale: Option<usize>,
    /// The upscaler's name, where there is an `upscale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upscaler: Option<String>,
    /// At which of the text encoder's layers from the end the embeddings are taken, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_skip: Option<usize>,
    /// From which part of the way from noise to image to which there was guidance, where that is not all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_interval: Option<[f64; 2]>,
    /// For how many calls of the UNet its deep features were computed once, where that is not each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_interval: Option<usize>,
    /// What the prompt was drawn from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_template: Option<String>,
    /// What the negative prompt was drawn from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_prompt_template: Option<String>,
    /// The second pass, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hires: Option<Hires>,
}

/// Left out where they are written, so that the result of a plain request is short.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Parameters {
    /// Width and height of the image, pixels.
    pub fn size(&self) -> (usize, usize) {
        self.hires.as_ref().map_or((self.width, self.height), |hires| (hires.width, hires.height))
    }

    /// Whether what a mask leaves of the init image is put back before all of it is enlarged, and not at the end.
    pub fn is_put_back_before_upscaling(&self) -> bool {
        let whole = self.inpainting.filter(|inpainting| !inpainting.region_only);
        self.upscale.is_some() && whole.is_some_and(|inpainting| inpainting.keep_unmasked)
    }

    /// The sampler with its noise schedule and its noise.
    pub(crate) fn sampler_choice(&self) -> SamplerChoice {
        SamplerChoice { kind: self.sampler, schedule: self.schedule, eta: self.eta }
    }

    /// What of the UNet's work its calls leave out.
    pub(crate) fn savings(&self) -> Savings {
        Savings { guidance_interval: self.guidance_interval, cache_interval: self.cache_interval }
    }

    /// Whether the UNet runs on the negative prompt and on the prompt, as one batch of two (classifier-free guidance). It
    /// does so in both passes where one of them is guided.
    pub(crate) fn is_guided(&self, manifest: &Manifest) -> bool {
        let hires = self.hires.as_ref().and_then(|hires| hires.cfg_scale);
        let most = hires.map_or(self.cfg_scale, |scale| scale.max(self.cfg_scale));
        most > 1.0 && manifest.picture.guidance_embedding.is_none()
    }

    /// The guidance scale of a pass. Where one pass alone is guided, the other one's is 1, which is the prompt's prediction.
    pub(crate) fn cfg_scale(&self, pass: SamplingPass) -> f64 {
        match self.hires.as_ref().and_then(|hires| hires.cfg_scale) {
            None => self.cfg_scale,
            Some(_) if pass.is_first() => self.cfg_scale.max(1.0),
            Some(scale) => scale.max(1.0),
        }
    }
}

/// Where the engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Prompt to embeddings.
    TextEncoder,
    /// Init image to latents.
    VaeEncoder,
    /// Latents, step by step.
    Unet,
    /// Latents to pixels.
    VaeDecoder,
    /// Pixels to more pixels.
    Upscaler,
}

/// What a painting begins with.
#[derive(Debug, Clone)]
pub enum Start {
    /// The seed's noise: text to image.
    Noise,
    /// This image, scaled to the size that is painted: image to image.
    InitImage(RgbImage),
    /// The state after a call of the UNet, of either kind of painting.
    Checkpoint(StepCheckpoint),
    /// An image and what of it is repainted, both of the size that is painted: inpainting.
    Masked {
        /// The image.
        image: RgbImage,
        /// White is repainted.
        mask: Mask,
        /// The state after a call of the UNet; `None` at the beginning.
        checkpoint: Option<StepCheckpoint>,
    },
}

impl Start {
    /// The state that a painting goes on from.
    pub(crate) fn checkpoint(&self) -> Option<&StepCheckpoint> {
        match self {
            Start::Checkpoint(checkpoint) => Some(checkpoint),
            Start::Masked { checkpoint, .. } => checkpoint.as_ref(),
            Start::Noise | Start::InitImage(_) => None,
        }
    }
}

/// How far a painting is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaintingProgress {
    /// Where the engine is.
    pub stage: Stage,
    /// The part of the painting's multiply-adds that is done, 0 to 1; it never falls. What is in a checkpoint is done from
    /// the start.
    pub done: f64,
    /// Calls of the UNet that were made.
    pub step: usize,
    /// Of so many.
    pub steps: usize,
}

/// Follows a painting. The engine has no clock: timings are taken here.
pub trait Observer: Send {
    /// Called before each layer, and after each run of a network.
    fn tick(&mut self, progress: PaintingProgress);

    /// The flag that cancels the painting once it is set, from any thread and also in the middle of a layer: it ends
    /// soon with `Error::Cancelled`. Called once, at the start; by default nothing sets it.
    fn cancel_flag(&self) -> Arc<AtomicBool> {
        Arc::default()
    }

    /// Called after each call of the UNet. A painting that starts from a copy of `checkpoint` goes on from here. Does
    /// nothing by default.
    fn step_done(&mut self, _checkpoint: &StepCheckpoint) {}

    /// Called after each call of the UNet but the last, of a painting with previews: whether one is shown now. By default
    /// none is.
    fn wants_preview(&mut self) -> bool {
        false
    }

    /// Called with a preview that was wanted: what the image looks like so far, with a pixel for each of the latents. Does
    /// nothing by default.
    fn preview(&mut self, _image: RgbImage) {}

    /// Called when planning, or a stage whose weights are not kept, has freed much memory, before the next stage takes
    /// any: the program may give what is free back to the system. Does nothing by default.
    fn memory_freed(&mut self) {}
}

/// An observer that ignores every call.
pub struct NoObserver;

impl Observer for NoObserver {
    fn tick(&mut self, _: PaintingProgress) {}
}
