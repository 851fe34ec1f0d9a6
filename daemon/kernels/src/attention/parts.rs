//! How attention is shared out: a part is some queries of one head, whose results take their place.

use std::ops::Range;

use rayon::prelude::*;

use super::AttentionShape;
use crate::shared::SharedOut;
use crate::simd::{LANES, Simd};

/// Parts for each thread, so that none waits long for the last.
const PARTS_PER_THREAD: usize = 4;
/// How many tokens ahead keys and values are asked for: a head's lie too far apart for the CPU to guess.
const AHEAD: usize = 12;

/// Keys, values and the shape, checked. The queries are where the result goes.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
    pub(super) shape: &'a AttentionShape,
}

/// Some queries of one head.
pub(super) struct Part<'a> {
    inputs: Inputs<'a>,
    sequence: usize,
    head: usize,
    queries: Range<usize>,
    out: SharedOut<'a>,
}

/// Does `work` on every part, of at most so many queries, on all threads.
pub(super) fn for_each(inputs: Inputs, most_queries: usize, out: &mut [f32], work: impl Fn(Part) + Sync) {
    let shape = inputs.shape;
    let heads = shape.batch * shape.heads;
    let for_all_threads = (rayon::current_num_threads() * PARTS_PER_THREAD).div_ceil(heads.max(1));
    let parts = shape.queries.div_ceil(most_queries).max(for_all_threads).min(shape.queries.div_ceil(LANES));
    let out = SharedOut::new(out);
    (0..heads * parts).into_par_iter().with_max_len(1).for_each(|task| {
        let (sequence, head, part) = (task / parts / shape.heads, task / parts % shape.heads, task % parts);
        let queries = shape.queries * part / parts..shape.queries * (part + 1) / parts;
        work(Part { inputs, sequence, head, queries, out });
    });
}

impl Part<'_> {
    pub(super) fn shape(&self) -> &AttentionShape {
        self.inputs.shape
    }

    pub(super) fn head_dim(&self) -> usize {
        self.inputs.shape.head_dim
    }

    /// Vectors of a head's dimensions.
    pub(super) fn depth(&self) -> usize {
        self.head_dim().div_ceil(LANES)
    }

    /// How many queries it has.
    pub(super) fn count(&self) -> usize {
        self.queries.len()
    }

    /// Which of all queries its query `i` is.
    pub(super) fn position(&self, i: usize) -> usize {
        self.queries.start + i
    }

    /// Its query `i`, and later the query's result. The next ones are asked for.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "each query is asked for, and done with, before the next")]
    pub(super) fn query<S: Simd>(&self, simd: S, i: usize) -> &mut [f32] {
        debug_assert!(i < self.count());
        let at = self.inputs.shape.at(self.sequence, self.queries.start + i, self.head);
        self.ask(simd, self.out.address(at + AHEAD * self.inputs.shape.channels()));
        // SAFETY: this head of these queries is this part's alone.
        unsafe { self.out.part(at, self.head_dim()) }
    }

    /// The head of a key. The next ones are asked for.
    #[inline(always)]
    pub(super) fn key<S: Simd>(&self, simd: S, token: usize) -> &[f32] {
        self.row(simd, self.inputs.k, token)
    }

    /// The head of a value. The next ones are asked for.
    #[inline(always)]
    pub(super) fn value<S: Simd>(&self, simd: S, token: usize) -> &[f32] {
        self.row(simd, self.inputs.v, token)
    }

    #[inline(always)]
    fn row<'a, S: Simd>(&self, simd: S, x: &'a [f32], token: usize) -> &'a [f32] {
        let shape = self.inputs.shape;
        let at = ((self.sequence * shape.keys + token) * shape.heads + self.head) * shape.head_dim;
        self.ask(simd, x.as_ptr().wrapping_add(at + AHEAD * shape.channels()));
        &x[at..at + shape.head_dim]
    }

    /// Asks for the cache lines of a head.
    #[inline(always)]
    fn ask<S: Simd>(&self, simd: S, head: *const f32) {
        for line in 0..=self.depth() {
            simd.prefetch(head.wrapping_add(line * LANES));
        }
    }
}
