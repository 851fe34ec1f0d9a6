//! AVX2's inner loops: up to 6 rows by 1 panel, which fill the 16 registers.
#![allow(clippy::needless_range_loop, reason = "one index for several arrays of registers")]

use std::arch::x86_64::*;

use super::{CHUNK, DotTile, FmaTile, LANES, ScoreTile, for_rows};

/// The most rows that are taken at once.
pub(super) const ROWS: usize = 6;

/// Evaluates an expression for what is taken at once of `$count` rows: `$first`, and `$r`, how many. Two halves of up to six, which
/// keeps the sums in registers.
macro_rules! for_halves {
    ($count:expr, $first:ident, $r:ident => $body:expr) => {
        for first in (0..$count).step_by(ROWS) {
            let count = ROWS.min($count - first);
            for ($first, count) in [(first, count / 2), (first + count / 2, count - count / 2)] {
                if count > 0 {
                    for_rows!(count, [1 2 3], $r => $body);
                }
            }
        }
    };
}

/// # Safety
///
/// As [`super::Simd::dot_tile`], with the features below.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn dot(tile: &DotTile) {
    for panel in 0..tile.panel_count() {
        // SAFETY: the caller's.
        for_halves!(tile.count, first, R => unsafe { dot_rows::<R>(tile, panel, first) });
    }
}

/// Rows from `first` on by a panel.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dot_rows<const R: usize>(tile: &DotTile, panel: usize, first: usize) {
    // SAFETY: reads the scales and updates the sums, as `DotTile` describes; the caller guarantees the rest.
    unsafe {
        let start = |r| if tile.by_lane { (*tile.row_sums.add(first + r))[0] } else { 0 };
        let sums = dots::<R>(tile, panel, first, std::array::from_fn(start));
        let scales = tile.scales.add(if tile.by_lane { panel * LANES } else { first });
        let out = tile.sums.add(panel * tile.panel_stride + first * LANES);
        for r in 0..R {
            for h in 0..2 {
                let scale =
                    if tile.by_lane { _mm256_loadu_ps(scales.add(h * 8)) } else { _mm256_set1_ps(*scales.add(r)) };
                let (out, dots) = (out.add(r * LANES + h * 8), _mm256_cvtepi32_ps(sums[r][h]));
                let result = if tile.fresh {
                    _mm256_mul_ps(dots, scale)
                } else {
                    _mm256_fmadd_ps(dots, scale, _mm256_loadu_ps(out))
                };
                _mm256_storeu_ps(out, result);
            }
        }
    }
}

/// The products of rows from `first` on and a panel, and `start`: VPMADDUBSW of |w| and x with the sign of w, of which two products
/// of at most 128 · 127 never leave an i16.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dots<const R: usize>(tile: &DotTile, panel: usize, first: usize, start: [i32; R]) -> [[__m256i; 2]; R] {
    // SAFETY: reads the rows' and the panel's quads, as `DotTile` describes.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        let mut sums = start.map(|start| [_mm256_set1_epi32(start); 2]);
        let mut panel: *const __m256i = tile.panels[panel].cast();
        let mut chunk = tile.rows.add(first * CHUNK);
        let mut quads = tile.k / 4;
        while quads > 0 {
            let mut row = chunk;
            let now = quads.min(CHUNK / 4);
            for _ in 0..now {
                let weights = [_mm256_loadu_si256(panel), _mm256_loadu_si256(panel.add(1))];
                let sizes = weights.map(|w| _mm256_abs_epi8(w));
                for r in 0..R {
                    let x = _mm256_set1_epi32(row.add(r * CHUNK).cast::<i32>().read_unaligned());
                    for h in 0..2 {
                        let pairs = _mm256_maddubs_epi16(sizes[h], _mm256_sign_epi8(x, weights[h]));
                        sums[r][h] = _mm256_add_epi32(sums[r][h], _mm256_madd_epi16(pairs, ones));
                    }
                }
                panel = panel.add(2);
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
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn score(tile: &ScoreTile) {
    for panel in 0..tile.dots.panel_count() {
        // SAFETY: the caller's.
        for_halves!(tile.dots.count, first, R => unsafe { score_keys::<R>(tile, panel, first) });
    }
}

/// `R` keys from `first` on by a panel.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn score_keys<const R: usize>(tile: &ScoreTile, panel: usize, first: usize) {
    // SAFETY: reads the keys' factors and writes their scores, as `ScoreTile` describes; the caller guarantees the rest.
    unsafe {
        let sums = dots::<R>(&tile.dots, panel, first, [1 << (tile.shift - 1); R]);
        let shift = _mm_cvtsi32_si128(tile.shift as i32);
        let out: *mut __m256i = tile.scores.add(panel * tile.panel_stride).cast();
        for r in 0..R {
            let [a, b] = sums[r].map(|sum| _mm256_sra_epi32(sum, shift));
            let factor = _mm256_set1_epi16((*tile.factors.add(first + r))[0]);
            _mm256_storeu_si256(out.add(first + r), _mm256_mulhrs_epi16(_mm256_packs_epi32(a, b), factor));
        }
    }
}

/// # Safety
///
/// As [`super::Simd::fma_tile`], with the features below.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn fma(tile: &FmaTile) {
    for panel in 0..if tile.pair { 2 } else { 1 } {
        let mut tile = FmaTile { pair: false, ..*tile };
        tile.panels[0] = tile.panels[panel];
        // SAFETY: the caller's; a panel at a time.
        unsafe {
            tile.sums = tile.sums.add(panel * tile.panel_stride);
            if tile.half {
                for_rows!(tile.count, [1 2 3 4 5 6], R => fma_rows::<R, true>(&tile))
            } else {
                for_rows!(tile.count, [1 2 3 4 5 6], R => fma_rows::<R, false>(&tile))
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn fma_rows<const R: usize, const HALF: bool>(tile: &FmaTile) {
    // SAFETY: reads the rows' and the panel's values and updates the sums, as `FmaTile` describes.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        if !tile.fresh {
            for r in 0..R {
                for h in 0..2 {
                    sums[r][h] = _mm256_loadu_ps(tile.sums.add(r * LANES + h * 8));
                }
            }
        }
        let mut panel = tile.panels[0];
        let mut chunk = tile.rows;
        let mut left = tile.k;
        while left > 0 {
            let mut row = chunk.cast::<f32>();
            let now = left.min(LANES);
            for _ in 0..now {
                let weights = line::<HALF>(panel);
                for r in 0..R {
                    let x = _mm256_set1_ps(*row.add(r * LANES));
                    for h in 0..2 {
                        sums[r][h] = _mm256_fmadd_ps(x, weights[h], sums[r][h]);
                    }
                }
                panel = panel.add(if HALF { 32 } else { 64 });
                row = row.add(1);
            }
            left -= now;
            chunk = chunk.add(tile.chunk_stride);
        }
        for r in 0..R {
            for h in 0..2 {
                _mm256_storeu_ps(tile.sums.add(r * LANES + h * 8), sums[r][h]);
            }
        }
    }
}

/// Sixteen weights.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn line<const HALF: bool>(at: *const u8) -> [__m256; 2] {
    // SAFETY: the caller guarantees sixteen values.
    unsafe {
        if HALF {
            let at: *const __m128i = at.cast();
            return [_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at.add(1)))];
        }
        let at: *const f32 = at.cast();
        [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))]
    }
}
