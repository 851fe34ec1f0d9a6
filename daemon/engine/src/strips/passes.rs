//! Which passes a segment needs when a given set of results is stored, and what each of them reads, computes and frees.

use super::{RowOp, Segment};

/// One run down the image.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Pass {
    /// The node that the pass makes from top to bottom; its rows are dropped unless it is stored or the result.
    pub(super) target: usize,
    /// The nodes that are computed, in order.
    pub(super) active: Vec<usize>,
    /// Of those, the ones that are stored.
    pub(super) stores: Vec<usize>,
    /// The group norms whose statistics are complete after this pass.
    pub(super) sums: Vec<usize>,
    /// StoredRows results that nothing needs after this pass: it frees them as it goes.
    pub(super) frees: Vec<usize>,
}

/// The passes of `segment` where the nodes in `stored` are stored.
pub(super) fn passes(segment: &Segment, stored: &[bool]) -> Vec<Pass> {
    let nodes = &segment.nodes;
    let last = nodes.len() - 1;
    let mut ready: Vec<bool> = nodes.iter().map(|node| node.op == RowOp::Input).collect();
    let mut summed = vec![false; nodes.len()];
    let mut passes = Vec::new();
    let norms = (0..nodes.len()).filter(|&n| matches!(nodes[n].op, RowOp::Norm { .. }));
    let targets: Vec<(Option<usize>, usize)> =
        norms.map(|norm| (Some(norm), nodes[norm].inputs[0])).chain([(None, last)]).collect();
    for (norm, target) in targets {
        if norm.is_some_and(|norm| summed[norm]) {
            continue;
        }
        let active = active(segment, target, &ready);
        let computed = |n: usize| active.contains(&n);
        let sums: Vec<usize> = (0..nodes.len())
            .filter(|&n| matches!(nodes[n].op, RowOp::Norm { .. }) && !summed[n])
            .filter(|&n| computed(nodes[n].inputs[0]) || nodes[n].inputs[0] == target)
            .collect();
        let stores: Vec<usize> =
            active.iter().copied().filter(|&n| stored[n] || n == last && !segment.handed_out).collect();
        sums.iter().for_each(|&n| summed[n] = true);
        stores.iter().for_each(|&n| ready[n] = true);
        passes.push(Pass { target, active, stores, sums, frees: Vec::new() });
    }
    free(segment, &mut passes);
    passes
}

/// What must be computed for `target`: back to what is ready.
fn active(segment: &Segment, target: usize, ready: &[bool]) -> Vec<usize> {
    let mut needed = vec![false; segment.nodes.len()];
    needed[target] = true;
    for n in (0..=target).rev().filter(|&n| !ready[n]) {
        if needed[n] {
            segment.nodes[n].inputs.iter().for_each(|&input| needed[input] = true);
        }
    }
    (0..=target).filter(|&n| needed[n] && !ready[n]).collect()
}

/// Finds each stored result's last reader.
fn free(segment: &Segment, passes: &mut [Pass]) {
    let mut freed = vec![false; segment.nodes.len()];
    for at in (0..passes.len()).rev() {
        let pass = &passes[at];
        let reads = |n: &usize| {
            let read = pass.active.iter().any(|&a| segment.nodes[a].inputs.contains(n));
            (read || pass.target == *n) && *n != segment.nodes.len() - 1
        };
        let kept = |n: &usize| {
            segment.nodes[*n].op == RowOp::Input || passes[..=at].iter().any(|earlier| earlier.stores.contains(n))
        };
        let frees: Vec<usize> = (0..segment.nodes.len()).filter(|n| !freed[*n] && reads(n) && kept(n)).collect();
        frees.iter().for_each(|&n| freed[n] = true);
        // What only its own pass reads need not be stored.
        let (passing, frees): (Vec<usize>, Vec<usize>) = frees.into_iter().partition(|n| pass.stores.contains(n));
        passes[at].stores.retain(|n| !passing.contains(n));
        passes[at].frees = frees;
    }
}
