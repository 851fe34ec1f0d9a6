//! NEON: a vector of sixteen f32 is four registers. SDOT changes the int8 inner loop alone.

use std::arch::aarch64::*;
use std::arch::asm;

use half::f16;

use super::{
    CHUNK, DotTile, FmaTile, LANES, ScoreTile, Scores, Simd, SimdFn, neon_blocks, neon_sdot, neon_smull, neon_tiles,
    padded,
};
use crate::cpu::Level;
use crate::scalar::weights::DITHERS;

/// [`DITHERS`] of weights in units of 1/256, and what takes 128 off weights: of twice two keys, each for four queries.
static DITHERS_OF_KEYS: [[[u16; 8]; 2]; 32] = {
    let mut dithers = [[[0; 8]; 2]; 32];
    let mut i = 0;
    while i < 128 * 4 {
        let (key, lane) = (i / 4, i % 8);
        dithers[key / 4][key / 2 % 2][lane] = 2 * DITHERS[key] as u16 + (128 << 8);
        i += 1;
    }
    dithers
};
/// Where the bytes of four queries by four keys are in four keys by four queries.
static COLUMNS: [u8; 16] = [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15];

/// What [`weigh`] needs: 1, and 2¹⁵. In memory, lest the compiler makes them anew for every four keys.
static CONSTANTS: [AlignedWords; 2] = [AlignedWords([1; 8]), AlignedWords([1 << 15; 8])];

/// Sixteen bytes as a register wants them.
#[repr(C, align(16))]
struct AlignedWords([u16; 8]);

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

