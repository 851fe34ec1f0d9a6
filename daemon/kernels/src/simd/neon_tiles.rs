//! NEON's inner loops: up to 4 rows by 1 panel, sixteen sums in registers.
#![allow(clippy::needless_range_loop, reason = "one index for several arrays of registers")]

use std::arch::aarch64::*;
use std::arch::asm;

use super::{CHUNK, DotTile, FmaTile, LANES, OfKey, ScoreTile, Scores, for_rows, neon_blocks};

/// A tile's panels, one at a time.
fn single(tile: &DotTile) -> impl Iterator<Item = DotTile> {
    // SAFETY: the tile has these panels.
    (0..if tile.pair { 2 } else { 1 }).map(|panel| unsafe { tile.panel(panel) })
}

/// # Safety
///
/// As [`super::Simd::dot_tile`], with SDOT.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn dot_sdot(tile: &DotTile) {
    for tile in single(tile) {
        // SAFETY: the caller's.
        unsafe { for_rows!(&tile, [1 2 3 4], R => sdot_rows::<R>(&tile)) }
    }
}

/// `sums[i] += Σ b[4 i + j] · a[4 LANE + j]`: SDOT by element. (The intrinsic is not stable.)
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot<const LANE: i32>(mut sums: int32x4_t, b: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction touches no memory and no flags.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {b:v}.16b, {a:v}.4b[{lane}]",
            sums = inout(vreg) sums,
            b = in(vreg) b,
            a = in(vreg) a,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// A quad of activations against a line of weights.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn sdot_line<const R: usize, const LANE: i32>(
    sums: &mut [[int32x4_t; 4]; R],
    line: *const u8,
    x: &[int8x16_t; R],
) {
    for n in 0..4 {
        // SAFETY: the caller guarantees the line's 64 bytes.
        let weights = unsafe { vld1q_s8(line.add(16 * n).cast()) };
        for r in 0..R {
            sums[r][n] = sdot::<LANE>(sums[r][n], weights, x[r]);
        }
    }
}

#[target_feature(enable = "neon,dotprod")]
unsafe fn sdot_rows<const R: usize>(tile: &DotTile) {
    // SAFETY: updates the sums, as `DotTile` describes; the caller guarantees the rest.
    unsafe {
        let sums = sdots::<R>(tile, std::array::from_fn(|r| tile.start(r)));
        for r in 0..R {
            add_scaled(tile, r, sums[r]);
        }
    }
}

/// The products of a tile's rows and its first panel, and `start`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn sdots<const R: usize>(tile: &DotTile, start: [i32; R]) -> [[int32x4_t; 4]; R] {
    // SAFETY: reads the rows' and the panel's quads, as `DotTile` describes.
    unsafe {
        let mut sums = start.map(|start| [vdupq_n_s32(start); 4]);
        let mut panel = tile.panels[0];
        let mut chunk = tile.rows;
        let mut quads = tile.k / 4;
        loop {
            let mut row = chunk;
            let now = quads.min(CHUNK / 4);
            for _ in 0..now / 4 {
                if let Ok(four) = sums.as_mut_slice().try_into() {
                    neon_blocks::sdot(four, panel, row);
                } else {
                    let x: [int8x16_t; R] = std::array::from_fn(|r| vld1q_s8(row.add(r * CHUNK).cast()));
                    sdot_line::<R, 0>(&mut sums, panel, &x);
                    sdot_line::<R, 1>(&mut sums, panel.add(64), &x);
                    sdot_line::<R, 2>(&mut sums, panel.add(128), &x);
                    sdot_line::<R, 3>(&mut sums, panel.add(192), &x);
                }
                panel = panel.add(256);
                row = row.add(16);
            }
            for _ in 0..now % 4 {
                let x: [int8x16_t; R] = std::array::from_fn(|r| quad(row.add(r * CHUNK)));
                sdot_line::<R, 0>(&mut sums, panel, &x);
                panel = panel.add(64);
                row = row.add(4);
            }
            quads -= now;
            if quads == 0 {
                break sums;
            }
            chunk = chunk.add(tile.chunk_stride);
        }
    }
}

/// # Safety
///
/// As [`super::Simd::score_tile`], with SDOT.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn score_sdot(tile: &ScoreTile) {
    for tile in single_scores(tile) {
        // SAFETY: the caller's.
        unsafe {
            for_rows!(&tile.dots, [2 4], R => {
                let sums = sdots::<R>(&tile.dots, [tile.half(); R]);
                store_scores(&tile, &sums);
            });
        }
    }
}

