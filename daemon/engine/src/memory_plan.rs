//! Divides a memory budget: how much each stage needs, what of its weights stays in memory and what is read again each
//! step.
//!
//! Stages run one after the other, so each has the whole budget for itself. Activations come first, then a ring for
//! reading ahead; what is left holds weights, so that fewer are read again. A budget changes how often weights are
//! read, never what is computed.

mod table;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::hires::SamplingPass;
use crate::layer_kinds::WorkByKind;
use crate::request::Stage;
use crate::strips::{self, Segment};
use crate::weights::{Keep, Residency};
pub use table::{mib, sum_of_peaks, work_of};

/// What a network may hold while it runs, beside what it holds whatever the budget is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunBudget {
    /// Of its weights.
    pub weights: Residency,
    /// Bytes for the part that can run in strips; `None`: it runs whole.
    pub strips: Option<usize>,
    /// Bytes of activations that nothing uses and that are kept to be used again, beyond the worst moment's.
    pub spare: usize,
}

impl RunBudget {
    /// As much as it wants; all weights stay.
    pub fn ample() -> RunBudget {
        RunBudget { weights: Residency::ample(), strips: Some(usize::MAX), spare: 0 }
    }

    /// As much as it wants for activations; no weights stay.
    pub fn streamed() -> RunBudget {
        RunBudget { weights: Residency::streamed(), ..RunBudget::ample() }
    }
}

const MIB: u64 = 1 << 20;
/// What the process holds beside the engine's buffers while a stage runs: the code that it uses, parsed graphs, the
/// tokenizer.
const PROCESS: u64 = 12 * MIB;
/// What each worker thread holds: its stack, and what a kernel gathers and packs there.
const THREAD: u64 = MIB;
/// What the process holds while it opens a model and plans: then it uses much more of its code, and parsing graphs takes more
/// than keeping them. All of it is free before the first stage.
const OPENING: u64 = 24 * MIB;
/// The ring is no larger than this: reading ahead by more gains nothing.
const LARGEST_RING: u64 = 4 << 20;
/// Blocks that the ring holds at least: fewer are used up before the next ones arrive.
const RING_BLOCKS: u64 = 6;

/// What a process with so many worker threads holds beside the engine's buffers, bytes.
pub(crate) fn process(threads: usize) -> u64 {
    PROCESS + threads as u64 * THREAD
}

/// Of the buffers' bytes, the part that they take in memory beside their own: each begins on a page of its own, and
/// some are freed a moment after the next is taken. 1.6 % covers what was measured.
const SLACK: u64 = 64;

/// Bytes of memory that buffers of `bytes` bytes take.
fn with_slack(bytes: u64) -> u64 {
    bytes + bytes.div_ceil(SLACK)
}

/// The most bytes of buffers that take `memory` bytes: the inverse of `with_slack`, rounded down.
fn without_slack(memory: u64) -> u64 {
    memory - memory.div_ceil(SLACK + 1)
}

/// What a stage needs for images of a given size.
#[derive(Debug, Clone)]
pub(crate) struct Demand {
    /// Bytes of activations at the worst moment, outside of strips.
    pub(crate) activations: u64,
    /// Bytes of these that are held between runs.
    pub(crate) between_runs: u64,
    /// The part that runs in strips, if there is one.
    pub(crate) strips: Option<Segment>,
    /// Weights are still read ahead when that part runs; else the ring is free by then.
    pub(crate) ring_beside_strips: bool,
    /// Bytes of small tables, which stay in memory.
    pub(crate) tables: u64,
    /// Bytes that are held beside the network while it runs: of graphs, latents, embeddings, an upscaler's images.
    pub(crate) beside: u64,
    /// The matrices of each run in the order of their use, with their bytes.
    pub(crate) matrices: Vec<(Arc<str>, u64)>,
    /// Bytes of the matrices that are read ahead of the runs alone.
    pub(crate) weights_ahead: u64,
    /// Bytes of the largest block of a matrix.
    pub(crate) largest_block: u64,
    /// Multiply-adds of a run.
    pub(crate) work: WorkByKind,
}

