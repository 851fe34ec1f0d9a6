//! Inpainting: a part of an init image is repainted, the part that its mask covers. `mask` has the mask's arithmetic,
//! `content` what is under it at the beginning, `region` the part of a large image that is painted in the model's own
//! size, `kept_latents` what stays at each step, `masked_image` what a model that was trained for it sees beside the latents.
//!
//! Where it is not said otherwise this is diffusers' `StableDiffusionInpaintPipeline` and its `VaeImageProcessor`; the
//! blur and what is under the mask are the A1111 web interface's, and so are the names of the options.

mod content;
mod kept_latents;
mod mask;
mod masked_image;
mod region;

pub use content::filled;
pub(crate) use content::refill;
pub(crate) use kept_latents::KeptLatents;
pub use mask::{Mask, luminance};
pub use masked_image::MaskedImage;
pub use region::Region;

use serde::{Deserialize, Serialize};

/// How the masked part of an init image is repainted. The default is what diffusers does, but for `keep_unmasked`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Inpainting {
    /// Deviation of the Gaussian that softens the mask's edges along x, pixels of the mask; 0 leaves them.
    #[serde(rename = "mask_blur_x")]
    pub blur_x: f64,
    /// The same along y.
    #[serde(rename = "mask_blur_y")]
    pub blur_y: f64,
    /// What is under the mask at the beginning.
    #[serde(rename = "inpainting_fill")]
    pub content: MaskedContent,
    /// Black is repainted instead of white.
    #[serde(rename = "inpainting_mask_invert")]
    pub invert: bool,
    /// The mask's box alone is painted, in the request's size, and put back into the image, which keeps its own size.
    #[serde(rename = "inpaint_full_res")]
    pub region_only: bool,
    /// Pixels of the image around that box that are painted with it.
    #[serde(rename = "inpaint_full_res_padding")]
    pub padding: u32,
    /// What is not masked is the init image's again in the end, to the bit.
    pub keep_unmasked: bool,
}

impl Default for Inpainting {
    fn default() -> Inpainting {
        Inpainting {
            blur_x: 0.0,
            blur_y: 0.0,
            content: MaskedContent::Original,
            invert: false,
            region_only: false,
            padding: 0,
            keep_unmasked: true,
        }
    }
}

impl Inpainting {
    /// Bytes that image and mask of so many pixels take while their latents are made.
    pub(crate) fn held(pixels: usize) -> u64 {
        4 * pixels as u64
    }

    /// Bytes that are taken before that, for a moment.
    pub(crate) fn filling(&self, pixels: usize) -> u64 {
        if self.content == MaskedContent::Fill { content::MEMORY * pixels as u64 } else { 0 }
    }
}

/// What is under the mask at the beginning (A1111's `inpainting_fill`, 0 to 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskedContent {
    /// Colours from around the mask.
    Fill,
    /// The image.
    Original,
    /// Noise.
    LatentNoise,
    /// Latents of zero.
    LatentNothing,
}

impl MaskedContent {
    /// All, in the order of their numbers.
    pub const ALL: [MaskedContent; 4] =
        [MaskedContent::Fill, MaskedContent::Original, MaskedContent::LatentNoise, MaskedContent::LatentNothing];

    /// Its name in the web interface's texts.
    pub fn label(self) -> &'static str {
        match self {
            MaskedContent::Fill => "fill",
            MaskedContent::Original => "original",
            MaskedContent::LatentNoise => "latent noise",
            MaskedContent::LatentNothing => "latent nothing",
        }
    }
}

impl std::str::FromStr for MaskedContent {
    type Err = String;

    /// A number from 0 to 3, or a name, with blanks or underscores.
    fn from_str(text: &str) -> Result<MaskedContent, String> {
        let name = text.trim().to_lowercase().replace('_', " ");
        let mut all = MaskedContent::ALL.into_iter().enumerate();
        all.find(|(number, content)| content.label() == name || number.to_string() == name)
            .map(|(_, content)| content)
            .ok_or_else(|| {
                format!("`{text}` is unknown; allowed are 0 fill, 1 original, 2 latent noise, 3 latent nothing")
            })
    }
}