/// A tile's panels, one at a time.
fn single_scores(tile: &ScoreTile) -> impl Iterator<Item = ScoreTile> {
    (0..if tile.dots.pair { 2 } else { 1 }).map(|panel| {
        let dots = DotTile { panels: [tile.dots.panels[panel]; 2], ..tile.dots };
        // SAFETY: the tile has these panels.
        ScoreTile { dots, scores: unsafe { tile.scores.add(panel * tile.panel_stride) }, ..*tile }
    })
}

/// Stores the scores of some keys' dot products.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn store_scores<const R: usize>(tile: &ScoreTile, sums: &[[int32x4_t; 4]; R]) {
    // SAFETY: the caller guarantees the tile's factors and scores.
    unsafe {
        match tile.shift {
            3 => store_shifted(tile.scores, tile.factors, sums, |a, b| vshrn_high_n_s32::<3>(vshrn_n_s32::<3>(a), b)),
            4 => store_shifted(tile.scores, tile.factors, sums, |a, b| vshrn_high_n_s32::<4>(vshrn_n_s32::<4>(a), b)),
            5 => store_shifted(tile.scores, tile.factors, sums, |a, b| vshrn_high_n_s32::<5>(vshrn_n_s32::<5>(a), b)),
            6 => store_shifted(tile.scores, tile.factors, sums, |a, b| vshrn_high_n_s32::<6>(vshrn_n_s32::<6>(a), b)),
            7 => store_shifted(tile.scores, tile.factors, sums, |a, b| vshrn_high_n_s32::<7>(vshrn_n_s32::<7>(a), b)),
            shift => {
                let shift = vdupq_n_s32(-(shift as i32));
                store_shifted(tile.scores, tile.factors, sums, |a, b| {
                    vmovn_high_s32(vmovn_s32(vshlq_s32(a, shift)), vshlq_s32(b, shift))
                });
            }
        }
    }
}

/// Stores the scores of what `shifted` makes of eight queries' products.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn store_shifted<const R: usize>(
    scores: *mut Scores,
    factors: *const OfKey,
    sums: &[[int32x4_t; 4]; R],
    shifted: impl Fn(int32x4_t, int32x4_t) -> int16x8_t,
) {
    let scores: *mut i16 = scores.cast();
    for r in 0..R {
        // SAFETY: the caller guarantees a factor and sixteen scores for each key.
        unsafe {
            let factor = vld1q_dup_s16(factors.add(r).cast());
            let out = scores.add(r * LANES);
            vst1q_s16(out, vqrdmulhq_s16(shifted(sums[r][0], sums[r][1]), factor));
            vst1q_s16(out.add(8), vqrdmulhq_s16(shifted(sums[r][2], sums[r][3]), factor));
        }
    }
}

/// Four activations, four times.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn quad(at: *const u8) -> int8x16_t {
    // SAFETY: the caller guarantees four bytes.
    unsafe { vreinterpretq_s8_s32(vdupq_n_s32(at.cast::<i32>().read_unaligned())) }
}

/// `sums = fma(dot, scale, sums)` for a row.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add_scaled(tile: &DotTile, row: usize, dots: [int32x4_t; 4]) {
    // SAFETY: the caller guarantees the tile's scale and sums of this row.
    unsafe {
        for (n, dots) in dots.into_iter().enumerate() {
            let out = tile.sums.add(row * LANES + n * 4);
            let before = if tile.fresh { vdupq_n_f32(0.0) } else { vld1q_f32(out) };
            let scales = tile.scales;
            let scale = if tile.by_lane { vld1q_f32(scales.add(n * 4)) } else { vdupq_n_f32(*scales.add(row)) };
            vst1q_f32(out, vfmaq_f32(before, vcvtq_f32_s32(dots), scale));
        }
    }
}

/// # Safety
///
/// As [`super::Simd::dot_tile`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn dot_smull(tile: &DotTile) {
    for tile in single(tile) {
        for first in (0..tile.count).step_by(2) {
            // SAFETY: the caller's; two rows at a time, whose sums fill sixteen registers.
            unsafe {
                let tile = tile.part(first, 2.min(tile.count - first));
                for_rows!(&tile, [1 2], R => smull_rows::<R>(&tile));
            }
        }
    }
}

