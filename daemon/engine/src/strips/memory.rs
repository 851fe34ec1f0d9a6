//! The buffers of a pass: `plan` adds up what `run` allocates, from one description.

use super::Segment;
use super::passes::Pass;
use super::steps::{Step, window_rows, windowed};

/// What a pass holds beside the results that are stored between passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PassMemory {
    /// For each node, the rows that its window holds at most; 0 for a node without a window.
    pub(super) windows: Vec<usize>,
    /// f32 values of the rows that a step makes only to store them.
    pub(super) unwindowed: usize,
    /// f32 values of the rows that a step, or the sums of a stored result, reads from what is stored.
    pub(super) copy: usize,
}

impl PassMemory {
    /// For a pass of these steps in strips of `height` rows.
    pub(super) fn new(segment: &Segment, pass: &Pass, steps: &[Step], height: usize) -> PassMemory {
        let most =
            |values: fn(&Segment, &Pass, &Step) -> usize| steps.iter().map(|step| values(segment, pass, step)).max();
        // Without steps the pass only sums up a result that is stored already.
        let summed = height * segment.nodes[pass.target].extent.row();
        PassMemory {
            windows: window_rows(segment, pass, steps),
            unwindowed: most(unwindowed_values).unwrap_or(0),
            copy: most(copied_values).unwrap_or(summed),
        }
    }

    /// Bytes of all buffers and of the matrices that the pass holds.
    pub(super) fn bytes(&self, segment: &Segment, pass: &Pass) -> usize {
        let windows: usize = self.windows.iter().zip(&segment.nodes).map(|(rows, node)| rows * node.row_bytes()).sum();
        let matrices: usize = held_matrices(segment, pass).map(|(n, _)| segment.nodes[n].weight_bytes).sum();
        windows + matrices + (self.unwindowed + self.copy) * size_of::<f32>()
    }
}

/// The nodes whose matrices a pass holds from its first step to its last, with the matrices' names.
pub(super) fn held_matrices<'a>(segment: &'a Segment, pass: &'a Pass) -> impl Iterator<Item = (usize, &'a str)> {
    pass.active.iter().filter_map(|&n| Some((n, segment.nodes[n].weight()?)))
}

/// Values that a step copies from what is stored: its first input's (a residual's go where the result comes).
fn copied_values(segment: &Segment, pass: &Pass, step: &Step) -> usize {
    let node = &segment.nodes[step.node];
    let first = node.inputs.first().filter(|&&input| !windowed(segment, pass, input));
    first.map_or(0, |&input| node.needs(0, &step.rows).len() * segment.nodes[input].extent.row())
}

/// Values that a step makes only to store them.
fn unwindowed_values(segment: &Segment, pass: &Pass, step: &Step) -> usize {
    let rows = if windowed(segment, pass, step.node) { 0 } else { step.rows.len() };
    rows * segment.nodes[step.node].extent.row()
}
