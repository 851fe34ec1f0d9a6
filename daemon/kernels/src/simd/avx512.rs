//! AVX-512: a vector of sixteen f32 is one register.

use std::arch::asm;
use std::arch::x86_64::*;

use half::f16;

use super::avx2::fold_eight;
use super::{CHUNK, DotTile, FmaTile, LANES, OfKey, ScoreTile, Scores, Simd, SimdFn, avx512_tiles, padded};
use crate::cpu::Level;
use crate::scalar::weights::DITHERS;

/// [`DITHERS`] of four keys, for two at a time.
static DITHERS_OF_KEYS: [[Scores; 2]; 32] = {
    let mut dithers = [[Scores([0; 2 * LANES]); 2]; 32];
    let mut i = 0;
    while i < 64 * 2 * LANES {
        let (keys, lane) = (i / (2 * LANES), i % (2 * LANES));
        dithers[keys / 2][keys % 2].0[lane] = DITHERS[2 * keys + lane / 4 % 2] as i16;
        i += 1;
    }
    dithers
};

/// The proof that this CPU has AVX-512 (F, BW, VL, VNNI), AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// # Panics
    ///
    /// If this CPU does not have it.
    pub(crate) fn new() -> Avx512 {
        assert!(Level::Vnni.available(), "this CPU has no {}", Level::Vnni);
        Avx512(())
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn enter<W: SimdFn>(simd: Avx512, function: W) -> W::Output {
    function.call(simd)
}

/// The mask of the first `len` lanes.
#[inline(always)]
fn first(len: usize) -> u16 {
    if len >= LANES { u16::MAX } else { (1 << len) - 1 }
}

/// Lanes 8 to 15.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn high(a: __m512) -> __m256 {
    _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(a)))
}

/// Bits of `a` where `mask` has ones, else of `b`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn select(mask: u32, a: __m512i, b: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0xca>(_mm512_set1_epi32(mask as i32), a, b)
}

/// Two keys' numbers, four times each, in each quarter of a vector.
///
/// # Safety
///
/// There are two keys' numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn of_two_keys(numbers: *const OfKey) -> __m512i {
    // SAFETY: the caller's.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(numbers.cast()) })
}

/// `a >> count`, 0 from 16 on. The intrinsic comes out of the compiler with a comparison of the counts.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn shift_right(a: __m512i, count: __m512i) -> __m512i {
    let shifted;
    // SAFETY: the instruction touches no memory and no flags.
    unsafe {
        asm!(
            "vpsrlvw {s}, {a}, {c}",
            s = lateout(zmm_reg) shifted,
            a = in(zmm_reg) a,
            c = in(zmm_reg) count,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    shifted
}

/// The weights of two keys in units of 1/128.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn weigh(power: __m512i) -> __m512i {
    // (power & 127) | 128, in units of 1/128 the fraction and 1.
    let fraction = _mm512_ternarylogic_epi32::<0xf8>(_mm512_set1_epi16(128), power, _mm512_set1_epi16(127));
    let mantissa = _mm512_avg_epu16(_mm512_mullo_epi16(fraction, fraction), _mm512_set1_epi16(i16::MIN));
    // 1 − ⌊power⌋.
    let shift = _mm512_srli_epi16::<7>(_mm512_sub_epi16(_mm512_set1_epi16(255), power));
    shift_right(mantissa, shift)
}

/// Stores numbers below 256 of four keys, a key's for each query after the other's, as bytes: four keys by query.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn store_bytes(a: __m512i, b: __m512i, out: &mut [u8; CHUNK]) {
    // In each quarter four keys by four queries, to be transposed.
    let columns = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let bytes = _mm512_shuffle_epi8(_mm512_packus_epi16(a, b), _mm512_broadcast_i32x4(columns));
    // SAFETY: there are 64 bytes to write to.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), bytes) };
}

macro_rules! lanewise {
    ($($name:ident($($arg:ident),*) = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: __m512),*) -> __m512 {
            // SAFETY: `self` proves that the CPU has these instructions; they touch no memory.
            unsafe { $body }
        }
    )*};
}

macro_rules! words {
    ($($name:ident = $instruction:ident;)*) => {$(
        #[inline(always)]
        fn $name(self, a: __m512i, b: __m512i) -> __m512i {
            // SAFETY: `self` proves that the CPU has these instructions; they touch no memory.
            unsafe { $instruction(a, b) }
        }
    )*};
}

