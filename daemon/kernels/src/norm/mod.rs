//! Group and layer normalisation, with SiLU and quantization fused in.

mod sums;
mod vector;

use rayon::prelude::*;

pub use self::sums::{GroupSums, MadeRow};
use self::vector::{FromF16, FromF32, InPlace, KeptFloat, RowEnd, TOGETHER, ToInt8, layer_norms, scale_shift_rows};
use crate::cancel::{Tasks, is_cancelled};
use crate::cpu::Level;
use crate::rows::{BATCH, FloatRows, ToSingle};
use crate::scalar;
use crate::simd::{Simd, SimdFn, at_level};

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

    /// Normalises the rows of `x` into `out`, or those of `out`.
    #[inline(always)]
    fn rows<S: Simd>(&self, simd: S, x: Option<FloatRows>, out: &mut [f32], end: &mut impl RowEnd) {
        match (*self, x) {
            (Norm::Scaled { scale, shift, silu }, None) => {
                scale_shift_rows(simd, InPlace, out, (scale, shift, silu), end);
            }
            (Norm::Scaled { scale, shift, silu }, Some(FloatRows::F32(x))) => {
                scale_shift_rows(simd, FromF32(x), out, (scale, shift, silu), end);
            }
            (Norm::Scaled { scale, shift, silu }, Some(FloatRows::F16(x, unit))) => match unit {
                1.0 => scale_shift_rows(simd, FromF16::<false>(x, unit), out, (scale, shift, silu), end),
                _ => scale_shift_rows(simd, FromF16::<true>(x, unit), out, (scale, shift, silu), end),
            },
            (Norm::Layer { gamma, beta, eps }, Some(FloatRows::F16(x, unit))) => {
                ToSingle { x, unit, out }.call(simd);
                layer_norms(simd, None, out, (gamma, beta, eps), end);
            }
            (Norm::Layer { gamma, beta, eps }, Some(FloatRows::F32(x))) => {
                layer_norms(simd, Some(x), out, (gamma, beta, eps), end);
            }
            (Norm::Layer { gamma, beta, eps }, None) => layer_norms(simd, None, out, (gamma, beta, eps), end),
        }
    }
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
        self.norm.rows(simd, self.x, self.out, &mut KeptFloat);
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
            let (x, rows) = (self.x.part(n * some..n * some + q.len()), &mut self.rows[..q.len()]);
            self.norm.rows(simd, Some(x), rows, &mut ToInt8 { q, scale });
        }
    }
}
