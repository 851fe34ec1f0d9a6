//! `scalar::math` on sixteen lanes: the same operations in the same order.

use super::Simd;
use crate::scalar::math::{
    ERF_MAX, ERF_P, ERF_Q, EXP, EXP_MAX, EXP_MIN, EXP2, EXP2_MIN, LOG2_E, MINUS_LN2_HIGH, MINUS_LN2_LOW, QUICK,
};

/// Added to an integer of at most 127 in magnitude, it leaves the integer where [`Simd::store_bytes`] reads it.
pub(crate) const FIXED_POINT: f32 = 49_152.0;

#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::F, coefficients: &[f32; N]) -> S::F {
    let mut sum = s.splat(coefficients[0]);
    for c in &coefficients[1..] {
        sum = s.fma(sum, x, s.splat(*c));
    }
    sum
}

/// `e^x`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    let least = s.splat(EXP_MIN);
    let bounded = s.min(s.splat(EXP_MAX), s.max(least, x));
    let n = s.round(s.mul(bounded, s.splat(LOG2_E)));
    let r = s.fma(n, s.splat(MINUS_LN2_LOW), s.fma(n, s.splat(MINUS_LN2_HIGH), bounded));
    let p = s.add(s.fma(polynomial(s, r, &EXP), s.mul(r, r), r), s.splat(1.0));
    s.zero_below(x, least, s.scale_by_power(p, n))
}

/// `2^x` for `x ≤ 126`.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(s: S, x: S::F) -> S::F {
    let least = s.splat(EXP2_MIN);
    let bounded = s.max(least, x);
    let n = s.round(bounded);
    let p = polynomial(s, s.sub(bounded, n), &EXP2);
    s.zero_below(x, least, s.scale_by_power(p, n))
}

/// The error function.
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.min(s.splat(ERF_MAX), s.max(s.splat(-ERF_MAX), x));
    let square = s.mul(x, x);
    s.div(s.mul(x, polynomial(s, square, &ERF_P)), polynomial(s, square, &ERF_Q))
}

/// `x · sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::F) -> S::F {
    s.div(x, s.add(exp(s, s.mul(x, s.splat(-1.0))), s.splat(1.0)))
}

/// `x · Φ(x)`.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::F) -> S::F {
    let half = s.mul(s.splat(0.5), x);
    s.fma(half, erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2))), half)
}

/// `x · sigmoid(1.702 x)`.
#[inline(always)]
pub(crate) fn quick_gelu<S: Simd>(s: S, x: S::F) -> S::F {
    s.div(x, s.add(exp(s, s.mul(s.splat(-QUICK), x)), s.splat(1.0)))
}
