//! Group and layer normalisation, with SiLU and quantization fused in.

mod sums;

use rayon::prelude::*;

pub use self::sums::{GroupSums, MadeRow};
use crate::cancel::{Tasks, is_cancelled};
use crate::cpu::Level;
use crate::rows::{BATCH, FloatRows, ToSingle, quantize_row};
use crate::scalar;
use crate::simd::{LANES, Simd, SimdFn, at_level, math};

/// Rows that a layer norm takes at once.
const TOGETHER: usize = 4;

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
    /// The number of channels, of which `values` values are whole rows.
    fn channels(&self, values: usize) -> usize {
        let (Norm::Scaled { scale: a, shift: b, .. } | Norm::Layer { gamma: a, beta: b, .. }) = self;
        assert!(!a.is_empty() && a.len() == b.len(), "{} and {} values for the channels", a.len(), b.len());
        assert!(values.is_multiple_of(a.len()), "{values} values do not fill rows of {}", a.len());
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

    /// Normalises the rows of `x` into `out`.
    #[inline(always)]
    fn rows<S: Simd>(&self, simd: S, x: FloatRows, out: &mut [f32]) {
        match x {
            FloatRows::F32(x) => self.vector(simd, Some(x), out),
            FloatRows::F16(x, unit) => {
                ToSingle { x, unit, out }.call(simd);
                self.vector(simd, None, out);
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
    let of_channels = scale.as_chunks::<LANES>().0.iter().zip(shift.as_chunks::<LANES>().0);
    for (i, (scale, shift)) in of_channels.enumerate() {
        let x = simd.load(line(x.unwrap_or(out), i * LANES));
        let y = simd.fma(x, simd.load(scale), simd.load(shift));
        simd.store(if silu { math::silu(simd, y) } else { y }, line_mut(out, i * LANES));
    }
    let whole = out.len() / LANES * LANES;
    if whole < out.len() {
        let rest = whole..out.len();
        let x = simd.load(&x.unwrap_or(out)[rest.clone()]);
        let y = simd.fma(x, simd.load(&scale[rest.clone()]), simd.load(&shift[rest.clone()]));
        simd.store(if silu { math::silu(simd, y) } else { y }, &mut out[rest]);
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
    let whole = channels / LANES * LANES;
    let rest = |r: usize| r * channels + whole..(r + 1) * channels;
    let mut sums = [simd.splat(0.0); R];
    for first in (0..whole).step_by(LANES) {
        for (r, sum) in sums.iter_mut().enumerate() {
            *sum = simd.add(*sum, simd.load(line(x.unwrap_or(out), r * channels + first)));
        }
    }
    let mut means = sums;
    for (r, mean) in means.iter_mut().enumerate() {
        let sum = if whole < channels { simd.add(*mean, simd.load(&x.unwrap_or(out)[rest(r)])) } else { *mean };
        *mean = simd.splat(simd.fold(sum) / n);
    }
    let mut squares = [simd.splat(0.0); R];
    for first in (0..whole).step_by(LANES) {
        for (r, (square, mean)) in squares.iter_mut().zip(means).enumerate() {
            let d = simd.sub(simd.load(line(x.unwrap_or(out), r * channels + first)), mean);
            *square = simd.fma(d, d, *square);
        }
    }
    if whole < channels {
        for (r, (square, mean)) in squares.iter_mut().zip(means).enumerate() {
            let mut d = [0.0; LANES];
            simd.store(simd.sub(simd.load(&x.unwrap_or(out)[rest(r)]), mean), &mut d[..channels - whole]);
            let d = simd.load(&d);
            *square = simd.fma(d, d, *square);
        }
    }
    for (r, (square, mean)) in squares.into_iter().zip(means).enumerate() {
        let inverse = simd.splat(scalar::norm::inverse_deviation(simd.fold(square), n, eps));
        let of_channels = gamma.as_chunks::<LANES>().0.iter().zip(beta.as_chunks::<LANES>().0);
        for (i, (gamma, beta)) in of_channels.enumerate() {
            let at = r * channels + i * LANES;
            let d = simd.mul(simd.sub(simd.load(line(x.unwrap_or(out), at)), mean), inverse);
            simd.store(simd.fma(d, simd.load(gamma), simd.load(beta)), line_mut(out, at));
        }
        if whole < channels {
            let d = simd.mul(simd.sub(simd.load(&x.unwrap_or(out)[rest(r)]), mean), inverse);
            simd.store(simd.fma(d, simd.load(&gamma[whole..]), simd.load(&beta[whole..])), &mut out[rest(r)]);
        }
    }
}

/// Sixteen values from `at` on. Of an array the compiler knows the length, of a slice of sixteen it asks for it.
#[inline(always)]
fn line(values: &[f32], at: usize) -> &[f32; LANES] {
    values[at..].first_chunk().expect("sixteen values")
}

/// [`line`] to be written.
#[inline(always)]
fn line_mut(values: &mut [f32], at: usize) -> &mut [f32; LANES] {
    values[at..].first_chunk_mut().expect("sixteen values")
}

impl Level {
    /// Normalises rows, `[rows][channels]`.
    ///
    /// # Panics
    ///
    /// If sizes do not fit each other, or the CPU does not have the level.
    pub fn normalize(self, norm: &Norm, x: FloatRows, out: NormOut) {
        let channels = norm.channels(x.len());
        let batch = batch(channels);
        match out {
            NormOut::F32(out) => {
                assert_eq!(out.len(), x.len(), "the output's size");
                out.par_chunks_mut(batch).enumerate().for_each_task(|(n, out)| {
                    let x = x.part(n * batch..n * batch + out.len());
                    at_level!(self, simd => simd.run(NormRows { norm, x: Some(x), out }), scalar => {
                        norm.scalar(x.to_f32_scalar(out));
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
                let batches = q.par_chunks_mut(batch).zip(scale.par_chunks_mut(batch / channels)).enumerate();
                let init = || vec![0.0; TOGETHER * channels];
                batches.for_each_init(init, |rows, (n, (q, scale))| {
                    if !is_cancelled() {
                        let x = x.part(n * batch..n * batch + q.len());
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
        let channels = norm.channels(x.len());
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
    x: Option<FloatRows<'a>>,
    out: &'a mut [f32],
}

impl SimdFn for NormRows<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) {
        match self.x {
            Some(x) => self.norm.rows(simd, x, self.out),
            None => self.norm.vector(simd, None, self.out),
        }
    }
}

/// Rows through `rows`, which has room for some, to int8.
struct Quantized<'a> {
    norm: &'a Norm<'a>,
    x: FloatRows<'a>,
    q: &'a mut [i8],
    scale: &'a mut [f32],
    rows: &'a mut [f32],
    channels: usize,
}

impl Quantized<'_> {
    fn scalar(self) {
        for (n, (q, scale)) in self.q.chunks_exact_mut(self.channels).zip(self.scale).enumerate() {
            let x = self.x.part(n * self.channels..(n + 1) * self.channels);
            let row = x.to_f32_scalar(&mut self.rows[..self.channels]);
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
        let parts = self.q.chunks_mut(some).zip(self.scale.chunks_mut(some / self.channels)).enumerate();
        for (n, (q, scale)) in parts {
            let rows = &mut self.rows[..q.len()];
            self.norm.rows(simd, self.x.part(n * some..n * some + q.len()), rows);
            let rows = rows.chunks_exact(self.channels).zip(q.chunks_exact_mut(self.channels));
            for ((row, q), scale) in rows.zip(scale) {
                *scale = quantize_row(simd, row, q);
            }
        }
    }
}
