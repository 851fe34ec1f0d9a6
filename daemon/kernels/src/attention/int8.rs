//! Attention in int8: both products run on the int8 inner loop, over packed blocks of keys and values.
//!
//! Unlike in f32, queries are the panels and a vector's lanes: of the first product the rows are keys, of the second the
//! dimensions of the values, so that no head size wants padding, and neither the softmax nor its sums ever cross lanes. One more
//! dimension, whose values are 1, sums the weights. A head's keys and values are so small once packed that all are packed before
//! the first query: by each task for itself, or, where an image has one head, which is large, once for all tasks.

use std::cell::RefCell;
use std::ops::Range;
use std::ptr::{null, null_mut};

use super::packed::{PackedHead, PackedQueries};
use super::parts::{self, HeadKeys, HeadQueries};
use crate::cancel::is_cancelled;
use crate::operands::AttentionCall;
use crate::scalar::attention::{BLOCK, GREATEST_SHARE, LEAST_SHARE, query_scale};
use crate::simd::{CHUNK, Chunk, DotTile, LANES, Line, ScoreTile, Scores, Simd, SimdFn, math, reserve};

/// Queries that take each block of keys in turn: few enough that their sums stay in L1, and enough that reading the keys from L2
/// once for all of them costs little.
const QUERIES: usize = 64;

/// Chunks of a byte of two panels' weights.
const WEIGHTS: usize = 2 * BLOCK / 4;

thread_local! {
    static SCRATCH: RefCell<(PackedHead, Int8Scratch)> = RefCell::default();
}

/// Puts the result where the queries are. Keys and values are a text's where `text` is set.
pub(super) fn run<S: Simd>(simd: S, call: &AttentionCall, text: bool, out: &mut [f32]) {
    let packed = |mut packed: PackedHead| {
        simd.run(PackTask { head: HeadKeys::first(call), text, packed: &mut packed });
        packed
    };
    let alone = (call.shape.is_one_head() && !text).then(|| packed(PackedHead::default()));
    parts::for_each(call, usize::MAX, out, |queries| {
        SCRATCH.with_borrow_mut(|(own, scratch)| {
            if alone.is_none() {
                simd.run(PackTask { head: queries.head, text, packed: own });
            }
            simd.run(Int8Task { queries, text, packed: alone.as_ref().unwrap_or(own), scratch });
        });
    });
}

/// Frees what this thread keeps between tasks.
pub(super) fn release_scratch() {
    drop(SCRATCH.take());
}

/// What a thread keeps between tasks. A panel has 16 queries.
#[derive(Default)]
struct Int8Scratch {
    queries: PackedQueries,
    /// A block's scores: `[panel of the pair][2 keys]`.
    scores: Vec<Scores>,
    /// Their weights: `[byte][panel of the pair][4 keys][16][4]`, of which images' have a single byte.
    weights: Vec<Chunk<u8>>,
    /// Per panel the power that its sums are relative to.
    max: Vec<Line>,
    /// Values by their weights, and last the weights: `[panel][dimension][16]`.
    sums: Vec<Line>,
}

/// What a block has of two panels' softmax: each query's greatest score, and what its weights count beside the greatest so far.
struct BlockShare {
    greatest: [[i16; LANES]; 2],
    share: [Line; 2],
}

struct PackTask<'a> {
    head: HeadKeys<'a>,
    text: bool,
    packed: &'a mut PackedHead,
}

impl SimdFn for PackTask<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(self, simd: S) {
        self.packed.pack(simd, &self.head, self.text);
    }
}

struct Int8Task<'a> {
    queries: HeadQueries<'a>,
    text: bool,
    packed: &'a PackedHead,
    scratch: &'a mut Int8Scratch,
}

impl SimdFn for Int8Task<'_> {
    type Output = ();

    #[inline(always)]
    fn call<S: Simd>(mut self, simd: S) {
        let (count, keys) = (self.queries.count(), self.queries.head.shape().keys);
        for first in (0..count).step_by(QUERIES) {
            // A task may be all of a large image's queries: seconds.
            if is_cancelled() {
                return;
            }
            let queries = first..count.min(first + QUERIES);
            let panels = queries.len().div_ceil(LANES);
            self.start(simd, &queries);
            for block in (0..keys).step_by(BLOCK) {
                let block = block..keys.min(block + BLOCK);
                for pair in (0..panels).step_by(2) {
                    let pair = pair..panels.min(pair + 2);
                    if self.text {
                        self.scratch.add_block::<S, true>(simd, self.packed, &block, &pair);
                    } else {
                        self.scratch.add_block::<S, false>(simd, self.packed, &block, &pair);
                    }
                }
            }
            self.finish(simd, &queries);
        }
    }
}

