//! NEON: a vector of sixteen f32 is four registers. SDOT changes the int8 inner loop alone.

use std::arch::aarch64::*;

use half::f16;

use super::{CHUNK, DotTile, FmaTile, LANES, ScoreTile, Scores, Simd, SimdFn, neon_tiles, padded};
use crate::cpu::Level;
use crate::scalar::weights::DITHERS;

/// [`DITHERS`] of weights in units of 1/256, and what takes 128 off weights.
static DITHERS_OF_KEYS: [u16; 128] = {
    let mut dithers = [0; 128];
    let mut j = 0;
    while j < 128 {
        dithers[j] = 2 * DITHERS[j] as u16 + (128 << 8);
        j += 1;
    }
    dithers
};

/// The proof that this CPU has NEON, and SDOT where `DOT` is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neon<const DOT: bool>(());

impl<const DOT: bool> Neon<DOT> {
    /// # Panics
    ///
    /// If this CPU does not have it.
    pub(crate) fn new() -> Self {
        let level = if DOT { Level::Dotprod } else { Level::Neon };
        assert!(level.available(), "this CPU has no {level}");
        Neon(())
    }
}

#[target_feature(enable = "neon")]
fn enter<const DOT: bool, W: SimdFn>(simd: Neon<DOT>, function: W) -> W::Output {
    function.call(simd)
}

/// Sixteen f32.
type Quarters = [float32x4_t; 4];

/// The weights of eight powers in units of 1/256, with the dither.
#[inline]
#[target_feature(enable = "neon")]
fn weigh(power: int16x8_t, dither: uint16x8_t) -> uint16x8_t {
    // (power & 127) | 128, in units of 1/128 the fraction and 1.
    let fraction = vsliq_n_u16::<7>(vreinterpretq_u16_s16(power), vdupq_n_u16(1));
    let mantissa = vrhaddq_u16(vmulq_u16(fraction, fraction), vdupq_n_u16(1 << 15));
    vaddq_u16(vshlq_u16(mantissa, vshrq_n_s16::<7>(power)), dither)
}

macro_rules! lanewise {
    ($($name:ident($($arg:ident),*) = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Quarters),*) -> Quarters {
            // SAFETY: `self` proves that the CPU has these instructions; they touch no memory.
            let quarter = |$($arg: float32x4_t),*| unsafe { $body };
            [quarter($($arg[0]),*), quarter($($arg[1]),*), quarter($($arg[2]),*), quarter($($arg[3]),*)]
        }
    )*};
}

macro_rules! words {
    ($($name:ident = $instruction:ident;)*) => {$(
        #[inline(always)]
        fn $name(self, a: [int16x8_t; 4], b: [int16x8_t; 4]) -> [int16x8_t; 4] {
            // SAFETY: `self` proves that the CPU has these instructions; they touch no memory.
            unsafe {
                [$instruction(a[0], b[0]), $instruction(a[1], b[1]), $instruction(a[2], b[2]), $instruction(a[3], b[3])]
            }
        }
    )*};
}

impl<const DOT: bool> Simd for Neon<DOT> {
    type F = Quarters;
    /// One key's, eight queries each, and then the other's.
    type Words = [int16x8_t; 4];
    const ROWS: usize = 4;
    const FLIP: u8 = 0;

    #[inline(always)]
    fn run<W: SimdFn>(self, function: W) -> W::Output {
        // SAFETY: `self` proves that the CPU has the features that `enter` is compiled with.
        unsafe { enter(self, function) }
    }

