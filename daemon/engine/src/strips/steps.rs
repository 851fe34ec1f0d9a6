//! A pass as a list of steps: which rows of which node are computed when, and which rows must be kept until then.

use std::ops::Range;

use super::Segment;
use super::passes::{Pass, first_needed};

/// Rows of a node to compute next. Before its rows are added, a window forgets the rows below `keep_from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) node: usize,
    pub(super) rows: Range<usize>,
    /// First row of this node's window that is still read.
    pub(super) keep_from: usize,
    /// Stored nodes, and the first row that is still needed of each.
    pub(super) done_with: Vec<(usize, usize)>,
}

/// The steps of a pass that makes its target `height` rows at a time, of which the first `limit` strips.
///
/// No step makes more rows than that. The first strip of a deep segment needs many rows of its first nodes; where
/// nothing is stored, windows that hold them all would be most of what is held.
pub(super) fn steps(segment: &Segment, pass: &Pass, height: usize, limit: usize) -> Vec<Step> {
    let made = pass.rows.iter().map(|rows| rows.start).collect();
    let mut readers = vec![Vec::new(); segment.nodes.len()];
    for n in pass.active() {
        segment.nodes[n].inputs.iter().enumerate().for_each(|(at, &input)| readers[input].push((n, at)));
    }
    let mut walk = Walk { segment, pass, readers, height, made, steps: Vec::new() };
    let rows = segment.nodes[pass.target].extent.height;
    for end in (0..rows).step_by(height).map(|start| (start + height).min(rows)).take(limit) {
        walk.strip(end);
    }
    walk.steps
}

struct Walk<'a> {
    segment: &'a Segment,
    pass: &'a Pass,
    /// The active nodes that read each node, and as which input.
    readers: Vec<Vec<(usize, usize)>>,
    /// Rows of a step.
    height: usize,
    made: Vec<usize>,
    steps: Vec<Step>,
}

impl Walk<'_> {
    /// Makes the target's rows up to `end`, and what is made aside as far.
    fn strip(&mut self, end: usize) {
        self.request(self.pass.target, end);
        let target = self.height_of(self.pass.target);
        for &n in &self.pass.aside {
            self.request(n, (end * self.height_of(n) / target).min(self.pass.rows[n].end));
        }
    }

    fn is_active(&self, node: usize) -> bool {
        !self.pass.rows[node].is_empty()
    }

    fn height_of(&self, node: usize) -> usize {
        self.segment.nodes[node].extent.height
    }

    /// Makes the rows of `node` up to `end`, and what they need before.
    fn request(&mut self, node: usize, end: usize) {
        while self.is_active(node) && self.made[node] < end {
            self.make(node, end.min(self.made[node] + self.height));
        }
    }

    fn make(&mut self, node: usize, end: usize) {
        let rows = self.made[node]..end;
        let made = &self.segment.nodes[node];
        for (at, &input) in made.inputs.iter().enumerate() {
            self.request(input, made.needs(at, &rows).end);
        }
        // What is quantized was made with its input.
        let rows = self.made[node]..end;
        if rows.is_empty() {
            return;
        }
        let keep_from = self.read_from(node).clamp(self.pass.rows[node].start, self.made[node]);
        self.made[node] = end;
        let frees = self.pass.frees.iter().filter(|(stored, _)| made.inputs.contains(stored));
        let done_with = frees.map(|&(stored, row)| (stored, self.read_from(stored).min(row))).collect();
        self.steps.push(Step { node, rows, keep_from, done_with });
        // Quantized rows wait in a quarter of the memory.
        for at in 0..self.readers[node].len() {
            let (reader, _) = self.readers[node][at];
            if self.segment.is_quantization(reader) {
                self.request(reader, end.min(self.pass.rows[reader].end));
            }
        }
    }

    /// The first row of `node` that a consumer's next row reads; one past its last if no row of it is read any more.
    fn read_from(&self, node: usize) -> usize {
        let reading = self.readers[node].iter().filter(|(n, _)| self.made[*n] < self.pass.rows[*n].end);
        let first = reading.map(|&(n, at)| first_needed(self.segment, n, at, self.made[n])).min();
        first.unwrap_or(self.height_of(node))
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

/// Whether the rows of a node that the pass computes wait in a window: others read them, and they are not all stored.
pub(super) fn windowed(segment: &Segment, pass: &Pass, node: usize) -> bool {
    let stored = pass.stored_rows(node);
    !pass.rows[node].is_empty() && stored < segment.nodes[node].extent.height && !pass.aside.contains(&node)
}
#[cfg(test)]
mod tests {
    use diffused_kernels::{ConvShape, Enlarged};

    use super::super::passes::passes;
    use super::super::{Extent, RowNode, RowOp};
    use super::*;

    /// Twenty 3×3 convolutions one after the other, and a quantization before each but the first.
    fn deep() -> Segment {
        let extent = Extent { height: 100, width: 8, channels: 4 };
        let shape = ConvShape {
            batch: 1,
            height: 100,
            width: 8,
            kernel: 3,
            stride: 1,
            pad_end_only: false,
            enlarged: Enlarged::No,
        };
        let node = |n: usize| {
            let conv = RowOp::Conv { weight: format!("c{n}"), shape, half: None, relu: false, slopes: None };
            let op = if n == 0 { RowOp::Input } else { conv };
            let op = if n > 1 && n.is_multiple_of(2) { RowOp::Quantize } else { op };
            RowNode { op, inputs: n.checked_sub(1).into_iter().collect(), extent, weight_bytes: 0 }
        };
        Segment { nodes: (0..40).map(node).collect(), handed_out: true }
    }

    #[test]
    fn no_window_grows_with_the_segments_depth() {
        let segment = deep();
        let [pass] = &passes(&segment, &[0; 40])[..] else { panic!("one pass is enough") };
        for height in [1, 4, 32] {
            let steps = steps(&segment, pass, height, usize::MAX);
            let windows = window_rows(&segment, pass, &steps);
            // Two rows more than are made at once, for those above and below.
            assert!(windows[1..].iter().all(|rows| (height..=height + 2).contains(rows)), "{height}: {windows:?}");
            assert!(steps.iter().all(|step| step.rows.len() <= height));
            let made = |node| steps.iter().filter(|step| step.node == node).map(|step| step.rows.len()).sum::<usize>();
            assert!((1..40).all(|node| made(node) == 100));
        }
    }
}
