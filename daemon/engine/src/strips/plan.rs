//! Chooses what a segment stores between passes and how high its strips are, so that it fits a budget with little extra work.

use std::collections::HashMap;

use super::memory::PassMemory;
use super::passes::{Pass, passes};
use super::steps::{Step, steps};
use super::stored::band_rows;
use super::{RowOp, Segment};

/// Strip heights that are tried, in rows of a pass's target.
const HEIGHTS: [usize; 4] = [32, 16, 8, 4];
/// Strips of a pass that the search looks at: after these no buffer grows any more.
const STEADY: usize = 8;
/// How close `smallest` comes, bytes.
const PRECISION: usize = 1 << 20;

/// How a segment is run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StripPlan {
    /// The passes in order, with their buffers.
    pub(super) passes: Vec<(Pass, PassMemory)>,
    /// Rows of a strip.
    pub(super) height: usize,
    /// Bytes held at the worst moment, the segment's input and result included.
    pub(crate) peak: usize,
    /// Multiply-adds of all passes.
    pub(crate) macs: u64,
}

impl StripPlan {
    fn new(segment: &Segment, choice: Choice) -> StripPlan {
        let Choice { stored, height, peak, macs, .. } = choice;
        let with_memory = |pass: Pass| {
            let memory = PassMemory::new(segment, &pass, &steps(segment, &pass, height, usize::MAX), height);
            (pass, memory)
        };
        StripPlan { passes: passes(segment, &stored).into_iter().map(with_memory).collect(), height, peak, macs }
    }
}

/// The plan that costs the least arithmetic among those found within `budget` bytes; where none is, the smallest one.
pub(crate) fn plan(segment: &Segment, budget: usize) -> StripPlan {
    let mut search = Search::new(segment);
    let choice = search.within(budget);
    StripPlan::new(segment, if choice.excess == 0 { choice } else { search.smallest() })
}

/// The plan for the smallest budget that a plan is found for, to within `PRECISION`.
pub(crate) fn smallest(segment: &Segment) -> StripPlan {
    StripPlan::new(segment, Search::new(segment).smallest())
}

/// What a plan decides, and what it costs.
#[derive(Debug, Clone)]
struct Choice {
    /// The nodes that are stored between passes.
    stored: Vec<bool>,
    /// Rows of a strip.
    height: usize,
    /// Bytes held at the worst moment.
    peak: usize,
    /// Multiply-adds of all passes.
    macs: u64,
    /// Bytes past the budget, of all passes together: unlike the peak it shrinks with each pass that gets smaller.
    excess: usize,
}

/// Tries choices. Most differ in one or two passes, so what a pass needs is remembered.
struct Search<'a> {
    segment: &'a Segment,
    /// Bytes that a pass needs beside what is stored, by its strips' height.
    work: HashMap<(Pass, usize), usize>,
}

