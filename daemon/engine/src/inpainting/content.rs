//! What is under a mask at the beginning: colours from around it, noise or nothing, as the A1111 web interface has it.
//!
//! The colours are those of its `masking.fill`, made by Pillow's arithmetic: blurs of falling radius of what the mask
//! leaves, laid over each other. Pillow's Gaussian blur is three box blurs along each axis in whole numbers.

use image::RgbImage;

use super::{Mask, MaskedContent};
use crate::latents::Latents;
use crate::noise::Noise;

/// Radii of the blurs, and how often each is laid over those before.
const BLURS: [(f32, u32); 6] = [(256.0, 1), (64.0, 1), (16.0, 2), (4.0, 4), (2.0, 2), (0.0, 1)];
/// Box blurs of a Gaussian blur, along each axis.
const PASSES: u32 = 3;
/// Bits after the point in which a layer is laid over another.
const PRECISION: u32 = 7;

/// Bytes for each pixel while an image is filled: what is kept, a layer, their sum, and the image.
pub(super) const MEMORY: u64 = 3 * 4 + 3;

/// Red, green, blue and alpha.
type Rgba = [u8; 4];

/// `image` with colours from around the mask under it.
pub fn filled(image: &RgbImage, mask: &Mask) -> RgbImage {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let pixels = image.as_raw().as_chunks::<3>().0.iter().zip(mask.values());
    let kept: Vec<Rgba> = pixels.map(|([r, g, b], mask)| [*r, *g, *b, 255].map(|v| share(v, 255 - mask))).collect();
    let mut filled: Vec<Rgba> = vec![[0; 4]; kept.len()];
    for (radius, repeats) in BLURS {
        let mut layer = kept.clone();
        if radius > 0.0 {
            blur(&mut layer, width, height, box_radius(radius));
        }
        for (under, over) in filled.iter_mut().zip(&layer) {
            (0..repeats).for_each(|_| *under = laid_over(*under, straight(*over)));
        }
    }
    let mut pixels = filled.iter();
    RgbImage::from_fn(image.width(), image.height(), |_, _| {
        let [r, g, b, _] = pixels.next().copied().unwrap_or_default();
        image::Rgb([r, g, b])
    })
}

/// `value` times `alpha` of 255.
fn share(value: u8, alpha: u8) -> u8 {
    over_255(u32::from(value) * u32::from(alpha) + 128) as u8
}

/// About `value` / 255, after 128 was added to it.
fn over_255(value: u32) -> u32 {
    ((value >> 8) + value) >> 8
}

/// Colours that are not multiplied by their alpha any more.
fn straight([r, g, b, alpha]: Rgba) -> Rgba {
    match alpha {
        0 | 255 => [r, g, b, alpha],
        alpha => {
            let divided = |value: u8| (255 * u32::from(value) / u32::from(alpha)).min(255) as u8;
            [divided(r), divided(g), divided(b), alpha]
        }
    }
}

/// Pillow's `alpha_composite`.
fn laid_over(under: Rgba, over: Rgba) -> Rgba {
    let [over_alpha, under_alpha] = [over[3], under[3]].map(u32::from);
    if over_alpha == 0 {
        return under;
    }
    let alpha = over_alpha * 255 + under_alpha * (255 - over_alpha);
    let share = over_alpha * 255 * 255 * (1 << PRECISION) / alpha;
    let rest = 255 * (1 << PRECISION) - share;
    let mixed = |i: usize| {
        let sum = u32::from(over[i]) * share + u32::from(under[i]) * rest;
        (over_255(sum + (0x80 << PRECISION)) >> PRECISION) as u8
    };
    [mixed(0), mixed(1), mixed(2), over_255(alpha + 0x80) as u8]
}

/// The radius of the box blurs that together are a Gaussian of deviation `sigma` (Gwosdek et al. 2011, equations 7, 11
/// and 14).
fn box_radius(sigma: f32) -> f32 {
    let variance = sigma * sigma / PASSES as f32;
    let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
    let whole = ((length - 1.0) / 2.0).floor();
    let part = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance);
    whole + part / (6.0 * (variance - (whole + 1.0) * (whole + 1.0)))
}

/// Box blurs along rows, then along columns.
fn blur(pixels: &mut [Rgba], width: usize, height: usize, radius: f32) {
    let mut line = vec![[0; 4]; width.max(height)];
    for y in 0..height {
        let row = &mut pixels[y * width..(y + 1) * width];
        (0..PASSES).for_each(|_| blur_line(row, &mut line, radius));
    }
    let mut column = vec![[0; 4]; height];
    for x in 0..width {
        let places = || (0..height).map(|y| y * width + x);
        column.iter_mut().zip(places()).for_each(|(value, at)| *value = pixels[at]);
        (0..PASSES).for_each(|_| blur_line(&mut column, &mut line, radius));
        places().zip(&column).for_each(|(at, value)| pixels[at] = *value);
    }
}

/// One box blur of a line, whose ends go on outside of it. `copy` is room for the line.
fn blur_line(line: &mut [Rgba], copy: &mut [Rgba], radius: f32) {
    let (len, whole) = (line.len() as isize, radius as isize);
    let source = &mut copy[..line.len()];
    source.copy_from_slice(line);
    // Weights of the pixels that the box covers, and of both that it covers in part, of 2^24.
    let weight = ((1u32 << 24) as f32 / (radius * 2.0 + 1.0)) as u32;
    let edge_weight = ((1 << 24) - (whole as u32 * 2 + 1) * weight) / 2;
    let at = |x: isize| source[x.clamp(0, len - 1) as usize].map(u32::from);
    let mut sums = [0; 4];
    (-whole - 1..whole).for_each(|x| sums = added(sums, at(x)));
    for (x, pixel) in (0..).zip(line.iter_mut()) {
        sums = added(sums, at(x + whole));
        let left = at(x - whole - 1);
        sums = std::array::from_fn(|i| sums[i] - left[i]);
        let edges = added(left, at(x + whole + 1));
        *pixel = std::array::from_fn(|i| ((sums[i] * weight + edges[i] * edge_weight + (1 << 23)) >> 24) as u8);
    }
}

fn added(a: [u32; 4], b: [u32; 4]) -> [u32; 4] {
    std::array::from_fn(|i| a[i] + b[i])
}

/// The image's `latents` with noise or nothing where `mask` is set, if that is asked for. The noise is the first that the
/// seed gives.
pub(crate) fn refill(content: MaskedContent, mask: &[bool], mut latents: Latents, seed: u64) -> Latents {
    let Latents { height, width, channels, .. } = latents;
    let new = match content {
        MaskedContent::Fill | MaskedContent::Original => return latents,
        MaskedContent::LatentNoise => Latents::noise(&mut Noise::new(seed), (height, width, channels)).values,
        MaskedContent::LatentNothing => vec![0.0; latents.values.len()],
    };
    let pixels = latents.values.chunks_exact_mut(channels).zip(new.chunks_exact(channels)).zip(mask);
    pixels.filter(|(_, masked)| **masked).for_each(|((pixel, new), _)| pixel.copy_from_slice(new));
    latents
}