impl Demand {
    /// Of two networks that run one after the other.
    pub(crate) fn then(mut self, next: Demand) -> Demand {
        self.matrices.extend(next.matrices);
        Demand {
            activations: self.activations.max(next.activations),
            between_runs: 0,
            ring_beside_strips: true,
            strips: self.strips.or(next.strips),
            tables: self.tables + next.tables,
            beside: self.beside.max(next.beside),
            matrices: self.matrices,
            weights_ahead: self.weights_ahead + next.weights_ahead,
            largest_block: self.largest_block.max(next.largest_block),
            work: self.work + next.work,
        }
    }

    /// Of one network of which runs take turns that need different things; the matrices of the first come first.
    pub(crate) fn in_turns(mut self, other: Demand) -> Demand {
        let names: HashSet<Arc<str>> = self.matrices.iter().map(|(name, _)| name.clone()).collect();
        self.matrices.extend(other.matrices.into_iter().filter(|(name, _)| !names.contains(name)));
        Demand {
            activations: self.activations.max(other.activations),
            between_runs: self.between_runs.max(other.between_runs),
            strips: self.strips.or(other.strips),
            ring_beside_strips: true,
            tables: self.tables.max(other.tables),
            beside: self.beside + other.beside,
            matrices: self.matrices,
            weights_ahead: self.weights_ahead.max(other.weights_ahead),
            largest_block: self.largest_block.max(other.largest_block),
            work: if self.work.total() < other.work.total() { other.work } else { self.work },
        }
    }

    /// Lets a network run between the runs of this one, in the room of its activations: how that may use the memory.
    /// No weights stay.
    pub(crate) fn make_room_for(&mut self, other: &Demand) -> RunBudget {
        self.activations = self.activations.max(self.between_runs + other.smallest());
        let ring = other.least_ring();
        let strips = Some(other.strip_room(self.activations - self.between_runs - ring));
        RunBudget { weights: Residency { keep: Keep::Only(HashSet::new()), ring: ring as usize }, strips, spare: 0 }
    }

    /// Bytes that are held from the stage's beginning to its end.
    fn fixed(&self) -> u64 {
        self.tables + self.beside
    }

    /// Bytes of the matrices of each run.
    fn weights(&self) -> u64 {
        self.matrices.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Bytes of all matrices, those of strips included, which are read for each pass where they are not kept.
    fn all_weights(&self) -> u64 {
        self.weights() + self.weights_ahead + self.strips.as_ref().map_or(0, Segment::weight_bytes)
    }

    /// The smallest ring.
    fn least_ring(&self) -> u64 {
        RING_BLOCKS * self.largest_block
    }

    /// The largest ring: reading ahead by more gains nothing.
    fn largest_ring(&self) -> u64 {
        if self.largest_block == 0 { 0 } else { LARGEST_RING.max(self.least_ring()) }
    }

    /// What strips take of the smallest ring.
    fn ring_in_strips(&self) -> u64 {
        if self.ring_beside_strips { 0 } else { self.least_ring() }
    }

    /// Activations and tables where `room` bytes are free for them beside the smallest ring; more if they do not fit.
    fn activations(&self, room: u64) -> u64 {
        self.beside_ring(|segment| strips::plan(segment, self.strip_room(room)).peak)
    }

    /// The same, where strips take so many bytes.
    fn beside_ring(&self, strips: impl FnOnce(&Segment) -> usize) -> u64 {
        let strips = self.strips.as_ref().map_or(0, |segment| with_slack(self.fixed() + strips(segment) as u64));
        with_slack(self.fixed() + self.activations).max(strips.saturating_sub(self.ring_in_strips()))
    }

    /// What is left for strips where `room` bytes are free beside the smallest ring.
    fn strip_room(&self, room: u64) -> usize {
        let room = without_slack(room.saturating_add(self.ring_in_strips()));
        usize::try_from(room.saturating_sub(self.fixed())).unwrap_or(usize::MAX)
    }

    /// The least memory that this stage can run in, beside the process's own.
    fn smallest(&self) -> u64 {
        self.beside_ring(|segment| strips::smallest(segment).peak) + self.least_ring()
    }
}

/// A stage of a painting.
#[derive(Debug, Clone)]
pub(crate) struct StageDemand {
    pub(crate) pass: SamplingPass,
    pub(crate) stage: Stage,
    /// What its network's runs need.
    pub(crate) demand: Demand,
    /// The multiply-adds of each run.
    pub(crate) macs: Vec<u64>,
    /// For a preview by the tiny decoder between two runs, if there is one.
    pub(crate) preview: Option<RunBudget>,
}

impl StageDemand {
    /// So many runs, all alike.
    pub(crate) fn new(pass: SamplingPass, stage: Stage, runs: usize, demand: Demand) -> StageDemand {
        StageDemand { pass, stage, macs: vec![demand.work.total(); runs], demand, preview: None }
    }

