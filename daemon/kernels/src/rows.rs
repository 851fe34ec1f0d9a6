//! Kernels on rows of activations: quantization, f16 storage, SiLU.

use std::ops::Range;

use half::f16;
use rayon::prelude::*;

use crate::cancel::{Tasks, is_cancelled};
use crate::cpu::Level;
use crate::scalar;
use crate::scalar::rows::TINY;
use crate::simd::{LANES, Simd, SimdFn, at_level, math};

/// Rows of values that a kernel reads.
#[derive(Debug, Clone, Copy)]
pub enum FloatRows<'a> {
    /// As they are.
    F32(&'a [f32]),
    /// In half precision, in units of a power of two.
    F16(&'a [f16], f32),
}

impl<'a> FloatRows<'a> {
    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            FloatRows::F32(x) => x.len(),
            FloatRows::F16(x, _) => x.len(),
        }
    }

    /// A part of the values.
    #[inline(always)]
    pub(crate) fn part(&self, range: Range<usize>) -> FloatRows<'a> {
        match *self {
            FloatRows::F32(x) => FloatRows::F32(&x[range]),
            FloatRows::F16(x, unit) => FloatRows::F16(&x[range], unit),
        }
    }

    /// `out`, with the values in it.
    pub(crate) fn to_f32_scalar(self, out: &mut [f32]) -> &mut [f32] {
        match self {
            FloatRows::F32(x) => out.copy_from_slice(x),
            FloatRows::F16(x, unit) => ToSingle { x, unit, out }.scalar(),
        }
        out
    }
}

/// Values that a thread takes at a time.
pub(crate) const BATCH: usize = 16 << 10;

impl Level {
    /// Rounds every value to the nearest f16 in units of `unit`, a power of two, halves to even; storing it as f16 in
    /// that unit then loses nothing.
    ///
    /// # Panics
    ///
    /// If the CPU does not have the level.
    pub fn round_to_f16(self, x: &mut [f32], unit: f32) {
        let inverse = 1.0 / unit;
        x.par_chunks_mut(BATCH).for_each_task(|x| {
            let work = Round { x, unit, inverse };
            at_level!(self, simd => simd.run(work), scalar => work.scalar());
        });
    }

    /// Quantizes each row of `channels` values: `scale = max|x| / 127`, `q = round(x · 127 / max|x|)`, halves to even.
    /// A row whose `max|x|` is below 1e-35 becomes zero with scale 0.
    ///
    /// # Panics
    ///
    /// If sizes do not fit each other, or the CPU does not have the level.
    pub fn quantize_rows(self, x: FloatRows, channels: usize, q: &mut [i8], scale: &mut [f32]) {
        assert!(x.len() == q.len() && x.len() == scale.len() * channels, "{} values, {} scales", x.len(), scale.len());
        let rows = BATCH.div_ceil(channels);
        let batches = q.par_chunks_mut(rows * channels).zip(scale.par_chunks_mut(rows)).enumerate();
        batches.for_each_init(
            || vec![0.0; channels],
            |row, (n, (q, scale))| {
                if !is_cancelled() {
                    let x = x.part(n * rows * channels..n * rows * channels + q.len());
                    let work = Quantize { x, channels, q, scale, row };
                    at_level!(self, simd => simd.run(work), scalar => work.scalar());
                }
            },
        );
    }

    /// Stores f32 values in half precision and units of `unit`, a power of two, rounded to nearest even.
    ///
    /// # Panics
    ///
    /// If the lengths differ, or the CPU does not have the level.
    pub fn f32_to_f16(self, x: &[f32], unit: f32, out: &mut [f16]) {
        assert_eq!(x.len(), out.len(), "as many results as values");
        let inverse = 1.0 / unit;
        let batches = x.par_chunks(BATCH).zip(out.par_chunks_mut(BATCH));
        batches.for_each_task(|(x, out)| {
            let work = ToHalf { x, inverse, out };
            at_level!(self, simd => simd.run(work), scalar => work.scalar());
        });
    }

