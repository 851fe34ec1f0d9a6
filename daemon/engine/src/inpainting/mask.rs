//! A mask: what of an image is repainted. Sums are f64 in a fixed order, so a mask is the same on every CPU.

use image::{GrayImage, Rgb, RgbImage};

use super::{Inpainting, Region};

/// From this value on a pixel is repainted: half of white, as diffusers' `mask_processor` rounds it.
const THRESHOLD: u8 = 128;

/// What of an image is repainted: 255 what is, 0 what is not, and between them at soft edges.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask(GrayImage);

impl Mask {
    /// `image` turned round and blurred as `inpainting` says.
    pub fn new(mut image: GrayImage, inpainting: &Inpainting) -> Mask {
        if inpainting.invert {
            image.as_mut().iter_mut().for_each(|value| *value = 255 - *value);
        }
        let (width, height) = (image.width() as usize, image.height() as usize);
        if let Some(kernel) = gaussian(inpainting.blur_x) {
            let rows = image.as_mut().chunks_exact_mut(width.max(1));
            rows.filter(|row| row.iter().any(|value| *value > 0)).for_each(|row| blur_row(row, &kernel));
        }
        if let Some(kernel) = gaussian(inpainting.blur_y) {
            let source = image.clone().into_raw();
            for (y, row) in image.as_mut().chunks_exact_mut(width.max(1)).enumerate() {
                blur_column(&source, row, y, height, &kernel);
            }
        }
        Mask(image)
    }

    /// Width and height, pixels.
    pub fn size(&self) -> (u32, u32) {
        self.0.dimensions()
    }

    /// Whether no pixel is repainted.
    pub fn is_empty(&self) -> bool {
        self.0.as_raw().iter().all(|value| *value < THRESHOLD)
    }

    /// The part of the image that is painted as `width` × `height` pixels: the mask's box and `padding` pixels around it.
    pub fn region(&self, width: usize, height: usize, padding: u32) -> Region {
        Region::around(&self.0, (width, height), padding)
    }

    /// What `region` has of it, as `width` × `height` pixels.
    pub fn crop(&self, region: &Region, width: usize, height: usize) -> Mask {
        Mask(region.crop(&self.0, width, height))
    }

    /// Twice as bright, so that all that was half masked is masked: the web interface lays this one over the whole image.
    #[must_use]
    pub fn doubled(mut self) -> Mask {
        self.0.as_mut().iter_mut().for_each(|value| *value = value.saturating_mul(2));
        self
    }

    /// `image` where the mask is black, `painted` where it is white. All have one size.
    pub fn overlay(&self, mut image: RgbImage, painted: &RgbImage) -> RgbImage {
        painted.enumerate_pixels().for_each(|(x, y, painted)| self.lay_over(&mut image, (x, y), *painted));
        image
    }

    /// Lays `painted` over the pixel of `image` there.
    pub(super) fn lay_over(&self, image: &mut RgbImage, (x, y): (u32, u32), painted: Rgb<u8>) {
        let mask = self.0.get_pixel(x, y).0[0];
        let pixel = image.get_pixel_mut(x, y);
        pixel.0.iter_mut().zip(painted.0).for_each(|(value, new)| *value = mixed(*value, new, mask));
    }

    /// For each pixel of latents with one for `factor` pixels along an axis, whether it is repainted: as the nearest
    /// pixel of the mask is, the one at its upper left.
    pub(crate) fn in_latents(&self, factor: usize) -> Vec<bool> {
        let rows = self.0.as_raw().chunks_exact(self.0.width() as usize).step_by(factor);
        rows.flat_map(|row| row.iter().step_by(factor).map(|value| *value >= THRESHOLD)).collect()
    }

    /// `pixels`, `[height][width][3]` from -1 to 1, with grey, 0, where they are repainted.
    pub(crate) fn leave(&self, mut pixels: Vec<f32>) -> Vec<f32> {
        let masked = pixels.chunks_exact_mut(3).zip(self.0.as_raw()).filter(|(_, mask)| **mask >= THRESHOLD);
        masked.for_each(|(pixel, _)| pixel.fill(0.0));
        pixels
    }

    /// Values row by row.
    pub(super) fn values(&self) -> &[u8] {
        self.0.as_raw()
    }
}

/// The share `mask` of 255 of `b`, the rest `a`; both ends are exact.
fn mixed(a: u8, b: u8, mask: u8) -> u8 {
    let (a, b, mask) = (u32::from(a), u32::from(b), u32::from(mask));
    ((a * (255 - mask) + b * mask + 127) / 255) as u8
}

/// Grey of an image, as Pillow converts it: ITU-R 601's luma.
pub fn luminance(image: &RgbImage) -> GrayImage {
    GrayImage::from_fn(image.width(), image.height(), |x, y| {
        let [r, g, b] = image.get_pixel(x, y).0.map(u32::from);
        image::Luma([((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8])
    })
}

/// The weights of OpenCV's Gaussian as the web interface asks for it, 2.5 deviations to either side.
fn gaussian(sigma: f64) -> Option<Vec<f64>> {
    let half = (2.5 * sigma + 0.5) as i32;
    if half <= 0 {
        return None;
    }
    let weight = |at: i32| libm::exp(-f64::from(at * at) / (2.0 * sigma * sigma));
    let weights: Vec<f64> = (-half..=half).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    Some(weights.into_iter().map(|weight| weight / sum).collect())
}

/// The place of `at` among `len`, mirrored at the first and the last.
fn mirrored(at: isize, len: usize) -> usize {
    let period = (2 * len as isize - 2).max(1);
    let at = at.rem_euclid(period) as usize;
    at.min(period as usize - at)
}

fn blur_row(row: &mut [u8], kernel: &[f64]) {
    let (source, half) = (row.to_vec(), kernel.len() as isize / 2);
    for (x, value) in row.iter_mut().enumerate() {
        let taps = kernel.iter().zip(x as isize - half..);
        let sum: f64 = taps.map(|(weight, at)| weight * f64::from(source[mirrored(at, source.len())])).sum();
        *value = (sum + 0.5) as u8;
    }
}

/// Row `y` of `height` rows `source`, into `row`.
fn blur_column(source: &[u8], row: &mut [u8], y: usize, height: usize, kernel: &[f64]) {
    let mut sums = vec![0.0; row.len()];
    for (weight, at) in kernel.iter().zip(y as isize - kernel.len() as isize / 2..) {
        let from = mirrored(at, height) * row.len();
        let values = &source[from..from + row.len()];
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * f64::from(*value));
    }
    row.iter_mut().zip(sums).for_each(|(value, sum)| *value = (sum + 0.5) as u8);
}
