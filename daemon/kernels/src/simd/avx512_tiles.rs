//! AVX-512's inner loops: up to 12 rows by 2 panels, 24 sums in registers.
#![allow(clippy::needless_range_loop, reason = "one index for several arrays of registers")]

use std::arch::x86_64::*;

use super::avx512::of_two_keys;
use super::{CHUNK, DotTile, FmaTile, LANES, ScoreTile, for_rows};

/// The most rows that are taken at once.
pub(super) const ROWS: usize = 12;

/// # Safety
///
/// As [`super::Simd::dot_tile`], with the features below.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn dot(tile: &DotTile) {
    for first in (0..tile.count).step_by(ROWS) {
        let count = ROWS.min(tile.count - first);
        // SAFETY: the caller's.
        unsafe {
            match (tile.pair, tile.by_lane) {
                (false, false) => {
                    for_rows!(count, [1 2 3 4 5 6 7 8 9 10 11 12], R => dot_rows::<R, 1, false>(tile, first))
                }
                (false, true) => {
                    for_rows!(count, [1 2 3 4 5 6 7 8 9 10 11 12], R => dot_rows::<R, 1, true>(tile, first))
                }
                (true, false) => {
                    for_rows!(count, [1 2 3 4 5 6 7 8 9 10 11 12], R => dot_rows::<R, 2, false>(tile, first))
                }
                (true, true) => {
                    for_rows!(count, [1 2 3 4 5 6 7 8 9 10 11 12], R => dot_rows::<R, 2, true>(tile, first))
                }
            }
        }
    }
}

/// Rows from `first` on: VPDPBUSD, u8 activations (x + 128) by s8 weights; 128 times the weights' sums is taken off first. Where
/// scales are by lane, the panels are the u8.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn dot_rows<const R: usize, const P: usize, const BY_LANE: bool>(tile: &DotTile, first: usize) {
    // SAFETY: reads the scales and updates the sums, as `DotTile` describes; the caller guarantees the rest.
    unsafe {
        let sums = dots::<R, P, BY_LANE>(tile, first, 0);
        let scales = tile.scales.add(if BY_LANE { 0 } else { first });
        let scale =
            |r, p| if BY_LANE { _mm512_loadu_ps(scales.add(p * LANES)) } else { _mm512_set1_ps(*scales.add(r)) };
        let out = |r: usize, p: usize| tile.sums.add(p * tile.panel_stride + (first + r) * LANES);
        if !BY_LANE && tile.fresh {
            for r in 0..R {
                for p in 0..P {
                    _mm512_storeu_ps(out(r, p), _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][p]), scale(r, p)));
                }
            }
        } else {
            for r in 0..R {
                for p in 0..P {
                    let (out, dots) = (out(r, p), _mm512_cvtepi32_ps(sums[r][p]));
                    _mm512_storeu_ps(out, _mm512_fmadd_ps(dots, scale(r, p), _mm512_loadu_ps(out)));
                }
            }
        }
    }
}

/// The products of rows from `first` on and the tile's panels, and `start`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn dots<const R: usize, const P: usize, const BY_LANE: bool>(
    tile: &DotTile,
    first: usize,
    start: i32,
) -> [[__m512i; P]; R] {
    // SAFETY: reads the rows' and panels' quads and the weight sums, as `DotTile` describes.
    unsafe {
        let mut sums = [[_mm512_setzero_si512(); P]; R];
        for p in 0..if BY_LANE { 0 } else { P } {
            let weights = _mm512_loadu_si512(tile.weight_sums[p].cast());
            let start = _mm512_sub_epi32(_mm512_set1_epi32(start), _mm512_slli_epi32::<7>(weights));
            for row in &mut sums {
                row[p] = start;
            }
        }
        let mut panels = tile.panels;
        let mut chunk = tile.rows.add(first * CHUNK);
        let mut quads = tile.k / 4;
        while quads > 0 {
            let mut row = chunk;
            let now = quads.min(CHUNK / 4);
            for _ in 0..now {
                let mut weights = [_mm512_setzero_si512(); P];
                for p in 0..P {
                    weights[p] = _mm512_loadu_si512(panels[p].cast());
                    panels[p] = panels[p].add(64);
                }
                for r in 0..R {
                    let x = _mm512_set1_epi32(row.add(r * CHUNK).cast::<i32>().read_unaligned());
                    for p in 0..P {
                        sums[r][p] = if BY_LANE {
                            _mm512_dpbusd_epi32(sums[r][p], weights[p], x)
                        } else {
                            _mm512_dpbusd_epi32(sums[r][p], x, weights[p])
                        };
                    }
                }
                row = row.add(4);
            }
            quads -= now;
            chunk = chunk.add(tile.chunk_stride);
        }
        sums
    }
}

