//! A network: its graph and its weights, opened together and run together.

use std::sync::Arc;

use crate::bundle::Bundle;
use crate::error::{Error, Result};
pub use crate::graph::Tick;
use crate::graph::{Ahead, Graph, InputValues, KnownInput, RUNS_AHEAD, Schedule, Shared, Signature};
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
        let schedule = self.graph.schedule(signature, true)?;
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
        let (strips, macs) = (schedule.segment().cloned(), schedule.macs());
        Ok(Demand { activations, strips, tables, beside, matrices, weights_ahead, largest_block, macs })
    }

    /// Starts reading weights for `runs` runs of these shapes, of whose inputs of one number `known` has all that there are.
    pub(crate) fn start(
        &mut self,
        signature: &Signature,
        runs: usize,
        known: Vec<KnownInput>,
        budget: RunBudget,
    ) -> Result<NetworkRun<'_>> {
        let schedule = self.graph.schedule(signature, budget.strips.is_some())?;
        let strips = schedule.segment().zip(budget.strips).map(|(segment, budget)| strips::plan(segment, budget));
        self.shared.lock().pool = Pool::new(schedule.pooled() + budget.spare);
        let residency = budget.weights;
        let mut run = NetworkRun {
            schedule,
            strips,
            known,
            residency,
            left: runs,
            ahead: Ahead::none(),
            name: self.name,
            shared: &mut self.shared,
        };
        run.look_ahead()?;
        Ok(run)
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
        self.start(&signature, 1, known.collect(), budget)?.run(inputs, tick)
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
        let (tables, macs) = (schedule.tables() as u64, schedule.macs());
        Ok(Demand {
            activations: 0,
            strips: Some(segment),
            tables,
            beside: 0,
            matrices: vec![],
            weights_ahead: 0,
            largest_block: 0,
            macs,
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

    /// Frees all weights.
    pub(crate) fn forget(&mut self) {
        self.shared.lock().weights.forget();
    }
}

/// A network whose weights are being read; dropping it stops that.
pub(crate) struct NetworkRun<'a> {
    schedule: Arc<Schedule>,
    strips: Option<StripPlan>,
    /// Inputs of one number, for all runs.
    known: Vec<KnownInput>,
    residency: Residency,
    ahead: Ahead,
    /// Runs that are still to come.
    left: usize,
    name: &'static str,
    shared: &'a mut Shared,
}

impl NetworkRun<'_> {
    /// The next run.
    pub(crate) fn run(&mut self, inputs: Vec<InputValues>, tick: &mut Tick) -> Result<Vec<f32>> {
        tracing::debug!(network = self.name, "run");
        if self.ahead.is_over() {
            self.look_ahead()?;
        }
        self.left = self.left.saturating_sub(1);
        self.schedule.run(inputs, self.strips.as_ref(), &mut self.ahead, self.shared, tick)
    }

    /// Computes what can be computed ahead of the next runs, and starts reading weights for them.
    fn look_ahead(&mut self) -> Result<()> {
        let (matrices, residency) = (self.schedule.matrices_ahead(), &self.residency);
        let mut runs = self.left;
        if !matrices.is_empty() {
            runs = runs.min(RUNS_AHEAD);
            self.shared.lock().weights.begin(&matrices, 1, residency.clone())?;
            let known: Vec<KnownInput> = self.known.iter().map(|input| input.before(self.left)).collect();
            self.ahead = self.schedule.look_ahead(&known, self.shared)?;
        }
        self.shared.lock().weights.begin(self.schedule.matrices(), runs, residency.clone())
    }
}

impl Drop for NetworkRun<'_> {
    fn drop(&mut self) {
        let mut shared = self.shared.lock();
        shared.pool.clear();
        shared.weights.end();
    }
}