/// A widening multiply, or multiply-add, of eight int8: the intrinsics come out of the compiler with the upper halves moved to
/// lower ones first, which costs as much as the multiplication.
macro_rules! widening {
    ($name:ident, $text:literal, $($sums:ident)?) => {
        #[inline]
        #[target_feature(enable = "neon")]
        fn $name($(mut $sums: int16x8_t,)? a: int8x16_t, b: int8x16_t) -> int16x8_t {
            // SAFETY: the instruction touches no memory and no flags.
            unsafe { widening!(@ $text, a, b $(, $sums)?) }
        }
    };
    (@ $text:literal, $a:ident, $b:ident) => {{
        let sums: int16x8_t;
        asm!($text, s = lateout(vreg) sums, a = in(vreg) $a, b = in(vreg) $b, options(pure, nomem, nostack, preserves_flags));
        sums
    }};
    (@ $text:literal, $a:ident, $b:ident, $sums:ident) => {{
        asm!($text, s = inout(vreg) $sums, a = in(vreg) $a, b = in(vreg) $b, options(pure, nomem, nostack, preserves_flags));
        $sums
    }};
}

widening!(smull, "smull {s:v}.8h, {a:v}.8b, {b:v}.8b",);
widening!(smull2, "smull2 {s:v}.8h, {a:v}.16b, {b:v}.16b",);
widening!(smlal, "smlal {s:v}.8h, {a:v}.8b, {b:v}.8b", sums);
widening!(smlal2, "smlal2 {s:v}.8h, {a:v}.16b, {b:v}.16b", sums);

/// [`neon_blocks::smull`] of any number of rows.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn smull_two_lines<const R: usize>(sums: &mut [[int32x4_t; 8]; R], panel: *const i8, row: *const u8) {
    for (r, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller guarantees the rows' two quads and the panel's two lines.
        unsafe {
            let (x, y) = (quad(row.add(r * CHUNK)), quad(row.add(r * CHUNK + 4)));
            for n in 0..4 {
                let (v, w) = (vld1q_s8(panel.add(16 * n)), vld1q_s8(panel.add(64 + 16 * n)));
                sums[2 * n] = vpadalq_s16(sums[2 * n], smlal(smull(v, x), w, y));
                sums[2 * n + 1] = vpadalq_s16(sums[2 * n + 1], smlal2(smull2(v, x), w, y));
            }
        }
    }
}

#[target_feature(enable = "neon")]
unsafe fn smull_rows<const R: usize>(tile: &DotTile) {
    // SAFETY: updates the sums, as `DotTile` describes; the caller guarantees the rest.
    unsafe {
        let sums = smulls::<R>(tile, std::array::from_fn(|r| tile.start(r)));
        for r in 0..R {
            add_scaled(tile, r, sums[r]);
        }
    }
}

/// # Safety
///
/// As [`super::Simd::score_tile`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn score_smull(tile: &ScoreTile) {
    for tile in single_scores(tile) {
        for first in (0..tile.dots.count).step_by(2) {
            // SAFETY: the caller's; two keys at a time, whose sums fill sixteen registers.
            unsafe {
                let tile = tile.part(first, 2);
                let sums = smulls::<2>(&tile.dots, [tile.half(); 2]);
                store_scores(&tile, &sums);
            }
        }
    }
}

/// The products of a tile's rows and its first panel, and `start`:
/// SMULL and SMLAL of two quads (two products of at most 128 · 127 never leave an i16), then SADALP.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn smulls<const R: usize>(tile: &DotTile, start: [i32; R]) -> [[int32x4_t; 4]; R] {
    // SAFETY: reads the rows' and the panel's quads, as `DotTile` describes.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); 8]; R];
        let mut panel: *const i8 = tile.panels[0].cast();
        let mut chunk = tile.rows;
        let mut quads = tile.k / 4;
        loop {
            let mut row = chunk;
            let now = quads.min(CHUNK / 4);
            for _ in 0..now / 2 {
                if let Ok(two) = sums.as_mut_slice().try_into() {
                    neon_blocks::smull(two, panel.cast(), row);
                } else {
                    smull_two_lines(&mut sums, panel, row);
                }
                panel = panel.add(128);
                row = row.add(8);
            }
            if now % 2 == 1 {
                for n in 0..4 {
                    let v = vld1q_s8(panel.add(16 * n));
                    for r in 0..R {
                        let x = quad(row.add(r * CHUNK));
                        sums[r][2 * n] = vpadalq_s16(sums[r][2 * n], smull(v, x));
                        sums[r][2 * n + 1] = vpadalq_s16(sums[r][2 * n + 1], smull2(v, x));
                    }
                }
                panel = panel.add(64);
            }
            quads -= now;
            if quads == 0 {
                break;
            }
            chunk = chunk.add(tile.chunk_stride);
        }
        std::array::from_fn(|r| {
            let start = vdupq_n_s32(start[r]);
            std::array::from_fn(|n| vaddq_s32(vpaddq_s32(sums[r][2 * n], sums[r][2 * n + 1]), start))
        })
    }
}

