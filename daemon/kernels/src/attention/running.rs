//! What the online softmax keeps for each query while the blocks of keys go by.

use std::ops::Range;

use super::parts::HeadQueries;
use crate::simd::{LANES, Line, Simd, math, reserve_lines};

/// A number for each row of a tile; rows are queries.
pub(super) type TileRows = [f32; LANES];

/// The sums so far of an online softmax (Milakov & Gimelshein 2018), for some queries of a head.
#[derive(Default)]
pub(super) struct OnlineSoftmax {
    /// Values by their weights: `[16 dimensions][query][16]`.
    pub(super) sums: Vec<Line>,
    /// Per query the greatest score.
    max: Vec<f32>,
    /// Per query the weights, by sixteen lanes.
    pub(super) weights: Vec<Line>,
    queries: usize,
    depth: usize,
}

impl OnlineSoftmax {
    /// Nothing is summed yet for so many queries of so many vectors: what lies there is replaced by the first block's sums.
    pub(super) fn start(&mut self, queries: usize, depth: usize) {
        (self.queries, self.depth) = (queries, depth);
        reserve_lines(&mut self.sums, self.depth * self.queries);
        self.max.clear();
        self.max.resize(self.queries, f32::NEG_INFINITY);
        reserve_lines(&mut self.weights, queries);
    }

    /// From one vector of dimensions' sums to the next's, in lines.
    pub(super) fn stride(&self) -> usize {
        self.queries
    }

    /// Takes the greatest scores of a block into account: what is summed so far, which before the first block (`fresh`) is nothing,
    /// is rescaled to the greatest yet, which is returned.
    #[inline(always)]
    pub(super) fn raise_max<S: Simd>(
        &mut self,
        simd: S,
        block: &TileRows,
        tile: &Range<usize>,
        fresh: bool,
    ) -> TileRows {
        let rows = tile.len();
        let mut before = [0.0; LANES];
        before[..rows].copy_from_slice(&self.max[tile.clone()]);
        let mut after = before;
        simd.store(simd.max(simd.load(block), simd.load(&before)), &mut after[..rows]);
        self.max[tile.clone()].copy_from_slice(&after[..rows]);
        if !fresh && before != after {
            self.rescale(simd, before, after, tile);
        }
        after
    }

    /// Multiplies the sums by `2^(before − after)`.
    #[inline(always)]
    fn rescale<S: Simd>(&mut self, simd: S, before: TileRows, after: TileRows, tile: &Range<usize>) {
        let mut factors = [0.0; LANES];
        simd.store(math::exp2(simd, simd.sub(simd.load(&before), simd.load(&after))), &mut factors);
        for (row, factor) in factors[..tile.len()].iter().enumerate() {
            let weights = &mut self.weights[tile.start + row].0;
            simd.store(simd.mul(simd.load(weights), simd.splat(*factor)), weights);
            for c in 0..self.depth {
                let sum = &mut self.sums[c * self.queries + tile.start + row].0;
                simd.store(simd.mul(simd.load(sum), simd.splat(*factor)), sum);
            }
        }
    }

    /// The results of all queries, which are those from `first` on: the means by weight.
    #[inline(always)]
    pub(super) fn finish<S: Simd>(&self, simd: S, queries: &mut HeadQueries, first: usize) {
        for i in 0..self.queries {
            let weight = simd.splat(simd.fold(simd.load(&self.weights[i].0)));
            for (c, out) in queries.query(simd, first + i).chunks_mut(LANES).enumerate() {
                let mean = simd.div(simd.load(&self.sums[c * self.queries + i].0), weight);
                simd.store(simd.add(mean, simd.splat(0.0)), out);
            }
        }
    }
}
