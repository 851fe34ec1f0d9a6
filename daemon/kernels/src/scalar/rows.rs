//! Quantization of one row.

/// Rows whose greatest magnitude is below this are taken for zero, so that `127 / max` is finite.
pub(crate) const TINY: f32 = 1e-35;

/// `scale = max|x| / 127`, `q = round(x · (127 / max|x|))`, halves to even; scale and `q` are 0 where `max|x| < 1e-35`.
pub(crate) fn quantize_row(x: &[f32], q: &mut [i8]) -> f32 {
    let max = x.iter().fold(0.0, |max, v| if v.abs() > max { v.abs() } else { max });
    if max < TINY {
        q.fill(0);
        return 0.0;
    }
    let inverse = 127.0 / max;
    for (q, x) in q.iter_mut().zip(x) {
        *q = (x * inverse).round_ties_even() as i8;
    }
    max / 127.0
}
