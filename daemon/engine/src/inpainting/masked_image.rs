//! What an inpainting UNet (Stable Diffusion's, of nine channels) sees beside the latents: a mask, and the latents of
//! the image that is left where the mask does not cover it.

use crate::latents::Latents;

/// The mask and the masked image of a painting, the same for all steps.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskedImage {
    /// For each pixel of the latents 1 where it is repainted, else 0.
    mask: Vec<f32>,
    /// Of the image, which is grey where it is repainted.
    latents: Latents,
}

impl MaskedImage {
    /// `mask` says of each pixel of the latents whether it is repainted; `latents` are those of the image, which is grey
    /// where the mask covers it.
    pub(crate) fn new(mask: &[bool], latents: Latents) -> MaskedImage {
        MaskedImage { mask: mask.iter().map(|masked| f32::from(u8::from(*masked))).collect(), latents }
    }

    /// Everything is repainted; `grey` are the latents of an image that is grey all over.
    pub fn everything(grey: Latents) -> MaskedImage {
        MaskedImage { mask: vec![1.0; grey.height * grey.width], latents: grey }
    }

    /// Channels of the UNet's input where latents have `latents`.
    pub(crate) fn input_channels(latents: usize) -> usize {
        2 * latents + 1
    }

    /// The UNet's input: of each pixel the values of `latents`, which have the same size, of the mask, and of the
    /// masked image's latents.
    pub(crate) fn beside(&self, latents: &Latents) -> Vec<f32> {
        let pixels = latents.values.chunks_exact(latents.channels).zip(&self.mask);
        let pixels = pixels.zip(self.latents.values.chunks_exact(self.latents.channels));
        pixels.flat_map(|((latents, mask), masked)| latents.iter().chain([mask]).chain(masked)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pixel_is_latents_mask_and_masked_latents() {
        let latents = |values: [f32; 4]| Latents { height: 1, width: 2, channels: 2, values: values.to_vec() };
        let found = MaskedImage::everything(latents([5.0, 6.0, 7.0, 8.0])).beside(&latents([1.0, 2.0, 3.0, 4.0]));
        assert_eq!(found, [1.0, 2.0, 1.0, 5.0, 6.0, 3.0, 4.0, 1.0, 7.0, 8.0]);
        let half = MaskedImage::new(&[false, true], latents([5.0, 6.0, 7.0, 8.0]));
        assert_eq!(half.beside(&latents([1.0, 2.0, 3.0, 4.0])), [1.0, 2.0, 0.0, 5.0, 6.0, 3.0, 4.0, 1.0, 7.0, 8.0]);
        assert_eq!(MaskedImage::input_channels(2), 5);
    }
}
