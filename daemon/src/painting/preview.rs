//! What an image looks like while it is painted, as a small file.

use std::time::{Duration, Instant};

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{ImageResult, RgbImage};

/// The contract's "at most one a second".
const INTERVAL: Duration = Duration::from_secs(1);
/// The longer side of the file's image, pixels.
const SIDE: u32 = 256;
/// The file's quality, 1 to 100.
const QUALITY: u8 = 80;

/// Says when there is to be a preview.
#[derive(Debug, Default)]
pub struct PreviewClock(Option<Instant>);

impl PreviewClock {
    /// Whether there is to be one `now`: then the next one is due after the interval.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.0.is_none_or(|last| now - last >= INTERVAL);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}

/// A JPEG of a preview, made larger: its image has a pixel for each of the latents, of which there are 256 along an axis at
/// most.
pub fn jpeg(preview: &RgbImage) -> ImageResult<Vec<u8>> {
    let longer = preview.width().max(preview.height()).max(1);
    let [width, height] = [preview.width(), preview.height()].map(|side| (side * SIDE / longer).max(1));
    let image = imageops::resize(preview, width, height, FilterType::CatmullRom);
    let mut file = vec![];
    image.write_with_encoder(JpegEncoder::new_with_quality(&mut file, QUALITY))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn there_is_one_a_second() {
        let start = Instant::now();
        let mut clock = PreviewClock::default();
        let due = [0, 10, 999, 1000, 1001, 1999, 2000].map(|at| clock.is_due(start + Duration::from_millis(at)));
        assert_eq!(due, [true, false, false, true, false, false, true]);
    }

    #[test]
    fn the_longer_side_is_as_long_for_every_shape() {
        for (size, expected) in
            [((64, 64), (256, 256)), ((4, 8), (128, 256)), ((96, 64), (256, 170)), ((256, 1), (256, 1))]
        {
            let file = jpeg(&RgbImage::from_pixel(size.0, size.1, Rgb([200, 100, 50]))).unwrap();
            assert_eq!(image::guess_format(&file).unwrap(), image::ImageFormat::Jpeg);
            let image = image::load_from_memory(&file).unwrap().into_rgb8();
            assert_eq!(image.dimensions(), expected);
            let near = image.pixels().all(|pixel| pixel.0.iter().zip([200, 100, 50]).all(|(a, b)| a.abs_diff(b) < 6));
            assert!(near);
        }
    }
}
