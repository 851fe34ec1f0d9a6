//! AVX2: a vector of sixteen f32 is two registers.

use std::arch::asm;
use std::arch::x86_64::*;

use half::f16;

use super::{CHUNK, DotTile, FmaTile, LANES, ScoreTile, Scores, Simd, SimdFn, avx2_tiles, padded};
use crate::cpu::Level;
use crate::scalar::rows::INTEGERS;
use crate::scalar::weights::DITHERS;

/// The proof that this CPU has AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// # Panics
    ///
    /// If this CPU does not have it.
    pub(crate) fn new() -> Avx2 {
        assert!(Level::Avx2.available(), "this CPU has no {}", Level::Avx2);
        Avx2(())
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn enter<W: SimdFn>(simd: Avx2, function: W) -> W::Output {
    function.call(simd)
}

/// Sixteen f32.
type Halves = [__m256; 2];

/// Combines lanes `l` and `l + 4` by `$op` (of four lanes), then `l + 2`, then `l + 1`.
macro_rules! fold_eight {
    ($a:expr, $op:ident) => {{
        let a: __m256 = $a;
        let a = $op(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let a = $op(a, _mm_movehl_ps(a, a));
        _mm_cvtss_f32($op(a, _mm_shuffle_ps::<1>(a, a)))
    }};
}
pub(super) use fold_eight;

/// Takes 128 from weights in units of 1/128.
const LESS_128: i16 = -(128 << 7);
/// [`DITHERS`], and what takes 128 off weights: of four keys.
static DITHERS_OF_KEYS: [[i16; 4]; 32] = {
    let mut dithers = [[0; 4]; 32];
    let mut j = 0;
    while j < 128 {
        dithers[j / 4][j % 4] = DITHERS[j] as i16 + LESS_128;
        j += 1;
    }
    dithers
};

/// `a >> count`, 0 from 32 on. The intrinsic comes out of the compiler with a comparison of the counts.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn shift_right(a: __m256i, count: __m256i) -> __m256i {
    let shifted;
    // SAFETY: the instruction touches no memory and no flags.
    unsafe {
        asm!(
            "vpsrlvd {s}, {a}, {c}",
            s = lateout(ymm_reg) shifted,
            a = in(ymm_reg) a,
            c = in(ymm_reg) count,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    shifted
}

/// Where the bytes of four rows by four columns are in four columns by four rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn columns() -> __m128i {
    _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
}

/// The weights of a key in units of 1/128.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn weigh(power: __m256i) -> __m256i {
    let one = _mm256_set1_epi16(128);
    let fraction = _mm256_or_si256(_mm256_and_si256(power, _mm256_set1_epi16(127)), one);
    let mantissa = _mm256_avg_epu16(_mm256_mullo_epi16(fraction, fraction), _mm256_set1_epi16(i16::MIN));
    // 1 − ⌊power⌋.
    let shift = _mm256_srli_epi16::<7>(_mm256_sub_epi16(_mm256_set1_epi16(255), power));
    // Only 32-bit numbers are shifted by numbers of their own. Of the upper halves' the lower half is left out.
    let lower = _mm256_set1_epi32(0xffff);
    let low = shift_right(_mm256_and_si256(mantissa, lower), _mm256_and_si256(shift, lower));
    let high = shift_right(mantissa, _mm256_srli_epi32::<16>(shift));
    _mm256_blend_epi16::<0b1010_1010>(low, high)
}

/// What the level's `rounded` made of numbers, as integers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn integers(rounded: __m256) -> __m256i {
    _mm256_sub_epi32(_mm256_castps_si256(rounded), _mm256_set1_epi32(INTEGERS.to_bits().cast_signed()))
}

/// The whole part of weights in units of 1/128, less 128; `dither` includes these.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn whole(weights: __m256i, dither: i16) -> __m256i {
    _mm256_srai_epi16::<7>(_mm256_add_epi16(weights, _mm256_set1_epi16(dither)))
}

/// The fraction, less 128.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fraction(weights: __m256i) -> __m256i {
    _mm256_sub_epi16(_mm256_and_si256(weights, _mm256_set1_epi16(127)), _mm256_set1_epi16(128))
}

/// Stores two halves of each of four keys' numbers, which fit eight bits, as bytes: four keys by query.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn store_bytes([a, b, c, d]: [__m256i; 4], out: &mut [u8; CHUNK]) {
    let [ab, cd] = [_mm256_packs_epi16(a, b), _mm256_packs_epi16(c, d)];
    let [ab, cd] = [_mm256_castsi256_ps(ab), _mm256_castsi256_ps(cd)];
    // In each half four keys by four queries, to be transposed.
    let low = _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(ab, cd));
    let high = _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(ab, cd));
    let columns = _mm256_broadcastsi128_si256(columns());
    let out: *mut __m256i = out.as_mut_ptr().cast();
    // SAFETY: there are 64 bytes to write to.
    unsafe {
        _mm256_storeu_si256(out, _mm256_shuffle_epi8(low, columns));
        _mm256_storeu_si256(out.add(1), _mm256_shuffle_epi8(high, columns));
    }
}

