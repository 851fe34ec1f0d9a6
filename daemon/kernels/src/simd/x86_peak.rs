//! Register-only loops for x86: enough independent sums to hide the latency.

use std::arch::x86_64::*;
use std::hint::black_box;

use crate::cpu::Level;

/// Independent sums.
const SUMS: usize = 12;

pub(crate) fn int8(level: Level, rounds: usize) -> usize {
    // SAFETY: the caller has asserted that the level is available.
    unsafe {
        match level {
            Level::Vnni => vnni(rounds),
            Level::Avx2 => maddubs(rounds),
            other => panic!("{other} has no int8 instruction"),
        }
    }
}

pub(crate) fn fma(level: Level, rounds: usize) -> usize {
    // SAFETY: as above.
    unsafe {
        match level {
            Level::Vnni => fma512(rounds),
            Level::Avx2 => fma256(rounds),
            other => panic!("{other} has no vector FMA"),
        }
    }
}

/// A loop of `$step` over independent sums whose other operands the compiler cannot see through.
macro_rules! register_loop {
    ($name:ident, $features:literal, $zero:expr, $operand:expr, $macs:literal, |$sum:ident, $a:ident, $b:ident| $step:expr) => {
        #[target_feature(enable = $features)]
        fn $name(rounds: usize) -> usize {
            let mut sums = [$zero; SUMS];
            let ($a, $b) = (black_box($operand), black_box($operand));
            for _ in 0..rounds {
                for $sum in &mut sums {
                    *$sum = $step;
                }
            }
            black_box(sums);
            rounds * SUMS * $macs
        }
    };
}

register_loop!(vnni, "avx512f,avx512vnni", _mm512_setzero_si512(), _mm512_set1_epi8(3), 64, |sum, a, b| {
    _mm512_dpbusd_epi32(*sum, a, b)
});
register_loop!(maddubs, "avx2", _mm256_setzero_si256(), _mm256_set1_epi8(3), 32, |sum, a, b| {
    let pairs = _mm256_maddubs_epi16(a, _mm256_sign_epi8(_mm256_xor_si256(b, *sum), a));
    _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, b))
});
register_loop!(fma512, "avx512f", _mm512_setzero_ps(), _mm512_set1_ps(0.5), 16, |sum, a, b| {
    _mm512_fmadd_ps(a, b, *sum)
});
register_loop!(fma256, "avx2,fma", _mm256_setzero_ps(), _mm256_set1_ps(0.5), 8, |sum, a, b| {
    _mm256_fmadd_ps(a, b, *sum)
});
