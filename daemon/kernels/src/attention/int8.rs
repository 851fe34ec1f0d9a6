//! Attention in int8: both products run on the int8 inner loop, over packed blocks of keys and values.
//!
//! As in f32, but every product of 64 bytes has four times the values, and a head's keys and values are so small once packed that all
//! are packed before the first query. Weights are two digits of seven bits, each a row of int8
//! for the second product: one digit would lose the many small weights that together matter.

use std::cell::RefCell;
use std::ops::Range;

use super::parts::{self, Inputs, Part};
use super::running::{PerRow, Running};
use crate::rows::quantize_row;
use crate::scalar::attention::{BLOCK, DIGIT, query_scale};
use crate::scalar::math::WEIGHT_BITS;
use crate::scalar::rows::TINY;
use crate::simd::{CHUNK, Chunk, DotTile, LANES, Line, Simd, Work, math, room};

/// Queries that take each block of keys in turn: their sums stay in the nearest cache, and the keys come seldom enough.
const QUERIES: usize = 120;

/// Panels of keys whose weights are a chunk.
const PANELS: usize = CHUNK / LANES;

/// Scores that are so much less than the greatest have weights below a half, which are none.
const NO_WEIGHT: f32 = -15.5;
/// And these have weights below [`DIGIT`].
const NO_UPPER_DIGIT: f32 = -7.5;
/// Of the greatest score, more than what rounding takes off or adds.
const ROUNDING: f32 = 1e-6;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Puts the result where the queries are.
pub(super) fn run<S: Simd>(simd: S, inputs: Inputs, out: &mut [f32]) {
    parts::for_each(inputs, usize::MAX, out, |part| {
        SCRATCH.with_borrow_mut(|scratch| simd.run(Task { part, scratch }));
    });
}

/// What a thread keeps between tasks.
#[derive(Default)]
struct Scratch {
    /// Of all keys: their mean.
    mean: Vec<f32>,
    /// Of all values, by dimension: what quantizes them and what undoes it.
    inverse: Vec<f32>,
    scale: Vec<f32>,
    /// Queries: `[64 dimensions][query][64]`, XORed with [`Simd::FLIP`], and a scale for each.
    q: Vec<Chunk<u8>>,
    q_scale: Vec<f32>,
    /// A block's keys: `[16 keys][4 dimensions][16][4]`; for each panel of 16 the keys' scales and their sums.
    k: Vec<Chunk<u8>>,
    k_scale: Vec<Line>,
    k_sums: Vec<[i32; LANES]>,
    /// A block's values: `[16 dimensions][4 keys][16][4]`.
    v: Vec<Chunk<u8>>,
    /// A tile's scores before the keys' scales: `[16 keys][query of the tile][16]`.
    scores: Vec<Line>,
    /// Upper and lower digits of a tile's weights: `[64 keys][query of the tile][64]`.
    digits: [Vec<Chunk<i8>>; 2],
    running: Running,
    /// A row on its way.
    row: Vec<f32>,
    bytes: Vec<i8>,
}

struct Task<'a> {
    part: Part<'a>,
    scratch: &'a mut Scratch,
}

impl Work for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn work<S: Simd>(mut self, simd: S) {
        self.make_room();
        self.survey(simd);
        self.pack_keys(simd);
        self.pack_values(simd);
        let (count, keys) = (self.part.count(), self.part.shape().keys);
        for first in (0..count).step_by(QUERIES) {
            let queries = first..count.min(first + QUERIES);
            self.pack_queries(simd, &queries);
            self.scratch.running.start(queries.len(), self.part.depth());
            for block in (0..keys).step_by(BLOCK) {
                let block = block..keys.min(block + BLOCK);
                for tile in (0..queries.len()).step_by(S::ROWS) {
                    self.tile(simd, &block, &(tile..queries.len().min(tile + S::ROWS)), queries.len());
                }
            }
            self.scratch.running.finish(simd, &self.part, first, Some(&self.scratch.scale));
        }
    }
}

/// Makes room for `len` values, whose contents do not matter.
fn grow<T: Copy>(values: &mut Vec<T>, len: usize, filler: T) {
    values.resize(len.max(values.len()), filler);
}