impl Int8Task<'_> {
    /// Packs the queries; nothing is summed for them yet.
    #[inline(always)]
    fn start<S: Simd>(&mut self, simd: S, queries: &Range<usize>) {
        let (d, panels) = (self.queries.head.dim(), QUERIES / LANES);
        let scratch = &mut *self.scratch;
        reserve(&mut scratch.scores, 2 * BLOCK / 2, Scores([0; 2 * LANES]));
        let bytes = if self.text { 2 } else { 1 };
        reserve(&mut scratch.weights, bytes * WEIGHTS, Chunk([0; CHUNK]));
        for (lines, len, value) in
            [(&mut scratch.max, panels, f32::NEG_INFINITY), (&mut scratch.sums, panels * (d + 1), 0.0)]
        {
            lines.clear();
            lines.resize(len, Line([value; LANES]));
        }
        let unit = query_scale(d) * self.packed.unit;
        scratch.queries.pack(simd, &mut self.queries, queries.start, queries.len(), unit);
    }

    /// The queries' results: the sums over the weights, by the dimensions' scales.
    #[inline(always)]
    fn finish<S: Simd>(&mut self, simd: S, queries: &Range<usize>) {
        let d = self.queries.head.dim();
        let scratch = &*self.scratch;
        for (panel, first) in queries.clone().step_by(LANES).enumerate() {
            let (sums, weight) = scratch.sums[panel * (d + 1)..(panel + 1) * (d + 1)].split_at(d);
            let inverse = simd.div(simd.splat(1.0), simd.load(&weight[0].0));
            for (c, sums) in sums.chunks(LANES).enumerate() {
                let (scales, offsets) = (&self.packed.v_scale[c].0, &self.packed.v_offset[c].0);
                let mut rows = [simd.splat(0.0); LANES];
                for (((row, sum), scale), offset) in rows.iter_mut().zip(sums).zip(scales).zip(offsets) {
                    *row = simd.fma(simd.mul(simd.load(&sum.0), inverse), simd.splat(*scale), simd.splat(*offset));
                }
                for (query, values) in (first..queries.end).zip(simd.transpose(rows)) {
                    simd.store(values, &mut self.queries.query(simd, query)[c * LANES..][..sums.len()]);
                }
            }
        }
    }
}

impl Int8Scratch {
    /// Takes a block of keys into account for one or two panels of queries.
    #[inline(always)]
    fn add_block<S: Simd, const TEXT: bool>(
        &mut self,
        simd: S,
        head: &PackedHead,
        block: &Range<usize>,
        pair: &Range<usize>,
    ) {
        self.score(simd, head, block, pair);
        let mut of_block = BlockShare { greatest: [[0; LANES]; 2], share: [Line::ZERO; 2] };
        let mut counts = false;
        for (slot, panel) in pair.clone().enumerate() {
            counts |= self.raise_max(simd, block.len(), (slot, panel), &mut of_block);
        }
        if counts {
            for (slot, panel) in pair.clone().enumerate() {
                if self.queries.powers[panel].doubled {
                    self.weigh::<S, true, TEXT>(simd, block.len(), (slot, panel), &of_block.greatest[slot]);
                } else {
                    self.weigh::<S, false, TEXT>(simd, block.len(), (slot, panel), &of_block.greatest[slot]);
                }
            }
            self.add_values(simd, head, block, pair, 0, &of_block.share);
            if TEXT {
                for share in &mut of_block.share {
                    simd.store(simd.mul(simd.load(&share.0), simd.splat(1.0 / 128.0)), &mut share.0);
                }
                self.add_values(simd, head, block, pair, 1, &of_block.share);
            }
        }
    }

    /// The block's scores.
    #[inline(always)]
    fn score<S: Simd>(&mut self, simd: S, head: &PackedHead, block: &Range<usize>, pair: &Range<usize>) {
        let queries = &self.queries;
        let both = [pair.start, pair.end - 1];
        let count = block.len().next_multiple_of(2);
        let dots = DotTile {
            rows: head.k[block.start..].as_ptr().cast(),
            chunk_stride: head.even_keys() * CHUNK,
            count,
            panels: both.map(|panel| queries.q[panel * queries.quads..].as_ptr().cast()),
            weight_sums: both.map(|panel| queries.sums[panel].as_ptr().cast()),
            pair: pair.len() == 2,
            k: 4 * queries.quads,
            scales: null(),
            by_lane: false,
            row_sums: null(),
            fresh: true,
            sums: null_mut(),
            panel_stride: 0,
        };
        let (factors, scores) = (head.k_factor[block.start..].as_ptr(), self.scores.as_mut_ptr());
        // SAFETY: there are whole chunks and a factor for each of the block's keys, an even number, as many quads and a sum for
        // each query of the panels, and room for the scores of each panel and key.
        unsafe {
            simd.score_tile(&ScoreTile { dots, factors, shift: head.shift, scores, panel_stride: BLOCK / 2 });
        }
    }

