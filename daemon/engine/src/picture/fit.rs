//! Images in another size, and in another shape.

use std::str::FromStr;

use image::{GenericImageView, ImageBuffer, Pixel};
use serde::{Deserialize, Serialize};

use super::lanczos::draw;

/// How an image becomes one of another shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Each side is scaled by itself, as diffusers does.
    #[default]
    Stretch,
    /// Scaled until it covers the other shape, and cut to the middle.
    Cover,
    /// Scaled until it lies within the other shape, in the middle of a background.
    Contain,
}

impl Fit {
    /// All, in the order in which documents list them.
    pub const ALL: [Fit; 3] = [Fit::Stretch, Fit::Cover, Fit::Contain];

    /// `image` in `width` × `height` pixels (Lanczos); where it does not reach, `background`. `Cover` is diffusers'
    /// `_resize_and_crop`, `Contain` Pillow's `ImageOps.pad`.
    pub fn place<I>(
        self,
        image: &I,
        width: usize,
        height: usize,
        background: I::Pixel,
    ) -> ImageBuffer<I::Pixel, Vec<u8>>
    where
        I: GenericImageView,
        I::Pixel: Pixel<Subpixel = u8> + 'static,
    {
        let room @ (width, height) = (width as u32, height as u32);
        let size = self.scaled(image.dimensions(), room);
        let mut placed = ImageBuffer::from_pixel(width, height, background);
        draw(image, size, &mut placed, (self.margin(size.0, width), self.margin(size.1, height)));
        placed
    }

    /// The size to which an image of width and height `own` is scaled for `room`.
    fn scaled(self, own: (u32, u32), room: (u32, u32)) -> (u32, u32) {
        let ratio = |(width, height): (u32, u32)| f64::from(width) / f64::from(height);
        let covering = |side: u32, by: u32, of: u32| (u64::from(side) * u64::from(by) / u64::from(of)) as u32;
        let inside = |ratio: f64, side: u32| ((ratio * f64::from(side)).round_ties_even() as u32).max(1);
        match self {
            Fit::Stretch => room,
            Fit::Cover if ratio(own) < ratio(room) => (room.0, covering(own.1, room.0, own.0)),
            Fit::Cover => (covering(own.0, room.1, own.1), room.1),
            Fit::Contain if ratio(own) > ratio(room) => (room.0, inside(f64::from(own.1) / f64::from(own.0), room.0)),
            Fit::Contain if ratio(own) < ratio(room) => (inside(ratio(own), room.1), room.1),
            Fit::Contain => room,
        }
    }

    /// Where a scaled side begins in its room.
    fn margin(self, side: u32, room: u32) -> i64 {
        match self {
            Fit::Contain => (f64::from(room - side) * 0.5).round_ties_even() as i64,
            Fit::Stretch | Fit::Cover => i64::from(room / 2) - i64::from(side / 2),
        }
    }

    /// Bytes that [`Fit::place`] takes at most beside an image of this width and height, in four channels: the result, and
    /// rows as wide as the wider of both, a third more of them than the filter reaches, as sizes are whole numbers.
    pub fn held((own_width, own_height): (u64, u64), (width, height): (u64, u64)) -> u64 {
        let scale = own_width.div_ceil(width.max(1)).max(own_height.div_ceil(height.max(1)));
        let rows = 8 * scale + 2;
        4 * (width.max(own_width) * rows.min(own_height) + width * height)
    }
}

/// The name of a `Fit`, or what is allowed.
impl FromStr for Fit {
    type Err = String;

    fn from_str(name: &str) -> Result<Fit, String> {
        match name.to_ascii_lowercase().as_str() {
            "stretch" => Ok(Fit::Stretch),
            "cover" => Ok(Fit::Cover),
            "contain" => Ok(Fit::Contain),
            _ => Err(format!("`{name}` is unknown; stretch, cover and contain are allowed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage, imageops};

    use super::*;

    const RED: Rgb<u8> = Rgb([255, 0, 0]);
    const BLUE: Rgb<u8> = Rgb([0, 0, 255]);
    const GREY: Rgb<u8> = Rgb([9, 9, 9]);

    /// 60 × 20: red, but the outer thirds are blue.
    fn striped() -> RgbImage {
        RgbImage::from_fn(60, 20, |x, _| if (20..40).contains(&x) { RED } else { BLUE })
    }

    #[test]
    fn stretching_scales_each_side() {
        let image = Fit::Stretch.place(&striped(), 40, 40, GREY);
        assert_eq!((image.dimensions(), *image.get_pixel(2, 20), *image.get_pixel(20, 2)), ((40, 40), BLUE, RED));
    }

    #[test]
    fn covering_shows_the_middle() {
        // Without what the filter brings over the stripes' edges.
        let image = Fit::Cover.place(&striped(), 28, 40, GREY);
        assert_eq!(image, RgbImage::from_pixel(28, 40, RED));
        let upright = imageops::rotate90(&striped());
        assert_eq!(Fit::Cover.place(&upright, 20, 14, GREY), RgbImage::from_pixel(20, 14, RED));
    }

    #[test]
    fn containing_shows_everything_on_the_background() {
        let image = Fit::Contain.place(&striped(), 60, 60, GREY);
        let expected = RgbImage::from_fn(60, 60, |x, y| match y {
            20..40 => *striped().get_pixel(x, y - 20),
            _ => GREY,
        });
        assert_eq!(image, expected);
        let upright = Fit::Contain.place(&imageops::rotate90(&striped()), 60, 60, GREY);
        assert_eq!(upright, imageops::rotate90(&expected));
    }

    #[test]
    fn thin_images_keep_a_pixel() {
        for (width, height) in [(1, 1000), (1000, 1), (1, 1), (999, 1000)] {
            for fit in Fit::ALL {
                let image = RgbImage::from_pixel(width, height, RED);
                let placed = fit.place(&image, 64, 32, RED);
                assert_eq!(placed, RgbImage::from_pixel(64, 32, RED), "{fit:?} of {width}×{height}");
            }
        }
    }
}
