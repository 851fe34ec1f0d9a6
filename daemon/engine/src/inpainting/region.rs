//! The part of an image that is painted where the mask covers little of it: cut out, scaled to the size that is painted,
//! and put back. diffusers' `get_crop_region`, `_resize_and_fill` and `_resize_and_crop`, which are the web interface's.

use image::{GrayImage, ImageBuffer, Pixel, RgbImage, imageops};

use super::Mask;
use crate::picture::lanczos;

/// A part of an image, pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

impl Region {
    /// The box of what is not black in `mask` and `padding` pixels around it, made wider or higher to have the shape of
    /// `target` (width and height) where the image has room. The whole image where the mask is black.
    pub(super) fn around(mask: &GrayImage, target: (usize, usize), padding: u32) -> Region {
        let (width, height) = mask.dimensions();
        let Some([left, top, right, bottom]) = bounds(mask) else { return Region { x: 0, y: 0, width, height } };
        let x = (left.saturating_sub(padding), right.saturating_add(padding).min(width));
        let y = (top.saturating_sub(padding), bottom.saturating_add(padding).min(height));
        let (across, down) = (f64::from(x.1 - x.0), f64::from(y.1 - y.0));
        let wanted = target.0 as f64 / target.1 as f64;
        let (x, y) = if across / down > wanted {
            (x, widened(y, across / wanted, height))
        } else {
            (widened(x, down * wanted, width), y)
        };
        Region { x: x.0, y: y.0, width: x.1 - x.0, height: y.1 - y.0 }
    }

    /// This part of `image`, scaled to fit into `width` × `height` pixels; where its shape is another one, its edges go on
    /// at both sides.
    pub fn crop<P: Pixel<Subpixel = u8> + 'static>(
        &self,
        image: &ImageBuffer<P, Vec<u8>>,
        width: usize,
        height: usize,
    ) -> ImageBuffer<P, Vec<u8>> {
        let part = imageops::crop_imm(image, self.x, self.y, self.width, self.height).to_image();
        fitted(part, (width as u32, height as u32), |ratio, own| ratio >= own)
    }

    /// Puts `painted` into its place in `image`, scaled to cover it.
    pub fn put(&self, image: &mut RgbImage, painted: RgbImage) {
        imageops::replace(image, &self.scaled(painted), self.x.into(), self.y.into());
    }

    /// The same, but where `mask`, which is as large as `image`, is black, the image stays.
    pub fn put_masked(&self, image: &mut RgbImage, painted: RgbImage, mask: &Mask) {
        for (x, y, painted) in self.scaled(painted).enumerate_pixels() {
            mask.lay_over(image, (self.x + x, self.y + y), *painted);
        }
    }

    fn scaled(&self, painted: RgbImage) -> RgbImage {
        fitted(painted, (self.width, self.height), |ratio, own| ratio <= own)
    }
}

/// Left, top, right and bottom of what is not black; right and bottom are outside.
fn bounds(mask: &GrayImage) -> Option<[u32; 4]> {
    let places = mask.enumerate_pixels().filter(|(_, _, value)| value.0 != [0]);
    places.fold(None, |bounds, (x, y, _)| {
        let [left, top, right, bottom] = bounds.unwrap_or([x, y, x + 1, y + 1]);
        Some([left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)])
    })
}

/// The range `from` to `to`, made as long as `wanted` on both sides, within 0 to `most`.
fn widened((from, to): (u32, u32), wanted: f64, most: u32) -> (u32, u32) {
    let more = (wanted - f64::from(to - from)).max(0.0) as i64;
    let (mut from, mut to, most) = (i64::from(from) - more / 2, i64::from(to) + more - more / 2, i64::from(most));
    if to >= most {
        from -= to - most;
        to = most;
    }
    if from < 0 {
        to = (to - from).min(most);
        from = 0;
    }
    (from as u32, to as u32)
}

/// `image` scaled to `width` × `height` without changing its shape, in the middle: to the full height where `by_height`
/// says so of the wanted shape and the image's, else to the full width. What is too large is cut off, what is missing are
/// the edges' pixels again.
fn fitted<P: Pixel<Subpixel = u8> + 'static>(
    image: ImageBuffer<P, Vec<u8>>,
    (width, height): (u32, u32),
    by_height: impl Fn(f64, f64) -> bool,
) -> ImageBuffer<P, Vec<u8>> {
    let (own_width, own_height) = image.dimensions();
    let ratio = |width: u32, height: u32| f64::from(width) / f64::from(height);
    let scaled = |side: u32, by: u32, of: u32| (u64::from(side) * u64::from(by) / u64::from(of)).max(1) as u32;
    let (across, down) = if by_height(ratio(width, height), ratio(own_width, own_height)) {
        (scaled(own_width, height, own_height), height)
    } else {
        (width, scaled(own_height, width, own_width))
    };
    let (left, top) = (i64::from(width / 2) - i64::from(across / 2), i64::from(height / 2) - i64::from(down / 2));
    let mut fitted = ImageBuffer::new(width, height);
    lanczos::draw(&image, (across, down), &mut fitted, (left, top));
    let inside = |at: u32, offset: i64, len: u32| i64::from(at).clamp(offset, offset + i64::from(len) - 1) as u32;
    for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
        let nearest = (inside(x, left, across), inside(y, top, down));
        if nearest != (x, y) {
            let edge = *fitted.get_pixel(nearest.0, nearest.1);
            fitted.put_pixel(x, y, edge);
        }
    }
    fitted
}
