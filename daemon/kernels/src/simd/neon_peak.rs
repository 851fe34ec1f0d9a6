//! Register-only loops for ARM: enough independent sums to hide the latency.

use std::arch::aarch64::*;
use std::hint::black_box;

use super::neon_sdot::sdot;
use crate::cpu::Level;

/// Independent sums.
const SUMS: usize = 16;

pub(crate) fn int8(level: Level, rounds: usize) -> usize {
    // SAFETY: the caller has asserted that the level is available.
    unsafe {
        match level {
            Level::Dotprod => dot(rounds),
            Level::Neon => smull(rounds),
            other => panic!("{other} has no int8 instruction"),
        }
    }
}

pub(crate) fn fma(level: Level, rounds: usize) -> usize {
    assert!(matches!(level, Level::Neon | Level::Dotprod), "{level} has no vector FMA");
    let (a, b) = (black_box([0.5f32; 4]), black_box([0.5f32; 4]));
    // SAFETY: NEON is there; four values are read from each array.
    let (a, b) = unsafe { (vld1q_f32(a.as_ptr()), vld1q_f32(b.as_ptr())) };
    // SAFETY: NEON is there.
    let mut sums = unsafe { [vdupq_n_f32(0.0); SUMS] };
    for _ in 0..rounds {
        for sum in &mut sums {
            // SAFETY: NEON is there.
            *sum = unsafe { vfmaq_f32(*sum, a, b) };
        }
    }
    black_box(sums);
    rounds * SUMS * 4
}

#[target_feature(enable = "neon,dotprod")]
fn dot(rounds: usize) -> usize {
    let (a, b) = (black_box(vdupq_n_s8(3)), black_box(vdupq_n_s8(5)));
    let mut sums = [vdupq_n_s32(0); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = sdot::<0>(*sum, a, b);
        }
    }
    black_box(sums);
    rounds * SUMS * 16
}

/// SMULL, SMLAL and SADALP, as the inner loop has them.
#[target_feature(enable = "neon")]
fn smull(rounds: usize) -> usize {
    let (a, b) = (black_box(vdupq_n_s8(3)), black_box(vdupq_n_s8(5)));
    let mut sums = [vdupq_n_s32(0); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            let a = black_box(a);
            let low = vmlal_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), vget_low_s8(b), vget_low_s8(b));
            *sum = vpadalq_s16(*sum, low);
        }
    }
    black_box(sums);
    rounds * SUMS * 16
}
