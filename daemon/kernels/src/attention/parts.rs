//! How attention is shared out: a task has some queries of one head, whose results take their place.

use crate::cancel::Tasks;
use crate::operands::{AttentionCall, AttentionShape};
use crate::simd::{LANES, Simd};
use crate::tiles::{self, Cuts, OutTile};

/// Tasks for each thread: enough that no thread waits long for the last one.
const TASKS_PER_THREAD: usize = 4;
/// How many tokens ahead keys and values are prefetched: a head's lie too far apart for the hardware prefetcher.
const AHEAD: usize = 12;

/// One head of a sequence: its keys and values.
#[derive(Clone, Copy)]
pub(super) struct HeadKeys<'a> {
    call: &'a AttentionCall<'a>,
    sequence: usize,
    index: usize,
}

/// Some queries of one head.
pub(super) struct HeadQueries<'a> {
    pub(super) head: HeadKeys<'a>,
    /// The first of the queries.
    first: usize,
    /// The queries, and later their results.
    out: OutTile<'a>,
}

/// Does `work` on all queries of all heads, at most so many queries of a head at a time, on all threads.
pub(super) fn for_each(call: &AttentionCall, most_queries: usize, out: &mut [f32], work: impl Fn(HeadQueries) + Sync) {
    let shape = &call.shape;
    let heads = shape.batch * shape.heads;
    let for_all_threads = (rayon::current_num_threads() * TASKS_PER_THREAD).div_ceil(heads.max(1));
    let parts = shape.queries.div_ceil(most_queries).max(for_all_threads).min(shape.queries.div_ceil(LANES));
    let channels = shape.channels();
    let of_heads = Cuts { unit: shape.head_dim, end: channels, ..Cuts::equal(1, shape.heads, shape.heads) };
    let cuts = [Cuts::equal(shape.batch, shape.queries, parts), Cuts::equal(1, 1, 1), of_heads];
    tiles::split(out, [shape.batch * shape.queries, 1, channels], cuts).for_each_task(|out| {
        let (sequence, first) = (out.lines.start / shape.queries, out.lines.start % shape.queries);
        let head = HeadKeys { call, sequence, index: out.values.start / shape.head_dim };
        work(HeadQueries { head, first, out });
    });
}

impl<'a> HeadKeys<'a> {
    /// The first head of the first sequence.
    pub(super) fn first(call: &'a AttentionCall<'a>) -> HeadKeys<'a> {
        HeadKeys { call, sequence: 0, index: 0 }
    }

    pub(super) fn shape(&self) -> &'a AttentionShape {
        &self.call.shape
    }

    pub(super) fn dim(&self) -> usize {
        self.call.shape.head_dim
    }

    /// Vectors of the head's dimensions.
    pub(super) fn depth(&self) -> usize {
        self.dim().div_ceil(LANES)
    }

    /// The head's part of a key. Those that follow are prefetched.
    #[inline(always)]
    pub(super) fn key<S: Simd>(&self, simd: S, token: usize) -> &'a [f32] {
        self.row(simd, self.call.k, token)
    }

    /// The head's part of a value. Those that follow are prefetched.
    #[inline(always)]
    pub(super) fn value<S: Simd>(&self, simd: S, token: usize) -> &'a [f32] {
        self.row(simd, self.call.v, token)
    }

    /// [`HeadKeys::value`] without prefetching.
    #[inline(always)]
    pub(super) fn value_again(&self, token: usize) -> &'a [f32] {
        &self.call.v[self.at(token)..][..self.dim()]
    }

    #[inline(always)]
    fn row<S: Simd>(&self, simd: S, x: &'a [f32], token: usize) -> &'a [f32] {
        let at = self.at(token);
        let ahead = x.as_ptr().wrapping_add(at + AHEAD * self.call.shape.channels());
        self.lines(ahead).for_each(|line| simd.prefetch_read(line));
        &x[at..at + self.dim()]
    }

    /// Where the head's part of a key or value starts.
    #[inline(always)]
    fn at(&self, token: usize) -> usize {
        let shape = &self.call.shape;
        ((self.sequence * shape.keys + token) * shape.heads + self.index) * shape.head_dim
    }

    /// Addresses in each of the cache lines of a token's head.
    #[inline(always)]
    fn lines(&self, token: *const f32) -> impl Iterator<Item = *const f32> + use<> {
        (0..=self.depth()).map(move |line| token.wrapping_add(line * LANES))
    }
}

impl HeadQueries<'_> {
    /// The number of queries.
    pub(super) fn count(&self) -> usize {
        self.out.lines.len()
    }

    /// The position of query `i` within its sequence.
    pub(super) fn position(&self, i: usize) -> usize {
        self.first + i
    }

    /// Query `i`, and later its result. Those that follow are prefetched.
    #[inline(always)]
    pub(super) fn query<S: Simd>(&mut self, simd: S, i: usize) -> &mut [f32] {
        let ahead = self.out.address(i + AHEAD, 0);
        self.head.lines(ahead).for_each(|line| simd.prefetch_write(line));
        self.out.at(i, 0)
    }
}