/// # Safety
///
/// As [`super::Simd::score_tile`], with the features below.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn score(tile: &ScoreTile) {
    for first in (0..tile.dots.count).step_by(ROWS) {
        let count = ROWS.min(tile.dots.count - first);
        // SAFETY: the caller's.
        unsafe {
            if tile.dots.pair {
                for_rows!(count, [2 4 6 8 10 12], R => score_keys::<R, 2>(tile, first))
            } else {
                for_rows!(count, [2 4 6 8 10 12], R => score_keys::<R, 1>(tile, first))
            }
        }
    }
}

/// Keys from `first` on.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn score_keys<const R: usize, const P: usize>(tile: &ScoreTile, first: usize) {
    // SAFETY: reads the keys' factors and writes their scores, as `ScoreTile` describes; the caller guarantees the rest.
    unsafe {
        let sums = dots::<R, P, false>(&tile.dots, first, 1 << (tile.shift - 1));
        let shift = _mm_cvtsi32_si128(tile.shift as i32);
        for (i, two) in sums.as_chunks::<2>().0.iter().enumerate() {
            let factors = of_two_keys(tile.factors.add(first + 2 * i));
            for p in 0..P {
                let (a, b) = (_mm512_sra_epi32(two[0][p], shift), _mm512_sra_epi32(two[1][p], shift));
                let scores = _mm512_mulhrs_epi16(_mm512_packs_epi32(a, b), factors);
                _mm512_storeu_si512(tile.scores.add(p * tile.panel_stride + first / 2 + i).cast(), scores);
            }
        }
    }
}

/// # Safety
///
/// As [`super::Simd::fma_tile`], with the features below.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn fma(tile: &FmaTile) {
    // SAFETY: the caller's.
    unsafe {
        match (tile.pair, tile.half) {
            (false, false) => for_rows!(tile.count, [1 2 3 4 5 6 7 8 9 10 11 12], R => fma_rows::<R, 1, false>(tile)),
            (false, true) => for_rows!(tile.count, [1 2 3 4 5 6 7 8 9 10 11 12], R => fma_rows::<R, 1, true>(tile)),
            (true, false) => for_rows!(tile.count, [1 2 3 4 5 6 7 8 9 10 11 12], R => fma_rows::<R, 2, false>(tile)),
            (true, true) => for_rows!(tile.count, [1 2 3 4 5 6 7 8 9 10 11 12], R => fma_rows::<R, 2, true>(tile)),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn fma_rows<const R: usize, const P: usize, const HALF: bool>(tile: &FmaTile) {
    // SAFETY: reads the rows' and panels' values and updates the sums, as `FmaTile` describes.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); P]; R];
        if !tile.fresh {
            for r in 0..R {
                for p in 0..P {
                    sums[r][p] = _mm512_loadu_ps(tile.sums.add(p * tile.panel_stride + r * LANES));
                }
            }
        }
        let mut panels = tile.panels;
        let mut chunk = tile.rows;
        let mut left = tile.k;
        while left > 0 {
            let mut row = chunk.cast::<f32>();
            let now = left.min(LANES);
            for _ in 0..now {
                let mut weights = [_mm512_setzero_ps(); P];
                for p in 0..P {
                    weights[p] = line::<HALF>(panels[p]);
                    panels[p] = panels[p].add(if HALF { 32 } else { 64 });
                }
                for r in 0..R {
                    let x = _mm512_set1_ps(*row.add(r * LANES));
                    for p in 0..P {
                        sums[r][p] = _mm512_fmadd_ps(x, weights[p], sums[r][p]);
                    }
                }
                row = row.add(1);
            }
            left -= now;
            chunk = chunk.add(tile.chunk_stride);
        }
        for r in 0..R {
            for p in 0..P {
                _mm512_storeu_ps(tile.sums.add(p * tile.panel_stride + r * LANES), sums[r][p]);
            }
        }
    }
}

/// Sixteen weights.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn line<const HALF: bool>(at: *const u8) -> __m512 {
    // SAFETY: the caller guarantees sixteen values.
    unsafe { if HALF { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) } else { _mm512_loadu_ps(at.cast()) } }
}
