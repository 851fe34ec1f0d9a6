//! Group and layer normalisation, with SiLU and quantization fused in.

use rayon::prelude::*;

use crate::cancel::{Tasks, is_cancelled};
use crate::cpu::Level;
use crate::rows::{BATCH, quantize_row};
use crate::scalar;
use crate::simd::{LANES, Simd, SimdFn, at_level, math};

/// Rows that a layer norm takes at once.
const TOGETHER: usize = 4;
/// Image rows whose sums are held at a time.
const ROWS: usize = 64;

/// Where a norm's result goes.
#[derive(Debug)]
pub enum NormOut<'a> {
    /// As it is.
    F32(&'a mut [f32]),
    /// Quantized, one scale per row, as [`Level::quantize_rows`] does it.
    Int8 {
        /// The values.
        q: &'a mut [i8],
        /// A scale for each row.
        scale: &'a mut [f32],
    },
}

/// The sums behind a image's group norm. They are built row by row, so strips pool to the bits of the whole image.
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

    /// Adds rows of one image, `[rows][width][channels]`; strips come from top to bottom.
    ///
    /// The sums are f64: of a row's pixels from left to right, then of the rows from top to bottom.
    ///
    /// # Panics
    ///
    /// If `x` holds no whole rows, or the CPU does not have the level.
    pub fn add_rows(&mut self, level: Level, x: &[f32], width: usize) {
        let channels = self.sums.len();
        assert!(x.len().is_multiple_of(width * channels), "{} values are not rows of {width}x{channels}", x.len());
        self.pixels += x.len() / channels;
        let mut partial = vec![0.0; ROWS.min(x.len() / (width * channels)) * 2 * channels];
        for rows in x.chunks(ROWS * width * channels) {
            let rows = rows.par_chunks_exact(width * channels).zip(partial.par_chunks_exact_mut(2 * channels));
            let count = rows.len();
            rows.for_each_task(|(x, partial)| {
                let (sums, squares) = partial.split_at_mut(channels);
                let work = RowSums { x, sums, squares };
                at_level!(level, simd => simd.run(work), scalar => scalar::norm::row_sums(x, work.sums, work.squares));
            });
            for row in partial.chunks_exact(2 * channels).take(count) {
                let add = |(total, part): (&mut f64, &f64)| *total += part;
                self.sums.iter_mut().zip(&row[..channels]).for_each(add);
                self.squares.iter_mut().zip(&row[channels..]).for_each(add);
            }
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

/// Channels that are summed at a time: neighbouring cache lines, whose sums stay in registers.
const COLUMNS: usize = 64;

/// A row's sums; plain loops over a few channels at a time, which the compiler turns into the level's f64 vectors.
struct RowSums<'a> {
    x: &'a [f32],
    sums: &'a mut [f64],
    squares: &'a mut [f64],
}

impl SimdFn for RowSums<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(mut self, _: S) {
        let channels = self.sums.len();
        let whole = channels / COLUMNS * COLUMNS;
        for first in (0..whole).step_by(COLUMNS) {
            self.columns::<COLUMNS>(first);
        }
        for first in (whole..channels).step_by(LANES) {
            self.columns::<LANES>(first);
        }
    }
}

impl RowSums<'_> {
    /// The sums of `N` channels, or of those that are left.
    #[inline(always)]
    fn columns<const N: usize>(&mut self, first: usize) {
        let channels = self.sums.len();
        let (mut sum, mut square) = ([0f64; N], [0f64; N]);
        for pixel in self.x.chunks_exact(channels) {
            let pixel = &pixel[first..];
            if let Some(values) = pixel.first_chunk::<N>() {
                add_values(values, &mut sum, &mut square);
            } else {
                add_values(pixel, &mut sum, &mut square);
            }
        }
        let count = N.min(channels - first);
        self.sums[first..first + count].copy_from_slice(&sum[..count]);
        self.squares[first..first + count].copy_from_slice(&square[..count]);
    }
}

#[inline(always)]
fn add_values<const N: usize>(values: &[f32], sum: &mut [f64; N], square: &mut [f64; N]) {
    for ((value, sum), square) in values.iter().zip(sum).zip(square) {
        let value = f64::from(*value);
        *sum += value;
        *square += value * value;
    }
}

/// What is done to each row of `channels` values. All slices have one value for each channel.
#[derive(Debug, Clone, Copy)]
pub enum Norm<'a> {
    /// `x · scale + shift`, then SiLU if set: a group norm whose [`GroupSums`] are known.
    Scaled {
        /// `gamma / σ` of the channel's group.
        scale: &'a [f32],
        /// `beta − mean · gamma / σ`.
        shift: &'a [f32],
        /// SiLU follows.
        silu: bool,
    },
    /// `(x − mean) / √(variance + eps) · gamma + beta`, mean and variance over the row.
    Layer {
        /// Multiplies the normalised values.
        gamma: &'a [f32],
        /// Is added to them.
        beta: &'a [f32],
        /// Is added to the variance.
        eps: f32,
    },
}

