//! The most this CPU can do at a level: loops that stay in registers, for benches to measure the kernels against.

use crate::cpu::Level;
#[cfg(target_arch = "aarch64")]
use crate::simd::neon_peak as level_peak;
#[cfg(target_arch = "x86_64")]
use crate::simd::x86_peak as level_peak;

/// Other CPUs have the scalar level alone.
#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
mod level_peak {
    use crate::cpu::Level;

    pub(super) fn int8(level: Level, _: usize) -> usize {
        panic!("{level} has no int8 instruction")
    }

    pub(super) fn fma(level: Level, _: usize) -> usize {
        panic!("{level} has no vector FMA")
    }
}

/// Runs `rounds` rounds of the level's int8 multiply-adds and returns the number of multiply-adds.
///
/// # Panics
///
/// If the CPU does not have the level, or the level is the scalar one, which has no such instruction.
pub fn int8(level: Level, rounds: usize) -> usize {
    assert!(level.available(), "this CPU has no {level}");
    level_peak::int8(level, rounds)
}

/// Runs `rounds` rounds of the level's f32 fused multiply-adds and returns the number of multiply-adds.
///
/// # Panics
///
/// As [`int8`].
pub fn fma(level: Level, rounds: usize) -> usize {
    assert!(level.available(), "this CPU has no {level}");
    level_peak::fma(level, rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_counts_its_work() {
        for level in Level::ALL.into_iter().filter(|level| level.available() && *level != Level::Scalar) {
            assert!(int8(level, 3) >= 3 * 16 && int8(level, 6) == 2 * int8(level, 3), "{level}");
            assert!(fma(level, 3) >= 3 * 4 && fma(level, 6) == 2 * fma(level, 3), "{level}");
        }
    }
}