    /// Multiply-adds of all runs.
    pub(crate) fn work(&self) -> u64 {
        self.macs.iter().sum()
    }
}

/// How a stage uses its memory, bytes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StagePlan {
    /// Whether the image is at its larger size already.
    #[serde(skip_serializing_if = "SamplingPass::is_first")]
    pub pass: SamplingPass,
    /// The stage.
    pub stage: Stage,
    /// Activations at the worst moment, and small tables, beside the ring; of strips what they take beyond its room.
    pub activations: u64,
    /// Weights that stay in memory while the stage runs.
    pub resident: u64,
    /// Weights that are read in every run (sampling step).
    pub streamed: u64,
    /// Buffers for reading ahead. Strips that nothing is read after have their room.
    pub ring: u64,
    /// Everything, the rest of the process included.
    pub peak: u64,
    #[serde(skip)]
    pub(crate) budget: RunBudget,
    /// For a preview by the tiny decoder between two runs, if there is one.
    #[serde(skip)]
    pub(crate) preview: Option<RunBudget>,
    /// Multiply-adds of each run of the stage's network.
    #[serde(skip)]
    pub(crate) macs: Vec<u64>,
}

impl StagePlan {
    /// A stage whose activations have `room` bytes; its peak is that of the engine's buffers.
    fn new(of: &StageDemand, room: u64, keep: Keep, resident: u64, ring: u64) -> StagePlan {
        let StageDemand { pass, stage, ref demand, ref macs, ref preview } = *of;
        let activations = demand.activations(room);
        let streamed = demand.weights().saturating_sub(resident);
        let weights = Residency { keep, ring: ring as usize };
        let budget = RunBudget { weights, strips: Some(demand.strip_room(room)), spare: 0 };
        let peak = activations + with_slack(resident) + ring;
        let (preview, macs) = (preview.clone(), macs.clone());
        StagePlan { pass, stage, activations, resident, streamed, ring, peak, budget, preview, macs }
    }

    /// Multiply-adds of the first `runs` runs.
    pub(crate) fn macs_of(&self, runs: usize) -> u64 {
        self.macs.iter().take(runs).sum()
    }

    /// With `spare` bytes for activations that are kept though nobody needs them.
    fn with_spare(mut self, spare: u64) -> StagePlan {
        self.budget.spare = without_slack(spare) as usize;
        StagePlan { activations: self.activations + spare, peak: self.peak + spare, ..self }
    }
}

/// A request's stages within a budget.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MemoryPlan {
    /// In the order in which they run.
    pub stages: Vec<StagePlan>,
    /// All weights stay in memory between requests.
    pub keeps_all: bool,
}

impl MemoryPlan {
    /// Bytes at the worst moment of the request.
    pub fn peak(&self) -> u64 {
        self.peaks().max().unwrap_or(0)
    }

