//! The functions of one number: our own polynomials, since the platforms' libraries do not agree on the last bit.
//!
//! Every step is a single IEEE operation (fused where `mul_add` is written), so every CPU gives the same bits. They are as
//! accurate as f32 networks need: what comes out is mostly rounded to f16 or int8. Errors are tested below against f64.
//! The polynomials are of ours, fitted by Lawson's iteration.

/// `1.5 · 2²³ + 127`. A sum with it is rounded to an integer, and its lowest bits are an f32's exponent.
pub(crate) const ROUNDING: f32 = 12_583_039.0;
/// `2^r` for |r| ≤ ½, highest power first: the least relative error, 9e-8, of polynomials that are 1 at 0.
#[allow(clippy::approx_constant, reason = "the fit is near ln 2, and not it")]
pub(crate) const EXP2: [f32; 6] = [1.326_472_7e-3, 9.671_513e-3, 5.550_733_6e-2, 2.402_224_2e-1, 6.931_47e-1, 1.0];
/// Below this, `exp2` is 0.
pub(crate) const EXP2_MIN: f32 = -127.0;
/// `2^r` for |r| ≤ ½, highest power first: the least relative error, 2.6e-6, of this degree.
pub(crate) const SHORT_EXP2: [f32; 5] = [9.570_102e-3, 5.591_786e-2, 2.402_474_4e-1, 6.931_218e-1, 9.999_993e-1];
/// From here down, `1 + e^-x` is infinite.
pub(crate) const SIGMOID_MIN: f32 = -89.0;
/// From here up, `1 + e^-x` is 1.
pub(crate) const SIGMOID_MAX: f32 = 87.0;
/// `silu(x)` is above `-SILU_DEPTH` for every x.
pub(crate) const SILU_DEPTH: f32 = 0.279;
/// `-1 / ln 2`.
pub(crate) const MINUS_LOG2_E: f32 = -std::f32::consts::LOG2_E;
/// Beyond this, Φ is taken for 0 or 1, but for 1e-7.
pub(crate) const NORMAL_MAX: f32 = 4.7;
/// `Φ(x) - ½ = x P(x²) / Q(x²)`, where Φ is the normal distribution's: P, highest power first. P and Q have the least error
/// of x Φ(x), 1.2e-6 of the greater of 1 and |x|, if what lies beyond [`NORMAL_MAX`] is weighed as twelve.
pub(crate) const NORMAL_P: [f32; 4] = [3.266_458_2e-5, 3.806_896_7e-3, 2.751_049_6e-2, 3.989_355e-1];
/// Q, highest power first.
pub(crate) const NORMAL_Q: [f32; 4] = [1.151_661_6e-3, 2.380_388_8e-2, 2.356_033_5e-1, 1.0];
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

/// `2^n` of the sum of [`ROUNDING`] and an integer n from −127, where it is 0, to 128, where it is infinite.
fn power(sum: f32) -> f32 {
    f32::from_bits(sum.to_bits() << 23)
}

/// `2^x` for `x ≤ 127`; 0 below −126.5.
pub fn exp2(x: f32) -> f32 {
    let bounded = max(EXP2_MIN, x);
    let sum = bounded + ROUNDING;
    polynomial(bounded - (sum - ROUNDING), &EXP2) * power(sum)
}

/// `1 + e^-x`.
fn one_and_exp(x: f32) -> f32 {
    let bounded = min(SIGMOID_MAX, max(SIGMOID_MIN, x));
    let sum = bounded.mul_add(MINUS_LOG2_E, ROUNDING);
    let rest = bounded.mul_add(MINUS_LOG2_E, ROUNDING - sum);
    polynomial(rest, &SHORT_EXP2).mul_add(power(sum), 1.0)
}

/// `x · sigmoid(x)`.
pub fn silu(x: f32) -> f32 {
    x / one_and_exp(x)
}

/// `x · Φ(x)`, where Φ is the normal distribution's.
pub fn gelu(x: f32) -> f32 {
    let bounded = min(NORMAL_MAX, max(-NORMAL_MAX, x));
    let square = bounded * bounded;
    let above_half = bounded * polynomial(square, &NORMAL_P) / polynomial(square, &NORMAL_Q);
    above_half.mul_add(x, 0.5 * x)
}

/// `x · sigmoid(1.702 x)`.
pub fn quick_gelu(x: f32) -> f32 {
    x / one_and_exp(QUICK * x)
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
    fn errors_are_as_small_as_they_say() {
        assert!(worst(-126.0..127.0, exp2, f64::exp2) < 2e-7);
        assert!(worst(-20.0..80.0, silu, |x| x / (1.0 + (-x).exp())) < 3e-6);
        assert!(worst(-80.0..-20.0, silu, |x| x / (1.0 + (-x).exp())) < 4e-6);
        assert!(worst(-11.0..40.0, quick_gelu, |x| x / (1.0 + (-1.702 * x).exp())) < 4e-6);
        let normal = |x: f64| x * 0.5 * libm::erfc(-x / 2f64.sqrt());
        assert!(worst(0.0..20.0, gelu, normal) < 4e-6);
        let error = |x: f32| (f64::from(gelu(x)) - normal(f64::from(x))).abs() / f64::from(x.abs().max(1.0));
        assert!((-200_000..=0).map(|i| error(i as f32 * 1e-4)).fold(0.0, f64::max) < 1.5e-6);
    }

    #[test]
    fn special_values() {
        assert_eq!((exp2(0.0), silu(0.0), gelu(0.0), quick_gelu(0.0)), (1.0, 0.0, 0.0, 0.0));
        assert_eq!((exp2(-126.6), exp2(-1e30), exp2(f32::NEG_INFINITY), exp2(127.0)), (0.0, 0.0, 0.0, 2f32.powi(127)));
        assert_eq!((silu(1e30), silu(-1e30), silu(87.5), silu(-89.5)), (1e30, 0.0, 87.5, 0.0));
        assert_eq!((quick_gelu(1e30), quick_gelu(-1e30)), (1e30, 0.0));
        assert!((gelu(50.0) - 50.0).abs() < 1e-5 && gelu(-50.0).abs() < 1e-5);
        assert!([exp2, silu, gelu, quick_gelu].iter().all(|f| f(f32::NAN).is_nan()));
    }

    #[test]
    fn silu_has_a_depth() {
        let least = (-100_000..0).map(|x| silu(x as f32 / 1000.0)).fold(0.0, f32::min);
        assert!((-SILU_DEPTH..-0.278).contains(&least), "{least}");
    }
}
