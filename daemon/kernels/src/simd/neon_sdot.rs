//! NEON's int8 inner loop on SDOT.
#![allow(clippy::needless_range_loop, reason = "one index for several arrays of registers")]

use std::arch::aarch64::*;
use std::arch::asm;

use super::neon_tiles::{add_scaled, store_scores};
use super::{CHUNK, DotTile, ScoreTile, for_rows, neon_blocks};

/// # Safety
///
/// As [`super::Simd::dot_tile`], with SDOT.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn dot(tile: &DotTile) {
    // SAFETY: the caller's.
    unsafe { if tile.by_lane { dot_panels::<true>(tile) } else { dot_panels::<false>(tile) } }
}

#[target_feature(enable = "neon,dotprod")]
unsafe fn dot_panels<const BY_LANE: bool>(tile: &DotTile) {
    let fours = tile.count / 4 * 4;
    for panel in 0..tile.panel_count() {
        // SAFETY: the tile has these rows.
        unsafe {
            for first in (0..fours).step_by(4) {
                dot_rows::<4, BY_LANE>(tile, panel, first);
            }
            if fours < tile.count {
                for_rows!(tile.count - fours, [1 2 3], R => dot_few_rows::<R, BY_LANE>(tile, panel, fours));
            }
        }
    }
}

/// [`dot_rows`], not inlined, lest the compiler keeps it out of the loop above.
#[inline(never)]
#[target_feature(enable = "neon,dotprod")]
unsafe fn dot_few_rows<const R: usize, const BY_LANE: bool>(tile: &DotTile, panel: usize, first: usize) {
    // SAFETY: the caller's.
    unsafe { dot_rows::<R, BY_LANE>(tile, panel, first) }
}

/// Rows from `first` on by a panel.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn dot_rows<const R: usize, const BY_LANE: bool>(tile: &DotTile, panel: usize, first: usize) {
    // SAFETY: the caller guarantees that the tile has these rows.
    unsafe {
        let start = if BY_LANE { starts(tile, first) } else { zeros() };
        let dots = dots::<R>(tile, panel, tile.rows.add(first * CHUNK), start);
        add_scaled::<R, BY_LANE>(tile, panel, first, dots);
    }
}

/// # Safety
///
/// As [`super::Simd::score_tile`], with SDOT.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn score(tile: &ScoreTile) {
    let fours = tile.dots.count / 4 * 4;
    for panel in 0..tile.dots.panel_count() {
        // SAFETY: the tile has these keys, an even number.
        unsafe {
            for first in (0..fours).step_by(4) {
                score_keys::<4>(tile, panel, first);
            }
            if fours < tile.dots.count {
                score_two_keys(tile, panel, fours);
            }
        }
    }
}

/// [`score_keys`], not inlined, lest the compiler keeps it out of the loop above.
#[inline(never)]
#[target_feature(enable = "neon,dotprod")]
unsafe fn score_two_keys(tile: &ScoreTile, panel: usize, first: usize) {
    // SAFETY: the caller's.
    unsafe { score_keys::<2>(tile, panel, first) }
}

/// Keys from `first` on by a panel.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn score_keys<const R: usize>(tile: &ScoreTile, panel: usize, first: usize) {
    // SAFETY: the caller guarantees that the tile has these keys.
    unsafe {
        let dots = dots::<R>(&tile.dots, panel, tile.dots.rows.add(first * CHUNK), zeros());
        store_scores(tile, panel, first, &dots);
    }
}

/// Sums of 0.
#[inline]
#[target_feature(enable = "neon")]
fn zeros<const R: usize>() -> [[int32x4_t; 4]; R] {
    let mut sums = [[vdupq_n_s32(0); 4]; R];
    if let Ok(four) = <&mut [_; 4]>::try_from(sums.as_mut_slice()) {
        *four = neon_blocks::zeros();
    }
    sums
}

