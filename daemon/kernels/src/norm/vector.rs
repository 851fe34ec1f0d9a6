//! The norms on vectors, row by row: where a row is read, and what follows once it is normalised, are the caller's.

use std::ops::Range;

use half::f16;

use crate::rows::{greatest_magnitudes, quantize_by};
use crate::scalar;
use crate::scalar::math::SILU_DEPTH;
use crate::simd::{LANES, Simd, math};

/// Rows that a layer norm takes at once.
pub(super) const TOGETHER: usize = 4;

/// Where rows are read that are written elsewhere or over themselves. Not a closure, which might not be inlined.
pub(super) trait RowSource: Copy {
    /// The values at `at`, sixteen at most, where `out` is what is written.
    fn load<S: Simd>(self, simd: S, out: &[f32], at: Range<usize>) -> S::F;
}

#[derive(Clone, Copy)]
pub(super) struct InPlace;

impl RowSource for InPlace {
    #[inline(always)]
    fn load<S: Simd>(self, simd: S, out: &[f32], at: Range<usize>) -> S::F {
        simd.load(&out[at])
    }
}

#[derive(Clone, Copy)]
pub(super) struct FromF32<'a>(pub(super) &'a [f32]);

impl RowSource for FromF32<'_> {
    #[inline(always)]
    fn load<S: Simd>(self, simd: S, _: &[f32], at: Range<usize>) -> S::F {
        simd.load(&self.0[at])
    }
}

/// In units of the second, which is 1 where `SCALED` is not set.
#[derive(Clone, Copy)]
pub(super) struct FromF16<'a, const SCALED: bool>(pub(super) &'a [f16], pub(super) f32);

impl<const SCALED: bool> RowSource for FromF16<'_, SCALED> {
    #[inline(always)]
    fn load<S: Simd>(self, simd: S, _: &[f32], at: Range<usize>) -> S::F {
        let x = simd.load_f16(&self.0[at]);
        if SCALED { simd.mul(x, simd.splat(self.1)) } else { x }
    }
}

/// What is done to a row once it is normalised.
pub(super) trait RowEnd {
    /// Of the row of this number, and the greatest magnitude of each of its lanes.
    fn row<S: Simd>(&mut self, simd: S, number: usize, row: &[f32], max: S::F);
}

/// Nothing: rows are left where they are.
pub(super) struct KeptFloat;

impl RowEnd for KeptFloat {
    #[inline(always)]
    fn row<S: Simd>(&mut self, _: S, _: usize, _: &[f32], _: S::F) {}
}

/// Rows are quantized, each with a scale.
pub(super) struct ToInt8<'a> {
    pub(super) q: &'a mut [i8],
    pub(super) scale: &'a mut [f32],
}

impl RowEnd for ToInt8<'_> {
    #[inline(always)]
    fn row<S: Simd>(&mut self, simd: S, number: usize, row: &[f32], max: S::F) {
        let q = &mut self.q[number * row.len()..(number + 1) * row.len()];
        self.scale[number] = quantize_by(simd, row, max, q);
    }
}

