//! Work on rows of activations: quantization, f16 storage, SiLU.

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use crate::cpu::{self, Level};
use crate::scalar;

/// Quantizes each row of `channels` values: `scale = max|x| / 127`, `q = round(x · 127 / max|x|)`, halves to even.
/// A row below 1e-35 becomes zero with scale 0.
///
/// # Panics
///
/// If sizes do not fit each other.
pub fn quantize_rows(x: &[f32], channels: usize, q: &mut [i8], scale: &mut [f32]) {
    quantize_rows_at(cpu::level(), x, channels, q, scale);
}

/// [`quantize_rows`] at a level.
///
/// # Panics
///
/// If sizes do not fit each other, or the CPU does not have the level.
pub fn quantize_rows_at(level: Level, x: &[f32], channels: usize, q: &mut [i8], scale: &mut [f32]) {
    assert!(level.available(), "this CPU has no {level}");
    assert!(x.len() == q.len() && x.len() == scale.len() * channels, "{} values, {} scales", x.len(), scale.len());
    let rows = x.par_chunks_exact(channels).zip(q.par_chunks_exact_mut(channels)).zip(scale);
    rows.for_each(|((x, q), scale)| *scale = scalar::rows::quantize_row(x, q));
}

/// Stores f32 values in half precision, rounded to nearest even.
///
/// # Panics
///
/// If the lengths differ.
pub fn f32_to_f16(x: &[f32], out: &mut [f16]) {
    out.convert_from_f32_slice(x);
}

/// Reads half precision.
///
/// # Panics
///
/// If the lengths differ.
pub fn f16_to_f32(x: &[f16], out: &mut [f32]) {
    x.convert_to_f32_slice(out);
}

/// `x · sigmoid(x)`, in place.
pub fn silu(x: &mut [f32]) {
    silu_at(cpu::level(), x);
}

/// [`silu`] at a level.
///
/// # Panics
///
/// If the CPU does not have the level.
pub fn silu_at(level: Level, x: &mut [f32]) {
    assert!(level.available(), "this CPU has no {level}");
    x.iter_mut().for_each(|x| *x = scalar::math::silu(*x));
}
