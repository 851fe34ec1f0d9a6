//! A network: its graph and its weights, opened together and run together.

use std::sync::Arc;

use crate::bundle::Bundle;
use crate::error::{Error, Result};
pub use crate::graph::Tick;
use crate::graph::{
    Ahead, DeepFeatures, Graph, GraphPart, InputValues, KnownInput, RUNS_AHEAD, Schedule, Shared, Signature,
};
use crate::memory_plan::{Demand, RunBudget};
use crate::ops::Pool;
use crate::strips::{self, RowSink, Segment, StripPlan};
use crate::weights::{Residency, Weights};

/// One of a bundle's networks.
pub(crate) struct Network {
    name: &'static str,
    graph: Graph,
    shared: Shared,
}

impl Network {
    /// Opens `name.onnx` and `name.weights`; no weights are read yet.
    pub(crate) fn open(bundle: &Bundle, name: &'static str, inputs: usize) -> Result<Network> {
        let weights = Weights::open(&bundle.source, name)?;
        let graph = Graph::open(bundle, name, weights.file())?;
        if graph.inputs() != inputs {
            let message = format!("the graph has {} inputs, but {inputs} are needed", graph.inputs());
            return Err(Error::ModelCorrupt { path: bundle.source.path(&format!("{name}.onnx")), message });
        }
        let shared = Shared::new(weights);
        shared.lock().quantized = bundle.quantized.as_ref().map(|values| values.of_network(name));
        Ok(Network { name, graph, shared })
    }

    /// Checks that the graph has these shapes; `keys` says where they come from in `bundle.json`.
    pub(crate) fn check(&self, signature: &Signature, keys: &str) -> Result<()> {
        self.graph.check(signature).map_err(|error| match error {
            Error::ModelCorrupt { path, message } => {
                Error::ModelCorrupt { path, message: format!("{message}; bundle.json has {keys}") }
            }
            other => other,
        })
    }

    /// Of a text encoder: its embeddings are those of an earlier layer from now on.
    pub(crate) fn leave_out(&mut self, layers: usize) -> Result<()> {
        self.graph.leave_out(layers)
    }

    /// What so many runs of these shapes need.
    pub(crate) fn demand(&mut self, signature: &Signature, runs: usize) -> Result<Demand> {
        self.demand_part(signature, GraphPart::Whole, runs)
    }

    /// The same for a part of the graph.
    pub(crate) fn demand_part(&mut self, signature: &Signature, part: GraphPart, runs: usize) -> Result<Demand> {
        let schedule = self.graph.schedule_part(signature, part, true)?;
        let shared = self.shared.lock();
        let mut largest_block = 0;
        let mut sized = |name: &Arc<str>| {
            let entry = shared.weights.file().entry(name)?;
            largest_block = largest_block.max(entry.block_len(0) as u64);
            Ok((name.clone(), entry.bytes() as u64))
        };
        let matrices = schedule.matrices().iter().map(&mut sized).collect::<Result<_>>()?;
        let ahead = schedule.matrices_ahead().iter().map(sized).collect::<Result<Vec<_>>>()?;
        let weights_ahead = ahead.iter().map(|(_, bytes)| bytes).sum();
        let beside = (runs.min(RUNS_AHEAD) * schedule.ahead_bytes()) as u64;
        // At the end the result is copied out of the graph's own memory.
        let result = 2 * size_of::<f32>() * signature.output.iter().product::<usize>();
        let (activations, tables) = (schedule.activations().max(result) as u64, schedule.tables() as u64);
        let (strips, work) = (schedule.segment().cloned(), schedule.work());
        let ring_beside_strips = runs > 1 || schedule.reads_after_segment();
        let between_runs = schedule.deep_bytes() as u64;
        Ok(Demand {
            activations,
            between_runs,
            strips,
            ring_beside_strips,
            tables,
            beside,
            matrices,
            weights_ahead,
            largest_block,
            work,
        })
    }

