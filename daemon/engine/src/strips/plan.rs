//! Chooses what a segment stores between passes and how high its strips are, so that it fits a budget with little extra work.

use super::passes::{Pass, passes};
use super::steps::{Step, steps, window_rows, windowed};
use super::{Op, Segment};

/// Strip heights that are tried, in rows of a pass's target.
const HEIGHTS: [usize; 4] = [32, 16, 8, 4];
/// Strips after which windows no longer grow.
const STEADY: usize = 8;

/// How a segment is run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// The nodes that are stored between passes.
    pub(super) stored: Vec<bool>,
    /// Rows of a strip.
    pub(super) height: usize,
    /// Bytes held at the worst moment, the source and the result included.
    pub(crate) peak: usize,
    /// Multiply-adds of all passes.
    pub(crate) macs: u64,
}

/// The plan that costs the least arithmetic among those found within `budget` bytes; where none is, the smallest one.
pub(crate) fn plan(segment: &Segment, budget: usize) -> Plan {
    let mut stored = vec![false; segment.nodes.len()];
    segment.candidates().for_each(|n| stored[n] = true);
    let mut best = cheapest_height(segment, &stored, budget);
    while best.peak > budget {
        let dropped = |n: usize| {
            let mut fewer = best.stored.clone();
            fewer[n] = false;
            cheapest_height(segment, &fewer, budget)
        };
        let smaller = segment.candidates().filter(|&n| best.stored[n]).map(dropped).filter(|p| gain(&best, p) > 0.0);
        match smaller.max_by(|a, b| gain(&best, a).total_cmp(&gain(&best, b))) {
            Some(next) => best = next,
            None => break,
        }
    }
    best
}

/// Bytes saved per extra multiply-add: what fits is judged by its work alone.
fn gain(from: &Plan, to: &Plan) -> f64 {
    let saved = from.peak.saturating_sub(to.peak) as f64;
    saved / (1.0 + to.macs.saturating_sub(from.macs) as f64)
}

/// The highest strips within `budget`, else the lowest.
fn cheapest_height(segment: &Segment, stored: &[bool], budget: usize) -> Plan {
    let passes = passes(segment, stored);
    let macs = passes.iter().flat_map(|pass| &pass.active).map(|&n| node_macs(segment, n)).sum();
    let of = |height| Plan { stored: stored.to_vec(), height, peak: peak(segment, &passes, height), macs };
    let mut plans = HEIGHTS.into_iter().map(of);
    plans.find(|plan| plan.peak <= budget).unwrap_or_else(|| of(HEIGHTS[HEIGHTS.len() - 1]))
}

fn node_macs(segment: &Segment, n: usize) -> u64 {
    let node = &segment.nodes[n];
    node.row_macs(&segment.nodes) * node.size.height as u64
}

/// Bytes held at the worst moment of all passes.
fn peak(segment: &Segment, passes: &[Pass], height: usize) -> usize {
    let bytes = |n: &usize| segment.nodes[*n].stored_bytes();
    let mut live: usize =
        (0..segment.nodes.len()).filter(|&n| segment.nodes[n].op == Op::Source).map(|n| bytes(&n)).sum();
    let mut peak = 0;
    for pass in passes {
        let replaced: usize = pass.replaces.iter().map(|(_, old)| bytes(old)).sum();
        live += pass.stores.iter().map(bytes).sum::<usize>() - replaced;
        peak = peak.max(live + working(segment, pass, height));
        live -= pass.frees.iter().map(bytes).sum::<usize>() - replaced;
    }
    peak
}

/// Bytes that a pass needs beside what is stored: windows, weights and the rows in hand.
fn working(segment: &Segment, pass: &Pass, height: usize) -> usize {
    let steps = steps(segment, pass, height, STEADY);
    let rows = window_rows(segment, pass, &steps);
    let windows: usize = rows.iter().zip(&segment.nodes).map(|(rows, node)| rows * node.row_bytes()).sum();
    let weights: usize = pass.active.iter().map(|&n| segment.nodes[n].weight_bytes).sum();
    let in_hand = steps.iter().map(|step| in_hand(segment, pass, step)).max();
    let target = &segment.nodes[pass.target];
    windows + weights + in_hand.unwrap_or(height * target.size.row() * size_of::<f32>())
}

/// Bytes of a step's copies: rows read from what is stored, and rows made for it.
fn in_hand(segment: &Segment, pass: &Pass, step: &Step) -> usize {
    let node = &segment.nodes[step.node];
    let read =
        node.inputs.iter().enumerate().filter(|(_, input)| !windowed(segment, pass, **input)).map(|(at, &input)| {
            let rows = node.needs(at, &step.rows).len();
            rows * segment.nodes[input].size.row() * size_of::<f32>()
        });
    let made =
        if windowed(segment, pass, step.node) { 0 } else { step.rows.len() * node.size.row() * size_of::<f32>() };
    read.sum::<usize>() + made
}