/// # Safety
///
/// As [`super::Simd::fma_tile`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn fma(tile: &FmaTile) {
    for panel in 0..if tile.pair { 2 } else { 1 } {
        let mut tile = FmaTile { pair: false, ..*tile };
        tile.panels[0] = tile.panels[panel];
        // SAFETY: the caller's; a panel at a time.
        unsafe {
            tile.sums = tile.sums.add(panel * tile.panel_stride);
            if tile.half {
                for_rows!(&tile, [1 2 3 4], R => fma_rows::<R, true>(&tile))
            } else {
                for_rows!(&tile, [1 2 3 4], R => fma_rows::<R, false>(&tile))
            }
        }
    }
}

/// A value of each row (lane `LANE` of `x`) by a line of weights.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn fma_line<const R: usize, const HALF: bool, const LANE: i32>(
    sums: &mut [[float32x4_t; 4]; R],
    line: *const u8,
    x: &[float32x4_t; R],
) {
    for n in 0..4 {
        // SAFETY: the caller guarantees the line's sixteen values.
        let weights = unsafe {
            if HALF {
                vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(line.add(8 * n).cast())))
            } else {
                vld1q_f32(line.add(16 * n).cast())
            }
        };
        for r in 0..R {
            sums[r][n] = vfmaq_laneq_f32::<LANE>(sums[r][n], weights, x[r]);
        }
    }
}

#[target_feature(enable = "neon")]
unsafe fn fma_rows<const R: usize, const HALF: bool>(tile: &FmaTile) {
    // SAFETY: reads the rows' and the panel's values and updates the sums, as `FmaTile` describes.
    unsafe {
        let size = if HALF { 32 } else { 64 };
        let mut sums = [[vdupq_n_f32(0.0); 4]; R];
        if !tile.fresh {
            for r in 0..R {
                sums[r] = std::array::from_fn(|n| vld1q_f32(tile.sums.add(r * LANES + n * 4)));
            }
        }
        let mut panel = tile.panels[0];
        let mut chunk = tile.rows;
        let mut left = tile.k;
        while left > 0 {
            let mut row = chunk;
            let now = left.min(LANES);
            for _ in 0..now / 4 {
                match sums.as_mut_slice().try_into() {
                    Ok(four) if !HALF => neon_blocks::fmla(four, panel, row),
                    _ => {
                        let x: [float32x4_t; R] = std::array::from_fn(|r| vld1q_f32(row.add(r * CHUNK).cast()));
                        fma_line::<R, HALF, 0>(&mut sums, panel, &x);
                        fma_line::<R, HALF, 1>(&mut sums, panel.add(size), &x);
                        fma_line::<R, HALF, 2>(&mut sums, panel.add(2 * size), &x);
                        fma_line::<R, HALF, 3>(&mut sums, panel.add(3 * size), &x);
                    }
                }
                panel = panel.add(4 * size);
                row = row.add(16);
            }
            for _ in 0..now % 4 {
                let x: [float32x4_t; R] = std::array::from_fn(|r| vld1q_dup_f32(row.add(r * CHUNK).cast()));
                fma_line::<R, HALF, 0>(&mut sums, panel, &x);
                panel = panel.add(size);
                row = row.add(4);
            }
            left -= now;
            chunk = chunk.add(tile.chunk_stride);
        }
        for r in 0..R {
            for n in 0..4 {
                vst1q_f32(tile.sums.add(r * LANES + n * 4), sums[r][n]);
            }
        }
    }
}
