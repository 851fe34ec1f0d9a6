//! The functions of one number: our own polynomials, since the platforms' libraries do not agree on the last bit.
//!
//! Every step is a single IEEE operation (fused where `mul_add` is written), so every CPU gives the same bits. Accuracy
//! was measured against f64: a relative error of at most 1e-6, tested below.

/// `1 / ln 2`.
pub(crate) const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// The upper bits of `-ln 2`: a multiple of it by an exponent is exact.
pub(crate) const MINUS_LN2_HIGH: f32 = -0.693_359_4;
/// The rest of `-ln 2`.
pub(crate) const MINUS_LN2_LOW: f32 = 2.121_944_4e-4;
/// Below this, `exp` is 0.
pub(crate) const EXP_MIN: f32 = -87.0;
/// Above this, `exp` grows no more.
pub(crate) const EXP_MAX: f32 = 88.0;
/// `(exp(r) - 1 - r) / r²` for |r| ≤ ln 2 / 2, highest power first (Cephes, `expf`).
pub(crate) const EXP: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
/// Below this, `exp2` is 0.
pub(crate) const EXP2_MIN: f32 = -125.0;
/// `2^r` for |r| ≤ ½, highest power first (Cephes, `exp2f`).
pub(crate) const EXP2: [f32; 7] =
    [1.535_336_2e-4, 1.339_887_4e-3, 9.618_437e-3, 5.550_332_6e-2, 2.402_264_8e-1, 6.931_472e-1, 1.0];
/// Beyond this `erf` is 1, or one step of f32 less.
pub(crate) const ERF_MAX: f32 = 4.0;
/// `erf(x) = x P(x²) / Q(x²)`: P, highest power first (Eigen, `generic_fast_erf_float`).
pub(crate) const ERF_P: [f32; 7] =
    [-2.726_142_3e-10, 2.770_681_4e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_3e-2];
/// Q, highest power first.
pub(crate) const ERF_Q: [f32; 5] = [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2];
/// The slope in QuickGELU's sigmoid.
pub(crate) const QUICK: f32 = 1.702;

/// The greater; `b` if either is not a number.
fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The lesser; `b` if either is not a number.
fn min(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// Horner's scheme, highest power first.
fn polynomial(x: f32, coefficients: &[f32]) -> f32 {
    coefficients[1..].iter().fold(coefficients[0], |sum, c| sum.mul_add(x, *c))
}

/// `x · 2^n` for a normal result.
fn scale_by_power(x: f32, n: f32) -> f32 {
    f32::from_bits(x.to_bits().wrapping_add(((n as i32) << 23) as u32))
}

/// `e^x`; 0 below −87, `e^88` above 88.
pub fn exp(x: f32) -> f32 {
    let bounded = min(EXP_MAX, max(EXP_MIN, x));
    let n = (bounded * LOG2_E).round_ties_even();
    let r = n.mul_add(MINUS_LN2_LOW, n.mul_add(MINUS_LN2_HIGH, bounded));
    let p = polynomial(r, &EXP).mul_add(r * r, r) + 1.0;
    if x < EXP_MIN { 0.0 } else { scale_by_power(p, n) }
}

/// `2^x` for `x ≤ 126`; 0 below −125.
pub fn exp2(x: f32) -> f32 {
    let bounded = max(EXP2_MIN, x);
    let n = bounded.round_ties_even();
    let p = polynomial(bounded - n, &EXP2);
    if x < EXP2_MIN { 0.0 } else { scale_by_power(p, n) }
}

/// The error function.
pub fn erf(x: f32) -> f32 {
    let x = min(ERF_MAX, max(-ERF_MAX, x));
    let square = x * x;
    x * polynomial(square, &ERF_P) / polynomial(square, &ERF_Q)
}

/// `x · sigmoid(x)`.
pub fn silu(x: f32) -> f32 {
    x / (exp(-x) + 1.0)
}

/// `x · Φ(x)`, with the error function.
pub fn gelu(x: f32) -> f32 {
    let half = 0.5 * x;
    half.mul_add(erf(x * std::f32::consts::FRAC_1_SQRT_2), half)
}

/// `x · sigmoid(1.702 x)`.
pub fn quick_gelu(x: f32) -> f32 {
    x / (exp(-QUICK * x) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest relative error of `f` against `expect` on a dense grid of `range`.
    fn worst(range: std::ops::Range<f32>, f: fn(f32) -> f32, expect: fn(f64) -> f64) -> f64 {
        let steps = 200_000;
        let at = |i| range.start + (range.end - range.start) * (i as f32 / steps as f32);
        let error = |x: f32| (f64::from(f(x)) - expect(f64::from(x))).abs() / expect(f64::from(x)).abs().max(1e-30);
        (0..=steps).map(|i| error(at(i))).fold(0.0, f64::max)
    }

    #[test]
    fn relative_errors_are_as_small_as_they_say() {
        assert!(worst(-87.0..88.0, exp, f64::exp) < 2e-7);
        assert!(worst(-125.0..0.0, exp2, f64::exp2) < 2e-7);
        assert!(worst(-6.0..6.0, erf, libm::erf) < 1e-6);
        assert!(worst(-80.0..80.0, silu, |x| x / (1.0 + (-x).exp())) < 1e-6);
        assert!(worst(-1.0..20.0, gelu, |x| x * 0.5 * (1.0 + libm::erf(x / 2f64.sqrt()))) < 1e-6);
        assert!(worst(-40.0..40.0, quick_gelu, |x| x / (1.0 + (-1.702 * x).exp())) < 1e-5);
    }

    #[test]
    fn special_values() {
        assert_eq!((exp(0.0), exp2(0.0), erf(0.0), silu(0.0), gelu(0.0)), (1.0, 1.0, 0.0, 0.0, 0.0));
        assert_eq!((exp(-88.0), exp2(-126.0), exp2(f32::NEG_INFINITY)), (0.0, 0.0, 0.0));
        assert!((1.0 - erf(100.0)).abs() < 2e-7 && erf(-100.0) == -erf(100.0));
        assert!((gelu(50.0) - 50.0).abs() < 1e-5 && gelu(-50.0).abs() < 1e-5);
        assert_eq!(exp(1000.0), exp(88.0));
        assert!(exp(f32::NAN).is_nan() && silu(f32::NAN).is_nan());
    }
}
