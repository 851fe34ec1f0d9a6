//! The sums and the arithmetic of the norms.

use super::{math, sum_lanes};

/// Adds one row of a picture, `[width][channels]`: per channel the sums of x and of x² in f64 over the row's pixels from
/// left to right, starting from 0, are added to what `sums` and `squares` hold.
pub(crate) fn add_row(x: &[f32], channels: usize, sums: &mut [f64], squares: &mut [f64]) {
    for channel in 0..channels {
        let (mut sum, mut square) = (0.0, 0.0);
        for pixel in x.chunks_exact(channels) {
            let value = f64::from(pixel[channel]);
            sum += value;
            square += value * value;
        }
        sums[channel] += sum;
        squares[channel] += square;
    }
}

/// `fma(x, scale, shift)`, then SiLU if wanted.
pub(crate) fn scale_shift(x: &[f32], scale: &[f32], shift: &[f32], silu: bool, out: &mut [f32]) {
    for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
        let y = x.mul_add(scale[i], shift[i]);
        *out = if silu { math::silu(y) } else { y };
    }
}

/// Layer normalisation of one row. Mean and variance are sums over sixteen lanes, the variance in a second pass;
/// `fma((x − mean) · 1/σ, gamma, beta)`.
pub(crate) fn layer_norm_row(x: &[f32], gamma: &[f32], beta: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len() as f32;
    let mean = sum_lanes(x.iter().copied()) / n;
    let mut lanes = [0f32; 16];
    for (i, x) in x.iter().enumerate() {
        let d = x - mean;
        lanes[i % 16] = d.mul_add(d, lanes[i % 16]);
    }
    let inverse = 1.0 / (super::fold_lanes(lanes) / n + eps).sqrt();
    for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
        *out = ((x - mean) * inverse).mul_add(gamma[i], beta[i]);
    }
}
