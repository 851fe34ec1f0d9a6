//! Attention in int8: both products run on the int8 inner loop, over packed blocks of keys and values.
//!
//! As in f32, but every product of 64 bytes has four times the values, and a head's keys and values are so small once packed
//! that all are packed before the first query. Weights are two digits of seven bits, each a row of int8 for the second
//! product: one digit would lose the many small weights that together matter.

use std::cell::RefCell;
use std::ops::Range;

use super::packed::{PANELS, PackedHead};
use super::parts::{self, HeadQueries};
use super::running::{OnlineSoftmax, TileRows};
use crate::cancel::is_cancelled;
use crate::operands::AttentionCall;
use crate::rows::quantize_row;
use crate::scalar::attention::{BLOCK, DIGIT, query_scale};
use crate::scalar::math::WEIGHT_BITS;
use crate::simd::{CHUNK, Chunk, DotTile, LANES, Line, Simd, SimdFn, math, reserve, reserve_lines};

/// Queries that take each block of keys in turn: few enough that their sums stay in L1, and enough that reading the keys from L2
/// once for all of them costs little.
const QUERIES: usize = 120;

/// Weights of scores that are less than the greatest by more than this round to zero.
const NO_WEIGHT: f32 = -15.5;
/// The upper digit of weights is zero where scores are less than the greatest by more than this: they are below [`DIGIT`].
const NO_UPPER_DIGIT: f32 = -7.5;
/// A bound on the rounding error of a score, relative to the greatest score.
const ROUNDING: f32 = 1e-6;

thread_local! {
    static SCRATCH: RefCell<Int8Scratch> = RefCell::default();
}

/// Puts the result where the queries are.
pub(super) fn run<S: Simd>(simd: S, call: &AttentionCall, out: &mut [f32]) {
    parts::for_each(call, usize::MAX, out, |queries| {
        SCRATCH.with_borrow_mut(|scratch| simd.run(Int8Task { head: queries, scratch }));
    });
}

/// What a thread keeps between tasks.
#[derive(Default)]
struct Int8Scratch {
    head: PackedHead,
    /// Queries: `[64 dimensions][query][64]`, XORed with [`Simd::FLIP`], and a scale for each.
    q: Vec<Chunk<u8>>,
    q_scale: Vec<f32>,
    /// A tile's scores before the keys' scales: `[16 keys][query of the tile][16]`.
    scores: Vec<Line>,
    /// Upper and lower digits of a tile's weights: `[64 keys][query of the tile][64]`.
    digits: [Vec<Chunk<i8>>; 2],
    softmax: OnlineSoftmax,
    /// A quantized query, before it is packed.
    bytes: Vec<i8>,
}

struct Int8Task<'a> {
    head: HeadQueries<'a>,
    scratch: &'a mut Int8Scratch,
}

impl SimdFn for Int8Task<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(mut self, simd: S) {
        self.scratch.head.pack(simd, &self.head);
        let (count, keys) = (self.head.count(), self.head.shape().keys);
        for first in (0..count).step_by(QUERIES) {
            // A task may be all of a large image's queries: seconds.
            if is_cancelled() {
                return;
            }
            let queries = first..count.min(first + QUERIES);
            self.pack_queries(simd, &queries);
            self.scratch.softmax.start(queries.len(), self.head.depth());
            for block in (0..keys).step_by(BLOCK) {
                let block = block..keys.min(block + BLOCK);
                for tile in (0..queries.len()).step_by(S::ROWS) {
                    self.tile(simd, &block, &(tile..queries.len().min(tile + S::ROWS)), queries.len());
                }
            }
            self.scratch.softmax.finish(simd, &mut self.head, first, Some(&self.scratch.head.v_scale));
        }
    }
}

