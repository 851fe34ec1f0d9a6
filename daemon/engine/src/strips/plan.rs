//! Chooses what a segment stores between passes and how high its strips are, so that it fits a budget with little extra work.

use std::collections::HashMap;

use super::Segment;
use super::memory::{PassKind, PassMemory, Steady, StoredBytes};
use super::passes::{Pass, passes};
use super::steps::steps;

/// Strip heights that are tried for a pass, in rows of its target.
const HEIGHTS: [usize; 7] = [32, 24, 16, 12, 8, 6, 4];
/// The strip height that is left where none of them fits.
const LOWEST: usize = 2;
/// How close `smallest` comes, bytes.
const PRECISION: usize = 1 << 20;
/// Parts of an image's height: of a result so many are stored.
const PARTS: usize = 16;

/// How a segment is run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StripPlan {
    /// The passes in order, with their buffers.
    pub(super) passes: Vec<(Pass, PassMemory)>,
    /// Bytes held at the worst moment, the segment's input and result included.
    pub(crate) peak: usize,
    /// Multiply-adds of all passes.
    pub(crate) macs: u64,
}

impl StripPlan {
    fn new(segment: &Segment, choice: Choice) -> StripPlan {
        let Choice { stored, heights, peak, macs, .. } = choice;
        let with_memory = |(pass, height): (Pass, usize)| {
            let memory = PassMemory::new(segment, &pass, &steps(segment, &pass, height, usize::MAX), height);
            (pass, memory)
        };
        let passes = passes(segment, &stored).into_iter().zip(heights).map(with_memory).collect();
        StripPlan { passes, peak, macs }
    }
}

/// The plan that costs the least arithmetic among those found within `budget` bytes; where none is, the smallest one.
pub(crate) fn plan(segment: &Segment, budget: usize) -> StripPlan {
    let mut search = Search::new(segment);
    let choice = search.within(budget);
    let choice = if choice.excess == 0 { choice } else { search.smallest() };
    let choice = if choice.peak <= budget { search.best(choice, budget) } else { choice };
    let choice = search.highest(choice, budget);
    StripPlan::new(segment, choice)
}

/// The plan for the smallest budget that a plan is found for, to within `PRECISION`.
pub(crate) fn smallest(segment: &Segment) -> StripPlan {
    StripPlan::new(segment, Search::new(segment).smallest())
}

/// What a plan decides, and what it costs.
#[derive(Debug, Clone)]
struct Choice {
    /// The rows of each node that are stored between passes: those before this one.
    stored: Vec<usize>,
    /// Rows of a strip of each pass.
    heights: Vec<usize>,
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
    /// The nodes that are stored where there is room for all.
    primary: Vec<usize>,
    /// Nodes that it may pay to store together.
    together: Vec<Vec<usize>>,
    /// What passes are like.
    steady: HashMap<PassKind, Steady>,
}

