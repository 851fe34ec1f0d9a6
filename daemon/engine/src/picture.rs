//! Images between 8-bit pixels and the autoencoder's numbers, as diffusers' `VaeImageProcessor` converts them.

use image::RgbImage;

use crate::error::{Error, Result};
pub use colour::Colour;
pub use fit::Fit;

mod colour;
mod fit;
pub(crate) mod lanczos;

/// Colour channels of an image.
pub(crate) const COLOURS: usize = 3;

/// Pixels from -1 to 1, `[height][width][3]`.
pub(crate) fn to_pixels(image: &RgbImage) -> Vec<f32> {
    image.as_raw().iter().map(|value| f32::from(*value) / 255.0 * 2.0 - 1.0).collect()
}

/// The image of `pixels` from -1 to 1, `[height][width][3]`; values outside are clamped, halves rounded to even. A value
/// that is not finite is an error: it would become a black pixel.
pub(crate) fn to_image(pixels: &[f32], width: usize, height: usize) -> Result<RgbImage> {
    if !pixels.iter().all(|value| value.is_finite()) {
        let message = "the decoder's pixels are not finite: the latents or the decoder's weights are out of range";
        return Err(Error::Internal(message.into()));
    }
    let byte = |value: &f32| ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
    let bytes: Vec<u8> = pixels.iter().map(byte).collect();
    RgbImage::from_raw(width as u32, height as u32, bytes)
        .ok_or_else(|| Error::Internal(format!("{} values for an image of {width} x {height}", pixels.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_that_are_not_finite_are_an_error() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let Err(Error::Internal(message)) = to_image(&[0.0, value, 0.0], 1, 1) else { panic!("{value}") };
            assert!(message.contains("not finite"), "{message}");
        }
    }

    #[test]
    fn bytes_survive_the_way_there_and_back() {
        let image = RgbImage::from_fn(16, 16, |x, y| image::Rgb([(x * 16 + y) as u8, 255 - (x * 16 + y) as u8, 7]));
        assert_eq!(to_image(&to_pixels(&image), 16, 16).unwrap(), image);
    }

    #[test]
    fn values_outside_the_range_are_clamped() {
        let image = to_image(&[1.5, -3.0, 0.0], 1, 1).unwrap();
        assert_eq!(image.get_pixel(0, 0).0, [255, 0, 128]);
    }
}