impl Simd for Avx512 {
    type F = __m512;
    /// By turns four queries' numbers of the first key, and the same queries' of the second.
    type Words = __m512i;
    const ROWS: usize = avx512_tiles::ROWS;
    const TILE_ROWS: usize = avx512_tiles::ROWS;
    const FLIP: u8 = 0x80;
    const MANY_SUMS: bool = true;

    #[inline(always)]
    fn run<W: SimdFn>(self, function: W) -> W::Output {
        // SAFETY: `self` proves that the CPU has the features that `enter` is compiled with.
        unsafe { enter(self, function) }
    }

    #[inline(always)]
    fn prefetch_read(self, at: *const f32) {
        // SAFETY: a hint, which reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    /// The compiler takes the hint for reading where it may not assume PREFETCHW, which AVX2 does not imply.
    #[inline(always)]
    fn prefetch_write(self, at: *const f32) {
        // SAFETY: a hint, which writes nothing.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(at.cast()) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: `self` proves the feature.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> __m512 {
        if x.len() >= LANES {
            // SAFETY: `self` proves the feature; `x` holds sixteen values.
            return unsafe { _mm512_loadu_ps(x.as_ptr()) };
        }
        // SAFETY: `self` proves the feature; lanes past the end of `x` are masked off and not read.
        unsafe { _mm512_maskz_loadu_ps(first(x.len()), x.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, a: __m512, out: &mut [f32]) {
        if out.len() >= LANES {
            // SAFETY: `self` proves the feature; `out` holds sixteen values.
            return unsafe { _mm512_storeu_ps(out.as_mut_ptr(), a) };
        }
        // SAFETY: `self` proves the feature; lanes past the end of `out` are masked off and not written.
        unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), first(out.len()), a) }
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16]) -> __m512 {
        let mut copy: [f16; LANES];
        let x = padded!(x, copy);
        // SAFETY: `self` proves the feature; `x` holds sixteen values.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }

    #[inline(always)]
    fn store_f16(self, a: __m512, out: &mut [f16]) {
        let mut lanes = [f16::ZERO; LANES];
        // SAFETY: `self` proves the feature; `lanes` holds sixteen values.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a)) };
        let len = out.len().min(LANES);
        out[..len].copy_from_slice(&lanes[..len]);
    }

    #[inline(always)]
    fn store_i8(self, a: __m512, factor: __m512, out: &mut [i8]) {
        let rounded = self.rounded(a, factor);
        // SAFETY: `self` proves the feature; `out` holds sixteen values, or those past its end are masked off and not written.
        unsafe {
            let rounded = _mm512_castps_si512(rounded);
            if out.len() >= LANES {
                _mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(rounded));
            } else {
                _mm512_mask_cvtepi32_storeu_epi8(out.as_mut_ptr(), first(out.len()), rounded);
            }
        }
    }

    #[inline(always)]
    fn load_scores(self, scores: &Scores) -> __m512i {
        // SAFETY: `self` proves the feature; there are 64 bytes.
        unsafe { _mm512_loadu_si512(scores.0.as_ptr().cast()) }
    }

    #[inline(always)]
    fn of_queries(self, numbers: &[i16; LANES]) -> __m512i {
        // SAFETY: `self` proves the features; there are 32 bytes.
        unsafe {
            let numbers = _mm512_castsi256_si512(_mm256_loadu_si256(numbers.as_ptr().cast()));
            _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), numbers)
        }
    }

    #[inline(always)]
    fn greatest_of_keys(self, a: __m512i) -> [i16; LANES] {
        let mut greatest = [0; LANES];
        // SAFETY: `self` proves the features; there is room for 32 bytes.
        unsafe {
            let both = _mm512_max_epi16(a, _mm512_shuffle_epi32::<0b01_00_11_10>(a));
            let first = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 0, 2, 4, 6), both);
            _mm256_storeu_si256(greatest.as_mut_ptr().cast(), _mm512_castsi512_si256(first));
        }
        greatest
    }

    words! {
        max_words = _mm512_max_epi16;
        sub_words = _mm512_sub_epi16;
        mul_words = _mm512_mullo_epi16;
        scale_words = _mm512_mulhrs_epi16;
    }

    #[inline(always)]
    fn store_weights(self, [a, b]: [__m512i; 2], first: usize, out: &mut [u8; CHUNK]) {
        let [a_dithers, b_dithers] = &DITHERS_OF_KEYS[first / 4 % 32];
        let (a_dithers, b_dithers) = (self.load_scores(a_dithers), self.load_scores(b_dithers));
        // SAFETY: `self` proves the features.
        unsafe {
            let a = _mm512_srli_epi16::<7>(_mm512_add_epi16(weigh(a), a_dithers));
            let b = _mm512_srli_epi16::<7>(_mm512_add_epi16(weigh(b), b_dithers));
            store_bytes(a, b, out);
        }
    }

    #[inline(always)]
    fn store_weight_bytes(self, [a, b]: [__m512i; 2], [whole, fraction]: [&mut [u8; CHUNK]; 2]) {
        // SAFETY: `self` proves the features.
        unsafe {
            let (a, b, mask) = (weigh(a), weigh(b), _mm512_set1_epi16(127));
            store_bytes(_mm512_srli_epi16::<7>(a), _mm512_srli_epi16::<7>(b), whole);
            store_bytes(_mm512_and_si512(a, mask), _mm512_and_si512(b, mask), fraction);
        }
    }

    #[inline(always)]
    fn store_columns(self, [a, b, c, d]: [__m512; 4], factor: __m512, _: &mut [i32; LANES], out: &mut [u8; CHUNK]) {
        let [a, b, c, d] =
            [self.rounded(a, factor), self.rounded(b, factor), self.rounded(c, factor), self.rounded(d, factor)];
        // SAFETY: `self` proves the features; there are 64 bytes to write to.
        unsafe {
            let [a, b] = [_mm512_castps_si512(a), _mm512_castps_si512(b)];
            let [c, d] = [_mm512_castps_si512(c), _mm512_castps_si512(d)];
            let low = select(0xff, a, _mm512_slli_epi32::<8>(b));
            let high = select(0xff_0000, _mm512_slli_epi32::<16>(c), _mm512_slli_epi32::<24>(d));
            _mm512_storeu_si512(out.as_mut_ptr().cast(), select(0xffff, low, high));
        }
    }

    lanewise! {
        add(a, b) = _mm512_add_ps(a, b);
        sub(a, b) = _mm512_sub_ps(a, b);
        mul(a, b) = _mm512_mul_ps(a, b);
        div(a, b) = _mm512_div_ps(a, b);
        fma(a, b, c) = _mm512_fmadd_ps(a, b, c);
        max(a, b) = _mm512_max_ps(a, b);
        min(a, b) = _mm512_min_ps(a, b);
        max_magnitude(a, b) = _mm512_max_ps(_mm512_abs_ps(a), b);
        shift_to_exponent(a) = _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(a)));
        zero_below(x, least, a) = _mm512_maskz_mov_ps(!_mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, least), a);
    }

    #[inline(always)]
    fn interleave(self, a: __m512, b: __m512) -> [__m512; 2] {
        // SAFETY: `self` proves the features.
        unsafe {
            let first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
            [_mm512_permutex2var_ps(a, first, b), _mm512_permutex2var_ps(a, second, b)]
        }
    }

    #[inline(always)]
    fn fold(self, a: __m512) -> f32 {
        // SAFETY: `self` proves the features.
        unsafe { fold_eight!(_mm256_add_ps(_mm512_castps512_ps256(a), high(a)), _mm_add_ps) }
    }

    #[inline(always)]
    fn fold_max(self, a: __m512) -> f32 {
        // SAFETY: `self` proves the features.
        unsafe { fold_eight!(_mm256_max_ps(_mm512_castps512_ps256(a), high(a)), _mm_max_ps) }
    }

    #[inline(always)]
    unsafe fn dot_tile(self, tile: &DotTile) {
        // SAFETY: `self` proves the features; the caller guarantees the tile.
        unsafe { avx512_tiles::dot(tile) }
    }

    #[inline(always)]
    unsafe fn score_tile(self, tile: &ScoreTile) {
        // SAFETY: `self` proves the features; the caller guarantees the tile.
        unsafe { avx512_tiles::score(tile) }
    }

    #[inline(always)]
    unsafe fn fma_tile(self, tile: &FmaTile) {
        // SAFETY: `self` proves the features; the caller guarantees the tile.
        unsafe { avx512_tiles::fma(tile) }
    }
}
