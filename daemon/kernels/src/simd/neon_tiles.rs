//! NEON's inner loops: up to 4 rows by 1 panel, sixteen sums in registers.
#![allow(clippy::needless_range_loop, reason = "one index for several arrays of registers")]

use std::arch::aarch64::*;

use super::{CHUNK, DotTile, FmaTile, LANES, OfKey, ScoreTile, for_rows, neon_blocks};

/// Four activations, four times.
///
/// # Safety
///
/// There are four bytes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn quad(at: *const u8) -> int8x16_t {
    // SAFETY: the caller's.
    unsafe { vreinterpretq_s8_s32(vdupq_n_s32(at.cast::<i32>().read_unaligned())) }
}

/// Adds the products of rows `first` on and a panel, by their scales, to the tile's sums.
///
/// # Safety
///
/// The tile has these rows and this panel; its scales are by lane where `BY_LANE` is set.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn add_scaled<const R: usize, const BY_LANE: bool>(
    tile: &DotTile,
    panel: usize,
    first: usize,
    dots: [[int32x4_t; 4]; R],
) {
    // SAFETY: the caller guarantees the tile's scales and sums of these rows.
    unsafe {
        let scales = tile.scales.add(if BY_LANE { panel * LANES } else { first });
        let by_lane = [0, 4, 8, 12].map(|lane| if BY_LANE { vld1q_f32(scales.add(lane)) } else { vdupq_n_f32(0.0) });
        let by_row: [f32; R] = std::array::from_fn(|r| if BY_LANE { 0.0 } else { *scales.add(r) });
        let sums = tile.sums.add(panel * tile.panel_stride + first * LANES);
        for (r, dots) in dots.into_iter().enumerate() {
            for (n, dots) in dots.into_iter().enumerate() {
                let (sum, dots) = (sums.add(r * LANES + 4 * n), vcvtq_f32_s32(dots));
                let result = if BY_LANE {
                    vfmaq_f32(vld1q_f32(sum), dots, by_lane[n])
                } else if tile.fresh {
                    vmulq_n_f32(dots, by_row[r])
                } else {
                    vfmaq_n_f32(vld1q_f32(sum), dots, by_row[r])
                };
                vst1q_f32(sum, result);
            }
        }
    }
}

/// Stores the scores of dot products of keys `first` on and a panel of queries.
///
/// # Safety
///
/// The tile has these keys and this panel.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn store_scores<const R: usize>(
    tile: &ScoreTile,
    panel: usize,
    first: usize,
    sums: &[[int32x4_t; 4]; R],
) {
    // SAFETY: the caller guarantees the keys' factors and scores.
    unsafe {
        let factors = tile.factors.add(first);
        let scores = tile.scores.add(panel * tile.panel_stride).cast::<i16>().add(first * LANES);
        match tile.shift {
            3 => store_shifted(scores, factors, sums, |a, b| vrshrn_high_n_s32::<3>(vrshrn_n_s32::<3>(a), b)),
            4 => store_shifted(scores, factors, sums, |a, b| vrshrn_high_n_s32::<4>(vrshrn_n_s32::<4>(a), b)),
            5 => store_shifted(scores, factors, sums, |a, b| vrshrn_high_n_s32::<5>(vrshrn_n_s32::<5>(a), b)),
            6 => store_shifted(scores, factors, sums, |a, b| vrshrn_high_n_s32::<6>(vrshrn_n_s32::<6>(a), b)),
            7 => store_shifted(scores, factors, sums, |a, b| vrshrn_high_n_s32::<7>(vrshrn_n_s32::<7>(a), b)),
            shift => {
                let shift = vdupq_n_s32(-(shift as i32));
                store_shifted(scores, factors, sums, |a, b| {
                    vmovn_high_s32(vmovn_s32(vrshlq_s32(a, shift)), vrshlq_s32(b, shift))
                });
            }
        }
    }
}

/// Stores the scores of what `shifted` makes of four queries' products with two keys.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn store_shifted<const R: usize>(
    scores: *mut i16,
    factors: *const OfKey,
    sums: &[[int32x4_t; 4]; R],
    shifted: impl Fn(int32x4_t, int32x4_t) -> int16x8_t,
) {
    for (pair, two) in sums.as_chunks::<2>().0.iter().enumerate() {
        // SAFETY: the caller guarantees a factor and sixteen scores for each key.
        unsafe {
            let factors = vld1q_s16(factors.add(2 * pair).cast());
            let out = scores.add(pair * 2 * LANES);
            for n in 0..4 {
                vst1q_s16(out.add(8 * n), vqrdmulhq_s16(shifted(two[0][n], two[1][n]), factors));
            }
        }
    }
}

