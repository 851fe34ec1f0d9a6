//! Attention on vectors: both products run on the f32 inner loop, over packed blocks of keys and values.
//!
//! A task is some queries of one head. Keys are packed as panels of 16 keys, so scores come out as `[16 keys][query][16]`,
//! which is how the inner loop reads its rows: the weights `p` are computed in place and go straight into the second product.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::AttentionShape;
use crate::scalar::attention::{BLOCK, query_scale};
use crate::shared::SharedOut;
use crate::simd::{FmaTile, LANES, Line, Simd, Work, math, room, transpose};

/// The most queries of a task: enough that packing the keys and values for each task costs little.
const QUERIES: usize = 1024;
/// The most floats of these queries.
const QUERY_FLOATS: usize = 128 << 10;
/// Tasks for each thread, so that none waits long for the last.
const TASKS_PER_THREAD: usize = 4;

/// Keys, values and the shape, checked. The queries are where the result goes.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
    pub(super) shape: &'a AttentionShape,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Puts the result where the queries are.
pub(super) fn run<S: Simd>(simd: S, inputs: Inputs, out: &mut [f32]) {
    let shape = inputs.shape;
    let heads = shape.batch * shape.heads;
    let parts = task_parts(shape, S::ROWS, rayon::current_num_threads());
    let out = SharedOut::new(out);
    (0..heads * parts).into_par_iter().with_max_len(1).for_each(|task| {
        let (sequence, head, part) = (task / parts / shape.heads, task / parts % shape.heads, task % parts);
        let queries = shape.queries * part / parts..shape.queries * (part + 1) / parts;
        SCRATCH.with_borrow_mut(|scratch| simd.run(Task { inputs, sequence, head, queries, out, scratch }));
    });
}

/// Into how many parts the queries of a head are cut.
fn task_parts(shape: &AttentionShape, tile_rows: usize, threads: usize) -> usize {
    let most = shape.queries.div_ceil(tile_rows);
    let small_enough = shape.queries.div_ceil((QUERY_FLOATS / shape.head_dim).clamp(tile_rows, QUERIES));
    let for_all_threads = (threads * TASKS_PER_THREAD).div_ceil((shape.batch * shape.heads).max(1));
    small_enough.max(for_all_threads).min(most)
}

/// What a thread keeps between tasks. Vectors are `[…][16]` throughout.
#[derive(Default)]
struct Scratch {
    /// Scaled queries: `[16 dimensions][query][16]`.
    q: Vec<Line>,
    /// A block's keys: `[16 keys][dimension][16]`.
    k: Vec<Line>,
    /// A block's values: `[16 dimensions][key][16]`.
    v: Vec<Line>,
    /// A tile's scores: `[16 keys][query of the tile][16]`.
    p: Vec<Line>,
    /// What is summed so far: `[16 dimensions][query][16]`.
    o: Vec<Line>,
    /// Per query the running maximum and the running sum of weights.
    max: Vec<f32>,
    sum: Vec<f32>,
}

struct Task<'a> {
    inputs: Inputs<'a>,
    sequence: usize,
    head: usize,
    queries: Range<usize>,
    out: SharedOut<'a>,
    scratch: &'a mut Scratch,
}

impl Work for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn work<S: Simd>(mut self, simd: S) {
        self.start();
        let shape = self.inputs.shape;
        let keys = if shape.causal { self.queries.end } else { shape.keys };
        for first in (0..keys).step_by(BLOCK) {
            let block = first..shape.keys.min(first + BLOCK);
            self.pack_keys(simd, &block);
            self.pack_values(&block);
            for tile in (0..self.queries.len()).step_by(S::ROWS) {
                let tile = tile..self.queries.len().min(tile + S::ROWS);
                if !shape.causal || block.start < self.queries.start + tile.end {
                    self.tile(simd, &block, &tile);
                }
            }
        }
        self.finish(simd);
    }
}

