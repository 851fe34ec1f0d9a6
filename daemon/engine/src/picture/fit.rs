//! Images in another size, and in another shape.

use std::str::FromStr;

use image::{ImageBuffer, Pixel, imageops};
use serde::{Deserialize, Serialize};

use super::lanczos::resize;

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

    /// `image` in `width` × `height` pixels (Lanczos); where it does not reach, `background`. `turned`: it is a quarter turn
    /// from upright, and is scaled as the upright image would be.
    pub fn place<P>(
        self,
        image: ImageBuffer<P, Vec<u8>>,
        width: usize,
        height: usize,
        background: P,
        turned: bool,
    ) -> ImageBuffer<P, Vec<u8>>
    where
        P: Pixel<Subpixel = u8> + 'static,
    {
        let (width, height) = (width as u32, height as u32);
        let (own_width, own_height) = image.dimensions();
        if (own_width, own_height) == (width, height) {
            return image;
        }
        match self {
            Fit::Stretch => resize(&image, width, height, turned),
            Fit::Cover => {
                let (cut_width, cut_height) = within((width, height), (own_width, own_height));
                let (left, top) = ((own_width - cut_width) / 2, (own_height - cut_height) / 2);
                resize(&*imageops::crop_imm(&image, left, top, cut_width, cut_height), width, height, turned)
            }
            Fit::Contain => {
                let (inner_width, inner_height) = within((own_width, own_height), (width, height));
                let inner = resize(&image, inner_width, inner_height, turned);
                drop(image);
                let mut placed = ImageBuffer::from_pixel(width, height, background);
                let (left, top) = ((width - inner_width) / 2, (height - inner_height) / 2);
                imageops::replace(&mut placed, &inner, left.into(), top.into());
                placed
            }
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

/// The largest size of the shape of `shape` that lies within `room`, in whole pixels that leave as many on one side as
/// on the other: so it is the same whichever way the image is turned.
fn within(shape: (u32, u32), room: (u32, u32)) -> (u32, u32) {
    let [width, height, room_width, room_height] = [shape.0, shape.1, room.0, room.1].map(u64::from);
    let centred = |side: u64, room: u64| (side + (room - side) % 2).max(1) as u32;
    if room_width * height < room_height * width {
        (room.0, centred(room_width * height / width, room_height))
    } else {
        (centred(room_height * width / height, room_width), room.1)
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

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
        let image = Fit::Stretch.place(striped(), 40, 40, GREY, false);
        assert_eq!((image.dimensions(), *image.get_pixel(2, 20), *image.get_pixel(20, 2)), ((40, 40), BLUE, RED));
    }

    #[test]
    fn covering_shows_the_middle() {
        assert_eq!(Fit::Cover.place(striped(), 40, 40, GREY, false), RgbImage::from_pixel(40, 40, RED));
        let upright = imageops::rotate90(&striped());
        assert_eq!(Fit::Cover.place(upright, 16, 16, GREY, false), RgbImage::from_pixel(16, 16, RED));
    }

    #[test]
    fn containing_shows_everything_on_the_background() {
        let image = Fit::Contain.place(striped(), 60, 60, GREY, false);
        let expected = RgbImage::from_fn(60, 60, |x, y| match y {
            20..40 => *striped().get_pixel(x, y - 20),
            _ => GREY,
        });
        assert_eq!(image, expected);
        let upright = Fit::Contain.place(imageops::rotate90(&striped()), 60, 60, GREY, false);
        assert_eq!(upright, imageops::rotate90(&expected));
    }

    #[test]
    fn thin_images_keep_a_pixel() {
        for (width, height) in [(1, 1000), (1000, 1), (1, 1), (999, 1000)] {
            for fit in Fit::ALL {
                let image = RgbImage::from_pixel(width, height, RED);
                let placed = fit.place(image, 64, 32, RED, false);
                assert_eq!(placed, RgbImage::from_pixel(64, 32, RED), "{fit:?} of {width}×{height}");
            }
        }
    }
}
