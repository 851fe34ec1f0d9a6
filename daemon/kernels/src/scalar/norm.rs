//! The sums and the arithmetic of the norms.

use super::{fold_lanes, math, sum_lanes};

/// Neighbouring pixels whose sums are f32. Rounding them moves a variance by at most 5e-7 of the mean square, in flat images; by
/// some 1e-8 where pixels differ.
pub(crate) const NEIGHBOURS: usize = 8;

/// Adds pixels of a row, `[width][channels]`, to the channels' sums of x and of x²: from left to right in f32 for
/// [`NEIGHBOURS`], whose sums are added up in f64.
pub(crate) fn add_pixels(x: &[f32], sums: &mut [f64], squares: &mut [f64]) {
    let channels = sums.len();
    for pixels in x.chunks(NEIGHBOURS * channels) {
        for (c, (sum, square)) in sums.iter_mut().zip(squares.iter_mut()).enumerate() {
            let values = || pixels[c..].iter().step_by(channels);
            *sum += f64::from(values().fold(0.0, |sum, x| sum + x));
            *square += f64::from(values().fold(0f32, |square, x| x.mul_add(*x, square)));
        }
    }
}

/// `fma(x, scale, shift)`, then SiLU if wanted.
pub(crate) fn scale_shift(row: &mut [f32], scale: &[f32], shift: &[f32], silu: bool) {
    for (i, x) in row.iter_mut().enumerate() {
        let y = x.mul_add(scale[i], shift[i]);
        *x = if silu { math::silu(y) } else { y };
    }
}

/// Layer normalisation of one row. Mean and variance are sums over sixteen lanes, the variance in a second pass;
/// `fma((x − mean) · 1/σ, gamma, beta)`.
pub(crate) fn layer_norm(row: &mut [f32], gamma: &[f32], beta: &[f32], eps: f32) {
    let n = row.len() as f32;
    let mean = sum_lanes(row.iter().copied()) / n;
    let mut lanes = [0f32; 16];
    for (i, x) in row.iter().enumerate() {
        let d = x - mean;
        lanes[i % 16] = d.mul_add(d, lanes[i % 16]);
    }
    let inverse = inverse_deviation(fold_lanes(lanes), n, eps);
    for (i, x) in row.iter_mut().enumerate() {
        *x = ((*x - mean) * inverse).mul_add(gamma[i], beta[i]);
    }
}

/// `1 / √(squares / n + eps)`.
pub(crate) fn inverse_deviation(squares: f32, n: f32, eps: f32) -> f32 {
    1.0 / (squares / n + eps).sqrt()
}