/// Four rows to four columns.
#[inline]
#[target_feature(enable = "neon")]
fn transpose_four([a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
    let (ac, bd) = ([vzip1q_f32(a, c), vzip2q_f32(a, c)], [vzip1q_f32(b, d), vzip2q_f32(b, d)]);
    [vzip1q_f32(ac[0], bd[0]), vzip2q_f32(ac[0], bd[0]), vzip1q_f32(ac[1], bd[1]), vzip2q_f32(ac[1], bd[1])]
}

/// [`CONSTANTS`] in registers.
#[inline]
#[target_feature(enable = "neon")]
fn constants() -> [uint16x8_t; 2] {
    // SAFETY: each array has sixteen bytes, which are aligned to sixteen.
    unsafe { [0, 1].map(|i| std::ptr::read_volatile(CONSTANTS[i].0.as_ptr().cast())) }
}

/// The weights of eight powers in units of 1/256, without the dither. `one` and `top` are [`CONSTANTS`].
#[inline]
#[target_feature(enable = "neon")]
fn weigh([one, top]: [uint16x8_t; 2], power: int16x8_t) -> uint16x8_t {
    // (power & 127) | 128, in units of 1/128 the fraction and 1.
    let fraction = vsliq_n_u16::<7>(vreinterpretq_u16_s16(power), one);
    let mantissa = vrhaddq_u16(vmulq_u16(fraction, fraction), top);
    vshlq_u16(mantissa, vshrq_n_s16::<7>(power))
}

/// The upper bytes of `a[0] + b[0]`, then those of `a[1] + b[1]`: ADDHN and ADDHN2, of whose intrinsics the compiler makes two ADDHN
/// and a copy.
#[inline]
#[target_feature(enable = "neon")]
fn upper_bytes_of_sums(a: [uint16x8_t; 2], b: [uint16x8_t; 2]) -> uint8x16_t {
    let bytes;
    // SAFETY: the instructions touch no memory and no flags.
    unsafe {
        asm!(
            "addhn {bytes:v}.8b, {a0:v}.8h, {b0:v}.8h",
            "addhn2 {bytes:v}.16b, {a1:v}.8h, {b1:v}.8h",
            bytes = out(vreg) bytes,
            a0 = in(vreg) a[0], a1 = in(vreg) a[1],
            b0 = in(vreg) b[0], b1 = in(vreg) b[1],
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    bytes
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
    /// Four queries' numbers of the first key, and the same queries' of the second.
    type Words = [int16x8_t; 4];
    const ROWS: usize = 4;
    const TILE_ROWS: usize = 32;
    const FLIP: u8 = 0;
    const MANY_SUMS: bool = false;

    #[inline(always)]
    fn run<W: SimdFn>(self, function: W) -> W::Output {
        // SAFETY: `self` proves that the CPU has the features that `enter` is compiled with.
        unsafe { enter(self, function) }
    }

    #[inline(always)]
    fn prefetch_read(self, at: *const f32) {
        // SAFETY: a hint: it reads nothing, writes nothing and never faults.
        unsafe { asm!("prfm pldl1keep, [{at}]", at = in(reg) at.addr(), options(nomem, nostack, preserves_flags)) }
    }

    #[inline(always)]
    fn prefetch_write(self, at: *const f32) {
        // SAFETY: a hint: it reads nothing, writes nothing and never faults.
        unsafe { asm!("prfm pstl1keep, [{at}]", at = in(reg) at.addr(), options(nomem, nostack, preserves_flags)) }
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
    fn store_i8(self, a: Quarters, factor: Quarters, out: &mut [i8]) {
        let rounded = self.rounded(a, factor);
        let mut lanes = [0; LANES];
        // SAFETY: `self` proves the feature; `lanes` holds sixteen values.
        unsafe {
            // The lower halves of both, twice.
            let [a, b, c, d] = rounded.map(|quarter| vreinterpretq_s16_f32(quarter));
            let [ab, cd] = [(a, b), (c, d)].map(|(a, b)| vreinterpretq_s8_s16(vuzp1q_s16(a, b)));
            vst1q_s8(lanes.as_mut_ptr(), vuzp1q_s8(ab, cd));
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
        [0, 4, 8, 12].map(|i| unsafe { vreinterpretq_s16_s64(vld1q_dup_s64(numbers.as_ptr().add(i).cast())) })
    }

    #[inline(always)]
    fn greatest_of_keys(self, a: [int16x8_t; 4]) -> [i16; LANES] {
        let mut greatest = [0; LANES];
        for (a, four) in a.into_iter().zip(greatest.as_chunks_mut::<4>().0) {
            // SAFETY: `self` proves the feature; there is room for four numbers.
            unsafe { vst1_s16(four.as_mut_ptr(), vmax_s16(vget_low_s16(a), vget_high_s16(a))) };
        }
        greatest
    }

    #[inline(always)]
    fn store_weights(self, [a, b]: [[int16x8_t; 4]; 2], first: usize, out: &mut [u8; CHUNK]) {
        let dithers = &DITHERS_OF_KEYS[first / 4 % 32];
        // SAFETY: `self` proves the feature; sixteen bytes are read from each array.
        let (dithers, constants, columns) = unsafe {
            let dithers = [0, 1].map(|keys| vld1q_u16(dithers[keys].as_ptr()));
            (dithers, constants(), vld1q_u8(COLUMNS.as_ptr()))
        };
        for (n, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            // SAFETY: `self` proves the feature; there are sixteen bytes to write to.
            unsafe {
                let weights = [weigh(constants, a[n]), weigh(constants, b[n])];
                let rows = upper_bytes_of_sums(weights, dithers);
                vst1q_u8(out.as_mut_ptr(), vqtbl1q_u8(rows, columns));
            }
        }
    }

    #[inline(always)]
    fn store_weight_bytes(self, [a, b]: [[int16x8_t; 4]; 2], [whole, fraction]: [&mut [u8; CHUNK]; 2]) {
        // SAFETY: `self` proves the feature; sixteen bytes are read from the array.
        let (constants, columns) = unsafe { (constants(), vld1q_u8(COLUMNS.as_ptr())) };
        let out = whole.as_chunks_mut::<16>().0.iter_mut().zip(fraction.as_chunks_mut::<16>().0);
        for (n, (whole, fraction)) in out.enumerate() {
            // SAFETY: `self` proves the feature; there are sixteen bytes to write to, twice.
            unsafe {
                let [a, b] =
                    [weigh(constants, a[n]), weigh(constants, b[n])].map(|weights| vreinterpretq_u8_u16(weights));
                // Less 128 in both; of the fraction, in units of 1/256, the lowest bit is dropped.
                let upper = veorq_u8(vuzp2q_u8(a, b), vdupq_n_u8(128));
                let lower = vsriq_n_u8::<1>(vdupq_n_u8(128), vuzp1q_u8(a, b));
                vst1q_u8(whole.as_mut_ptr(), vqtbl1q_u8(upper, columns));
                vst1q_u8(fraction.as_mut_ptr(), vqtbl1q_u8(lower, columns));
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
    fn store_columns(
        self,
        [a, b, c, d]: [Quarters; 4],
        factor: Quarters,
        sums: &mut [i32; LANES],
        out: &mut [u8; CHUNK],
    ) {
        let [a, b, c, d] =
            [self.rounded(a, factor), self.rounded(b, factor), self.rounded(c, factor), self.rounded(d, factor)];
        for ((i, sums), out) in sums.as_chunks_mut::<4>().0.iter_mut().enumerate().zip(out.as_chunks_mut::<16>().0) {
            // SAFETY: `self` proves the feature; there are four sums, and sixteen bytes to write to.
            unsafe {
                let [a, b, c, d] = [a[i], b[i], c[i], d[i]].map(|quarter| vreinterpretq_s32_f32(quarter));
                let bytes = vsliq_n_s32::<24>(vsliq_n_s32::<16>(vsliq_n_s32::<8>(a, b), c), d);
                vst1q_s32(out.as_mut_ptr().cast(), bytes);
                let pairs = vpaddlq_s8(vreinterpretq_s8_s32(bytes));
                vst1q_s32(sums.as_mut_ptr(), vpadalq_s16(vld1q_s32(sums.as_ptr()), pairs));
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
        // The instructions prefer +0 to -0, and keep what is not a number, as it is here.
        at_least(bound, a) = vmaxq_f32(bound, a);
        at_most(bound, a) = vminq_f32(bound, a);
        max_magnitude(a, b) = vmaxnmq_f32(vabsq_f32(a), b);
        shift_to_exponent(a) = vreinterpretq_f32_s32(vshlq_n_s32::<23>(vreinterpretq_s32_f32(a)));
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
    fn horner(self, sum: Quarters, x: Quarters, coefficients: &'static [[f32; 8]]) -> Quarters {
        // SAFETY: `self` proves the feature.
        unsafe { neon_blocks::horner(sum, x, coefficients) }
    }

    /// Four rows by four columns at a time.
    #[inline(always)]
    fn transpose(self, rows: [Quarters; LANES]) -> [Quarters; LANES] {
        let mut columns = rows;
        for (i, j) in (0..4).flat_map(|i| (0..4).map(move |j| (i, j))) {
            // SAFETY: `self` proves the feature.
            let block = unsafe { transpose_four(std::array::from_fn(|r| rows[4 * i + r][j])) };
            block.into_iter().enumerate().for_each(|(c, column)| columns[4 * j + c][i] = column);
        }
        columns
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
        unsafe { if DOT { neon_sdot::dot(tile) } else { neon_smull::dot(tile) } }
    }

    #[inline(always)]
    unsafe fn score_tile(self, tile: &ScoreTile) {
        // SAFETY: `self` proves the features; the caller guarantees the tile.
        unsafe { if DOT { neon_sdot::score(tile) } else { neon_smull::score(tile) } }
    }

    #[inline(always)]
    unsafe fn fma_tile(self, tile: &FmaTile) {
        // SAFETY: `self` proves the features; the caller guarantees the tile.
        unsafe { neon_tiles::fma(tile) }
    }
}
