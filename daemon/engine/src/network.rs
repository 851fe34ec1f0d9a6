//! A network: its graph and its weights, opened together and run together.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::graph::{Graph, Kind, Plan, Value};
use crate::ops::Pool;
use crate::plan::Demand;
use crate::strips;
use crate::weights::{Residency, Weights};

/// Told before each layer how many are done and how many there are; may stop the run.
pub type Tick<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// One of a bundle's networks.
pub(crate) struct Network {
    name: &'static str,
    graph: Graph,
    weights: Weights,
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
        Ok(Network { name, graph, weights })
    }

    /// What a run on these inputs needs.
    pub(crate) fn demand(&mut self, inputs: &[Kind]) -> Result<Demand> {
        let plan = self.plan(inputs, true)?;
        let file = self.weights.file();
        let (mut matrices, mut largest_block) = (Vec::new(), 0);
        for name in plan.matrices() {
            let entry = file.entry(name)?;
            matrices.push((name.clone(), entry.bytes() as u64));
            largest_block = largest_block.max(entry.block_len(0) as u64);
        }
        let (activations, tables) = (plan.activations() as u64, plan.tables() as u64);
        Ok(Demand { activations, strips: plan.segment().cloned(), tables, matrices, largest_block })
    }

    /// Starts reading weights for `runs` runs on these inputs.
    pub(crate) fn start(&mut self, inputs: &[Kind], runs: usize, residency: Residency) -> Result<Running<'_>> {
        let plan = self.plan(inputs, residency.strips.is_some())?;
        let spare = residency.spare;
        let strips = residency.strips.and_then(|budget| plan.strips(budget));
        self.weights.begin(plan.matrices(), runs, residency)?;
        let pool = Pool::new(plan.activations() + spare);
        Ok(Running { plan, strips, name: self.name, weights: &mut self.weights, pool })
    }

    /// The graph's plan for these inputs; only the autoencoder has strips.
    pub(crate) fn plan(&mut self, inputs: &[Kind], strips: bool) -> Result<Arc<Plan>> {
        self.graph.plan(inputs, strips && self.name.starts_with("vae"))
    }

    /// Runs once.
    pub(crate) fn run(&mut self, inputs: Vec<Value>, residency: Residency, tick: &mut Tick) -> Result<Vec<f32>> {
        let kinds: Vec<Kind> = inputs.iter().map(Value::kind).collect();
        self.start(&kinds, 1, residency)?.run(inputs, tick)
    }

    /// Frees all weights.
    pub(crate) fn forget(&mut self) {
        self.weights.forget();
    }
}

/// A network whose weights are being read; dropping it stops that.
pub(crate) struct Running<'a> {
    plan: Arc<Plan>,
    strips: Option<strips::Plan>,
    name: &'static str,
    weights: &'a mut Weights,
    pool: Pool,
}

impl Running<'_> {
    /// The next run.
    pub(crate) fn run(&mut self, inputs: Vec<Value>, tick: &mut Tick) -> Result<Vec<f32>> {
        tracing::debug!(network = self.name, "run");
        self.plan.run(inputs, self.strips.as_ref(), self.weights, &mut self.pool, tick)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.pool.clear();
        self.weights.end();
    }
}