impl Int8Task<'_> {
    #[inline(always)]
    fn pack_queries<S: Simd>(&mut self, simd: S, queries: &Range<usize>) {
        let d = self.head.head_dim();
        let scratch = &mut *self.scratch;
        reserve(&mut scratch.q, d.div_ceil(CHUNK) * QUERIES, Chunk([0; CHUNK]));
        reserve(&mut scratch.q_scale, QUERIES, 0.0);
        scratch.bytes.resize(d, 0);
        for (i, query) in queries.clone().enumerate() {
            let scale = quantize_row(simd, self.head.query(simd, query), &mut scratch.bytes);
            scratch.q_scale[i] = scale * query_scale(d);
            for (c, bytes) in scratch.bytes.chunks(CHUNK).enumerate() {
                let chunk = &mut scratch.q[c * queries.len() + i];
                chunk.0.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from as u8 ^ S::FLIP);
            }
        }
    }

    /// Takes a block of keys into account for some of `queries` packed queries.
    #[inline(always)]
    fn tile<S: Simd>(&mut self, simd: S, block: &Range<usize>, tile: &Range<usize>, queries: usize) {
        let rows = tile.len();
        let panels = block.start / LANES..block.end.div_ceil(CHUNK) * PANELS;
        let scratch = &mut *self.scratch;
        let head = &scratch.head;
        reserve_lines(&mut scratch.scores, panels.len() * rows);
        let product = DotProduct {
            rows: (&scratch.q[tile.start..], queries),
            count: rows,
            scales: &scratch.q_scale[tile.clone()],
            panels: (&head.k[panels.start * head.k_quads..], head.k_quads),
            quads: head.k_quads,
            panel_sums: Some(&head.k_sums[panels.clone()]),
            sums: (&mut scratch.scores, rows, panels.len()),
            fresh: true,
        };
        // SAFETY: the queries hold whole chunks, the keys as many quads per panel and a sum for each key, the scores a line per
        // panel and row.
        unsafe { product.run(simd) }
        mask(&mut scratch.scores, rows, block);
        let needed = scratch.softmax_weights(simd, panels.clone(), tile);
        for (digits, factor) in scratch.digits[needed.clone()].iter().zip(&[DIGIT, 1.0][needed]) {
            let product = DotProduct {
                rows: (digits, rows),
                count: rows,
                scales: &[*factor; LANES],
                panels: (&scratch.head.v[panels.start * LANES / 4..], scratch.head.v_quads),
                quads: panels.len() * LANES / 4,
                panel_sums: None,
                sums: (&mut scratch.softmax.sums[tile.start..], queries, self.head.depth()),
                fresh: false,
            };
            // SAFETY: the digits hold a byte for each key of the panels, the values as many quads; a sum for each vector and row.
            unsafe { product.run(simd) }
        }
    }
}

/// Keys that do not exist get the weight 0.
#[inline(always)]
fn mask(scores: &mut [Line], rows: usize, block: &Range<usize>) {
    for key in block.len()..block.len().next_multiple_of(CHUNK) {
        for scores in &mut scores[key / LANES * rows..][..rows] {
            scores.0[key % LANES] = f32::NEG_INFINITY;
        }
    }
}