impl Task<'_> {
    /// Lines of a panel of keys: quads of dimensions.
    fn quads(&self) -> usize {
        self.part.head_dim().div_ceil(4)
    }

    /// Panels of all keys, in fours: the weights of 64 keys are a chunk.
    fn panels(&self) -> usize {
        self.part.shape().keys.div_ceil(CHUNK) * PANELS
    }

    fn make_room(&mut self) {
        let (d, depth, panels, quads) = (self.part.head_dim(), self.part.depth(), self.panels(), self.quads());
        let scratch = &mut *self.scratch;
        for values in [&mut scratch.mean, &mut scratch.inverse, &mut scratch.scale, &mut scratch.row] {
            values.clear();
            values.resize(d, 0.0);
        }
        scratch.bytes.clear();
        scratch.bytes.resize(depth * LANES, 0);
        grow(&mut scratch.q, d.div_ceil(CHUNK) * QUERIES, Chunk([0; CHUNK]));
        grow(&mut scratch.q_scale, QUERIES, 0.0);
        grow(&mut scratch.k, panels * quads, Chunk([0; CHUNK]));
        room(&mut scratch.k_scale, panels);
        grow(&mut scratch.k_sums, panels, [0; LANES]);
        grow(&mut scratch.v, depth * panels * LANES / 4, Chunk([0; CHUNK]));
    }

    /// Finds the keys' mean and the scales of the values' dimensions.
    #[inline(always)]
    fn survey<S: Simd>(&mut self, simd: S) {
        let keys = self.part.shape().keys;
        let scratch = &mut *self.scratch;
        for key in 0..keys {
            let sums = scratch.mean.chunks_mut(LANES).zip(self.part.key(simd, key).chunks(LANES));
            sums.for_each(|(sum, k)| simd.store(simd.add(simd.load(sum), simd.load(k)), sum));
            let maxima = scratch.scale.chunks_mut(LANES).zip(self.part.value(simd, key).chunks(LANES));
            maxima.for_each(|(max, v)| simd.store(simd.max(simd.abs(simd.load(v)), simd.load(max)), max));
        }
        scratch.mean.iter_mut().for_each(|sum| *sum /= keys as f32);
        for (max, inverse) in scratch.scale.iter_mut().zip(&mut scratch.inverse) {
            (*inverse, *max) = if *max < TINY { (0.0, 0.0) } else { (127.0 / *max, *max / 127.0) };
        }
    }

    #[inline(always)]
    fn pack_queries<S: Simd>(&mut self, simd: S, queries: &Range<usize>) {
        let d = self.part.head_dim();
        let scratch = &mut *self.scratch;
        for (i, query) in queries.clone().enumerate() {
            let scale = quantize_row(simd, self.part.query(simd, query), &mut scratch.bytes[..d]);
            scratch.q_scale[i] = scale * query_scale(d);
            for (c, bytes) in scratch.bytes[..d].chunks(CHUNK).enumerate() {
                let chunk = &mut scratch.q[c * queries.len() + i];
                chunk.0.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from as u8 ^ S::FLIP);
            }
        }
    }

    /// Keys past the last are zeros with scale 1; [`mask`] drops them.
    #[inline(always)]
    fn pack_keys<S: Simd>(&mut self, simd: S) {
        let (d, quads, keys) = (self.part.head_dim(), self.quads(), self.part.shape().keys);
        let panels = self.panels();
        let scratch = &mut *self.scratch;
        scratch.bytes.fill(0);
        for key in 0..panels * LANES {
            let mut scale = 1.0;
            if key < keys {
                let row = self.part.key(simd, key).chunks(LANES).zip(scratch.mean.chunks(LANES));
                for ((k, mean), row) in row.zip(scratch.row.chunks_mut(LANES)) {
                    simd.store(simd.sub(simd.load(k), simd.load(mean)), row);
                }
                scale = quantize_row(simd, &scratch.row, &mut scratch.bytes[..d]);
            } else {
                scratch.bytes.fill(0);
            }
            let (panel, lane) = (key / LANES, key % LANES);
            scratch.k_scale[panel].0[lane] = scale;
            scratch.k_sums[panel][lane] = scratch.bytes.iter().map(|byte| i32::from(*byte)).sum();
            let lines = &mut scratch.k[panel * quads..(panel + 1) * quads];
            for (line, quad) in lines.iter_mut().zip(scratch.bytes.as_chunks::<4>().0) {
                line.0.as_chunks_mut::<4>().0[lane] = quad.map(|byte| byte as u8);
            }
        }
    }

    /// Values past the last are zeros.
    #[inline(always)]
    fn pack_values<S: Simd>(&mut self, simd: S) {
        let (keys, quads) = (self.part.shape().keys, self.panels() * LANES / 4);
        let scratch = &mut *self.scratch;
        for key in 0..4 * quads {
            if key < keys {
                let value = self.part.value(simd, key).chunks(LANES).zip(scratch.inverse.chunks(LANES));
                for ((v, inverse), bytes) in value.zip(scratch.bytes.chunks_mut(LANES)) {
                    simd.store_i8(simd.mul(simd.load(v), simd.load(inverse)), bytes);
                }
            } else {
                scratch.bytes.fill(0);
            }
            let slot = key / CHUNK * CHUNK + S::slot(key % CHUNK);
            for (panel, bytes) in scratch.bytes.chunks(LANES).enumerate() {
                let line = scratch.v[panel * quads + slot / 4].0.as_chunks_mut::<4>().0;
                line.iter_mut().zip(bytes).for_each(|(quad, byte)| quad[slot % 4] = *byte as u8);
            }
        }
    }

    /// Takes a block of keys into account for some of `queries` packed queries.
    #[inline(always)]
    fn tile<S: Simd>(&mut self, simd: S, block: &Range<usize>, tile: &Range<usize>, queries: usize) {
        let (rows, depth, all_panels) = (tile.len(), self.part.depth(), self.panels());
        let panels = block.start / LANES..block.end.div_ceil(CHUNK) * PANELS;
        let (k_quads, v_quads) = (self.quads(), panels.len() * LANES / 4);
        let scratch = &mut *self.scratch;
        room(&mut scratch.scores, panels.len() * rows);
        let product = Product {
            rows: (&scratch.q[tile.start..], queries),
            count: rows,
            scales: &scratch.q_scale[tile.clone()],
            panels: (&scratch.k[panels.start * k_quads..], k_quads),
            quads: k_quads,
            panel_sums: Some(&scratch.k_sums[panels.clone()]),
            sums: (&mut scratch.scores, rows, panels.len()),
            fresh: true,
        };
        // SAFETY: the queries hold whole chunks, the keys as many quads per panel and a sum for each key, the scores a line per
        // panel and row.
        unsafe { product.run(simd) }
        mask(&mut scratch.scores, rows, block);
        let needed = scratch.soften(simd, panels.clone(), tile);
        for (digits, factor) in scratch.digits[needed.clone()].iter().zip(&[DIGIT, 1.0][needed]) {
            let product = Product {
                rows: (digits, rows),
                count: rows,
                scales: &[*factor; LANES],
                panels: (&scratch.v[panels.start * LANES / 4..], all_panels * LANES / 4),
                quads: v_quads,
                panel_sums: None,
                sums: (&mut scratch.running.sums[tile.start..], queries, depth),
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

impl Scratch {
    /// Scores to the digits of weights. Returns which of the two digits are not zero throughout: where attention is sharp, most
    /// keys have no weight at all.
    #[inline(always)]
    fn soften<S: Simd>(&mut self, simd: S, panels: Range<usize>, tile: &Range<usize>) -> Range<usize> {
        let rows = tile.len();
        let [uppers, lowers] = &mut self.digits;
        grow(uppers, BLOCK / CHUNK * rows, Chunk([0; CHUNK]));
        grow(lowers, BLOCK / CHUNK * rows, Chunk([0; CHUNK]));
        let (scores, scales) = (&self.scores[..panels.len() * rows], &self.k_scale[panels]);
        let block_max = maxima(simd, scores, scales, rows);
        let max = self.running.rise(simd, &block_max, tile);
        let below = simd.sub(simd.load(&block_max), simd.load(&max));
        let below = simd.fold_max(simd.fma(simd.abs(simd.load(&max)), simd.splat(ROUNDING), below));
        if below < NO_WEIGHT {
            return 0..0;
        }
        let sums = &mut self.running.weights[tile.clone()];
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

/// The greatest of each row's scores, which are yet to be multiplied by the keys' scales.
#[inline(always)]
fn maxima<S: Simd>(simd: S, scores: &[Line], scales: &[Line], rows: usize) -> PerRow {
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
struct Product<'a, T> {
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

impl<T> Product<'_, T> {
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