impl Norm<'_> {
    /// The number of channels, of which `x` holds whole rows.
    fn channels(&self, x: &[f32]) -> usize {
        let (Norm::Scaled { scale: a, shift: b, .. } | Norm::Layer { gamma: a, beta: b, .. }) = self;
        assert!(!a.is_empty() && a.len() == b.len(), "{} and {} values for the channels", a.len(), b.len());
        assert!(x.len().is_multiple_of(a.len()), "{} values do not fill rows of {}", x.len(), a.len());
        a.len()
    }

    fn scalar(&self, rows: &mut [f32]) {
        let (Norm::Scaled { scale: of_channels, .. } | Norm::Layer { gamma: of_channels, .. }) = self;
        for row in rows.chunks_exact_mut(of_channels.len()) {
            match *self {
                Norm::Scaled { scale, shift, silu } => scalar::norm::scale_shift(row, scale, shift, silu),
                Norm::Layer { gamma, beta, eps } => scalar::norm::layer_norm(row, gamma, beta, eps),
            }
        }
    }

    /// Normalises the rows of `out`, or those of `x` into it.
    #[inline(always)]
    fn vector<S: Simd>(&self, simd: S, x: Option<&[f32]>, out: &mut [f32]) {
        match *self {
            Norm::Scaled { scale, shift, silu } => {
                for (r, out) in out.chunks_exact_mut(scale.len()).enumerate() {
                    scale_shift(simd, x.map(|x| &x[r * scale.len()..]), out, (scale, shift), silu);
                }
            }
            Norm::Layer { gamma, beta, eps } => {
                let channels = gamma.len();
                let together = out.len() / channels / TOGETHER * TOGETHER * channels;
                let (whole, rest) = out.split_at_mut(together);
                for (i, rows) in whole.chunks_exact_mut(TOGETHER * channels).enumerate() {
                    let x = x.map(|x| &x[i * TOGETHER * channels..]);
                    layer_norm_rows::<S, TOGETHER>(simd, x, rows, (gamma, beta), eps);
                }
                for (i, row) in rest.chunks_exact_mut(channels).enumerate() {
                    let x = x.map(|x| &x[together + i * channels..]);
                    layer_norm_rows::<S, 1>(simd, x, row, (gamma, beta), eps);
                }
            }
        }
    }
}

/// [`scalar::norm::scale_shift`] of the row `out`, or of one that begins `x`.
#[inline(always)]
fn scale_shift<S: Simd>(simd: S, x: Option<&[f32]>, out: &mut [f32], (scale, shift): (&[f32], &[f32]), silu: bool) {
    for first in (0..out.len()).step_by(LANES) {
        let range = first..out.len().min(first + LANES);
        let x = simd.load(&x.unwrap_or(out)[range.clone()]);
        let y = simd.fma(x, simd.load(&scale[range.clone()]), simd.load(&shift[range.clone()]));
        simd.store(if silu { math::silu(simd, y) } else { y }, &mut out[range]);
    }
}

/// Layer normalisation of `R` rows at once: a row's sums are one chain of additions, so that a single row would wait for each.
#[inline(always)]
fn layer_norm_rows<S: Simd, const R: usize>(
    simd: S,
    x: Option<&[f32]>,
    out: &mut [f32],
    (gamma, beta): (&[f32], &[f32]),
    eps: f32,
) {
    let channels = gamma.len();
    let n = channels as f32;
    let mut sums = [simd.splat(0.0); R];
    for first in (0..channels).step_by(LANES) {
        for (r, sum) in sums.iter_mut().enumerate() {
            *sum = simd.add(*sum, row_part(simd, x.unwrap_or(out), channels, r, first));
        }
    }
    let mut means = sums;
    for mean in &mut means {
        *mean = simd.splat(simd.fold(*mean) / n);
    }
    let mut squares = [simd.splat(0.0); R];
    let whole = channels / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        for (r, (square, mean)) in squares.iter_mut().zip(means).enumerate() {
            let d = simd.sub(row_part(simd, x.unwrap_or(out), channels, r, first), mean);
            *square = simd.fma(d, d, *square);
        }
    }
    if whole < channels {
        for (r, (square, mean)) in squares.iter_mut().zip(means).enumerate() {
            let mut d = [0.0; LANES];
            let rest = row_part(simd, x.unwrap_or(out), channels, r, whole);
            simd.store(simd.sub(rest, mean), &mut d[..channels - whole]);
            let d = simd.load(&d);
            *square = simd.fma(d, d, *square);
        }
    }
    for (r, (square, mean)) in squares.into_iter().zip(means).enumerate() {
        let inverse = simd.splat(scalar::norm::inverse_deviation(simd.fold(square), n, eps));
        for first in (0..channels).step_by(LANES) {
            let range = first..channels.min(first + LANES);
            let d = simd.mul(simd.sub(row_part(simd, x.unwrap_or(out), channels, r, first), mean), inverse);
            let y = simd.fma(d, simd.load(&gamma[range.clone()]), simd.load(&beta[range.clone()]));
            simd.store(y, &mut out[r * channels..][range]);
        }
    }
}