    /// Reads half precision in units of `unit`, a power of two.
    ///
    /// # Panics
    ///
    /// If the lengths differ, or the CPU does not have the level.
    pub fn f16_to_f32(self, x: &[f16], unit: f32, out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "as many results as values");
        let batches = x.par_chunks(BATCH).zip(out.par_chunks_mut(BATCH));
        batches.for_each_task(|(x, out)| {
            let work = ToSingle { x, unit, out };
            at_level!(self, simd => simd.run(work), scalar => work.scalar());
        });
    }

    /// `x · sigmoid(x)`, in place.
    ///
    /// # Panics
    ///
    /// If the CPU does not have the level.
    pub fn silu(self, x: &mut [f32]) {
        x.par_chunks_mut(BATCH).for_each_task(|x| {
            at_level!(self, simd => simd.run(Silu(x)), scalar => {
                x.iter_mut().for_each(|x| *x = scalar::math::silu(*x));
            });
        });
    }
}

pub(crate) struct Round<'a> {
    pub(crate) x: &'a mut [f32],
    pub(crate) unit: f32,
    pub(crate) inverse: f32,
}

impl Round<'_> {
    pub(crate) fn scalar(self) {
        let Round { x, unit, inverse } = self;
        x.iter_mut().for_each(|x| *x = f16::from_f32_const(*x * inverse).to_f32_const() * unit);
    }
}

impl SimdFn for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) {
        match self.unit {
            1.0 => self.round::<S, false>(simd),
            _ => self.round::<S, true>(simd),
        }
    }
}

impl Round<'_> {
    #[inline(always)]
    fn round<S: Simd, const SCALED: bool>(self, simd: S) {
        let (unit, inverse) = (simd.splat(self.unit), simd.splat(self.inverse));
        let (whole, rest) = self.x.as_chunks_mut::<LANES>();
        for x in whole {
            round::<S, SCALED>(simd, x, unit, inverse);
        }
        round::<S, SCALED>(simd, rest, unit, inverse);
    }
}

/// Rounds sixteen values at most.
#[inline(always)]
fn round<S: Simd, const SCALED: bool>(simd: S, x: &mut [f32], unit: S::F, inverse: S::F) {
    let mut half = [f16::ZERO; LANES];
    simd.store_f16(scaled::<S, SCALED>(simd, simd.load(x), inverse), &mut half);
    simd.store(scaled::<S, SCALED>(simd, simd.load_f16(&half), unit), x);
}

/// `a · factor`, which is `a` where `SCALED` is not set: most units are 1.
#[inline(always)]
fn scaled<S: Simd, const SCALED: bool>(simd: S, a: S::F, factor: S::F) -> S::F {
    if SCALED { simd.mul(a, factor) } else { a }
}

struct Quantize<'a> {
    x: FloatRows<'a>,
    channels: usize,
    q: &'a mut [i8],
    scale: &'a mut [f32],
    /// For a row in f32.
    row: &'a mut [f32],
}

impl Quantize<'_> {
    fn scalar(self) {
        for (n, (q, scale)) in self.q.chunks_exact_mut(self.channels).zip(self.scale).enumerate() {
            let row = self.x.part(n * self.channels..(n + 1) * self.channels).to_f32_scalar(self.row);
            *scale = scalar::rows::quantize_row(row, q);
        }
    }
}

impl SimdFn for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) {
        for (n, (q, scale)) in self.q.chunks_exact_mut(self.channels).zip(self.scale).enumerate() {
            *scale = match self.x.part(n * self.channels..(n + 1) * self.channels) {
                FloatRows::F32(x) => quantize_row(simd, x, q),
                FloatRows::F16(x, unit) => {
                    ToSingle { x, unit, out: self.row }.call(simd);
                    quantize_row(simd, self.row, q)
                }
            };
        }
    }
}

/// `scalar::rows::quantize_row` at a level.
#[inline(always)]
fn quantize_row<S: Simd>(simd: S, x: &[f32], q: &mut [i8]) -> f32 {
    quantize_by(simd, x, greatest_magnitudes(simd, x), q)
}

