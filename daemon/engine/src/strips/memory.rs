//! The memory of a pass: `plan` adds up what `run` allocates, from one description.

use super::passes::Pass;
use super::steps::{Step, steps, window_rows, windowed};
use super::stored::band_rows;
use super::{RowNode, Segment};

/// What a pass holds beside the results that are stored between passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PassMemory {
    /// Rows of a strip.
    pub(super) height: usize,
    /// For each node, the rows that its window holds at most; 0 for a node without a window.
    pub(super) windows: Vec<usize>,
    /// For the rows that a step makes only to store them.
    pub(super) unwindowed: RowRoom,
    /// For the rows that a step, or the sums of a stored result, reads from what is stored.
    pub(super) copy: RowRoom,
}

/// Values that a buffer has room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RowRoom {
    /// f32 values.
    pub(super) values: usize,
    /// int8 values, and their scales.
    pub(super) q: usize,
    pub(super) scale: usize,
}

impl RowRoom {
    /// For `rows` rows of `node`.
    pub(super) fn of(node: &RowNode, rows: usize) -> RowRoom {
        match node.quantized() {
            true => RowRoom { values: 0, q: rows * node.extent.row(), scale: rows * node.extent.width },
            false => RowRoom { values: rows * node.extent.row(), q: 0, scale: 0 },
        }
    }

    fn max(self, other: RowRoom) -> RowRoom {
        RowRoom { values: self.values.max(other.values), q: self.q.max(other.q), scale: self.scale.max(other.scale) }
    }

    fn bytes(self) -> usize {
        (self.values + self.scale) * size_of::<f32>() + self.q
    }
}

impl PassMemory {
    /// For a pass of these steps in strips of `height` rows.
    pub(super) fn new(segment: &Segment, pass: &Pass, steps: &[Step], height: usize) -> PassMemory {
        let most = |room: fn(&Segment, &Pass, &Step) -> RowRoom| {
            steps.iter().map(|step| room(segment, pass, step)).fold(RowRoom::default(), RowRoom::max)
        };
        // Without steps the pass only sums up a result that is stored already.
        let summed = if steps.is_empty() { height } else { 0 };
        PassMemory {
            height,
            windows: window_rows(segment, pass, steps),
            unwindowed: most(unwindowed),
            copy: most(copied).max(RowRoom::of(&segment.nodes[pass.target], summed)),
        }
    }

    /// Bytes of all buffers and of the matrices that the pass holds.
    pub(super) fn bytes(&self, segment: &Segment, pass: &Pass) -> usize {
        let windows: usize = self.windows.iter().zip(&segment.nodes).map(|(rows, node)| rows * node.row_bytes()).sum();
        let matrices: usize = held_matrices(segment, pass).map(|(n, _)| segment.nodes[n].weight_bytes).sum();
        windows + matrices + self.unwindowed.bytes() + self.copy.bytes()
    }
}

/// The nodes whose matrices a pass holds from its first step to its last, with the matrices' names.
pub(super) fn held_matrices<'a>(segment: &'a Segment, pass: &'a Pass) -> impl Iterator<Item = (usize, &'a str)> {
    pass.active().filter_map(|n| Some((n, segment.nodes[n].weight()?)))
}

/// What a step copies from what is stored: rows of a convolution's first input (a residual's go where the result comes).
fn copied(segment: &Segment, pass: &Pass, step: &Step) -> RowRoom {
    let node = &segment.nodes[step.node];
    let Some(&input) = node.inputs.first().filter(|_| node.weight().is_some()) else { return RowRoom::default() };
    let rows = node.needs(0, &step.rows);
    match windowed(segment, pass, input) && rows.start >= pass.rows[input].start {
        true => RowRoom::default(),
        false => RowRoom::of(&segment.nodes[input], rows.len()),
    }
}