    /// Finds a panel's greatest scores, and rescales its sums where their powers are far above what the sums are relative to. Returns
    /// whether the block counts beside what is summed so far: where attention is sharp, most blocks don't.
    #[inline(always)]
    fn raise_max<S: Simd>(
        &mut self,
        simd: S,
        keys: usize,
        (slot, panel): (usize, usize),
        of_block: &mut BlockShare,
    ) -> bool {
        let greatest = greatest(simd, &self.scores[slot * BLOCK / 2..][..keys.div_ceil(2)]);
        of_block.greatest[slot] = greatest;
        let top = simd.mul(simd.load(&greatest.map(f32::from)), simd.load(&self.queries.unit[panel].0));
        let before = self.max[panel];
        let mut tops = before;
        simd.store(top, &mut tops.0);
        for (max, top) in self.max[panel].0.iter_mut().zip(tops.0) {
            *max = if top - *max > GREATEST_SHARE { top } else { *max };
        }
        let max = simd.load(&self.max[panel].0);
        if before.0 != self.max[panel].0 {
            let faded = math::exp2(simd, simd.sub(simd.load(&before.0), max));
            let rows = self.sums.len() / (QUERIES / LANES);
            for sum in &mut self.sums[panel * rows..(panel + 1) * rows] {
                simd.store(simd.mul(simd.load(&sum.0), faded), &mut sum.0);
            }
        }
        let below = simd.sub(top, max);
        let share = simd.zero_below(below, simd.splat(LEAST_SHARE), math::exp2(simd, below));
        simd.store(share, &mut of_block.share[slot].0);
        of_block.share[slot].0 != [0.0; LANES]
    }

    /// A panel's weights, in two bytes where `TEXT` is set. Differences of scores are doubled where `DOUBLED` is set.
    #[inline(always)]
    fn weigh<S: Simd, const DOUBLED: bool, const TEXT: bool>(
        &mut self,
        simd: S,
        keys: usize,
        (slot, panel): (usize, usize),
        greatest: &[i16; LANES],
    ) {
        let powers = &self.queries.powers[panel];
        let base = simd.of_queries(&std::array::from_fn(|l| greatest[l].wrapping_sub(powers.above[l])));
        let (factor, least) = (simd.of_queries(&powers.factor), simd.of_queries(&powers.least));
        let multiple = simd.of_queries(&powers.multiple);
        let fours = self.scores[slot * BLOCK / 2..][..2 * keys.div_ceil(4)].as_chunks::<2>().0;
        let (whole, fractions) = self.weights.split_at_mut(WEIGHTS);
        let fractions = if TEXT { &mut fractions[slot * BLOCK / 4..] } else { &mut [] };
        for (i, (scores, out)) in fours.iter().zip(&mut whole[slot * BLOCK / 4..]).enumerate() {
            let mut of_keys = [base; 2];
            for (power, scores) in of_keys.iter_mut().zip(scores) {
                let mut difference = simd.sub_words(simd.load_scores(scores), base);
                if DOUBLED {
                    difference = simd.mul_words(simd.max_words(difference, least), multiple);
                }
                *power = simd.scale_words(difference, factor);
            }
            if TEXT {
                simd.store_weight_bytes(of_keys, [&mut out.0, &mut fractions[i].0]);
            } else {
                simd.store_weights(of_keys, 4 * i, &mut out.0);
            }
        }
    }

    /// Adds the block's values by a byte of their weights to the sums. Values of keys past the last are zeros, whatever their weights.
    #[inline(always)]
    fn add_values<S: Simd>(
        &mut self,
        simd: S,
        head: &PackedHead,
        block: &Range<usize>,
        pair: &Range<usize>,
        byte: usize,
        share: &[Line; 2],
    ) {
        let rows = head.rows;
        // SAFETY: there are whole chunks of the block's values for each row, weights for all of its keys, a share for each query
        // and a line of sums for each panel and row.
        unsafe {
            simd.dot_tile(&DotTile {
                rows: head.v[block.start / CHUNK * rows..].as_ptr().cast(),
                chunk_stride: rows * CHUNK,
                count: rows,
                panels: [0, pair.len() - 1]
                    .map(|slot| self.weights[byte * WEIGHTS + slot * BLOCK / 4..].as_ptr().cast()),
                weight_sums: [null(); 2],
                pair: pair.len() == 2,
                k: block.len().next_multiple_of(4),
                scales: share.as_ptr().cast(),
                by_lane: true,
                row_sums: head.v_sums[block.start / BLOCK * rows..].as_ptr(),
                fresh: false,
                sums: self.sums[pair.start * rows..].as_mut_ptr().cast(),
                panel_stride: rows * LANES,
            });
        }
    }
}

/// The greatest score of each query.
#[inline(always)]
fn greatest<S: Simd>(simd: S, scores: &[Scores]) -> [i16; LANES] {
    // As many as hide the latency of a comparison.
    let mut greatest = [simd.load_scores(&scores[0]); 4];
    let (fours, rest) = scores.as_chunks::<4>();
    for four in fours {
        for (greatest, scores) in greatest.iter_mut().zip(four) {
            *greatest = simd.max_words(simd.load_scores(scores), *greatest);
        }
    }
    for scores in rest {
        greatest[0] = simd.max_words(simd.load_scores(scores), greatest[0]);
    }
    let [a, b, c, d] = greatest;
    simd.greatest_of_keys(simd.max_words(simd.max_words(a, b), simd.max_words(c, d)))
}