    /// Gets ready for runs of these `kinds`, which come in the `order` of these indices.
    pub(crate) fn start(
        &mut self,
        kinds: Vec<RunKind>,
        order: Vec<usize>,
        budget: RunBudget,
    ) -> Result<NetworkRun<'_>> {
        let mut prepared = Vec::new();
        for (index, RunKind { signature, part, known }) in kinds.into_iter().enumerate() {
            let schedule = self.graph.schedule_part(&signature, part, budget.strips.is_some())?;
            let strips = schedule.segment().zip(budget.strips).map(|(segment, budget)| strips::plan(segment, budget));
            let left = order.iter().filter(|kind| **kind == index).count();
            prepared.push(PreparedKind { schedule, strips, known, ahead: None, left });
        }
        let pooled = prepared.iter().map(|kind| kind.schedule.activations()).max().unwrap_or(0);
        self.shared.lock().pool = Pool::new(pooled + budget.spare);
        let (residency, name, shared) = (budget.weights, self.name, &mut self.shared);
        Ok(NetworkRun { kinds: prepared, order, next: 0, deep: None, residency, name, shared })
    }

    /// Runs once; the result has the shape `output`.
    pub(crate) fn run(
        &mut self,
        inputs: Vec<InputValues>,
        output: Vec<usize>,
        budget: RunBudget,
        tick: &mut Tick,
    ) -> Result<Vec<f32>> {
        let signature = Signature { inputs: inputs.iter().map(InputValues::shape).collect(), output };
        let known = inputs.iter().enumerate().filter_map(|(index, input)| input.number(index));
        let kind = RunKind { signature, part: GraphPart::Whole, known: known.collect() };
        self.start(vec![kind], vec![0], budget)?.run(inputs, tick)
    }

    /// Runs once, a network all of which works row by row; the result's rows go to `sink` from top to bottom, and are
    /// held for a moment only.
    pub(crate) fn run_into(
        &mut self,
        input: InputValues,
        output: Vec<usize>,
        budget: RunBudget,
        tick: &mut Tick,
        sink: &mut RowSink,
    ) -> Result<()> {
        let Some(room) = budget.strips else {
            let (rows, row) = (output[1], output[2..].iter().product::<usize>());
            let result = self.run(vec![input], output, budget, tick)?;
            debug_assert_eq!(result.len(), rows * row);
            sink(0..rows, &result);
            return Ok(());
        };
        let schedule = self.graph.schedule(&Signature { inputs: vec![input.shape()], output }, true)?;
        let segment = self.row_wise(&schedule)?;
        let plan = strips::plan(&segment, room);
        let InputValues::F32(_, values) = input else { return Err(Error::Internal("rows of token ids".into())) };
        let stored = strips::store_input(&segment, &values)?;
        drop(values);
        let mut shared = self.shared.lock();
        shared.weights.begin(&[], 1, budget.weights)?;
        let macs = plan.macs.max(1) as f64;
        let mut tick = |done| tick(done as f64 / macs);
        let outcome = strips::run_into(&segment, &plan, stored, &mut shared.weights, &mut tick, sink);
        shared.weights.end();
        outcome
    }

    /// What `run_into` needs for these shapes.
    pub(crate) fn demand_into(&mut self, signature: &Signature) -> Result<Demand> {
        let schedule = self.graph.schedule(signature, true)?;
        let segment = self.row_wise(&schedule)?;
        let (tables, work) = (schedule.tables() as u64, schedule.work());
        Ok(Demand {
            activations: 0,
            between_runs: 0,
            strips: Some(segment),
            ring_beside_strips: false,
            tables,
            beside: 0,
            matrices: vec![],
            weights_ahead: 0,
            largest_block: 0,
            work,
        })
    }

    /// The whole graph as a segment that hands its result out.
    fn row_wise(&self, schedule: &Schedule) -> Result<Segment> {
        let segment = schedule.whole_segment().map(Segment::handing_out);
        segment.ok_or_else(|| Error::ModelCorrupt {
            path: self.graph.path().to_owned(),
            message: "not all of the graph works row by row".into(),
        })
    }

    /// Frees all weights and schedules.
    pub(crate) fn forget(&mut self) {
        self.shared.lock().weights.forget();
        self.graph.forget();
    }
}

#[cfg(test)]
impl Network {
    /// One of the demo model's that has a single input.
    pub(crate) fn demo(name: &'static str) -> Network {
        Network::open(&Bundle::demo(), name, 1).unwrap()
    }

