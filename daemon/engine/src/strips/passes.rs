//! Which passes a segment needs when given rows of its results are stored, and what each of them reads, computes and
//! frees.
//!
//! Of a result the rows from the top down to some row are stored, or all, or none. Where memory ends before the image
//! does, a later pass starts from what is stored for the upper part and computes the lower part again from older
//! results, of which only the lower part is kept.

use std::ops::Range;

use super::{RowOp, Segment};

/// One run down the image.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Pass {
    /// The node that the pass makes from top to bottom; its rows are dropped unless it is stored or the result.
    pub(super) target: usize,
    /// The rows that are computed of each node; of most nodes none.
    pub(super) rows: Vec<Range<usize>>,
    /// Nodes that nothing in this pass reads: they are computed from what it has anyway, to be stored.
    pub(super) aside: Vec<usize>,
    /// The nodes that are stored, and the row before which.
    pub(super) stores: Vec<(usize, usize)>,
    /// The group norms whose statistics are complete after this pass.
    pub(super) sums: Vec<usize>,
    /// Stored results, and the first row of each that is needed after this pass: those before it are freed on the way.
    pub(super) frees: Vec<(usize, usize)>,
}

impl Pass {
    /// The nodes that are computed, in order.
    pub(super) fn active(&self) -> impl Iterator<Item = usize> {
        (0..self.rows.len()).filter(|&n| !self.rows[n].is_empty())
    }

    /// Rows of `node` that are stored once the pass is over, of those that it computes.
    pub(super) fn stored_rows(&self, node: usize) -> usize {
        self.stores.iter().find(|(n, _)| *n == node).map_or(0, |(_, end)| *end)
    }

    /// The first row of each node that the pass reads, of those that are stored before it and those that it computes.
    fn first_reads(&self, segment: &Segment) -> Vec<Option<usize>> {
        let mut first = vec![None; segment.nodes.len()];
        if self.rows[self.target].is_empty() {
            first[self.target] = Some(0);
        }
        for reader in self.active() {
            for (at, &input) in segment.nodes[reader].inputs.iter().enumerate() {
                let row = first_needed(segment, reader, at, self.rows[reader].start);
                first[input] = Some(first[input].map_or(row, |known: usize| known.min(row)));
            }
        }
        first
    }
}

/// The first row of a node's input number `at` that its row number `row` is made from.
pub(super) fn first_needed(segment: &Segment, node: usize, at: usize, row: usize) -> usize {
    segment.nodes[node].needs(at, &(row..row + 1)).start
}

/// The passes of `segment` where of each node the rows before that in `stored` are stored.
pub(super) fn passes(segment: &Segment, stored: &[usize]) -> Vec<Pass> {
    let nodes = &segment.nodes;
    let last = nodes.len() - 1;
    let mut ready: Vec<usize> = nodes.iter().map(|node| if node.is_input() { node.extent.height } else { 0 }).collect();
    let mut summed = vec![false; nodes.len()];
    let mut passes = Vec::new();
    let norms = (0..nodes.len()).filter(|&n| nodes[n].is_norm());
    let targets: Vec<(Option<usize>, usize)> =
        norms.map(|norm| (Some(norm), nodes[norm].inputs[0])).chain([(None, last)]).collect();
    for (norm, target) in targets {
        if norm.is_some_and(|norm| summed[norm]) {
            continue;
        }
        let (mut rows, needed) = computed(segment, target, &ready);
        let aside: Vec<usize> = (0..nodes.len())
            .filter(|&n| nodes[n].op == RowOp::Quantize && stored[n] > 0 && ready[n] == 0 && rows[n].is_empty())
            .filter(|&n| needed[nodes[n].inputs[0]] == Some(0) && is_summed(segment, nodes[n].inputs[0], &summed))
            .collect();
        aside.iter().for_each(|&n| rows[n] = 0..stored[n]);
        let sums: Vec<usize> = (0..nodes.len())
            .filter(|&n| nodes[n].is_norm() && !summed[n])
            .filter(|&n| {
                let input = nodes[n].inputs[0];
                input == target || rows[input] == (0..nodes[input].extent.height)
            })
            .collect();
        let kept = |n: usize| if n == last && !segment.handed_out { nodes[n].extent.height } else { stored[n] };
        let fresh = (0..nodes.len()).filter(|&n| !rows[n].is_empty() && rows[n].start == 0 && ready[n] == 0);
        let stores: Vec<(usize, usize)> = fresh.map(|n| (n, kept(n))).filter(|(_, end)| *end > 0).collect();
        sums.iter().for_each(|&n| summed[n] = true);
        stores.iter().for_each(|&(n, end)| ready[n] = end);
        passes.push(Pass { target, rows, aside, stores, sums, frees: Vec::new() });
    }
    free(segment, &mut passes);
    passes
}

/// Whether the statistics of all norms that read `node` are known.
fn is_summed(segment: &Segment, node: usize, summed: &[bool]) -> bool {
    (0..segment.nodes.len()).all(|n| !segment.nodes[n].is_norm() || segment.nodes[n].inputs[0] != node || summed[n])
}

/// What must be computed of each node for the whole of `target`, back to the rows that are `ready`, and the first row
/// that is needed of it.
fn computed(segment: &Segment, target: usize, ready: &[usize]) -> (Vec<Range<usize>>, Vec<Option<usize>>) {
    let mut needed: Vec<Option<usize>> = vec![None; segment.nodes.len()];
    let mut rows = vec![0..0; segment.nodes.len()];
    needed[target] = Some(0);
    for n in (0..=target).rev() {
        let Some(first) = needed[n] else { continue };
        let node = &segment.nodes[n];
        rows[n] = first.max(ready[n])..node.extent.height;
        if rows[n].is_empty() {
            continue;
        }
        for (at, &input) in node.inputs.iter().enumerate() {
            let first = first_needed(segment, n, at, rows[n].start);
            needed[input] = Some(needed[input].map_or(first, |known| known.min(first)));
        }
    }
    (rows, needed)
}

/// Finds the rows of each stored result that no later pass reads.
fn free(segment: &Segment, passes: &mut [Pass]) {
    let nodes = &segment.nodes;
    let last = nodes.len() - 1;
    // The first row that later passes read; one past the last where they read none.
    let mut later: Vec<usize> = nodes.iter().map(|node| node.extent.height).collect();
    for at in (0..passes.len()).rev() {
        let (earlier, pass) = passes.split_at_mut(at);
        let pass = &mut pass[0];
        // What only its own pass reads need not be stored.
        pass.stores.retain(|&(n, _)| n == last || later[n] < nodes[n].extent.height);
        let held = |n: usize| nodes[n].is_input() || earlier.iter().any(|pass| pass.stored_rows(n) > 0);
        let reads = pass.first_reads(segment);
        let read: Vec<(usize, usize)> = (0..last).filter_map(|n| Some((n, reads[n].filter(|_| held(n))?))).collect();
        pass.frees = read.iter().map(|&(n, _)| (n, later[n])).filter(|(_, row)| *row > 0).collect();
        read.iter().for_each(|&(n, first)| later[n] = later[n].min(first));
    }
}