impl Task<'_> {
    fn head_dim(&self) -> usize {
        self.inputs.shape.head_dim
    }

    /// Vectors of a head's dimensions.
    fn depth(&self) -> usize {
        self.head_dim().div_ceil(LANES)
    }

    /// Packs the queries and clears the running sums.
    #[inline(always)]
    fn start(&mut self) {
        let (count, depth, d) = (self.queries.len(), self.depth(), self.head_dim());
        let scratch = &mut *self.scratch;
        for (vectors, len) in [
            (&mut scratch.q, depth * count),
            (&mut scratch.o, depth * count),
            (&mut scratch.k, BLOCK / LANES * d),
            (&mut scratch.v, depth * BLOCK),
        ] {
            room(vectors, len);
        }
        scratch.o[..depth * count].fill(Line::ZERO);
        scratch.max.clear();
        scratch.max.resize(count, f32::NEG_INFINITY);
        scratch.sum.clear();
        scratch.sum.resize(count, 0.0);
        let (scale, out) = (query_scale(d), self.out);
        for i in 0..count {
            // SAFETY: this head of these queries is this task's alone.
            let row = unsafe { out.part(self.inputs.shape.at(self.sequence, self.queries.start + i, self.head), d) };
            for (c, values) in row.chunks(LANES).enumerate() {
                self.scratch.q[c * count + i].0.iter_mut().zip(values).for_each(|(to, from)| *to = from * scale);
            }
        }
    }

    /// Transposes the keys. Lanes past the last key repeat it; [`Task::mask`] drops them.
    #[inline(always)]
    fn pack_keys<S: Simd>(&mut self, simd: S, block: &Range<usize>) {
        let d = self.head_dim();
        for (panel, first) in block.clone().step_by(LANES).enumerate() {
            let lines = &mut self.scratch.k[panel * d..(panel + 1) * d];
            for (chunk, lines) in lines.chunks_mut(LANES).enumerate() {
                let mut keys = [simd.splat(0.0); LANES];
                for (lane, key) in keys.iter_mut().enumerate() {
                    let token = (first + lane).min(block.end - 1);
                    *key = simd.load(&self.inputs.row(self.inputs.k, self.sequence, token, self.head)[chunk * LANES..]);
                }
                for (line, values) in lines.iter_mut().zip(transpose(simd, keys)) {
                    simd.store(values, &mut line.0);
                }
            }
        }
    }

    #[inline(always)]
    fn pack_values(&mut self, block: &Range<usize>) {
        for (i, key) in block.clone().enumerate() {
            let row = self.inputs.row(self.inputs.v, self.sequence, key, self.head);
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

    /// Takes a block of keys into account for some queries.
    #[inline(always)]
    fn tile<S: Simd>(&mut self, simd: S, block: &Range<usize>, tile: &Range<usize>) {
        let (d, rows, queries) = (self.head_dim(), tile.len(), self.queries.len());
        let panels = block.len().div_ceil(LANES);
        let scratch = &mut *self.scratch;
        room(&mut scratch.p, panels * rows);
        // SAFETY: the queries hold d values per row, the keys d lines per panel, the scores a line per panel and row.
        unsafe {
            let scores = Sums { lines: &mut scratch.p, panel_stride: rows, fresh: true };
            product(simd, (&scratch.q[tile.start..], queries), rows, (&scratch.k, d), panels, scores);
        }
        self.mask(block, tile);
        self.soften(simd, panels, tile);
        let depth = self.depth();
        let scratch = &mut *self.scratch;
        // SAFETY: the weights hold a value for each of the block's keys, the values a line for each; as many sums as vectors.
        unsafe {
            let o = Sums { lines: &mut scratch.o[tile.start..], panel_stride: queries, fresh: false };
            product(simd, (&scratch.p, rows), rows, (&scratch.v, block.len()), depth, o);
        }
    }

    /// Keys that do not exist, or that come after the query, get the weight 0.
    #[inline(always)]
    fn mask(&mut self, block: &Range<usize>, tile: &Range<usize>) {
        let rows = tile.len();
        for row in 0..rows {
            let query = self.queries.start + tile.start + row;
            let seen = if self.inputs.shape.causal { (query + 1).clamp(block.start, block.end) } else { block.end };
            for key in seen - block.start..block.len().next_multiple_of(LANES) {
                self.scratch.p[key / LANES * rows + row].0[key % LANES] = f32::NEG_INFINITY;
            }
        }
    }

    /// Scores to weights; what is summed so far fades to the new maximum.
    #[inline(always)]
    fn soften<S: Simd>(&mut self, simd: S, panels: usize, tile: &Range<usize>) {
        let (rows, queries, depth) = (tile.len(), self.queries.len(), self.depth());
        let scratch = &mut *self.scratch;
        let (max, sum) = (&mut scratch.max[tile.clone()], &mut scratch.sum[tile.clone()]);
        let (mut fade, mut block_sum) = ([0.0; LANES], [0.0; LANES]);
        fade[..rows].copy_from_slice(max);
        for row in 0..rows {
            let scores = |p: usize| simd.load(&scratch.p[p * rows + row].0);
            max[row] = simd.fold_max((0..panels).fold(simd.splat(max[row]), |max, p| simd.max(scores(p), max)));
        }
        for row in 0..rows {
            let (max, mut sum) = (simd.splat(max[row]), simd.splat(0.0));
            for p in 0..panels {
                let scores = &mut scratch.p[p * rows + row].0;
                let weights = math::exp2(simd, simd.sub(simd.load(scores), max));
                simd.store(weights, scores);
                sum = simd.add(sum, weights);
            }
            block_sum[row] = simd.fold(sum);
        }
        let faded = math::exp2(simd, simd.sub(simd.load(&fade), simd.load(max)));
        simd.store(faded, &mut fade);
        simd.store(simd.fma(simd.load(sum), faded, simd.load(&block_sum)), sum);
        for c in 0..depth {
            for (row, fade) in fade[..rows].iter().enumerate() {
                let o = &mut scratch.o[c * queries + tile.start + row].0;
                simd.store(simd.mul(simd.load(o), simd.splat(*fade)), o);
            }
        }
    }

    #[inline(always)]
    fn finish<S: Simd>(self, simd: S) {
        let (d, count, shape) = (self.head_dim(), self.queries.len(), self.inputs.shape);
        for i in 0..count {
            // SAFETY: this head of these queries is this task's alone.
            let out = unsafe { self.out.part(shape.at(self.sequence, self.queries.start + i, self.head), d) };
            let sum = simd.splat(self.scratch.sum[i]);
            for (c, out) in out.chunks_mut(LANES).enumerate() {
                let o = simd.div(simd.load(&self.scratch.o[c * count + i].0), sum);
                simd.store(simd.add(o, simd.splat(0.0)), out);
            }
        }
    }
}

impl<'a> Inputs<'a> {
    /// A head of a key or value.
    #[inline(always)]
    fn row(&self, x: &'a [f32], sequence: usize, token: usize, head: usize) -> &'a [f32] {
        let d = self.shape.head_dim;
        &x[((sequence * self.shape.keys + token) * self.shape.heads + head) * d..][..d]
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

/// Adds the product of `count` packed rows by `panels` of `k` lines to `sums`. The second of a pair is how far apart chunks of
/// rows, and panels of lines (k itself), are.
///
/// # Safety
///
/// As [`FmaTile`] wants it: rows of `k` values, whole panels, a line of sums for each row and panel.
#[inline(always)]
unsafe fn product<S: Simd>(
    simd: S,
    (rows, chunk_stride): (&[Line], usize),
    count: usize,
    (lines, k): (&[Line], usize),
    panels: usize,
    sums: Sums,
) {
    for first in (0..panels).step_by(2) {
        let pair = first + 1 < panels;
        let panel = |p: usize| lines[p * k..].as_ptr().cast();
        let tile = FmaTile {
            rows: rows.as_ptr().cast(),
            chunk_stride: chunk_stride * size_of::<Line>(),
            count,
            panels: [panel(first), panel(first + usize::from(pair))],
            half: false,
            pair,
            k,
            fresh: sums.fresh,
            sums: sums.lines[first * sums.panel_stride..].as_mut_ptr().cast(),
            panel_stride: sums.panel_stride * LANES,
        };
        // SAFETY: the caller's.
        unsafe { simd.fma_tile(&tile) }
    }
}
