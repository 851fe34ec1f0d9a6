//! A painting of which a mask says what is repainted, as diffusers' `StableDiffusionInpaintPipeline`, noise draws
//! included. An ordinary model paints the whole image, and after each call of the UNet what is not masked is the init
//! image again, with as much noise as the next call expects. A model of nine channels sees mask and image at each call.

use image::RgbImage;

use super::{Beginning, Pipeline};
use crate::checkpoint::StepCheckpoint;
use crate::error::Result;
use crate::hires::SamplingPass;
use crate::inpainting::{Inpainting, KeptLatents, Mask, MaskedContent, MaskedImage, filled, refill};
use crate::latents::Latents;
use crate::noise::Noise;
use crate::picture::to_pixels;
use crate::request::{Parameters, Start};

impl Pipeline<'_> {
    /// The image and its mask, where what is not masked is put back before all of it is enlarged.
    pub(super) fn unmasked(&self, start: &Start) -> Option<(RgbImage, Mask)> {
        let Start::Masked { image, mask, .. } = start else { return None };
        self.painting.parameters().is_put_back_before_upscaling().then(|| (image.clone(), mask.clone()))
    }

    /// The beginning of inpainting, or where it goes on from `checkpoint`; what is not in that is computed again.
    pub(super) fn masked_beginning(
        &mut self,
        image: RgbImage,
        mask: &Mask,
        checkpoint: Option<StepCheckpoint>,
    ) -> Result<Beginning> {
        let Parameters { seed, decoder, inpainting, .. } = *self.painting.parameters();
        let Inpainting { content, .. } = inpainting.unwrap_or_default();
        let nine_channels = self.models.manifest.picture.inpainting;
        let in_latents = mask.in_latents(self.models.manifest.picture.factor);
        let mut noise = Noise::new(seed);
        let mut latents = None;
        if !nine_channels || (!self.starts_from_noise() && checkpoint.is_none()) {
            let pixels = match content {
                MaskedContent::Fill => to_pixels(&filled(&image, mask)),
                _ => to_pixels(&image),
            };
            latents = Some(self.encode(SamplingPass::First, pixels)?.sample(|| self.draw(&mut noise).values));
        } else if !self.starts_from_noise() && self.models.draws(decoder) {
            drop(self.draw(&mut noise));
        }
        let drawn = self.draw(&mut noise).values;
        let mut masked = None;
        if nine_channels {
            let moments = self.encode(SamplingPass::First, mask.leave(to_pixels(&image)))?;
            masked = Some(MaskedImage::new(&in_latents, moments.sample(|| self.draw(&mut noise).values)));
        } else {
            // The reference draws it for these models, too.
            self.skip_masked_image(&mut noise);
        }
        let state = match (checkpoint, &latents) {
            (Some(checkpoint), _) => checkpoint,
            (None, Some(latents)) if !self.starts_from_noise() => {
                let Latents { height, width, channels, .. } = *latents;
                let refilled = refill(content, &in_latents, latents.clone(), seed);
                let values = self.painting.sampler.image_latents(&refilled.values, &drawn);
                StepCheckpoint::new(self.origin, Latents { height, width, channels, values }, noise)
            }
            (None, _) => {
                let (height, width, channels) = self.models.latents(self.painting.size(SamplingPass::First));
                let values = self.painting.sampler.noise_latents(&drawn);
                StepCheckpoint::new(self.origin, Latents { height, width, channels, values }, noise)
            }
        };
        let kept = latents.filter(|_| !nine_channels);
        let kept = kept.map(|latents| KeptLatents::new(in_latents, latents, drawn));
        Ok(Beginning { state, masked, kept })
    }
}
