//! NEON's int8 inner loop without SDOT.
#![allow(clippy::needless_range_loop, reason = "one index for several arrays of registers")]

use std::arch::aarch64::*;
use std::arch::asm;

use super::neon_tiles::{add_scaled, quad, store_scores};
use super::{CHUNK, DotTile, ScoreTile, for_rows, neon_blocks};

/// # Safety
///
/// As [`super::Simd::dot_tile`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn dot(tile: &DotTile) {
    for panel in 0..tile.panel_count() {
        for first in (0..tile.count).step_by(2) {
            // SAFETY: the caller's; two rows at a time, whose sums fill sixteen registers.
            unsafe {
                for_rows!(2.min(tile.count - first), [1 2], R => {
                    let sums = dots::<R>(tile, panel, tile.rows.add(first * CHUNK));
                    if tile.by_lane {
                        let started = |r: usize| {
                            let start = vld1q_s32(tile.row_sums.add(first + r).cast());
                            sums[r].map(|sum| vaddq_s32(sum, start))
                        };
                        add_scaled::<R, true>(tile, panel, first, std::array::from_fn(started));
                    } else {
                        add_scaled::<R, false>(tile, panel, first, sums);
                    }
                });
            }
        }
    }
}

/// # Safety
///
/// As [`super::Simd::score_tile`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn score(tile: &ScoreTile) {
    for panel in 0..tile.dots.panel_count() {
        for first in (0..tile.dots.count).step_by(2) {
            // SAFETY: the caller's; two keys at a time, whose sums fill sixteen registers.
            unsafe {
                let sums = dots::<2>(&tile.dots, panel, tile.dots.rows.add(first * CHUNK));
                store_scores(tile, panel, first, &sums);
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

/// [`neon_blocks::smull`] of any number of rows, 64 bytes apart.
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

/// The products of some rows, of which the first is at `rows`, and one of the tile's panels: SMULL and SMLAL of two quads (two
/// products of at most 128 · 127 never leave an i16), then SADALP.
///
/// # Safety
///
/// The caller has the level's instructions, into whose function this is inlined; the tile has these rows and this panel.
#[inline(always)]
unsafe fn dots<const R: usize>(tile: &DotTile, panel: usize, rows: *const u8) -> [[int32x4_t; 4]; R] {
    // SAFETY: reads the rows' and the panel's quads, as `DotTile` describes.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); 8]; R];
        let mut panel = tile.panels[panel];
        let (chunks, quads) = (tile.k / CHUNK, tile.k % CHUNK / 4);
        // Perhaps past the last.
        let at = |chunk: usize| rows.wrapping_add(chunk * tile.chunk_stride);
        let mut row = at(chunks);
        if let Ok(two) = <&mut [_; 2]>::try_from(sums.as_mut_slice()) {
            let quads_of = |row: *const u8| [0, 4, CHUNK, CHUNK + 4].map(|at| row.wrapping_add(at));
            let mut first = quads_of(rows);
            let mut pairs = quads / 2;
            if chunks > 0 {
                neon_blocks::smull_fresh(two, &mut panel, &mut first);
                for _ in 1..CHUNK / 8 {
                    neon_blocks::smull(two, &mut panel, &mut first);
                }
                for chunk in 1..chunks {
                    let mut quads = quads_of(at(chunk));
                    for _ in 0..CHUNK / 8 {
                        neon_blocks::smull(two, &mut panel, &mut quads);
                    }
                }
            } else if pairs > 0 {
                neon_blocks::smull_fresh(two, &mut panel, &mut first);
                (pairs, row) = (pairs - 1, first[0]);
            }
            let mut last = quads_of(row);
            for _ in 0..pairs {
                neon_blocks::smull(two, &mut panel, &mut last);
            }
            row = last[0];
        } else {
            for chunk in 0..=chunks {
                row = at(chunk);
                for _ in 0..if chunk < chunks { CHUNK / 8 } else { quads / 2 } {
                    smull_two_lines(&mut sums, panel.cast(), row);
                    (panel, row) = (panel.add(128), row.add(8));
                }
            }
        }
        if quads % 2 == 1 {
            for n in 0..4 {
                let v = vld1q_s8(panel.add(16 * n).cast());
                for r in 0..R {
                    let x = quad(row.add(r * CHUNK));
                    sums[r][2 * n] = vpadalq_s16(sums[r][2 * n], smull(v, x));
                    sums[r][2 * n + 1] = vpadalq_s16(sums[r][2 * n + 1], smull2(v, x));
                }
            }
        }
        sums.map(|sums| std::array::from_fn(|n| vpaddq_s32(sums[2 * n], sums[2 * n + 1])))
    }
}
