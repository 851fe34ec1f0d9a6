//! What of an init image stays while an ordinary model, which knows of no mask, repaints the rest.

use crate::latents::Latents;
use crate::sampler::Sampler;

/// The init image's latents, which take the place of the painted ones outside of the mask after each call of the UNet.
pub(crate) struct KeptLatents {
    /// For each pixel of the latents whether it is repainted.
    mask: Vec<bool>,
    latents: Latents,
    /// The noise that the painting begins with.
    noise: Vec<f32>,
}

impl KeptLatents {
    /// Of `latents`, which are repainted where `mask` is set, and of the noise that the painting begins with.
    pub(crate) fn new(mask: Vec<bool>, latents: Latents, noise: Vec<f32>) -> KeptLatents {
        KeptLatents { mask, latents, noise }
    }

    /// What it holds of latents of that many pixels and channels, and what `restore` takes for a moment, bytes.
    pub(crate) fn memory(pixels: usize, channels: usize) -> u64 {
        (pixels * (1 + 3 * channels * size_of::<f32>())) as u64
    }

    /// Puts it back into `latents` after `calls` calls of the UNet, with the noise that the next call expects.
    pub(crate) fn restore(&self, latents: &mut Latents, sampler: &Sampler, calls: usize) {
        let next = calls < sampler.timesteps().len();
        let noised = next.then(|| sampler.noised(calls, &self.latents.values, &self.noise));
        let image = noised.as_ref().unwrap_or(&self.latents.values).chunks_exact(latents.channels);
        let pixels = latents.values.chunks_exact_mut(latents.channels).zip(image).zip(&self.mask);
        pixels.filter(|(_, masked)| !**masked).for_each(|((pixel, image), _)| pixel.copy_from_slice(image));
    }
}