/// What a step makes only to store it.
fn unwindowed(segment: &Segment, pass: &Pass, step: &Step) -> RowRoom {
    let rows = if windowed(segment, pass, step.node) { 0 } else { step.rows.len() };
    RowRoom::of(&segment.nodes[step.node], rows)
}

/// The rows that are stored of each node.
#[derive(Debug)]
pub(super) struct StoredBytes {
    /// Of each node the first row that is held, and the row before which they are.
    rows: Vec<(usize, usize)>,
}

impl StoredBytes {
    /// Before the first pass: the segment's input.
    pub(super) fn new(segment: &Segment) -> StoredBytes {
        let held = |node: &RowNode| (0, if node.is_input() { node.extent.height } else { 0 });
        StoredBytes { rows: segment.nodes.iter().map(held).collect() }
    }

    /// Bytes that are stored at the worst moment of a pass, at most.
    ///
    /// What the pass stores grows and what it frees shrinks in proportion to the rows done, each from some row on and up
    /// to some row: so the most is held where one of them begins or ends.
    pub(super) fn most(&self, segment: &Segment, pass: &Pass, steady: &Steady) -> usize {
        let before: usize = (0..segment.nodes.len()).map(|n| self.bytes(segment, n)).sum();
        let target = segment.nodes[pass.target].extent.height;
        let moments = |(n, rows): (usize, [usize; 2])| {
            let height = segment.nodes[n].extent.height;
            rows.into_iter().flat_map(move |row| [row * target / height, (row * target).div_ceil(height)])
        };
        let grows = pass.stores.iter().map(|&(n, end)| (n, [0, end.saturating_sub(steady.ahead(segment, n))]));
        let shrinks = pass.frees.iter().map(|&(n, row)| {
            let behind = steady.behind(segment, n);
            (n, [self.rows[n].0 + behind, row + behind])
        });
        let moments = grows.chain(shrinks).flat_map(moments).chain([0, target]).map(|moment| moment.min(target));
        let at = |moment: usize| {
            let rows = |n: usize| moment * segment.nodes[n].extent.height / target;
            let stored = pass
                .stores
                .iter()
                .map(|&(n, end)| end.min(rows(n) + 1 + steady.ahead(segment, n)) * segment.nodes[n].stored_row_bytes());
            let freed = pass.frees.iter().map(|&(n, row)| {
                let (first, end) = self.rows[n];
                let row = row.min(end).min(rows(n).saturating_sub(steady.behind(segment, n)));
                row.saturating_sub(first) * segment.nodes[n].stored_row_bytes()
            });
            (before + stored.sum::<usize>()).saturating_sub(freed.sum())
        };
        moments.map(at).max().unwrap_or(before)
    }

    /// Takes the pass for done.
    pub(super) fn after(&mut self, pass: &Pass) {
        pass.stores.iter().for_each(|&(n, end)| self.rows[n].1 = end);
        pass.frees.iter().for_each(|&(n, row)| self.free(n, row));
    }

    fn free(&mut self, n: usize, row: usize) {
        self.rows[n].0 = self.rows[n].0.max(row);
    }

    fn bytes(&self, segment: &Segment, n: usize) -> usize {
        let ((first, end), node) = (self.rows[n], &segment.nodes[n]);
        // The band of the first row is there as a whole.
        let first = if first < end { first / band_rows(node) * band_rows(node) } else { end };
        (end - first) * node.stored_row_bytes()
    }
}

/// Strips of a pass that are looked at: after these no buffer grows any more.
const STEADY: usize = 8;
/// And so many rows, where strips are low.
const STEADY_ROWS: usize = 64;

/// What a pass is like once it is under way, whatever rows it stores or leaves out.
#[derive(Debug)]
pub(super) struct Steady {
    /// Bytes that it holds beside what is stored.
    pub(super) work: usize,
    /// Of each node the rows that are made before the target's, at most, and those that are still read after it.
    out_of_step: Vec<(usize, usize)>,
}

