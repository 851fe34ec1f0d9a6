//! Between the two passes: what the first one has painted becomes the beginning of the second, as A1111's web interface
//! does it, and diffusers' `StableDiffusionImg2ImgPipeline` with the scaled latents or image.

use image::{Rgb, imageops};

use super::Pipeline;
use crate::StepCheckpoint;
use crate::error::{Error, Result};
use crate::hires::{self, Hires, HiresUpscaler, SamplingPass};
use crate::latents::Latents;
use crate::noise::Noise;
use crate::picture::{self, Fit};

impl Pipeline<'_> {
    /// The beginning of the second pass, of the first one's latents. Its noise is drawn anew from the seed.
    pub(super) fn enlarge(&mut self, latents: Latents, hires: &Hires) -> Result<StepCheckpoint> {
        let mut noise = Noise::new(self.painting.parameters().seed);
        let shape = self.models.latents((hires.width, hires.height));
        let latents = match hires.upscaler.scales_pixels() {
            true => self.enlarge_pixels(latents, hires, &mut noise)?,
            false => {
                let (height, width, _) = shape;
                let (wide, high) = Hires::covering((width, height), (latents.width, latents.height));
                hires::resize(&latents, high, wide, hires.upscaler).middle(height, width)
            }
        };
        let sampler = self.painting.sampler(SamplingPass::Hires);
        let sampler = sampler.ok_or_else(|| Error::Internal("the second pass has no sampler".into()))?;
        let values = sampler.image_latents(&latents.values, &Latents::noise(&mut noise, shape).values);
        let state = StepCheckpoint::new(self.origin, Latents { values, ..latents }, noise);
        Ok(StepCheckpoint { earlier: self.painting.calls_of(SamplingPass::First), ..state })
    }

    /// The latents of the image, which is decoded and scaled.
    fn enlarge_pixels(&mut self, latents: Latents, hires: &Hires, noise: &mut Noise) -> Result<Latents> {
        let mut image = self.decode(SamplingPass::First, &latents)?;
        drop(latents);
        self.stage_ended();
        if hires.upscaler == HiresUpscaler::Model {
            let factor = self.models.upscaler()?.scale();
            image = self.upscale(SamplingPass::First, &image, factor)?;
            self.stage_ended();
        }
        // Scaled to the whole size before it is cut: `Fit::Cover` would cut to whole pixels of the smaller image.
        let (wide, high) = Hires::covering((hires.width, hires.height), self.painting.size(SamplingPass::First));
        image = Fit::Stretch.place(&image, wide, high, Rgb([0; 3]));
        let (left, top) = ((wide - hires.width) / 2, (high - hires.height) / 2);
        let cut = [left, top, hires.width, hires.height].map(|side| side as u32);
        let shown = imageops::crop_imm(&image, cut[0], cut[1], cut[2], cut[3]).to_image();
        drop(image);
        let pixels = picture::to_pixels(&shown);
        drop(shown);
        let moments = self.encode(SamplingPass::Hires, pixels)?;
        let shape = moments.shape();
        Ok(moments.sample(|| Latents::noise(noise, shape).values))
    }
}
