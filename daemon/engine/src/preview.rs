//! What an image will be like while it is painted: a small image of the latents that the UNet's output stands for. The tiny
//! decoder makes it, where the model has one and that takes little of a step; else it has a pixel for each of the latents.
//!
//! Their colours are nearly a linear function of latents, of each autoencoder another one. It is found by least squares, once
//! for a model: its decoder makes pixels of noise, and what it makes of each latent is one observation.

use image::{Rgb, RgbImage};

use crate::hires::{self, HiresUpscaler};
use crate::latents::Latents;
use crate::noise::Noise;
use crate::picture::COLOURS;

/// The longest side of the latents that are decoded to find the colours: more of them make no better colours.
const LONGEST: usize = 16;
/// Along an axis, how many of them are alike: those of a picture mostly are like their neighbours. Of the demo model's
/// pictures, two give the best colours.
const ALIKE: usize = 2;
/// The seed of that noise.
const SEED: u64 = 0;
/// Added to each sum of squares, for latents that hardly differ from each other.
const RIDGE: f64 = 1e-3;
/// Bytes that an observer may take for a preview: to make it larger, and a file of it.
const FILE: u64 = 1 << 20;

/// Of latents that the tiny decoder shows, the most along an axis: 256 pixels.
const DECODED: usize = 32;
/// A preview by the tiny decoder takes no more than this part of a step, or there is none.
const SHARE: u64 = 20;

/// Whether a preview by the tiny decoder, of so many multiply-adds, takes little of a step of `step` multiply-adds.
pub(crate) fn takes_little(preview: u64, step: u64) -> bool {
    preview.saturating_mul(SHARE) <= step
}

/// Bytes that previews of this height and width, pixels, take at the worst moment.
pub(crate) fn memory((height, width): (usize, usize)) -> u64 {
    (COLOURS * height * width) as u64 + FILE
}

/// Height and width of the latents that the tiny decoder is given for latents of this height and width.
pub(crate) fn reduced_size((height, width): (usize, usize)) -> (usize, usize) {
    let side = height.max(width).div_ceil(DECODED).max(1);
    (height.div_ceil(side), width.div_ceil(side))
}

/// The means of squares of `latents`, in which they are as many as the tiny decoder is given.
pub(crate) fn reduced(latents: &Latents) -> Latents {
    let (height, width) = reduced_size((latents.height, latents.width));
    let side = latents.height.max(latents.width).div_ceil(DECODED).max(1);
    let channels = latents.channels;
    let mut values = Vec::with_capacity(height * width * channels);
    for at in 0..height * width {
        let ends = |at: usize, len: usize| at * side..((at + 1) * side).min(len);
        let (rows, columns) = (ends(at / width, latents.height), ends(at % width, latents.width));
        let count = (rows.len() * columns.len()) as f32;
        let places = rows.flat_map(|row| columns.clone().map(move |column| row * latents.width + column));
        let sum = |channel| places.clone().map(|place| latents.values[place * channels + channel]).sum::<f32>();
        values.extend((0..channels).map(|channel| sum(channel) / count));
    }
    Latents { height, width, channels, values }
}

/// The colours of latents.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LatentColours {
    /// What each channel adds to the three colours, and in the end what they are without any; pixels are from -1 to 1.
    weights: Vec<[f64; COLOURS]>,
    /// How many latents they were found with.
    observations: usize,
}

impl LatentColours {
    /// Latents to find the colours with, of at most this height and width.
    pub(crate) fn probe((height, width, channels): (usize, usize, usize)) -> Latents {
        let (height, width) = (height.min(LONGEST), width.min(LONGEST));
        let coarse = (height.div_ceil(ALIKE), width.div_ceil(ALIKE), channels);
        let noise = Latents::noise(&mut Noise::new(SEED), coarse);
        hires::resize(&noise, height, width, HiresUpscaler::LatentNearest)
    }

    /// Whether they were found with as many latents as `probe` has.
    pub(crate) fn are_as_good_as_of(&self, probe: &Latents) -> bool {
        self.observations >= probe.height * probe.width
    }

    /// The colours, by what the decoder has made of `probe`: `pixels` are `[height][width][3]`, with `factor` of them for a
    /// latent along each axis.
    pub(crate) fn find(probe: &Latents, pixels: &[f32], factor: usize) -> LatentColours {
        let unknowns = probe.channels + 1;
        // The normal equations: sums of products of what is known of a latent, then of that and its colours.
        let mut rows = vec![vec![0.0; unknowns + COLOURS]; unknowns];
        for (at, latent) in probe.values.chunks_exact(probe.channels).enumerate() {
            let known: Vec<f64> = latent.iter().map(|value| f64::from(*value)).chain([1.0]).collect();
            let colours = mean_of_square(pixels, probe.width * factor, (at / probe.width, at % probe.width), factor);
            let both: Vec<f64> = known.iter().copied().chain(colours).collect();
            for (row, known) in rows.iter_mut().zip(&known) {
                row.iter_mut().zip(&both).for_each(|(sum, value)| *sum += known * value);
            }
        }
        rows.iter_mut().enumerate().for_each(|(at, row)| row[at] += RIDGE);
        solve(&mut rows);
        let weights = rows.iter().map(|row| std::array::from_fn(|colour| row[unknowns + colour])).collect();
        LatentColours { weights, observations: probe.height * probe.width }
    }

