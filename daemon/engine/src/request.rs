//! What the engine is asked for, what it answers, and how it reports on the way.

use std::ops::ControlFlow;

use image::RgbImage;

use crate::sampler::Kind;

/// A picture to paint. `None` means the model's own default.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// What to paint.
    pub prompt: String,
    /// What to avoid; used only where guidance is on.
    pub negative_prompt: String,
    /// Width in pixels, a multiple of 8.
    pub width: Option<usize>,
    /// Height in pixels, a multiple of 8.
    pub height: Option<usize>,
    /// Sampling steps.
    pub steps: Option<usize>,
    /// Guidance scale; 1 or less paints without guidance.
    pub cfg_scale: Option<f64>,
    /// The noise's seed.
    pub seed: u64,
    /// The sampler.
    pub sampler: Option<Kind>,
    /// Start from this picture (scaled to `width` × `height`; where those are `None`, its own size rounded down to
    /// a multiple of 8).
    pub init_image: Option<RgbImage>,
    /// How much of the init image is repainted: 0 to 1.
    pub strength: Option<f64>,
}

/// A request with every default filled in and every value checked: what is really painted.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Parameters {
    /// As asked.
    pub prompt: String,
    /// As asked.
    pub negative_prompt: String,
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Sampling steps.
    pub steps: usize,
    /// Guidance scale.
    pub cfg_scale: f64,
    /// The noise's seed.
    pub seed: u64,
    /// The sampler.
    #[serde(rename = "sampler_name")]
    pub sampler: Kind,
    /// Only for image to image.
    #[serde(rename = "denoising_strength", skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
}

/// Where the engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
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
}

/// Told of every step; may stop the work. The engine has no clock: whoever wants timings takes them here.
pub trait Observer: Send {
    /// `done` of `total` parts of `stage` are finished (parts are sampling steps for the UNet, else layers).
    /// Called often (after each layer); `ControlFlow::Break` ends the job with `Error::Cancelled`.
    fn tick(&mut self, stage: Stage, done: usize, total: usize) -> ControlFlow<()>;
}

/// Does not look and never stops.
pub struct Unobserved;

impl Observer for Unobserved {
    fn tick(&mut self, _: Stage, _: usize, _: usize) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// What came out.
#[derive(Debug, Clone)]
pub struct Picture {
    /// The pixels.
    pub image: RgbImage,
    /// What was painted.
    pub parameters: Parameters,
}
