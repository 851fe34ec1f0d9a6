//! Quantization of one row.

/// Rows whose greatest magnitude is below this are taken for zero, so that `127 / max` is finite.
pub(crate) const TINY: f32 = 1e-35;

/// `1.5 · 2²³`. Adding it to a small number rounds that to an integer, halves to even; the sum's lowest bits are the integer in two's
/// complement.
pub(crate) const INTEGERS: f32 = 12_582_912.0;

/// `x · factor`, which is within ±128, rounded once to an integer, halves to even.
pub(crate) fn rounded(x: f32, factor: f32) -> i8 {
    x.mul_add(factor, INTEGERS).to_bits() as i8
}

/// `scale = max|x| / 127`, `q = round(x · (127 / max|x|))`, halves to even; scale and `q` are 0 where `max|x| < 1e-35`.
pub(crate) fn quantize_row(x: &[f32], q: &mut [i8]) -> f32 {
    let max = x.iter().fold(0.0, |max, v| if v.abs() > max { v.abs() } else { max });
    if max < TINY {
        q.fill(0);
        return 0.0;
    }
    let inverse = 127.0 / max;
    for (q, x) in q.iter_mut().zip(x) {
        *q = rounded(*x, inverse);
    }
    max / 127.0
}