    /// What a run needs for an input and an output of these shapes.
    pub(crate) fn demand_of(&mut self, input: Vec<usize>, output: Vec<usize>) -> Demand {
        self.demand(&Signature { inputs: vec![crate::graph::InputShape::F32(input)], output }, 1).unwrap()
    }

    /// How many matrices stay in memory.
    pub(crate) fn kept(&self) -> usize {
        self.shared.lock().weights.kept()
    }

    /// Of each of its tensors the bytes in memory, and what it holds.
    pub(crate) fn weights(&self) -> Vec<(usize, crate::weights::Shape)> {
        let shared = self.shared.lock();
        shared.weights.file().index().entries().map(|(_, entry)| (entry.bytes(), entry.shape())).collect()
    }
}

/// What runs of one kind have in common.
pub(crate) struct RunKind {
    /// Shapes of the inputs and the output.
    pub(crate) signature: Signature,
    /// What of the graph they run.
    pub(crate) part: GraphPart,
    /// Inputs of one number, for all runs of this kind.
    pub(crate) known: Vec<KnownInput>,
}

/// A kind of runs, ready.
struct PreparedKind {
    schedule: Arc<Schedule>,
    strips: Option<StripPlan>,
    /// Inputs of one number, for all runs of this kind.
    known: Vec<KnownInput>,
    /// What was computed ahead of the next ones.
    ahead: Option<Ahead>,
    /// Runs that are still to come.
    left: usize,
}

/// A network whose weights are being read; dropping it stops that.
pub(crate) struct NetworkRun<'a> {
    kinds: Vec<PreparedKind>,
    /// The kind of each run.
    order: Vec<usize>,
    next: usize,
    /// What a run left for those after it.
    deep: Option<DeepFeatures>,
    residency: Residency,
    name: &'static str,
    shared: &'a mut Shared,
}

impl NetworkRun<'_> {
    /// The next run.
    pub(crate) fn run(&mut self, inputs: Vec<InputValues>, tick: &mut Tick) -> Result<Vec<f32>> {
        tracing::debug!(network = self.name, "run");
        self.get_ready()?;
        let beyond = || Error::Internal("a run beyond the last".into());
        let kind = self.order.get(self.next).and_then(|kind| self.kinds.get_mut(*kind)).ok_or_else(beyond)?;
        (self.next, kind.left) = (self.next + 1, kind.left.saturating_sub(1));
        let ahead = kind.ahead.get_or_insert_with(Ahead::none);
        kind.schedule.run(inputs, kind.strips.as_ref(), ahead, &mut self.deep, self.shared, tick)
    }

    /// Frees what is kept for the next run's activations, so that another network can run before it.
    pub(crate) fn make_room(&mut self) {
        self.shared.lock().pool.clear();
    }

    /// Before the first run of several of a kind, or where nothing is left of what was computed ahead of them: computes
    /// that for the next ones, and starts reading weights for them.
    fn get_ready(&mut self) -> Result<()> {
        let (before, after) = self.order.split_at(self.next.min(self.order.len()));
        let Some((index, kind)) = after.first().and_then(|index| Some((*index, self.kinds.get_mut(*index)?))) else {
            return Ok(());
        };
        let begins = before.last() != Some(&index);
        let is_over = kind.ahead.as_ref().is_none_or(|ahead| ahead.left() == 0);
        if !begins && !is_over {
            return Ok(());
        }
        let matrices = kind.schedule.matrices_ahead();
        if is_over && !matrices.is_empty() {
            self.shared.lock().weights.begin(&matrices, 1, self.residency.clone())?;
            let known: Vec<KnownInput> = kind.known.iter().map(|input| input.before(kind.left)).collect();
            kind.ahead = Some(kind.schedule.look_ahead(&known, self.shared)?);
        }
        let together = after.iter().take_while(|kind| **kind == index).count();
        let runs = together.min(kind.ahead.as_ref().map_or(together, Ahead::left));
        self.shared.lock().weights.begin(kind.schedule.matrices(), runs, self.residency.clone())
    }
}

impl Drop for NetworkRun<'_> {
    fn drop(&mut self) {
        let mut shared = self.shared.lock();
        shared.pool.clear();
        shared.weights.end();
    }
}
