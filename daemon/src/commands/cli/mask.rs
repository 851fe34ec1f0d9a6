//! The options of a mask.

use std::path::PathBuf;

use clap::Args;
use diffused_engine::inpainting::{Inpainting, MaskedContent};

use crate::contract::request::PaintRequest;
use crate::jobs::request::PADDING;

/// What of an init image is repainted, and how.
#[derive(Debug, Args)]
pub struct MaskArgs {
    /// Repaint only what is white in this image
    #[arg(long, value_name = "FILE", requires = "init_image", help_heading = "Image to image")]
    pub mask: Option<PathBuf>,
    /// How far the mask's edges are softened: the deviation of a Gaussian, 0 to 64
    #[arg(long, value_name = "PIXELS", requires = "mask", help_heading = "Image to image")]
    pub mask_blur: Option<f64>,
    /// Repaint what is black in the mask
    #[arg(long, requires = "mask", help_heading = "Image to image")]
    pub inpainting_mask_invert: bool,
    /// What is under the mask at first: fill, original, latent_noise or latent_nothing
    #[arg(long, value_name = "CONTENT", requires = "mask", help_heading = "Image to image")]
    pub inpainting_fill: Option<MaskedContent>,
    /// Paint only the masked part, in the size that is given, and put it back into the image
    #[arg(long, requires = "mask", help_heading = "Image to image")]
    pub inpaint_full_res: bool,
    /// How much around the masked part to paint with it; 32 if not given
    #[arg(long, value_name = "PIXELS", requires = "inpaint_full_res", help_heading = "Image to image")]
    pub inpaint_full_res_padding: Option<u32>,
    /// Whether what is not masked comes back exactly; true if not given
    #[arg(long, value_name = "true|false", requires = "mask", help_heading = "Image to image")]
    pub keep_unmasked: Option<bool>,
}

impl MaskArgs {
    /// As the engine takes it, if there is a mask.
    pub fn inpainting(&self) -> Option<Inpainting> {
        let (default, blur) = (Inpainting::default(), self.mask_blur.unwrap_or_default());
        self.mask.as_ref().map(|_| Inpainting {
            blur_x: blur,
            blur_y: blur,
            content: self.inpainting_fill.unwrap_or(default.content),
            invert: self.inpainting_mask_invert,
            region_only: self.inpaint_full_res,
            padding: if self.inpaint_full_res { self.inpaint_full_res_padding.unwrap_or(PADDING) } else { 0 },
            keep_unmasked: self.keep_unmasked.unwrap_or(default.keep_unmasked),
        })
    }

    /// The keys that are given, in `request`; the mask itself is `mask`, in base64.
    pub fn add_to(&self, request: PaintRequest, mask: Option<String>) -> PaintRequest {
        PaintRequest {
            mask,
            mask_blur: self.mask_blur,
            inpainting_mask_invert: self.inpainting_mask_invert.then_some(true),
            inpainting_fill: self.inpainting_fill,
            inpaint_full_res: self.inpaint_full_res.then_some(true),
            inpaint_full_res_padding: self.inpaint_full_res_padding,
            keep_unmasked: self.keep_unmasked,
            ..request
        }
    }
}
