//! What a painting holds of latents beside its networks while they run.

use crate::request::Stage;

/// Tensors of the latents' size that a step takes beside the UNet's output and the sampler's history: the latents before
/// and after it, noise in torch's order and in ours, and the image that the output stands for.
const IN_A_STEP: usize = 5;

/// The sizes that decide it, in f32 values.
pub(crate) struct HeldValues {
    /// Of the latents of one image.
    pub(crate) latents: usize,
    /// Prompts: the UNet's output has an image for each.
    pub(crate) batch: usize,
    /// The most tensors of the latents' size that the sampler's history has.
    pub(crate) history: usize,
}

impl HeldValues {
    /// Bytes while `stage` runs.
    pub(crate) fn bytes(&self, stage: Stage) -> u64 {
        let values = match stage {
            Stage::Unet => self.latents * (IN_A_STEP + self.batch + self.history),
            Stage::VaeDecoder => self.latents,
            Stage::TextEncoder | Stage::VaeEncoder | Stage::Upscaler => 0,
        };
        (values * size_of::<f32>()) as u64
    }
}
