//! SRVGGNetCompact (Real-ESRGAN by Wang et al. 2021): 3×3 convolutions of one width on the small image, PReLU after all
//! but the last, which makes a square of pixels of each pixel.
//!
//! What is made of them, `pixel_shuffle` and the sum with the enlarged image, is the engine's: it needs no weights, and
//! the large image is only ever held as bytes.

use diffused_kernels::pack::Format;

use super::vae::{COLOURS, OUTER, picture};
use crate::network::{Builder, BuiltNetwork, Conv};
use crate::source::UpscalerConfig;

/// The upscaler's network; its pixels are from 0 to 1.
pub(crate) fn build(config: &UpscalerConfig, weights: Format) -> BuiltNetwork {
    let mut b = Builder::new(weights);
    let mut x = picture(&mut b, "image", COLOURS);
    for layer in (0..config.last()).step_by(2) {
        let settings = if layer == 0 { OUTER } else { Conv::default() };
        x = b.conv(x, &format!("body.{layer}"), config.channels, settings);
        b.prelu(x, &format!("body.{}", layer + 1));
    }
    let x = b.conv(x, &format!("body.{}", config.last()), COLOURS * config.scale * config.scale, OUTER);
    b.finish("upscaler", x, "squares")
}
