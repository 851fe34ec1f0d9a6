//! Group and layer normalisation, with SiLU and quantization fused in.

use rayon::prelude::*;

use crate::cpu::{self, Level};
use crate::scalar;

/// Where a norm's result goes.
#[derive(Debug)]
pub enum Out<'a> {
    /// As it is.
    F32(&'a mut [f32]),
    /// Quantized, one scale per row, as [`crate::quantize_rows`] does it.
    Int8 {
        /// The values.
        q: &'a mut [i8],
        /// A scale for each row.
        scale: &'a mut [f32],
    },
}

/// The sums behind a picture's group norm. They are built row by row, so strips pool to the bits of the whole picture.
#[derive(Debug, Clone)]
pub struct GroupSums {
    sums: Vec<f64>,
    squares: Vec<f64>,
    pixels: usize,
}

impl GroupSums {
    /// Of no rows yet.
    pub fn new(channels: usize) -> GroupSums {
        GroupSums { sums: vec![0.0; channels], squares: vec![0.0; channels], pixels: 0 }
    }

    /// Adds rows of one picture, `[rows][width][channels]`; strips come from top to bottom.
    ///
    /// The sums are f64: of a row's pixels from left to right, then of the rows from top to bottom.
    ///
    /// # Panics
    ///
    /// If `x` holds no whole rows.
    pub fn add_rows(&mut self, x: &[f32], width: usize) {
        self.add_rows_at(cpu::level(), x, width);
    }

    /// [`GroupSums::add_rows`] at a level.
    ///
    /// # Panics
    ///
    /// If `x` holds no whole rows, or the CPU does not have the level.
    pub fn add_rows_at(&mut self, level: Level, x: &[f32], width: usize) {
        assert!(level.available(), "this CPU has no {level}");
        let channels = self.sums.len();
        assert!(x.len().is_multiple_of(width * channels), "{} values are no rows of {width}x{channels}", x.len());
        self.pixels += x.len() / channels;
        for row in x.chunks_exact(width * channels) {
            scalar::norm::add_row(row, channels, &mut self.sums, &mut self.squares);
        }
    }

    /// What each channel is multiplied by and what is then added: `gamma / σ` and `beta − mean · gamma / σ`, in f64, rounded
    /// once.
    ///
    /// # Panics
    ///
    /// If sizes do not fit each other.
    pub fn finish(&self, groups: usize, eps: f32, gamma: &[f32], beta: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let channels = self.sums.len();
        assert!(gamma.len() == channels && beta.len() == channels, "gamma {}, beta {}", gamma.len(), beta.len());
        assert!(groups > 0 && channels.is_multiple_of(groups), "{groups} groups in {channels} channels");
        let size = channels / groups;
        let count = (self.pixels * size) as f64;
        let group = |c: usize| {
            let range = c / size * size..(c / size + 1) * size;
            let mean = self.sums[range.clone()].iter().sum::<f64>() / count;
            let variance = self.squares[range].iter().sum::<f64>() / count - mean * mean;
            let scale = f64::from(gamma[c]) / (variance.max(0.0) + f64::from(eps)).sqrt();
            (scale as f32, (f64::from(beta[c]) - mean * scale) as f32)
        };
        (0..channels).map(group).unzip()
    }
}

/// `x · scale + shift` per channel, then SiLU if set.
///
/// # Panics
///
/// If sizes do not fit each other.
pub fn group_norm_apply(x: &[f32], channels: usize, scale_shift: (&[f32], &[f32]), silu: bool, out: Out) {
    group_norm_apply_at(cpu::level(), x, channels, scale_shift, silu, out);
}

/// [`group_norm_apply`] at a level.
///
/// # Panics
///
/// If sizes do not fit each other, or the CPU does not have the level.
pub fn group_norm_apply_at(
    level: Level,
    x: &[f32],
    channels: usize,
    (scale, shift): (&[f32], &[f32]),
    silu: bool,
    out: Out,
) {
    assert!(level.available(), "this CPU has no {level}");
    assert!(scale.len() == channels && shift.len() == channels, "a scale and a shift for each channel");
    by_rows(x, channels, out, |x, out| scalar::norm::scale_shift(x, scale, shift, silu, out));
}

/// [`group_norm_apply`] over its own input.
///
/// # Panics
///
/// If sizes do not fit each other.
pub fn group_norm_in_place(x: &mut [f32], channels: usize, scale_shift: (&[f32], &[f32]), silu: bool) {
    group_norm_in_place_at(cpu::level(), x, channels, scale_shift, silu);
}

/// [`group_norm_in_place`] at a level.
///
/// # Panics
///
/// If sizes do not fit each other, or the CPU does not have the level.
pub fn group_norm_in_place_at(
    level: Level,
    x: &mut [f32],
    channels: usize,
    (scale, shift): (&[f32], &[f32]),
    silu: bool,
) {
    assert!(level.available(), "this CPU has no {level}");
    assert!(scale.len() == channels && shift.len() == channels, "a scale and a shift for each channel");
    assert!(x.len().is_multiple_of(channels), "{} values are no rows of {channels}", x.len());
    x.par_chunks_exact_mut(channels).for_each(|row| {
        let copy = row.to_vec();
        scalar::norm::scale_shift(&copy, scale, shift, silu, row);
    });
}

/// `(x − mean) / σ · gamma + beta` over each row of `channels` values.
///
/// # Panics
///
/// If sizes do not fit each other.
pub fn layer_norm(x: &[f32], channels: usize, gamma: &[f32], beta: &[f32], eps: f32, out: Out) {
    layer_norm_at(cpu::level(), x, channels, gamma, beta, eps, out);
}

/// [`layer_norm`] at a level.
///
/// # Panics
///
/// If sizes do not fit each other, or the CPU does not have the level.
pub fn layer_norm_at(level: Level, x: &[f32], channels: usize, gamma: &[f32], beta: &[f32], eps: f32, out: Out) {
    assert!(level.available(), "this CPU has no {level}");
    assert!(gamma.len() == channels && beta.len() == channels, "gamma {}, beta {}", gamma.len(), beta.len());
    by_rows(x, channels, out, |x, out| scalar::norm::layer_norm_row(x, gamma, beta, eps, out));
}

/// Applies `norm` to each row and stores or quantizes what it gives.
fn by_rows(x: &[f32], channels: usize, out: Out, norm: impl Fn(&[f32], &mut [f32]) + Sync) {
    assert!(x.len().is_multiple_of(channels), "{} values are no rows of {channels}", x.len());
    let rows = x.par_chunks_exact(channels);
    match out {
        Out::F32(out) => {
            assert_eq!(out.len(), x.len(), "the output's size");
            rows.zip(out.par_chunks_exact_mut(channels)).for_each(|(x, out)| norm(x, out));
        }
        Out::Int8 { q, scale } => {
            assert!(
                q.len() == x.len() && scale.len() * channels == x.len(),
                "{} values, {} scales",
                q.len(),
                scale.len()
            );
            let quantized = q.par_chunks_exact_mut(channels).zip(scale);
            rows.zip(quantized).for_each_init(
                || vec![0.0; channels],
                |row, (x, (q, scale))| {
                    norm(x, row);
                    *scale = scalar::rows::quantize_row(row, q);
                },
            );
        }
    }
}