/// [`scalar::norm::scale_shift`] of the rows of `x`, of which `out` has as many.
#[inline(always)]
pub(super) fn scale_shift_rows<S: Simd>(
    simd: S,
    x: impl RowSource,
    out: &mut [f32],
    (scale, shift, silu): (&[f32], &[f32], bool),
    end: &mut impl RowEnd,
) {
    let channels = scale.len();
    let whole = channels / LANES * LANES;
    for row in 0..out.len() / channels {
        let first = row * channels;
        // SiLU's values are above −SILU_DEPTH: if the greatest is above SILU_DEPTH, it is the greatest magnitude, too.
        let mut max = simd.splat(if silu { SILU_DEPTH } else { 0.0 });
        let of_channels = scale.as_chunks::<LANES>().0.iter().zip(shift.as_chunks::<LANES>().0);
        for (i, (scale, shift)) in of_channels.enumerate() {
            let at = first + i * LANES;
            let y = simd.fma(x.load(simd, out, at..at + LANES), simd.load(scale), simd.load(shift));
            let y = if silu { math::silu(simd, y) } else { y };
            max = if silu { simd.at_least(max, y) } else { simd.max_magnitude(y, max) };
            simd.store(y, line_mut(out, at));
        }
        if whole < channels {
            let at = first + whole..first + channels;
            let y = simd.fma(x.load(simd, out, at.clone()), simd.load(&scale[whole..]), simd.load(&shift[whole..]));
            let y = if silu { math::silu(simd, y) } else { y };
            max = if silu { simd.at_least(max, y) } else { simd.max_magnitude(y, max) };
            simd.store(y, &mut out[at]);
        }
        let out = &out[first..first + channels];
        if silu && simd.fold_max(max) == SILU_DEPTH {
            max = greatest_magnitudes(simd, out);
        }
        end.row(simd, row, out, max);
    }
}

/// Layer normalisation of the rows of `x` into `out`, or of those of `out`: some at once, then one at a time.
#[inline(always)]
pub(super) fn layer_norms<S: Simd>(
    simd: S,
    x: Option<&[f32]>,
    out: &mut [f32],
    (gamma, beta, eps): (&[f32], &[f32], f32),
    end: &mut impl RowEnd,
) {
    let channels = gamma.len();
    let together = out.len() / channels / TOGETHER * TOGETHER;
    let (whole, rest) = out.split_at_mut(together * channels);
    for (i, rows) in whole.chunks_exact_mut(TOGETHER * channels).enumerate() {
        let x = x.map(|x| &x[i * TOGETHER * channels..]);
        let maxima = layer_norm_rows::<S, TOGETHER>(simd, x, rows, (gamma, beta), eps);
        for ((r, row), max) in rows.chunks_exact(channels).enumerate().zip(maxima) {
            end.row(simd, i * TOGETHER + r, row, max);
        }
    }
    for (i, row) in rest.chunks_exact_mut(channels).enumerate() {
        let x = x.map(|x| &x[(together + i) * channels..]);
        let [max] = layer_norm_rows::<S, 1>(simd, x, row, (gamma, beta), eps);
        end.row(simd, together + i, row, max);
    }
}

/// Layer normalisation of `R` rows at once: a row's sums are one chain of additions, so that a single row would wait for each.
/// Returns the greatest magnitude of each lane of each row.
#[inline(always)]
fn layer_norm_rows<S: Simd, const R: usize>(
    simd: S,
    x: Option<&[f32]>,
    out: &mut [f32],
    (gamma, beta): (&[f32], &[f32]),
    eps: f32,
) -> [S::F; R] {
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
    let mut maxima = [simd.splat(0.0); R];
    for (r, (square, mean)) in squares.into_iter().zip(means).enumerate() {
        let mut max = simd.splat(0.0);
        let inverse = simd.splat(scalar::norm::inverse_deviation(simd.fold(square), n, eps));
        let of_channels = gamma.as_chunks::<LANES>().0.iter().zip(beta.as_chunks::<LANES>().0);
        for (i, (gamma, beta)) in of_channels.enumerate() {
            let at = r * channels + i * LANES;
            let d = simd.mul(simd.sub(simd.load(line(x.unwrap_or(out), at)), mean), inverse);
            let y = simd.fma(d, simd.load(gamma), simd.load(beta));
            max = simd.max_magnitude(y, max);
            simd.store(y, line_mut(out, at));
        }
        if whole < channels {
            let d = simd.mul(simd.sub(simd.load(&x.unwrap_or(out)[rest(r)]), mean), inverse);
            let y = simd.fma(d, simd.load(&gamma[whole..]), simd.load(&beta[whole..]));
            max = simd.max_magnitude(y, max);
            simd.store(y, &mut out[rest(r)]);
        }
        maxima[r] = max;
    }
    maxima
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