    /// What `latents` will look like, a pixel each; `None` where they are not finite.
    pub(crate) fn image(&self, latents: &Latents) -> Option<RgbImage> {
        if !latents.values.iter().all(|value| value.is_finite()) {
            return None;
        }
        let (last, weights) = self.weights.split_last()?;
        let pixels = latents.values.chunks_exact(latents.channels).map(|latent| {
            let colour = |colour: usize| {
                let parts = latent.iter().zip(weights).map(|(value, weights)| f64::from(*value) * weights[colour]);
                let value = parts.sum::<f64>() + last[colour];
                ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
            };
            Rgb(std::array::from_fn(colour))
        });
        let bytes = pixels.flat_map(|pixel| pixel.0).collect();
        RgbImage::from_raw(latents.width as u32, latents.height as u32, bytes)
    }
}

/// The mean colour of the square of `side` pixels that a latent becomes, the one in this row and column.
fn mean_of_square(pixels: &[f32], width: usize, (row, column): (usize, usize), side: usize) -> [f64; COLOURS] {
    let mut sums = [0.0; COLOURS];
    for line in pixels.chunks_exact(width * COLOURS).skip(row * side).take(side) {
        for pixel in line[column * side * COLOURS..][..side * COLOURS].chunks_exact(COLOURS) {
            sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += f64::from(*value));
        }
    }
    sums.map(|sum| sum / (side * side) as f64)
}

/// Gauss and Jordan's elimination: the left square of `rows`, symmetric and positive definite, becomes the identity, and
/// what is right of it the solution.
fn solve(rows: &mut [Vec<f64>]) {
    for at in 0..rows.len() {
        let pivot = rows[at][at];
        rows[at].iter_mut().for_each(|value| *value /= pivot);
        let row = rows[at].clone();
        for (_, other) in rows.iter_mut().enumerate().filter(|(other, _)| *other != at) {
            let factor = other[at];
            other.iter_mut().zip(&row).for_each(|(value, own)| *value -= factor * own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTOR: usize = 2;

    /// Pixels whose mean over a latent's square is linear in the latent.
    fn decoded(probe: &Latents) -> Vec<f32> {
        let colour = |latent: &[f32], colour: usize| 0.1 + 0.2 * latent[colour] - 0.05 * latent[3];
        let mut pixels = vec![];
        for y in 0..probe.height * FACTOR {
            for x in 0..probe.width * FACTOR {
                let latent = &probe.values[(y / FACTOR * probe.width + x / FACTOR) * 4..][..4];
                let texture = if (x + y) % 2 == 0 { 0.3 } else { -0.3 };
                pixels.extend((0..COLOURS).map(|c| colour(latent, c) + texture));
            }
        }
        pixels
    }

    #[test]
    fn colours_that_are_linear_are_found_and_applied() {
        let probe = LatentColours::probe((64, 9, 4));
        assert_eq!((probe.height, probe.width, probe.channels), (16, 9, 4));
        let colours = LatentColours::find(&probe, &decoded(&probe), FACTOR);
        assert!(colours.are_as_good_as_of(&probe));
        for (found, wanted) in colours
            .weights
            .iter()
            .flatten()
            .zip([[0.2, 0.0, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 0.2], [-0.05; 3], [0.1; 3]].iter().flatten())
        {
            assert!((found - wanted).abs() < 1e-3, "{found} for {wanted}");
        }
        let latents =
            Latents { height: 1, width: 2, channels: 4, values: vec![9.0, 0.0, -9.0, 0.0, 0.0, 1.0, 0.0, 2.0] };
        let image = colours.image(&latents).unwrap();
        // (0.1 / 2 + 0.5) · 255 is 140.25, (0.2 / 2 + 0.5) · 255 is 153, (0 / 2 + 0.5) · 255 is 127.5
        let near = |found: [u8; 3], wanted: [u8; 3]| found.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) <= 1);
        assert!(near(image.get_pixel(0, 0).0, [255, 140, 0]), "{image:?}");
        assert!(near(image.get_pixel(1, 0).0, [128, 153, 128]), "{image:?}");
    }

    #[test]
    fn a_preview_takes_a_twentieth_of_a_step_at_most() {
        assert_eq!(
            [(5, 100), (6, 100), (0, 0), (u64::MAX, u64::MAX - 1)].map(|of| takes_little(of.0, of.1)),
            [true, false, true, false]
        );
    }

    #[test]
    fn what_is_decoded_are_means_of_squares() {
        let of = |height, width| {
            let values = (0..height * width * 2).map(|at| (at / 2 % width * 10 + at % 2) as f32).collect();
            Latents { height, width, channels: 2, values }
        };
        assert_eq!(reduced(&of(3, 32)), of(3, 32));
        // Columns 0 to 2, 3 to 5, … come together, and 63 and 64.
        let means = reduced(&of(1, 65));
        assert_eq!((means.height, means.width), (1, 22));
        assert_eq!((&means.values[..4], &means.values[42..]), (&[10.0, 11.0, 40.0, 41.0][..], &[635.0, 636.0][..]));
        assert_eq!([(64, 48), (128, 128), (9, 256)].map(reduced_size), [(32, 24), (32, 32), (2, 32)]);
    }

    #[test]
    fn the_smallest_latents_have_colours_too() {
        let probe = LatentColours::probe((1, 1, 4));
        let colours = LatentColours::find(&probe, &decoded(&probe), FACTOR);
        assert!(colours.weights.iter().flatten().all(|weight| weight.is_finite()));
        assert!(!colours.are_as_good_as_of(&LatentColours::probe((4, 4, 4))));
        let latents = Latents { values: vec![0.0, f32::NAN, 0.0, 0.0], ..probe };
        assert!(colours.image(&latents).is_none());
    }
}