impl Int8Scratch {
    /// Scores to the digits of weights. Returns which of the two digits are not zero throughout: where attention is sharp, most
    /// keys have no weight at all.
    #[inline(always)]
    fn softmax_weights<S: Simd>(&mut self, simd: S, panels: Range<usize>, tile: &Range<usize>) -> Range<usize> {
        let rows = tile.len();
        let [uppers, lowers] = &mut self.digits;
        reserve(uppers, BLOCK / CHUNK * rows, Chunk([0; CHUNK]));
        reserve(lowers, BLOCK / CHUNK * rows, Chunk([0; CHUNK]));
        let (scores, scales) = (&self.scores[..panels.len() * rows], &self.head.k_scale[panels]);
        let block_max = maxima(simd, scores, scales, rows);
        let max = self.softmax.raise_max(simd, &block_max, tile);
        let below = simd.sub(simd.load(&block_max), simd.load(&max));
        let below = simd.fold_max(simd.fma(simd.abs(simd.load(&max)), simd.splat(ROUNDING), below));
        if below < NO_WEIGHT {
            return 0..0;
        }
        let sums = &mut self.softmax.weights[tile.clone()];
        let digits = uppers.chunks_exact_mut(rows).zip(lowers.chunks_exact_mut(rows));
        let chunks = scores.chunks_exact(PANELS * rows).zip(scales.as_chunks::<PANELS>().0);
        for ((scores, scales), (uppers, lowers)) in chunks.zip(digits) {
            let mut loaded = [simd.splat(0.0); PANELS];
            for (loaded, scale) in loaded.iter_mut().zip(scales) {
                *loaded = simd.load(&scale.0);
            }
            for (row, (upper, lower)) in uppers.iter_mut().zip(lowers).enumerate() {
                let shift = simd.splat(WEIGHT_BITS - max[row]);
                let mut weights = loaded;
                let mut sum = simd.load(&sums[row].0);
                for (panel, weights) in weights.iter_mut().enumerate() {
                    let power = simd.fma(simd.load(&scores[panel * rows + row].0), *weights, shift);
                    *weights = simd.round(math::weight(simd, power));
                    sum = simd.add(sum, *weights);
                }
                simd.store_digits(weights, &mut upper.0, &mut lower.0);
                simd.store(sum, &mut sums[row].0);
            }
        }
        if below < NO_UPPER_DIGIT { 1..2 } else { 0..2 }
    }
}

/// The greatest score of each row: `scores` times the keys' `scales`.
#[inline(always)]
fn maxima<S: Simd>(simd: S, scores: &[Line], scales: &[Line], rows: usize) -> TileRows {
    let mut maxima = [f32::NEG_INFINITY; LANES];
    for row in 0..rows {
        let mut max = simd.splat(f32::NEG_INFINITY);
        for (scores, scale) in scores.chunks_exact(rows).zip(scales) {
            max = simd.max(simd.mul(simd.load(&scores[row].0), simd.load(&scale.0)), max);
        }
        maxima[row] = simd.fold_max(max);
    }
    maxima
}

/// `count` packed rows by some panels of quads, times the rows' scales, added to `sums`.
struct DotProduct<'a, T> {
    /// With the chunks from one of a row's to its next.
    rows: (&'a [Chunk<T>], usize),
    count: usize,
    scales: &'a [f32],
    /// With the lines from one panel to the next.
    panels: (&'a [Chunk<u8>], usize),
    /// Quads of a row, and lines of a panel.
    quads: usize,
    /// The sums of the panels' values, where the rows are XORed with [`Simd::FLIP`]. Rows that are never negative need no
    /// flipping, and so no sums.
    panel_sums: Option<&'a [[i32; LANES]]>,
    /// With the lines from one panel's sums to the next's, and the number of panels.
    sums: (&'a mut [Line], usize, usize),
    /// The sums start from zero, whatever lies there.
    fresh: bool,
}

impl<T> DotProduct<'_, T> {
    /// # Safety
    ///
    /// As [`DotTile`] wants it: whole chunks of rows and a scale for each, whole panels, a line of sums for each row and panel.
    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let ((panels, lines), (sums, panel_stride, count)) = (self.panels, self.sums);
        let panel_sums = |panel: usize| self.panel_sums.map_or(&[0; LANES], |sums| &sums[panel]).as_ptr().cast();
        for first in (0..count).step_by(2) {
            let last = count.min(first + 2) - 1;
            let tile = DotTile {
                rows: self.rows.0.as_ptr().cast(),
                chunk_stride: self.rows.1 * CHUNK,
                count: self.count,
                panels: [first, last].map(|panel| panels[panel * lines..].as_ptr().cast()),
                weight_sums: [first, last].map(panel_sums),
                pair: last > first,
                k: 4 * self.quads,
                scales: self.scales.as_ptr(),
                fresh: self.fresh,
                sums: sums[first * panel_stride..].as_mut_ptr().cast(),
                panel_stride: panel_stride * LANES,
            };
            // SAFETY: the caller's.
            unsafe { simd.dot_tile(&tile) }
        }
    }
}
