//! Attention in f32: both products run on the f32 inner loop, over packed blocks of keys and values.
//!
//! Keys are packed as panels of 16 keys, so scores come out as `[16 keys][query][16]`, which is how the inner loop reads its
//! rows: the weights `p` are computed in place and go straight into the second product.

use std::cell::RefCell;
use std::ops::Range;

use super::parts::{self, HeadQueries};
use super::running::{OnlineSoftmax, TileRows};
use crate::cancel::is_cancelled;
use crate::operands::AttentionCall;
use crate::scalar::attention::{BLOCK, query_scale};
use crate::simd::{FmaTile, LANES, Line, Simd, SimdFn, math, reserve_lines};

/// The most queries of a task: enough that packing the keys and values for each task costs little.
const QUERIES: usize = 1024;
/// Queries of a task that are taken at once where all keys are a single block: few enough that they and their sums stay in L1.
const GROUP: usize = 48;
/// The most floats of these queries.
const QUERY_FLOATS: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<F32Scratch> = RefCell::default();
}

/// Puts the result where the queries are.
pub(super) fn run<S: Simd>(simd: S, call: &AttentionCall, out: &mut [f32]) {
    let most_queries = (QUERY_FLOATS / call.shape.head_dim).clamp(LANES, QUERIES);
    parts::for_each(call, most_queries, out, |queries| {
        SCRATCH.with_borrow_mut(|scratch| simd.run(F32Task { queries, scratch }));
    });
}

/// Frees what this thread keeps between tasks.
pub(super) fn release_scratch() {
    drop(SCRATCH.take());
}

/// What a thread keeps between tasks. Vectors are `[…][16]` throughout.
#[derive(Default)]
struct F32Scratch {
    /// Scaled queries: `[16 dimensions][query][16]`.
    q: Vec<Line>,
    /// A block's keys: `[16 keys][dimension][16]`.
    k: Vec<Line>,
    /// A block's values: `[16 dimensions][key][16]`.
    v: Vec<Line>,
    /// A tile's scores, then its weights: `[16 keys][query of the tile][16]`.
    p: Vec<Line>,
    softmax: OnlineSoftmax,
}

struct F32Task<'a> {
    queries: HeadQueries<'a>,
    scratch: &'a mut F32Scratch,
}

impl SimdFn for F32Task<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(mut self, simd: S) {
        let (count, keys) = (self.queries.count(), self.queries.head.shape().keys);
        let group = if keys <= BLOCK { GROUP } else { count };
        for first in (0..count).step_by(group) {
            self.group(simd, first..count.min(first + group));
        }
    }
}

impl F32Task<'_> {
    /// Some of the queries. Keys and values that are a single block are packed for the first of them.
    #[inline(always)]
    fn group<S: Simd>(&mut self, simd: S, group: Range<usize>) {
        self.start(simd, &group);
        let shape = *self.queries.head.shape();
        let keys = if shape.causal { self.queries.position(group.end) } else { shape.keys };
        for first in (0..keys).step_by(BLOCK) {
            if is_cancelled() {
                return;
            }
            let block = first..shape.keys.min(first + BLOCK);
            if group.start == 0 || shape.keys > BLOCK {
                self.pack_keys(simd, &block);
                self.pack_values(simd, &block);
            }
            for tile in (0..group.len()).step_by(S::ROWS) {
                let tile = tile..group.len().min(tile + S::ROWS);
                let end = if shape.causal { self.queries.position(group.start + tile.end) } else { block.end };
                if block.start < end {
                    self.tile(simd, &(block.start..block.end.min(end)), block.len(), group.start, &tile);
                }
            }
        }
        self.scratch.softmax.finish(simd, &mut self.queries, group.start);
    }

    /// Packs the queries of a group.
    #[inline(always)]
    fn start<S: Simd>(&mut self, simd: S, group: &Range<usize>) {
        let (count, depth, d) = (group.len(), self.queries.head.depth(), self.queries.head.dim());
        let scratch = &mut *self.scratch;
        for (vectors, len) in
            [(&mut scratch.q, depth * count), (&mut scratch.k, BLOCK / LANES * d), (&mut scratch.v, depth * BLOCK)]
        {
            reserve_lines(vectors, len);
        }
        scratch.softmax.start(count, depth);
        let scale = simd.splat(query_scale(d));
        for (i, query) in group.clone().enumerate() {
            for (c, values) in self.queries.query(simd, query).chunks(LANES).enumerate() {
                simd.store(simd.mul(simd.load(values), scale), &mut scratch.q[c * count + i].0);
            }
        }
    }

    /// Transposes the keys. Lanes past the last key repeat it; [`F32Task::mask`] drops them.
    #[inline(always)]
    fn pack_keys<S: Simd>(&mut self, simd: S, block: &Range<usize>) {
        let d = self.queries.head.dim();
        for (panel, first) in block.clone().step_by(LANES).enumerate() {
            let lines = &mut self.scratch.k[panel * d..(panel + 1) * d];
            for (chunk, lines) in lines.chunks_mut(LANES).enumerate() {
                let mut keys = [simd.splat(0.0); LANES];
                for (lane, key) in keys.iter_mut().enumerate() {
                    let token = (first + lane).min(block.end - 1);
                    *key = simd.load(&self.queries.head.key(simd, token)[chunk * LANES..]);
                }
                for (line, values) in lines.iter_mut().zip(simd.transpose(keys)) {
                    simd.store(values, &mut line.0);
                }
            }
        }
    }

    #[inline(always)]
    fn pack_values<S: Simd>(&mut self, simd: S, block: &Range<usize>) {
        for (i, key) in block.clone().enumerate() {
            let row = self.queries.head.value(simd, key);
            let (whole, rest) = row.as_chunks::<LANES>();
            for (c, values) in whole.iter().enumerate() {
                self.scratch.v[c * block.len() + i] = Line(*values);
            }
            if !rest.is_empty() {
                let last = &mut self.scratch.v[whole.len() * block.len() + i];
                *last = Line::ZERO;
                last.0[..rest.len()].copy_from_slice(rest);
            }
        }
    }

    /// Takes a block of keys into account for some queries of the group that begins at `first`. Any of these queries sees the keys
    /// `seen`, the first of the block's `keys`.
    #[inline(always)]
    fn tile<S: Simd>(&mut self, simd: S, seen: &Range<usize>, keys: usize, first: usize, tile: &Range<usize>) {
        let (d, rows) = (self.queries.head.dim(), tile.len());
        let panels = seen.len().div_ceil(LANES);
        let scratch = &mut *self.scratch;
        let queries = scratch.softmax.stride();
        reserve_lines(&mut scratch.p, panels * rows);
        // SAFETY: the queries hold d values per row, the keys d lines per panel, the scores a line per panel and row.
        unsafe {
            let scores = Sums { lines: &mut scratch.p, panel_stride: rows, fresh: true };
            product(simd, (&scratch.q[tile.start..], queries), rows, (&scratch.k, d, d), panels * LANES, scores);
        }
        self.mask(seen, first, tile);
        let scratch = &mut *self.scratch;
        let scores = &mut scratch.p[..panels * rows];
        // Every query sees the first key, so that nothing is summed before the first block.
        let fresh = seen.start == 0;
        let max = scratch.softmax.raise_max(simd, &maxima(simd, scores, rows), tile, fresh);
        softmax_weights(simd, scores, &max, &mut scratch.softmax.weights[tile.clone()], fresh);
        // SAFETY: the weights hold a value for each of the keys, the values a line for each; as many sums as vectors.
        unsafe {
            let sums = Sums { lines: &mut scratch.softmax.sums[tile.start..], panel_stride: queries, fresh };
            product(simd, (&scratch.p, rows), rows, (&scratch.v, seen.len(), keys), d, sums);
        }
    }

    /// Keys that do not exist, or that come after the query, get the weight 0.
    #[inline(always)]
    fn mask(&mut self, keys: &Range<usize>, first: usize, tile: &Range<usize>) {
        let rows = tile.len();
        for row in 0..rows {
            let query = self.queries.position(first + tile.start + row);
            let seen =
                if self.queries.head.shape().causal { (query + 1).clamp(keys.start, keys.end) } else { keys.end };
            for key in seen - keys.start..keys.len().next_multiple_of(LANES) {
                self.scratch.p[key / LANES * rows + row].0[key % LANES] = f32::NEG_INFINITY;
            }
        }
    }
}