/// The greatest magnitude of each lane.
#[inline(always)]
pub(crate) fn greatest_magnitudes<S: Simd>(simd: S, x: &[f32]) -> S::F {
    let (whole, rest) = x.as_chunks::<LANES>();
    let mut max = simd.splat(0.0);
    for x in whole {
        max = simd.max_magnitude(simd.load(x), max);
    }
    if !rest.is_empty() {
        max = simd.max_magnitude(simd.load(rest), max);
    }
    max
}

/// [`quantize_row`] where the greatest magnitude of each lane is known.
#[inline(always)]
pub(crate) fn quantize_by<S: Simd>(simd: S, x: &[f32], max: S::F, q: &mut [i8]) -> f32 {
    let max = simd.fold_max(max);
    if max < TINY {
        q.fill(0);
        return 0.0;
    }
    let inverse = simd.splat(127.0 / max);
    let ((whole, rest), (whole_q, rest_q)) = (x.as_chunks::<LANES>(), q.as_chunks_mut::<LANES>());
    for (q, x) in whole_q.iter_mut().zip(whole) {
        simd.store_i8(simd.load(x), inverse, q);
    }
    if !rest.is_empty() {
        simd.store_i8(simd.load(rest), inverse, rest_q);
    }
    max / 127.0
}

pub(crate) struct ToHalf<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) inverse: f32,
    pub(crate) out: &'a mut [f16],
}

impl ToHalf<'_> {
    pub(crate) fn scalar(self) {
        let ToHalf { x, inverse, out } = self;
        out.iter_mut().zip(x).for_each(|(out, x)| *out = f16::from_f32_const(*x * inverse));
    }
}

impl SimdFn for ToHalf<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) {
        match self.inverse {
            1.0 => self.convert::<S, false>(simd),
            _ => self.convert::<S, true>(simd),
        }
    }
}

impl ToHalf<'_> {
    #[inline(always)]
    fn convert<S: Simd, const SCALED: bool>(self, simd: S) {
        let inverse = simd.splat(self.inverse);
        let ((out, out_rest), (x, rest)) = (self.out.as_chunks_mut::<LANES>(), self.x.as_chunks::<LANES>());
        for (out, x) in out.iter_mut().zip(x) {
            simd.store_f16(scaled::<S, SCALED>(simd, simd.load(x), inverse), out);
        }
        simd.store_f16(scaled::<S, SCALED>(simd, simd.load(rest), inverse), out_rest);
    }
}

pub(crate) struct ToSingle<'a> {
    pub(crate) x: &'a [f16],
    pub(crate) unit: f32,
    pub(crate) out: &'a mut [f32],
}

impl ToSingle<'_> {
    pub(crate) fn scalar(self) {
        let ToSingle { x, unit, out } = self;
        out.iter_mut().zip(x).for_each(|(out, x)| *out = x.to_f32_const() * unit);
    }
}

impl SimdFn for ToSingle<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) {
        match self.unit {
            1.0 => self.convert::<S, false>(simd),
            _ => self.convert::<S, true>(simd),
        }
    }
}

impl ToSingle<'_> {
    #[inline(always)]
    fn convert<S: Simd, const SCALED: bool>(self, simd: S) {
        let unit = simd.splat(self.unit);
        let ((out, out_rest), (x, rest)) = (self.out.as_chunks_mut::<LANES>(), self.x.as_chunks::<LANES>());
        for (out, x) in out.iter_mut().zip(x) {
            simd.store(scaled::<S, SCALED>(simd, simd.load_f16(x), unit), out);
        }
        simd.store(scaled::<S, SCALED>(simd, simd.load_f16(rest), unit), out_rest);
    }
}

struct Silu<'a>(&'a mut [f32]);

impl SimdFn for Silu<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) {
        for x in self.0.chunks_mut(LANES) {
            simd.store(math::silu(simd, simd.load(x)), x);
        }
    }
}