/// # Safety
///
/// As [`super::Simd::fma_tile`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn fma(tile: &FmaTile) {
    let last = usize::from(tile.pair);
    for panel in 0..=last {
        let mut tile = FmaTile { pair: false, ..*tile };
        tile.panels[0] = tile.panels[panel];
        let quarters = if panel == last { tile.outputs.div_ceil(4) } else { 4 };
        // SAFETY: the caller's; a panel at a time.
        unsafe {
            tile.sums = tile.sums.add(panel * tile.panel_stride);
            match (quarters, tile.half) {
                (1, false) => for_rows!(tile.count, [1 2 3 4], R => fma_rows::<R, 1, false>(&tile)),
                (1, true) => for_rows!(tile.count, [1 2 3 4], R => fma_rows::<R, 1, true>(&tile)),
                (2, false) => for_rows!(tile.count, [1 2 3 4], R => fma_rows::<R, 2, false>(&tile)),
                (_, false) => for_rows!(tile.count, [1 2 3 4], R => fma_rows::<R, 4, false>(&tile)),
                (_, true) => for_rows!(tile.count, [1 2 3 4], R => fma_rows::<R, 4, true>(&tile)),
            }
        }
    }
}

/// A value of each row (lane `LANE` of `x`) by the first `N` quarters of a line of weights.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn fma_line<const R: usize, const N: usize, const HALF: bool, const LANE: i32>(
    sums: &mut [[float32x4_t; N]; R],
    line: *const u8,
    x: &[float32x4_t; R],
) {
    for n in 0..N {
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

/// The sums, where they are four rows of four quarters.
#[inline(always)]
fn whole_block<const R: usize, const N: usize>(sums: &mut [[float32x4_t; N]; R]) -> Option<&mut [[float32x4_t; 4]; 4]> {
    sums.as_flattened_mut().as_chunks_mut::<4>().0.try_into().ok()
}

/// The first `N` quarters of a panel's outputs.
#[target_feature(enable = "neon")]
unsafe fn fma_rows<const R: usize, const N: usize, const HALF: bool>(tile: &FmaTile) {
    // SAFETY: reads the rows' and the panel's values and updates the sums, as `FmaTile` describes.
    unsafe {
        let size = if HALF { 32 } else { 64 };
        let mut sums = [[vdupq_n_f32(0.0); N]; R];
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
            let mut fours = now / 4;
            if let Some(sums) = whole_block(&mut sums)
                && !HALF
            {
                for _ in 0..fours / 2 {
                    neon_blocks::fmla_eight(sums, &mut panel, &mut row);
                }
                if fours % 2 == 1 {
                    neon_blocks::fmla(sums, &mut panel, &mut row);
                }
                fours = 0;
            }
            for _ in 0..fours {
                let x: [float32x4_t; R] = std::array::from_fn(|r| vld1q_f32(row.add(r * CHUNK).cast()));
                fma_line::<R, N, HALF, 0>(&mut sums, panel, &x);
                fma_line::<R, N, HALF, 1>(&mut sums, panel.add(size), &x);
                fma_line::<R, N, HALF, 2>(&mut sums, panel.add(2 * size), &x);
                fma_line::<R, N, HALF, 3>(&mut sums, panel.add(3 * size), &x);
                (panel, row) = (panel.add(4 * size), row.add(16));
            }
            for _ in 0..now % 4 {
                let x: [float32x4_t; R] = std::array::from_fn(|r| vld1q_dup_f32(row.add(r * CHUNK).cast()));
                fma_line::<R, N, HALF, 0>(&mut sums, panel, &x);
                panel = panel.add(size);
                row = row.add(4);
            }
            left -= now;
            chunk = chunk.add(tile.chunk_stride);
        }
        for r in 0..R {
            for n in 0..N {
                vst1q_f32(tile.sums.add(r * LANES + n * 4), sums[r][n]);
            }
        }
    }
}