    #[inline(always)]
    fn prefetch_read(self, at: *const f32) {
        // SAFETY: a hint: it reads nothing, writes nothing and never faults.
        unsafe { std::arch::asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(nomem, nostack, preserves_flags)) }
    }

    #[inline(always)]
    fn prefetch_write(self, at: *const f32) {
        // SAFETY: a hint: it reads nothing, writes nothing and never faults.
        unsafe { std::arch::asm!("prfm pstl1keep, [{at}]", at = in(reg) at, options(nomem, nostack, preserves_flags)) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Quarters {
        // SAFETY: `self` proves the feature.
        unsafe { [vdupq_n_f32(x); 4] }
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> Quarters {
        let mut copy: [f32; LANES];
        let x = padded!(x, copy);
        // SAFETY: `self` proves the feature; `x` holds sixteen values.
        unsafe { std::array::from_fn(|i| vld1q_f32(x.as_ptr().add(4 * i))) }
    }

    #[inline(always)]
    fn store(self, a: Quarters, out: &mut [f32]) {
        let mut lanes = [0.0; LANES];
        let short = out.len() < LANES;
        let to = if short { lanes.as_mut_ptr() } else { out.as_mut_ptr() };
        for (i, quarter) in a.into_iter().enumerate() {
            // SAFETY: `self` proves the feature; there is room for sixteen values.
            unsafe { vst1q_f32(to.add(4 * i), quarter) };
        }
        if short {
            out.copy_from_slice(&lanes[..out.len()]);
        }
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16]) -> Quarters {
        let mut copy: [f16; LANES];
        let x = padded!(x, copy);
        let x: *const u16 = x.as_ptr().cast();
        // SAFETY: `self` proves the feature; `x` holds sixteen values.
        unsafe { std::array::from_fn(|i| vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x.add(4 * i))))) }
    }

    #[inline(always)]
    fn store_f16(self, a: Quarters, out: &mut [f16]) {
        let mut lanes = [f16::ZERO; LANES];
        let at: *mut u16 = lanes.as_mut_ptr().cast();
        for (i, quarter) in a.into_iter().enumerate() {
            // SAFETY: `self` proves the feature; `lanes` holds sixteen values.
            unsafe { vst1_u16(at.add(4 * i), vreinterpret_u16_f16(vcvt_f16_f32(quarter))) };
        }
        let len = out.len().min(LANES);
        out[..len].copy_from_slice(&lanes[..len]);
    }

    #[inline(always)]
    fn store_i8(self, a: Quarters, out: &mut [i8]) {
        let mut lanes = [0; LANES];
        // SAFETY: `self` proves the feature; `lanes` holds sixteen values.
        unsafe {
            let [a, b, c, d] = a.map(|quarter| vqmovn_s32(vcvtnq_s32_f32(quarter)));
            let bytes = vcombine_s8(vqmovn_s16(vcombine_s16(a, b)), vqmovn_s16(vcombine_s16(c, d)));
            vst1q_s8(lanes.as_mut_ptr(), bytes);
        }
        let len = out.len().min(LANES);
        out[..len].copy_from_slice(&lanes[..len]);
    }

    #[inline(always)]
    fn load_scores(self, scores: &Scores) -> [int16x8_t; 4] {
        let at = scores.0.as_ptr();
        // SAFETY: `self` proves the feature; there are 32 numbers.
        unsafe { [vld1q_s16(at), vld1q_s16(at.add(8)), vld1q_s16(at.add(16)), vld1q_s16(at.add(24))] }
    }

    #[inline(always)]
    fn of_queries(self, numbers: &[i16; LANES]) -> [int16x8_t; 4] {
        // SAFETY: `self` proves the feature; there are sixteen numbers.
        let (low, high) = unsafe { (vld1q_s16(numbers.as_ptr()), vld1q_s16(numbers.as_ptr().add(8))) };
        [low, high, low, high]
    }

    #[inline(always)]
    fn greatest_of_keys(self, a: [int16x8_t; 4]) -> [i16; LANES] {
        let mut greatest = [0; LANES];
        // SAFETY: `self` proves the feature; there is room for sixteen numbers.
        unsafe {
            vst1q_s16(greatest.as_mut_ptr(), vmaxq_s16(a[0], a[2]));
            vst1q_s16(greatest.as_mut_ptr().add(8), vmaxq_s16(a[1], a[3]));
        }
        greatest
    }

    #[inline(always)]
    fn store_powers(self, [a, b]: [[int16x8_t; 4]; 2], first: usize, out: &mut [u8; CHUNK]) {
        let dithers: &[u16; 4] = DITHERS_OF_KEYS[first..][..4].try_into().expect("four keys");
        let at = out.as_mut_ptr();
        // SAFETY: `self` proves the feature; there are 64 bytes to write to.
        unsafe {
            for half in 0..2 {
                let first = weigh(a[half], vdupq_n_u16(dithers[0]));
                let second = weigh(a[2 + half], vdupq_n_u16(dithers[1]));
                let third = weigh(b[half], vdupq_n_u16(dithers[2]));
                let fourth = weigh(b[2 + half], vdupq_n_u16(dithers[3]));
                // The upper bytes of two keys by turns, then both pairs by turns.
                let ab = vtrn2q_u8(vreinterpretq_u8_u16(first), vreinterpretq_u8_u16(second));
                let cd = vtrn2q_u8(vreinterpretq_u8_u16(third), vreinterpretq_u8_u16(fourth));
                let [ab, cd] = [vreinterpretq_u16_u8(ab), vreinterpretq_u16_u8(cd)];
                vst1q_u8(at.add(32 * half), vreinterpretq_u8_u16(vzip1q_u16(ab, cd)));
                vst1q_u8(at.add(32 * half + 16), vreinterpretq_u8_u16(vzip2q_u16(ab, cd)));
            }
        }
    }

    words! {
        max_words = vmaxq_s16;
        sub_words = vsubq_s16;
        mul_words = vmulq_s16;
        scale_words = vqrdmulhq_s16;
    }

    #[inline(always)]
    fn store_bytes(self, a: [Quarters; 4], out: &mut [u8; CHUNK]) {
        let [a, b, c, d] = a;
        for (i, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            // SAFETY: `self` proves the feature; there are sixteen bytes to write to.
            unsafe {
                // The lower sixteen bits of both numbers by turns, then the upper bytes of both pairs by turns.
                let pair = |a, b| vtrn1q_u16(vreinterpretq_u16_f32(a), vreinterpretq_u16_f32(b));
                let [ac, bd] = [pair(a[i], c[i]), pair(b[i], d[i])].map(|pair| vreinterpretq_u8_u16(pair));
                vst1q_u8(out.as_mut_ptr(), veorq_u8(vtrn2q_u8(ac, bd), vdupq_n_u8(128)));
            }
        }
    }

    lanewise! {
        add(a, b) = vaddq_f32(a, b);
        sub(a, b) = vsubq_f32(a, b);
        mul(a, b) = vmulq_f32(a, b);
        div(a, b) = vdivq_f32(a, b);
        fma(a, b, c) = vfmaq_f32(c, a, b);
        max(a, b) = vbslq_f32(vcgtq_f32(a, b), a, b);
        min(a, b) = vbslq_f32(vcltq_f32(a, b), a, b);
        max_magnitude(a, b) = vmaxnmq_f32(vabsq_f32(a), b);
        round(a) = vrndnq_f32(a);
        scale_by_power(a, n) = {
            let shifted = vshlq_n_s32::<23>(vcvtnq_s32_f32(n));
            vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a), shifted))
        };
        zero_below(x, least, a) = {
            let below = vcltq_f32(x, least);
            vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), below))
        };
    }

    #[inline(always)]
    fn interleave(self, a: Quarters, b: Quarters) -> [Quarters; 2] {
        // SAFETY: `self` proves the feature.
        unsafe {
            [
                [vzip1q_f32(a[0], b[0]), vzip2q_f32(a[0], b[0]), vzip1q_f32(a[1], b[1]), vzip2q_f32(a[1], b[1])],
                [vzip1q_f32(a[2], b[2]), vzip2q_f32(a[2], b[2]), vzip1q_f32(a[3], b[3]), vzip2q_f32(a[3], b[3])],
            ]
        }
    }

    #[inline(always)]
    fn fold(self, a: Quarters) -> f32 {
        // SAFETY: `self` proves the feature.
        unsafe {
            let a = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
            let a = vadd_f32(vget_low_f32(a), vget_high_f32(a));
            vget_lane_f32::<0>(a) + vget_lane_f32::<1>(a)
        }
    }

    #[inline(always)]
    fn fold_max(self, a: Quarters) -> f32 {
        // SAFETY: `self` proves the feature.
        unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(a[0], a[2]), vmaxq_f32(a[1], a[3]))) }
    }

    #[inline(always)]
    unsafe fn dot_tile(self, tile: &DotTile) {
        // SAFETY: `self` proves the features; the caller guarantees the tile.
        unsafe { if DOT { neon_tiles::dot_sdot(tile) } else { neon_tiles::dot_smull(tile) } }
    }

    #[inline(always)]
    unsafe fn score_tile(self, tile: &ScoreTile) {
        // SAFETY: `self` proves the features; the caller guarantees the tile.
        unsafe { if DOT { neon_tiles::score_sdot(tile) } else { neon_tiles::score_smull(tile) } }
    }

    #[inline(always)]
    unsafe fn fma_tile(self, tile: &FmaTile) {
        // SAFETY: `self` proves the features; the caller guarantees the tile.
        unsafe { neon_tiles::fma(tile) }
    }
}
