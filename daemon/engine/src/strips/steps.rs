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

/// The steps of a pass that makes its target `height` rows at a time, of which the first `limit` strips.
///
/// Where the result is handed out no step makes more rows than that. The first strip of a deep segment needs many rows of
/// its first nodes; where nothing is stored, windows that hold them all would be most of what is held.
pub(super) fn steps(segment: &Segment, pass: &Pass, height: usize, limit: usize) -> Vec<Step> {
    let most = if segment.handed_out { height } else { usize::MAX };
    let mut walk = Walk { segment, pass, most, made: vec![0; segment.nodes.len()], steps: Vec::new() };
    let rows = segment.nodes[pass.target].extent.height;
    for end in (0..rows).step_by(height).map(|start| (start + height).min(rows)).take(limit) {
        walk.request(pass.target, end);
    }
    walk.steps
}

struct Walk<'a> {
    segment: &'a Segment,
    pass: &'a Pass,
    /// Rows of a step.
    most: usize,
    made: Vec<usize>,
    steps: Vec<Step>,
}

impl Walk<'_> {
    /// Makes the rows of `node` up to `end`, and what they need before.
    fn request(&mut self, node: usize, end: usize) {
        while self.made[node] < end && self.pass.active.contains(&node) {
            self.make(node, end.min(self.made[node].saturating_add(self.most)));
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

#[cfg(test)]
mod tests {
    use diffused_kernels::ConvShape;

    use super::super::passes::passes;
    use super::super::{Extent, RowNode};
    use super::*;

    /// Twenty 3×3 convolutions one after the other, and a quantization before each but the first.
    fn deep() -> Segment {
        let extent = Extent { height: 100, width: 8, channels: 4 };
        let shape =
            ConvShape { batch: 1, height: 100, width: 8, kernel: 3, stride: 1, pad_end_only: false, enlarged: None };
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
        let [pass] = &passes(&segment, &[false; 40])[..] else { panic!("one pass is enough") };
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