/// What the nodes of a pass are to it, as far as that decides what it is like.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PassKind {
    target: usize,
    height: usize,
    nodes: Vec<NodeKind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum NodeKind {
    NotComputed,
    /// Others read it from its window, or from what is stored of its upper rows.
    Computed {
        partly_stored: bool,
    },
    /// Others read it from what is stored.
    Stored,
    Aside,
}

impl PassKind {
    pub(super) fn new(segment: &Segment, pass: &Pass, height: usize) -> PassKind {
        let kind = |n: usize| match () {
            () if pass.rows[n].is_empty() => NodeKind::NotComputed,
            () if pass.aside.contains(&n) => NodeKind::Aside,
            () if !windowed(segment, pass, n) => NodeKind::Stored,
            () => NodeKind::Computed { partly_stored: pass.rows[n].start > 0 },
        };
        PassKind { target: pass.target, height, nodes: (0..segment.nodes.len()).map(kind).collect() }
    }

    /// What such passes are like.
    pub(super) fn steady(&self, segment: &Segment) -> Steady {
        let numbers = || 0..segment.nodes.len();
        let of_kind = |wanted: NodeKind| numbers().filter(move |&n| self.nodes[n] == wanted);
        let height = |n: usize| segment.nodes[n].extent.height;
        let is_computed = |n: usize| self.nodes[n] != NodeKind::NotComputed;
        // All of them from the first row on.
        let pass = Pass {
            target: self.target,
            rows: numbers().map(|n| 0..if is_computed(n) { height(n) } else { 0 }).collect(),
            aside: of_kind(NodeKind::Aside).collect(),
            stores: of_kind(NodeKind::Stored).map(|n| (n, height(n))).collect(),
            sums: Vec::new(),
            frees: numbers().map(|n| (n, height(n))).collect(),
        };
        let steps = steps(segment, &pass, self.height, STEADY.max(STEADY_ROWS / self.height));
        let memory = PassMemory::new(segment, &pass, &steps, self.height);
        let copies = |reader: usize| is_computed(reader) && segment.nodes[reader].weight().is_some();
        let straddling = of_kind(NodeKind::Computed { partly_stored: true })
            .filter(|&n| segment.readers(n).any(copies))
            .map(|n| RowRoom::of(&segment.nodes[n], self.height + 2).bytes());
        let work = memory.bytes(segment, &pass) + straddling.max().unwrap_or(0);
        let mut out_of_step = out_of_step(segment, &pass, &steps);
        // What is made aside from stored rows is made after the target's.
        pass.aside.iter().for_each(|&n| out_of_step[segment.nodes[n].inputs[0]].1 += self.height);
        Steady { work, out_of_step }
    }
}

/// Of each node the rows by which it is made before the target's rows, and by which it is still read after them, at
/// most.
fn out_of_step(segment: &Segment, pass: &Pass, steps: &[Step]) -> Vec<(usize, usize)> {
    let height = |n: usize| segment.nodes[n].extent.height;
    let mut most = vec![(0, 0); segment.nodes.len()];
    let (mut made, mut read) = (vec![0; segment.nodes.len()], vec![0; segment.nodes.len()]);
    for step in steps {
        made[step.node] = step.rows.end;
        step.done_with.iter().for_each(|&(n, row)| read[n] = row);
        for n in 0..segment.nodes.len() {
            let done = made[pass.target] * height(n) / height(pass.target);
            most[n].0 = most[n].0.max(made[n].saturating_sub(done));
            most[n].1 = most[n].1.max(done.saturating_sub(read[n]));
        }
    }
    most
}

impl Steady {
    /// Rows of `n` whose memory is there before the target's rows are made.
    fn ahead(&self, segment: &Segment, n: usize) -> usize {
        self.out_of_step[n].0 + band_rows(&segment.nodes[n])
    }

    /// Rows of `n` whose memory is still there after the target's rows are made.
    fn behind(&self, segment: &Segment, n: usize) -> usize {
        self.out_of_step[n].1 + band_rows(&segment.nodes[n])
    }
}