impl<'a> Search<'a> {
    fn new(segment: &'a Segment) -> Search<'a> {
        Search { segment, work: HashMap::new() }
    }

    /// Stores everything, then as long as that does not fit drops what saves the most for the work that it costs.
    fn within(&mut self, budget: usize) -> Choice {
        let candidates: Vec<usize> = self.segment.candidates().collect();
        let mut stored = vec![false; self.segment.nodes.len()];
        candidates.iter().for_each(|&n| stored[n] = true);
        let mut best = self.highest(&stored, budget);
        while best.excess > 0 {
            let dropped = |&n: &usize| {
                let mut fewer = best.stored.clone();
                fewer[n] = false;
                self.highest(&fewer, budget)
            };
            let smaller = candidates.iter().filter(|&&n| best.stored[n]).map(dropped).filter(|p| gain(&best, p) > 0.0);
            match smaller.max_by(|a, b| gain(&best, a).total_cmp(&gain(&best, b))) {
                Some(next) => best = next,
                None => break,
            }
        }
        best
    }

    fn smallest(&mut self) -> Choice {
        let mut best = self.within(usize::MAX);
        let mut too_small = 0;
        while best.peak - too_small > PRECISION {
            let budget = too_small + (best.peak - too_small) / 2;
            let next = self.within(budget);
            if next.peak <= budget { best = next } else { too_small = budget }
        }
        best
    }

    /// The plan with the highest strips within `budget`, else with the lowest.
    fn highest(&mut self, stored: &[bool], budget: usize) -> Choice {
        let passes = passes(self.segment, stored);
        let macs = passes.iter().flat_map(|pass| &pass.active).map(|&n| node_macs(self.segment, n)).sum();
        let mut of = |height| {
            let peaks = self.peaks(&passes, height);
            let excess = peaks.iter().map(|peak| peak.saturating_sub(budget)).sum();
            Choice { stored: stored.to_vec(), height, peak: peaks.into_iter().max().unwrap_or(0), macs, excess }
        };
        let plan = HEIGHTS.into_iter().map(&mut of).find(|plan| plan.excess == 0);
        plan.unwrap_or_else(|| of(HEIGHTS[HEIGHTS.len() - 1]))
    }

    /// Bytes held at the worst moment of each pass.
    ///
    /// What a pass stores grows while what it frees shrinks, both in proportion to the rows done: so the most is held at
    /// its beginning or at its end, give or take the bands and rows by which they are out of step.
    fn peaks(&mut self, passes: &[Pass], height: usize) -> Vec<usize> {
        let nodes = &self.segment.nodes;
        let bytes = |n: &usize| nodes[*n].stored_bytes();
        let sources = (0..nodes.len()).filter(|&n| nodes[n].op == RowOp::Input);
        let mut live: usize = sources.map(|n| bytes(&n)).sum();
        let mut peaks = Vec::new();
        for pass in passes {
            let before = live;
            live += pass.stores.iter().map(bytes).sum::<usize>();
            live -= pass.frees.iter().map(bytes).sum::<usize>();
            peaks.push(before.max(live) + self.work(pass, height));
        }
        peaks
    }

    fn work(&mut self, pass: &Pass, height: usize) -> usize {
        let segment = self.segment;
        *self.work.entry((pass.clone(), height)).or_insert_with(|| {
            let steps = steps(segment, pass, height, STEADY);
            out_of_step(segment, pass, &steps) + PassMemory::new(segment, pass, &steps, height).bytes(segment, pass)
        })
    }
}

/// Bytes saved where there are too many, per extra multiply-add: what fits is judged by its work alone.
fn gain(from: &Choice, to: &Choice) -> f64 {
    let saved = from.excess.saturating_sub(to.excess) as f64;
    saved / (1.0 + to.macs.saturating_sub(from.macs) as f64)
}

fn node_macs(segment: &Segment, n: usize) -> u64 {
    let node = &segment.nodes[n];
    node.row_macs(&segment.nodes) * node.extent.height as u64
}

/// Bytes by which what a pass stores is ahead of its target's rows, and what it frees behind them, at most.
fn out_of_step(segment: &Segment, pass: &Pass, steps: &[Step]) -> usize {
    let node = |n: usize| &segment.nodes[n];
    let mut rows: Vec<usize> = vec![0; segment.nodes.len()];
    let mut most = 0.0f64;
    for step in steps {
        rows[step.node] = step.rows.end;
        step.done_with.iter().for_each(|&(n, row)| rows[n] = row / band_rows(node(n)) * band_rows(node(n)));
        let done = rows[pass.target] as f64 / node(pass.target).extent.height as f64;
        let ahead = |&n: &usize| (rows[n] as f64 / node(n).extent.height as f64 - done) * node(n).stored_bytes() as f64;
        let ahead = pass.stores.iter().map(ahead).sum::<f64>() - pass.frees.iter().map(ahead).sum::<f64>();
        most = most.max(ahead);
    }
    most as usize
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::bundle::{Bundle, Source};
    use crate::graph::{InputShape, Signature};
    use crate::network::Network;

    fn segment(network: &'static str, shape: Vec<usize>, output: Vec<usize>) -> Segment {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo");
        let mut network = Network::open(&Bundle::open(Source::Folder(folder)).unwrap(), network, 1).unwrap();
        network.demand(&Signature { inputs: vec![InputShape::F32(shape)], output }, 1).unwrap().strips.unwrap()
    }

    #[test]
    fn the_first_strips_of_a_pass_need_as_much_as_all() {
        let (latents, image, moments) = (vec![1, 45, 64, 4], vec![1, 360, 512, 3], vec![1, 45, 64, 8]);
        for (network, from, to) in [("vae_decoder", latents, image.clone()), ("vae_encoder", image, moments)] {
            let segment = segment(network, from, to);
            let (least, most) = (smallest(&segment), plan(&segment, usize::MAX));
            for budget in (least.peak..most.peak + PRECISION).step_by(4 * PRECISION) {
                let plan = plan(&segment, budget);
                for (pass, memory) in &plan.passes {
                    let first = steps(&segment, pass, plan.height, STEADY);
                    let first = PassMemory::new(&segment, pass, &first, plan.height);
                    assert_eq!(*memory, first, "{network}, {budget} bytes, {pass:?}");
                }
            }
        }
    }

    #[test]
    fn every_budget_from_the_smallest_on_is_kept_and_more_memory_costs_no_more_work() {
        let segment = segment("vae_decoder", vec![1, 64, 64, 4], vec![1, 512, 512, 3]);
        let (least, most) = (smallest(&segment), plan(&segment, usize::MAX));
        assert!(least.peak * 2 < most.peak && least.macs > most.macs, "{least:?}, {most:?}");
        for budget in (least.peak..most.peak + PRECISION).step_by(PRECISION / 2) {
            let plan = plan(&segment, budget);
            assert!(plan.peak <= budget && plan.macs <= least.macs, "{budget}: {plan:?}");
        }
    }
}
