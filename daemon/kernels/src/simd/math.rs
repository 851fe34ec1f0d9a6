//! `scalar::math` on sixteen lanes: the same operations in the same order.

use super::{Coefficients, Simd};
use crate::scalar::math::{self, EXP2_MIN, MINUS_LOG2_E, NORMAL_MAX, QUICK, SIGMOID_MAX, SIGMOID_MIN};

static EXP2: Coefficients<6> = Coefficients::new(math::EXP2);
static SHORT_EXP2: Coefficients<5> = Coefficients::new(math::SHORT_EXP2);
static NORMAL_P: Coefficients<4> = Coefficients::new(math::NORMAL_P);
static NORMAL_Q: Coefficients<4> = Coefficients::new(math::NORMAL_Q);
static ROUNDING: Coefficients<1> = Coefficients::new([math::ROUNDING]);
static ONE: Coefficients<1> = Coefficients::new([1.0]);

/// A polynomial of `x`.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::F, coefficients: &'static Coefficients<N>) -> S::F {
    let [first, others @ ..] = &coefficients.0[..] else { return s.splat(0.0) };
    s.horner(s.splat(first[0]), x, others)
}

/// `2^x` for `x ≤ 127`.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(s: S, x: S::F) -> S::F {
    let rounding = s.splat(math::ROUNDING);
    let bounded = s.at_least(s.splat(EXP2_MIN), x);
    let sum = s.add(bounded, rounding);
    let p = polynomial(s, s.sub(bounded, s.sub(sum, rounding)), &EXP2);
    s.mul(p, s.shift_to_exponent(sum))
}

/// `1 + e^-x`.
#[inline(always)]
fn one_and_exp<S: Simd>(s: S, x: S::F) -> S::F {
    let (rounding, slope) = (s.splat(math::ROUNDING), s.splat(MINUS_LOG2_E));
    let bounded = s.at_most(s.splat(SIGMOID_MAX), s.at_least(s.splat(SIGMOID_MIN), x));
    let sum = s.horner(slope, bounded, &ROUNDING.0);
    let rest = s.fma(bounded, slope, s.sub(rounding, sum));
    s.horner(polynomial(s, rest, &SHORT_EXP2), s.shift_to_exponent(sum), &ONE.0)
}

/// `x · sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::F) -> S::F {
    s.div(x, one_and_exp(s, x))
}

/// `x · Φ(x)`.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::F) -> S::F {
    let bounded = s.at_most(s.splat(NORMAL_MAX), s.at_least(s.splat(-NORMAL_MAX), x));
    let square = s.mul(bounded, bounded);
    let above_half = s.div(s.mul(bounded, polynomial(s, square, &NORMAL_P)), polynomial(s, square, &NORMAL_Q));
    s.fma(above_half, x, s.mul(s.splat(0.5), x))
}

/// `x · sigmoid(1.702 x)`.
#[inline(always)]
pub(crate) fn quick_gelu<S: Simd>(s: S, x: S::F) -> S::F {
    s.div(x, one_and_exp(s, s.mul(s.splat(QUICK), x)))
}