    /// Bytes at the worst moment of each stage.
    fn peaks(&self) -> impl Iterator<Item = u64> {
        let own = |stage: &StagePlan| with_slack(stage.resident);
        let all: u64 = if self.keeps_all { self.networks().map(own).sum() } else { 0 };
        self.stages.iter().map(move |stage| if self.keeps_all { stage.peak - own(stage) + all } else { stage.peak })
    }

    /// A stage of each network: weights are kept once, whatever passes use them.
    fn networks(&self) -> impl Iterator<Item = &StagePlan> {
        let known = |at: usize| self.stages[..at].iter().any(|before| before.stage == self.stages[at].stage);
        self.stages.iter().enumerate().filter(move |(at, _)| !known(*at)).map(|(_, plan)| plan)
    }

    /// Lets each stage keep unused activations up to what the greediest one holds anyway.
    fn level(mut self) -> MemoryPlan {
        let (peak, peaks) = (self.peak(), self.peaks().collect::<Vec<_>>());
        self.stages = self.stages.into_iter().zip(peaks).map(|(stage, own)| stage.with_spare(peak - own)).collect();
        self
    }

    /// In a process that takes `process` bytes itself.
    fn beside(mut self, process: u64) -> MemoryPlan {
        self.stages.iter_mut().for_each(|stage| stage.peak += process);
        self
    }

    /// How `stage` of a pass is planned.
    pub(crate) fn stage(&self, pass: SamplingPass, stage: Stage) -> Result<&StagePlan> {
        let found = self.stages.iter().find(|plan| (plan.pass, plan.stage) == (pass, stage));
        found.ok_or_else(|| Error::Internal(format!("{stage:?} of {pass:?} is not in the memory plan")))
    }

    /// Multiply-adds of all runs of all stages.
    pub(crate) fn work(&self) -> u64 {
        self.stages.iter().map(|plan| plan.macs_of(plan.macs.len())).sum()
    }
}

/// Divides `memory` bytes (`None`: as much as is needed), of which the process itself takes `process`, among the
/// stages.
pub(crate) fn plan(demands: &[StageDemand], memory: Option<u64>, process: u64) -> Result<MemoryPlan> {
    let everything =
        |of: &StageDemand| StagePlan::new(of, u64::MAX, Keep::All, of.demand.all_weights(), of.demand.largest_ring());
    let stages = demands.iter().map(everything).collect();
    let ample = MemoryPlan { stages, keeps_all: true }.level().beside(process);
    let Some(memory) = memory.filter(|memory| ample.peak().max(OPENING) > *memory) else { return Ok(ample) };
    let smallest = smallest(demands, process);
    if smallest > memory {
        let mib = |bytes: u64| bytes.div_ceil(MIB);
        let message =
            format!("{} MiB is too little for this size; it needs at least {} MiB", mib(memory), mib(smallest));
        return Err(Error::OutOfMemory(message));
    }
    let stages = demands.iter().map(|of| divide(of, memory - process));
    Ok(MemoryPlan { stages: stages.collect(), keeps_all: false }.beside(process))
}

/// The smallest budget that can hold, in whole MiB.
pub(crate) fn smallest(demands: &[StageDemand], process: u64) -> u64 {
    let buffers = demands.iter().map(|of| of.demand.smallest()).max().unwrap_or(0);
    (process + buffers).max(OPENING).next_multiple_of(MIB)
}

/// A stage that has `free` bytes, of which activations get what they want.
fn divide(of: &StageDemand, free: u64) -> StagePlan {
    let demand = &of.demand;
    let least = demand.least_ring();
    let room = free - least;
    let free = free - demand.activations(room);
    let ring = free.clamp(least, demand.largest_ring());
    // Text encoder and autoencoder run once, so that nothing is gained by keeping their weights.
    let mut left = if of.stage == Stage::Unet { free - ring } else { 0 };
    let mut names = HashSet::new();
    let mut resident = 0;
    for (name, bytes) in &demand.matrices {
        if with_slack(*bytes) <= left {
            left -= with_slack(*bytes);
            resident += bytes;
            names.insert(name.to_string());
        }
    }
    StagePlan::new(of, room, Keep::Only(names), resident, ring)
}
