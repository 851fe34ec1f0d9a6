//! A network: its graph and its weights, opened together and run together.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::graph::{Graph, Kind, Plan, Value};
use crate::source::Bundle;
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
    pub(crate) fn open(bundle: &Bundle, name: &'static str, inputs: usize, residency: Residency) -> Result<Network> {
        let weights = Weights::open(&bundle.source, name, residency)?;
        let graph = Graph::open(bundle, name, weights.file())?;
        if graph.inputs() != inputs {
            let message = format!("the graph has {} inputs, but {inputs} are needed", graph.inputs());
            return Err(Error::ModelCorrupt { path: bundle.source.path(&format!("{name}.onnx")), message });
        }
        Ok(Network { name, graph, weights })
    }

    /// Plans for these inputs and starts reading weights for `runs` runs.
    pub(crate) fn start(&mut self, inputs: &[Kind], runs: usize) -> Result<Running<'_>> {
        let plan = self.graph.plan(inputs, self.weights.strips().filter(|_| self.name.starts_with("vae")))?;
        self.weights.begin(plan.matrices(), runs)?;
        Ok(Running { plan, name: self.name, weights: &mut self.weights })
    }

    /// Runs once.
    pub(crate) fn run(&mut self, inputs: Vec<Value>, tick: &mut Tick) -> Result<Vec<f32>> {
        let kinds: Vec<Kind> = inputs.iter().map(Value::kind).collect();
        self.start(&kinds, 1)?.run(inputs, tick)
    }

    /// Frees all weights.
    pub(crate) fn forget(&mut self) {
        self.weights.forget();
    }
}

/// A network whose weights are being read; dropping it stops that.
pub(crate) struct Running<'a> {
    plan: Arc<Plan>,
    name: &'static str,
    weights: &'a mut Weights,
}

impl Running<'_> {
    /// The next run.
    pub(crate) fn run(&mut self, inputs: Vec<Value>, tick: &mut Tick) -> Result<Vec<f32>> {
        tracing::debug!(network = self.name, "run");
        self.plan.run(inputs, self.weights, tick)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.weights.end();
    }
}
