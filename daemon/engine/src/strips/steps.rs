//! A pass as a list of steps: which rows of which node are computed when, and which rows must be kept until then.

use std::ops::Range;

use super::passes::Pass;
use super::{RowOp, Segment};

/// Rows of a node to compute next. Before its rows are added, a window forgets the rows below `keep_from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) node: usize,
    pub(super) rows: Range<usize>,
    /// First row of this node's window that is still read.
    pub(super) keep_from: usize,
    /// StoredRows nodes, and the first row that is still read of each.
    pub(super) done_with: Vec<(usize, usize)>,
}

/// The steps of a pass that makes its target `height` rows at a time, of which the first `limit` strips. No step makes more
/// rows: the first strip of a deep segment needs many rows of its first nodes, which then come bit by bit.
pub(super) fn steps(segment: &Segment, pass: &Pass, height: usize, limit: usize) -> Vec<Step> {
    let mut walk = Walk { segment, pass, height, made: vec![0; segment.nodes.len()], steps: Vec::new() };
    let rows = segment.nodes[pass.target].extent.height;
    for end in (0..rows).step_by(height).map(|start| (start + height).min(rows)).take(limit) {
        walk.request(pass.target, end);
    }
    walk.steps
}

struct Walk<'a> {
    segment: &'a Segment,
    pass: &'a Pass,
    height: usize,
    made: Vec<usize>,
    steps: Vec<Step>,
}

impl Walk<'_> {
    /// Makes the rows of `node` up to `end`, and what they need before.
    fn request(&mut self, node: usize, end: usize) {
        while self.made[node] < end && self.pass.active.contains(&node) {
            self.make(node, end.min(self.made[node] + self.height));
        }
    }

    fn make(&mut self, node: usize, end: usize) {
        let rows = self.made[node]..end;
        let made = &self.segment.nodes[node];
        for (at, &input) in made.inputs.iter().enumerate() {
            self.request(input, made.needs(at, &rows).end);
        }
        let keep_from = self.keep_from(node);
        self.made[node] = end;
        let read = |stored: &usize| made.inputs.contains(stored);
        let done_with = self.pass.frees.iter().copied().filter(read).map(|stored| (stored, self.read_from(stored)));
        let done_with = done_with.collect();
        self.steps.push(Step { node, rows, keep_from, done_with });
    }

    /// The first row of `node`'s window that is still read.
    fn keep_from(&self, node: usize) -> usize {
        self.read_from(node).min(self.made[node])
    }

    /// The first row of `node` that a consumer's next row reads; one past its last if no row of it is read any more.
    fn read_from(&self, node: usize) -> usize {
        let next = |consumer: usize| {
            let reader = &self.segment.nodes[consumer];
            let row = self.made[consumer];
            let inputs = reader.inputs.iter().enumerate().filter(|(_, input)| **input == node);
            inputs.map(|(at, _)| reader.needs(at, &(row..(row + 1).min(reader.extent.height))).start).min()
        };
        let consumers = self.pass.active.iter().filter(|&&n| self.made[n] < self.segment.nodes[n].extent.height);
        consumers.filter_map(|&n| next(n)).min().unwrap_or(self.segment.nodes[node].extent.height)
    }
}

/// The rows that each active node's window holds at most.
pub(super) fn window_rows(segment: &Segment, pass: &Pass, steps: &[Step]) -> Vec<usize> {
    let mut rows = vec![0; segment.nodes.len()];
    for step in steps.iter().filter(|step| windowed(segment, pass, step.node)) {
        rows[step.node] = rows[step.node].max(step.rows.end - step.keep_from);
    }
    rows
}

/// Whether a node's rows wait in a window: computed, not stored, and read by another.
pub(super) fn windowed(segment: &Segment, pass: &Pass, node: usize) -> bool {
    segment.nodes[node].op != RowOp::Input && pass.active.contains(&node) && !pass.stores.contains(&node)
}