/// Sixteen values of row `r` from `first` on, with zeros after its end.
#[inline(always)]
fn row_part<S: Simd>(simd: S, rows: &[f32], channels: usize, r: usize, first: usize) -> S::F {
    simd.load(&rows[r * channels..(r + 1) * channels][first..channels.min(first + LANES)])
}

impl Level {
    /// Normalises rows, `[rows][channels]`.
    ///
    /// # Panics
    ///
    /// If sizes do not fit each other, or the CPU does not have the level.
    pub fn normalize(self, norm: &Norm, x: &[f32], out: NormOut) {
        let channels = norm.channels(x);
        let batches = x.par_chunks(batch(channels));
        match out {
            NormOut::F32(out) => {
                assert_eq!(out.len(), x.len(), "the output's size");
                batches.zip(out.par_chunks_mut(batch(channels))).for_each_task(|(x, out)| {
                    at_level!(self, simd => simd.run(NormRows { norm, x: Some(x), out }), scalar => {
                        out.copy_from_slice(x);
                        norm.scalar(out);
                    });
                });
            }
            NormOut::Int8 { q, scale } => {
                assert!(
                    q.len() == x.len() && scale.len() * channels == x.len(),
                    "{} values, {} scales",
                    q.len(),
                    scale.len()
                );
                let q = q.par_chunks_mut(batch(channels));
                let scale = scale.par_chunks_mut(batch(channels) / channels);
                let init = || vec![0.0; TOGETHER * channels];
                batches.zip(q).zip(scale).for_each_init(init, |rows, ((x, q), scale)| {
                    if !is_cancelled() {
                        let work = Quantized { norm, x, q, scale, rows, channels };
                        at_level!(self, simd => simd.run(work), scalar => work.scalar());
                    }
                });
            }
        }
    }

    /// Normalises rows, `[rows][channels]`, over themselves.
    ///
    /// # Panics
    ///
    /// If sizes do not fit each other, or the CPU does not have the level.
    pub fn normalize_in_place(self, norm: &Norm, x: &mut [f32]) {
        let channels = norm.channels(x);
        x.par_chunks_mut(batch(channels)).for_each_task(|out| {
            at_level!(self, simd => simd.run(NormRows { norm, x: None, out }), scalar => norm.scalar(out));
        });
    }
}

/// Values of whole rows that a thread takes at a time.
fn batch(channels: usize) -> usize {
    BATCH.div_ceil(channels).next_multiple_of(TOGETHER) * channels
}

/// Rows to `out`, from `x` or over themselves.
struct NormRows<'a> {
    norm: &'a Norm<'a>,
    x: Option<&'a [f32]>,
    out: &'a mut [f32],
}

impl SimdFn for NormRows<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) {
        self.norm.vector(simd, self.x, self.out);
    }
}

/// Rows through `rows`, which has room for some, to int8.
struct Quantized<'a> {
    norm: &'a Norm<'a>,
    x: &'a [f32],
    q: &'a mut [i8],
    scale: &'a mut [f32],
    rows: &'a mut [f32],
    channels: usize,
}

impl Quantized<'_> {
    fn scalar(self) {
        let rows = self.x.chunks_exact(self.channels).zip(self.q.chunks_exact_mut(self.channels));
        for ((x, q), scale) in rows.zip(self.scale) {
            let row = &mut self.rows[..self.channels];
            row.copy_from_slice(x);
            self.norm.scalar(row);
            *scale = scalar::rows::quantize_row(row, q);
        }
    }
}

impl SimdFn for Quantized<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) {
        let some = self.rows.len();
        let parts = self.x.chunks(some).zip(self.q.chunks_mut(some)).zip(self.scale.chunks_mut(some / self.channels));
        for ((x, q), scale) in parts {
            let rows = &mut self.rows[..x.len()];
            self.norm.vector(simd, Some(x), rows);
            let rows = rows.chunks_exact(self.channels).zip(q.chunks_exact_mut(self.channels));
            for ((row, q), scale) in rows.zip(scale) {
                *scale = quantize_row(simd, row, q);
            }
        }
    }
}