/// What the sums of rows `first` on start from.
///
/// # Safety
///
/// The tile has these rows, and its scales are by lane.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn starts<const R: usize>(tile: &DotTile, first: usize) -> [[int32x4_t; 4]; R] {
    // SAFETY: the caller's.
    unsafe {
        let row_sums: [*const i32; R] = std::array::from_fn(|r| tile.row_sums.add(first + r).cast());
        let mut sums = [[vdupq_n_s32(0); 4]; R];
        if let (Ok(four), Ok(row_sums)) =
            (<&mut [_; 4]>::try_from(sums.as_mut_slice()), <[_; 4]>::try_from(row_sums.as_slice()))
        {
            *four = neon_blocks::four_times(row_sums);
        } else {
            for r in 0..R {
                sums[r] = [vld1q_s32(row_sums[r]); 4];
            }
        }
        sums
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

/// Sixteen quads of activations, a chunk, against as many lines of weights.
///
/// # Safety
///
/// The lines' 64 bytes each and 64 bytes of each row are there; the caller has the level's instructions, into whose function
/// this is inlined.
#[inline(always)]
unsafe fn whole_chunk<const R: usize>(sums: &mut [[int32x4_t; 4]; R], panel: &mut *const u8, mut row: *const u8) {
    // SAFETY: the caller guarantees the lines' 64 bytes each, and 64 bytes of each row.
    unsafe {
        if let Ok(four) = <&mut [_; 4]>::try_from(sums.as_mut_slice()) {
            neon_blocks::sdot_eight(four, panel, &mut row);
            neon_blocks::sdot_eight(four, panel, &mut row);
        } else {
            for _ in 0..4 {
                four_quads(sums, panel, &mut row);
            }
        }
    }
}

/// Four quads of activations against as many lines of weights.
///
/// # Safety
///
/// As [`whole_chunk`], with sixteen bytes of each row.
#[inline(always)]
unsafe fn four_quads<const R: usize>(sums: &mut [[int32x4_t; 4]; R], panel: &mut *const u8, row: &mut *const u8) {
    // SAFETY: the caller guarantees the lines' 64 bytes each, and sixteen bytes of each row.
    unsafe {
        if let Ok(four) = sums.as_mut_slice().try_into() {
            neon_blocks::sdot(four, panel, row);
        } else {
            let x: [int8x16_t; R] = std::array::from_fn(|r| vld1q_s8(row.add(r * CHUNK).cast()));
            sdot_line::<R, 0>(sums, *panel, &x);
            sdot_line::<R, 1>(sums, panel.add(64), &x);
            sdot_line::<R, 2>(sums, panel.add(128), &x);
            sdot_line::<R, 3>(sums, panel.add(192), &x);
            (*panel, *row) = (panel.add(256), row.add(16));
        }
    }
}

/// The products of some rows, of which the first is at `rows`, and one of the tile's panels, added to `sums`.
///
/// # Safety
///
/// The caller has the level's instructions, into whose function this is inlined; the tile has these rows and this panel.
#[inline(always)]
unsafe fn dots<const R: usize>(
    tile: &DotTile,
    panel: usize,
    rows: *const u8,
    mut sums: [[int32x4_t; 4]; R],
) -> [[int32x4_t; 4]; R] {
    // SAFETY: reads the rows' and the panel's quads, as `DotTile` describes.
    unsafe {
        let mut panel = tile.panels[panel];
        let mut row = rows;
        let (chunks, quads) = (tile.k / CHUNK, tile.k % CHUNK / 4);
        for _ in 0..chunks {
            whole_chunk(&mut sums, &mut panel, row);
            // Perhaps past the last.
            row = row.wrapping_add(tile.chunk_stride);
        }
        for _ in 0..quads / 4 {
            four_quads(&mut sums, &mut panel, &mut row);
        }
        let rest = quads % 4;
        if rest > 0 {
            let x: [int8x16_t; R] = std::array::from_fn(|r| vld1q_s8(row.add(r * CHUNK).cast()));
            sdot_line::<R, 0>(&mut sums, panel, &x);
            if rest > 1 {
                sdot_line::<R, 1>(&mut sums, panel.add(64), &x);
            }
            if rest > 2 {
                sdot_line::<R, 2>(&mut sums, panel.add(128), &x);
            }
        }
        sums
    }
}