impl<'a> Search<'a> {
    fn new(segment: &'a Segment) -> Search<'a> {
        let candidates: Vec<usize> = segment.candidates().collect();
        let stands_for_its_input = |n: usize| !candidates.contains(&segment.nodes[n].inputs[0]);
        let (primary, others): (Vec<usize>, Vec<usize>) =
            candidates.iter().partition(|&&n| !segment.is_quantization(n) || stands_for_its_input(n));
        // A shortcut's input, with the convolution beside the shortcut.
        let beside = |n: usize| {
            let norms = segment.readers(segment.nodes[n].inputs[0]).filter(|&reader| segment.nodes[reader].is_norm());
            norms.flat_map(|norm| segment.readers(norm)).chain([n]).collect()
        };
        // The results of blocks of one size, of which each takes the place of the one before it.
        let has_residual = |n: usize| segment.nodes[n].inputs.len() > 1;
        let blocks = candidates.iter().filter(|&&n| has_residual(n)).map(|&n| {
            let alike = |other: &usize| has_residual(*other) && segment.nodes[*other].extent == segment.nodes[n].extent;
            candidates.iter().copied().filter(alike).collect::<Vec<_>>()
        });
        let mut together: Vec<Vec<usize>> = candidates.iter().map(|&n| vec![n]).chain(blocks).collect();
        together.extend(others.into_iter().map(beside));
        together.dedup();
        Search { segment, primary, together, steady: HashMap::new() }
    }

    /// Stores everything, then as long as that does not fit drops what saves the most for the work that it costs.
    fn within(&mut self, budget: usize) -> Choice {
        let mut stored = vec![0; self.segment.nodes.len()];
        self.primary.iter().for_each(|&n| stored[n] = self.segment.nodes[n].extent.height);
        let mut best = self.lowest(stored, budget);
        while best.excess > 0 {
            let kept: Vec<usize> = self.primary.iter().copied().filter(|&n| best.stored[n] > 0).collect();
            let dropped = |&n: &usize| {
                let mut fewer = best.stored.clone();
                fewer[n] = 0;
                self.lowest(fewer, budget)
            };
            let smaller = kept.iter().map(dropped).filter(|p| gain(&best, p) > 0.0);
            match smaller.max_by(|a, b| gain(&best, a).total_cmp(&gain(&best, b))) {
                Some(next) => best = next,
                None => break,
            }
        }
        best
    }

    /// Fills the room, then tries what comes of it without each of the results that are stored in part.
    fn best(&mut self, from: Choice, budget: usize) -> Choice {
        let mut best = self.fill(from, budget, None);
        loop {
            let height = |n: usize| self.segment.nodes[n].extent.height;
            let partly: Vec<usize> =
                (0..best.stored.len()).filter(|&n| (1..height(n)).contains(&best.stored[n])).collect();
            let without = partly.into_iter().map(|n| {
                let mut stored = best.stored.clone();
                stored[n] = 0;
                let less = self.lowest(stored, budget);
                if less.excess > 0 {
                    return best.clone();
                }
                let without = self.fill(less, budget, Some(n));
                self.fill(without, budget, None)
            });
            match without.min_by_key(|choice| choice.macs).filter(|choice| choice.macs < best.macs) {
                Some(better) => best = better,
                None => return best,
            }
        }
    }

    /// Stores more rows as long as there is room, first those that save the most work; of one node none.
    fn fill(&mut self, mut best: Choice, budget: usize, except: Option<usize>) -> Choice {
        let mut together = self.together.clone();
        together.retain(|nodes| except.is_none_or(|node| !nodes.contains(&node)));
        loop {
            let fuller = together.iter().filter_map(|nodes| self.with_more_of(nodes, &best, budget));
            match fuller.min_by_key(|choice| choice.macs).filter(|choice| choice.macs < best.macs) {
                Some(next) => best = next,
                None => return best,
            }
        }
    }

    /// The choice that stores the most rows of `nodes`, and of the others as many as `from`.
    fn with_more_of(&mut self, nodes: &[usize], from: &Choice, budget: usize) -> Option<Choice> {
        let height = |n: usize| self.segment.nodes[n].extent.height;
        let least = nodes.iter().map(|&n| from.stored[n] * PARTS / height(n)).min()?;
        let (mut fits, mut too_many, mut found) = (least, PARTS + 1, None);
        while fits + 1 < too_many {
            let parts = (fits + too_many) / 2;
            let mut stored = from.stored.clone();
            for &n in nodes {
                stored[n] = stored[n].max(self.segment.nodes[n].extent.height * parts / PARTS);
            }
            let choice = self.lowest(stored, budget);
            if choice.excess == 0 {
                (fits, found) = (parts, Some(choice));
            } else {
                too_many = parts;
            }
        }
        found
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

    /// What storing so many rows comes to, in the lowest strips.
    fn lowest(&mut self, stored: Vec<usize>, budget: usize) -> Choice {
        let passes = passes(self.segment, &stored);
        let macs = passes.iter().map(|pass| pass_macs(self.segment, pass)).sum();
        let peaks = self.peaks(&passes, LOWEST);
        let excess = peaks.iter().map(|peak| peak.saturating_sub(budget)).sum();
        let heights = vec![LOWEST; passes.len()];
        Choice { stored, heights, peak: peaks.into_iter().max().unwrap_or(0), macs, excess }
    }

    /// The same with the highest strips within `budget`, of each pass for itself.
    fn highest(&mut self, mut choice: Choice, budget: usize) -> Choice {
        let passes = passes(self.segment, &choice.stored);
        let mut peaks = self.peaks(&passes, LOWEST);
        for height in HEIGHTS.into_iter().rev() {
            let higher = self.peaks(&passes, height).into_iter().zip(&mut choice.heights).zip(&mut peaks);
            for ((higher, chosen), peak) in higher.filter(|((higher, _), _)| *higher <= budget) {
                (*chosen, *peak) = (height, higher);
            }
        }
        Choice { peak: peaks.into_iter().max().unwrap_or(0), ..choice }
    }

    /// Bytes held at the worst moment of each pass.
    fn peaks(&mut self, passes: &[Pass], height: usize) -> Vec<usize> {
        let mut stored = StoredBytes::new(self.segment);
        let mut peaks = Vec::new();
        for pass in passes {
            let kind = PassKind::new(self.segment, pass, height);
            let segment = self.segment;
            let steady = self.steady.entry(kind).or_insert_with_key(|kind| kind.steady(segment));
            peaks.push(steady.work + stored.most(segment, pass, steady));
            stored.after(pass);
        }
        peaks
    }
}

/// Bytes saved where there are too many, per extra multiply-add: what fits is judged by its work alone.
fn gain(from: &Choice, to: &Choice) -> f64 {
    let saved = from.excess.saturating_sub(to.excess) as f64;
    saved / (1.0 + to.macs.saturating_sub(from.macs) as f64)
}

fn pass_macs(segment: &Segment, pass: &Pass) -> u64 {
    let macs = |n: usize| segment.nodes[n].row_macs(&segment.nodes) * pass.rows[n].len() as u64;
    pass.active().map(macs).sum()
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::super::RowNode;
    use super::super::stored::band_rows;
    use super::*;
    use crate::network::Network;

    fn segment(network: &'static str, shape: Vec<usize>, output: Vec<usize>) -> Segment {
        Network::demo(network).demand_of(shape, output).strips.unwrap()
    }

    /// Bytes that are stored at the worst moment of a pass, step by step, of nodes whose rows `held` are stored before it.
    fn stored_bytes(segment: &Segment, pass: &Pass, height: usize, held: &mut [Range<usize>]) -> usize {
        let bytes = |held: &[Range<usize>]| -> usize {
            let of = |(node, rows): (&RowNode, &Range<usize>)| rows.len() * node.stored_row_bytes();
            segment.nodes.iter().zip(held).map(of).sum()
        };
        let mut most = bytes(held);
        for step in steps(segment, pass, height, usize::MAX) {
            let band = band_rows(&segment.nodes[step.node]);
            let end = pass.stored_rows(step.node);
            if end > 0 {
                held[step.node].end = step.rows.end.next_multiple_of(band).min(end);
            }
            most = most.max(bytes(held));
            for (n, row) in step.done_with {
                let band = band_rows(&segment.nodes[n]);
                let row = if row >= held[n].end { held[n].end } else { row / band * band };
                held[n].start = held[n].start.max(row);
            }
        }
        most
    }

    #[test]
    fn passes_hold_no_more_than_was_planned() {
        let (latents, image, moments) = (vec![1, 45, 64, 4], vec![1, 360, 512, 3], vec![1, 45, 64, 8]);
        for (network, from, to) in [("vae_decoder", latents, image.clone()), ("vae_encoder", image, moments)] {
            let segment = segment(network, from, to);
            let (least, most) = (smallest(&segment), plan(&segment, usize::MAX));
            let mut in_part = 0;
            for budget in (least.peak..most.peak + PRECISION).step_by(2 * PRECISION) {
                let plan = plan(&segment, budget);
                let whole = |node: &RowNode| 0..if node.is_input() { node.extent.height } else { 0 };
                let mut held: Vec<Range<usize>> = segment.nodes.iter().map(whole).collect();
                for (pass, memory) in &plan.passes {
                    let stored = stored_bytes(&segment, pass, memory.height, &mut held);
                    let work = memory.bytes(&segment, pass);
                    assert!(stored + work <= budget, "{network}, {budget} bytes: {stored} and {work}, {pass:?}");
                    in_part += pass.stores.iter().filter(|&&(n, end)| end < segment.nodes[n].extent.height).count();
                }
            }
            assert!(in_part > 0, "{network}");
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