macro_rules! lanewise {
    ($($name:ident($($arg:ident),*) = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Halves),*) -> Halves {
            // SAFETY: `self` proves that the CPU has these instructions; they touch no memory.
            let half = |$($arg: __m256),*| unsafe { $body };
            [half($($arg[0]),*), half($($arg[1]),*)]
        }
    )*};
}

macro_rules! words {
    ($($name:ident = $instruction:ident;)*) => {$(
        #[inline(always)]
        fn $name(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            // SAFETY: `self` proves that the CPU has these instructions; they touch no memory.
            unsafe { [$instruction(a[0], b[0]), $instruction(a[1], b[1])] }
        }
    )*};
}

impl Simd for Avx2 {
    type F = Halves;
    /// A key each: queries 0 to 3, 8 to 11, 4 to 7 and 12 to 15.
    type Words = [__m256i; 2];
    const ROWS: usize = avx2_tiles::ROWS;
    const TILE_ROWS: usize = avx2_tiles::ROWS;
    const FLIP: u8 = 0;
    const MANY_SUMS: bool = false;

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
    fn splat(self, x: f32) -> Halves {
        // SAFETY: `self` proves the feature.
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> Halves {
        let mut copy: [f32; LANES];
        let x = padded!(x, copy);
        // SAFETY: `self` proves the feature; `x` holds sixteen values.
        unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] }
    }

    #[inline(always)]
    fn store(self, a: Halves, out: &mut [f32]) {
        let mut lanes = [0.0; LANES];
        let short = out.len() < LANES;
        let to = if short { lanes.as_mut_ptr() } else { out.as_mut_ptr() };
        // SAFETY: `self` proves the feature; there is room for sixteen values.
        unsafe {
            _mm256_storeu_ps(to, a[0]);
            _mm256_storeu_ps(to.add(8), a[1]);
        }
        if short {
            out.copy_from_slice(&lanes[..out.len()]);
        }
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16]) -> Halves {
        let mut copy: [f16; LANES];
        let x = padded!(x, copy);
        let x: *const __m128i = x.as_ptr().cast();
        // SAFETY: `self` proves the feature; `x` holds sixteen values.
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(x)), _mm256_cvtph_ps(_mm_loadu_si128(x.add(1)))] }
    }

    #[inline(always)]
    fn store_f16(self, a: Halves, out: &mut [f16]) {
        let mut lanes = [f16::ZERO; LANES];
        let at: *mut __m128i = lanes.as_mut_ptr().cast();
        // SAFETY: `self` proves the feature; `lanes` holds sixteen values.
        unsafe {
            _mm_storeu_si128(at, _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a[0]));
            _mm_storeu_si128(at.add(1), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a[1]));
        }
        let len = out.len().min(LANES);
        out[..len].copy_from_slice(&lanes[..len]);
    }

    #[inline(always)]
    fn store_i8(self, a: Halves, factor: Halves, out: &mut [i8]) {
        let rounded = self.rounded(a, factor);
        let mut lanes = [0; LANES];
        // SAFETY: `self` proves the feature; `lanes` holds sixteen values.
        unsafe {
            let words = _mm256_packs_epi32(integers(rounded[0]), integers(rounded[1]));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(lanes.as_mut_ptr().cast(), bytes);
        }
        let len = out.len().min(LANES);
        out[..len].copy_from_slice(&lanes[..len]);
    }

    #[inline(always)]
    fn load_scores(self, scores: &Scores) -> [__m256i; 2] {
        let at: *const __m256i = scores.0.as_ptr().cast();
        // SAFETY: `self` proves the feature; there are 64 bytes.
        unsafe { [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))] }
    }

    #[inline(always)]
    fn of_queries(self, numbers: &[i16; LANES]) -> [__m256i; 2] {
        // SAFETY: `self` proves the feature; there are 32 bytes.
        unsafe {
            let numbers = _mm256_loadu_si256(numbers.as_ptr().cast());
            [_mm256_permute4x64_epi64::<0b11_01_10_00>(numbers); 2]
        }
    }

    #[inline(always)]
    fn greatest_of_keys(self, [a, b]: [__m256i; 2]) -> [i16; LANES] {
        let mut greatest = [0; LANES];
        // SAFETY: `self` proves the feature; there is room for 32 bytes.
        unsafe {
            let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_max_epi16(a, b));
            _mm256_storeu_si256(greatest.as_mut_ptr().cast(), both);
        }
        greatest
    }

    words! {
        max_words = _mm256_max_epi16;
        sub_words = _mm256_sub_epi16;
        mul_words = _mm256_mullo_epi16;
        scale_words = _mm256_mulhrs_epi16;
    }

    #[inline(always)]
    fn store_weights(self, [[a, b], [c, d]]: [[__m256i; 2]; 2], first: usize, out: &mut [u8; CHUNK]) {
        let [da, db, dc, dd] = DITHERS_OF_KEYS[first / 4 % 32];
        // SAFETY: `self` proves the features.
        unsafe {
            store_bytes([whole(weigh(a), da), whole(weigh(b), db), whole(weigh(c), dc), whole(weigh(d), dd)], out);
        }
    }

    #[inline(always)]
    fn store_weight_bytes(self, [[a, b], [c, d]]: [[__m256i; 2]; 2], [wholes, fractions]: [&mut [u8; CHUNK]; 2]) {
        // SAFETY: `self` proves the features.
        unsafe {
            let [a, b, c, d] = [weigh(a), weigh(b), weigh(c), weigh(d)];
            store_bytes([whole(a, LESS_128), whole(b, LESS_128), whole(c, LESS_128), whole(d, LESS_128)], wholes);
            store_bytes([fraction(a), fraction(b), fraction(c), fraction(d)], fractions);
        }
    }

    #[inline(always)]
    fn store_columns(self, [a, b, c, d]: [Halves; 4], factor: Halves, sums: &mut [i32; LANES], out: &mut [u8; CHUNK]) {
        let [a, b, c, d] =
            [self.rounded(a, factor), self.rounded(b, factor), self.rounded(c, factor), self.rounded(d, factor)];
        for ((i, sums), out) in sums.as_chunks_mut::<8>().0.iter_mut().enumerate().zip(out.as_chunks_mut::<32>().0) {
            // SAFETY: `self` proves the features; there are eight sums, and 32 bytes to write to.
            unsafe {
                let [a, b, c, d] = [integers(a[i]), integers(b[i]), integers(c[i]), integers(d[i])];
                // In each half four vectors by four lanes, to be transposed.
                let rows = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
                let bytes = _mm256_shuffle_epi8(rows, _mm256_broadcastsi128_si256(columns()));
                _mm256_storeu_si256(out.as_mut_ptr().cast(), bytes);
                let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
                let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                let sums: *mut __m256i = sums.as_mut_ptr().cast();
                _mm256_storeu_si256(sums, _mm256_add_epi32(_mm256_loadu_si256(sums), fours));
            }
        }
    }

    lanewise! {
        add(a, b) = _mm256_add_ps(a, b);
        sub(a, b) = _mm256_sub_ps(a, b);
        mul(a, b) = _mm256_mul_ps(a, b);
        div(a, b) = _mm256_div_ps(a, b);
        fma(a, b, c) = _mm256_fmadd_ps(a, b, c);
        max(a, b) = _mm256_max_ps(a, b);
        min(a, b) = _mm256_min_ps(a, b);
        max_magnitude(a, b) = _mm256_max_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0), a), b);
        shift_to_exponent(a) = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(a)));
        zero_below(x, least, a) = _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, least), a);
    }

    #[inline(always)]
    fn interleave(self, a: Halves, b: Halves) -> [Halves; 2] {
        let mut halves = [a; 2];
        for (half, (a, b)) in halves.iter_mut().zip(a.into_iter().zip(b)) {
            // SAFETY: `self` proves the features.
            unsafe {
                let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                *half = [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)];
            }
        }
        halves
    }

    #[inline(always)]
    fn fold(self, a: Halves) -> f32 {
        // SAFETY: `self` proves the features.
        unsafe { fold_eight!(_mm256_add_ps(a[0], a[1]), _mm_add_ps) }
    }

    #[inline(always)]
    fn fold_max(self, a: Halves) -> f32 {
        // SAFETY: `self` proves the features.
        unsafe { fold_eight!(_mm256_max_ps(a[0], a[1]), _mm_max_ps) }
    }

    #[inline(always)]
    unsafe fn dot_tile(self, tile: &DotTile) {
        // SAFETY: `self` proves the features; the caller guarantees the tile.
        unsafe { avx2_tiles::dot(tile) }
    }

    #[inline(always)]
    unsafe fn score_tile(self, tile: &ScoreTile) {
        // SAFETY: `self` proves the features; the caller guarantees the tile.
        unsafe { avx2_tiles::score(tile) }
    }

    #[inline(always)]
    unsafe fn fma_tile(self, tile: &FmaTile) {
        // SAFETY: `self` proves the features; the caller guarantees the tile.
        unsafe { avx2_tiles::fma(tile) }
    }
}