/// The greatest score of each row.
#[inline(always)]
fn maxima<S: Simd>(simd: S, scores: &[Line], rows: usize) -> TileRows {
    let mut maxima = [0.0; LANES];
    for row in 0..rows {
        let mut max = simd.load(&scores[row].0);
        for scores in scores[rows..].chunks_exact(rows) {
            max = simd.max(simd.load(&scores[row].0), max);
        }
        maxima[row] = simd.fold_max(max);
    }
    maxima
}

/// Scores to weights, `[panel][row][16]`, which are added to each row's `sums`; `fresh` ones start from zero.
#[inline(always)]
fn softmax_weights<S: Simd>(simd: S, scores: &mut [Line], max: &TileRows, sums: &mut [Line], fresh: bool) {
    let rows = sums.len();
    for (row, sums) in sums.iter_mut().enumerate() {
        let (max, mut sum) = (simd.splat(max[row]), if fresh { simd.splat(0.0) } else { simd.load(&sums.0) });
        for scores in scores.chunks_exact_mut(rows) {
            let weights = math::exp2(simd, simd.sub(simd.load(&scores[row].0), max));
            simd.store(weights, &mut scores[row].0);
            sum = simd.add(sum, weights);
        }
        simd.store(sum, &mut sums.0);
    }
}

/// Where a product's sums are.
struct Sums<'a> {
    lines: &'a mut [Line],
    /// Lines from one panel's sums to the next's.
    panel_stride: usize,
    /// They start from zero, whatever lies there.
    fresh: bool,
}

/// Adds the product of `count` packed rows by panels, which have `outputs`, to `sums`. Of each panel the first `k` lines are used;
/// chunks of rows are `chunk_stride` lines apart, panels `panel_lines`.
///
/// # Safety
///
/// As [`FmaTile`] wants it: rows of `k` values, whole panels, a line of sums for each row and panel.
#[inline(always)]
unsafe fn product<S: Simd>(
    simd: S,
    (rows, chunk_stride): (&[Line], usize),
    count: usize,
    (lines, k, panel_lines): (&[Line], usize, usize),
    outputs: usize,
    sums: Sums,
) {
    let panels = outputs.div_ceil(LANES);
    for first in (0..panels).step_by(2) {
        let pair = first + 1 < panels;
        let panel = |p: usize| lines[p * panel_lines..].as_ptr().cast();
        let tile = FmaTile {
            rows: rows.as_ptr().cast(),
            chunk_stride: chunk_stride * size_of::<Line>(),
            count,
            panels: [panel(first), panel(first + usize::from(pair))],
            half: false,
            pair,
            outputs: LANES.min(outputs - (first + usize::from(pair)) * LANES),
            k,
            fresh: sums.fresh,
            sums: sums.lines[first * sums.panel_stride..].as_mut_ptr().cast(),
            panel_stride: sums.panel_stride * LANES,
        };
        // SAFETY: the caller's.
        unsafe { simd.fma_tile(&tile) }
    }
}
