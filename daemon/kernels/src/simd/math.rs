//! `scalar::math` on sixteen lanes: the same operations in the same order.

use super::{Coefficients, Simd};
use crate::scalar::math::{self, ERF_MAX, EXP_MAX, EXP_MIN, EXP2_MIN, LOG2_E, MINUS_LN2_HIGH, MINUS_LN2_LOW, QUICK};

static EXP: Coefficients<6> = Coefficients::new(math::EXP);
static EXP2: Coefficients<7> = Coefficients::new(math::EXP2);
static ERF_P: Coefficients<7> = Coefficients::new(math::ERF_P);
static ERF_Q: Coefficients<5> = Coefficients::new(math::ERF_Q);

/// `e^x`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    let least = s.splat(EXP_MIN);
    let bounded = s.at_most(s.splat(EXP_MAX), s.at_least(least, x));
    let n = s.round(s.mul(bounded, s.splat(LOG2_E)));
    let r = s.fma(n, s.splat(MINUS_LN2_LOW), s.fma(n, s.splat(MINUS_LN2_HIGH), bounded));
    let p = s.add(s.fma(s.polynomial(r, &EXP), s.mul(r, r), r), s.splat(1.0));
    s.zero_below(x, least, s.scale_by_power(p, n))
}

/// `2^x` for `x ≤ 126`.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(s: S, x: S::F) -> S::F {
    let least = s.splat(EXP2_MIN);
    let bounded = s.at_least(least, x);
    let n = s.round(bounded);
    let p = s.polynomial(s.sub(bounded, n), &EXP2);
    s.zero_below(x, least, s.scale_by_power(p, n))
}

/// The error function.
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.at_most(s.splat(ERF_MAX), s.at_least(s.splat(-ERF_MAX), x));
    let square = s.mul(x, x);
    s.div(s.mul(x, s.polynomial(square, &ERF_P)), s.polynomial(square, &ERF_Q))
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
