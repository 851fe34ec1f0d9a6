//! A network's graph: ONNX without weights, parsed once, planned for each picture size, run by tract node by node.
//!
//! Our operators sit in tract's graph as `NetOp`, which says what shapes come out but cannot compute: a run hands each
//! of them to `ops::run` together with the weights, and leaves the rest (concatenation, addition, reshape) to tract.
//! So nothing has to be bound into the graph, and one parsed graph serves every size.

mod net_op;
mod shapes;
mod value;

use std::ops::ControlFlow;
use std::sync::Arc;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::plan::eval as stock_eval;
use tract_onnx::tract_hir::infer::InferenceModel;
use tract_onnx::tract_hir::internal::{EvalContext, OpState, SimpleState};

use net_op::NetOp;

use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::ops;
use crate::source::Bundle;
use crate::weights::{Weights, WeightsFile};

/// Plans that are kept for their input shapes.
const KEPT_PLANS: usize = 4;

pub(crate) use shapes::conv_shape;
pub(crate) use value::{Kind, Value};

/// A parsed graph.
pub(crate) struct Graph {
    path: std::path::PathBuf,
    model: InferenceModel,
    plans: Vec<(Vec<Kind>, Arc<Plan>)>,
}

impl Graph {
    /// Parses `NETWORK.onnx` and checks every weight that it names against the weights file.
    pub(crate) fn open(bundle: &Bundle, network: &str, weights: &WeightsFile) -> Result<Graph> {
        let file = format!("{network}.onnx");
        let path = bundle.source.path(&file);
        let bytes = bundle.read(&file)?;
        let mut onnx = tract_onnx::onnx();
        for name in Layer::NAMES {
            onnx.op_register.insert(name, net_op::build);
        }
        let model = onnx.model_for_read(&mut &*bytes);
        let mut model = model
            .map_err(|error| Error::ModelCorrupt { path: path.clone(), message: format!("not a graph: {error:#}") })?;
        for node in &mut model.nodes {
            if let Some(op) = node.op_as_mut::<NetOp>() {
                op.bind(weights)?;
            }
        }
        Ok(Graph { path, model, plans: Vec::new() })
    }

    /// Number of inputs.
    pub(crate) fn inputs(&self) -> usize {
        self.model.inputs.len()
    }

    /// The plan for these input shapes.
    pub(crate) fn plan(&mut self, inputs: &[Kind]) -> Result<Arc<Plan>> {
        if let Some((_, plan)) = self.plans.iter().find(|(shapes, _)| shapes == inputs) {
            return Ok(plan.clone());
        }
        let plan = Plan::new(self.model.clone(), inputs);
        let plan = Arc::new(plan.map_err(|error| self.corrupt(format!("the graph does not fit together: {error:#}")))?);
        self.plans.truncate(KEPT_PLANS - 1);
        self.plans.insert(0, (inputs.to_vec(), plan.clone()));
        Ok(plan)
    }

    fn corrupt(&self, message: String) -> Error {
        Error::ModelCorrupt { path: self.path.clone(), message }
    }
}

/// A graph with all shapes known, in the order in which it runs.
pub(crate) struct Plan {
    plan: Arc<TypedSimplePlan>,
    matrices: Vec<Arc<str>>,
    layers: usize,
}

impl Plan {
    fn new(mut model: InferenceModel, inputs: &[Kind]) -> TractResult<Plan> {
        for (index, kind) in inputs.iter().enumerate() {
            model.set_input_fact(index, kind.fact())?;
        }
        let plan = TypedSimplePlan::new(model.into_optimized()?)?;
        let order = plan.order_without_consts().iter();
        let ops: Vec<&NetOp> = order.filter_map(|&id| plan.model().node(id).op_as::<NetOp>()).collect();
        let matrices = ops.iter().flat_map(|op| op.matrices()).map(Arc::from).collect();
        Ok(Plan { layers: ops.len(), matrices, plan })
    }

    /// The matrices that a run reads, in order.
    pub(crate) fn matrices(&self) -> &[Arc<str>] {
        &self.matrices
    }

    /// Runs the graph once. `tick` is called before each of our operators with how many are done and how many there are.
    pub(crate) fn run(
        &self,
        inputs: Vec<Value>,
        weights: &mut Weights,
        tick: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Vec<f32>> {
        let inputs = inputs.into_iter().map(Value::into_tensor).collect::<TractResult<_>>().map_err(into_ours)?;
        let mut done = 0;
        let eval = |context: &EvalContext, state: Option<&mut dyn OpState>, node: &TypedNode, inputs: TVec<TValue>| {
            let Some(op) = node.op_as::<NetOp>() else {
                return stock_eval(context, state, node, inputs).map_err(into_ours);
            };
            if tick(done, self.layers).is_break() {
                return Err(Error::Cancelled);
            }
            done += 1;
            ops::run(&op.layer, inputs, weights)
        };
        let mut outputs = SimpleState::new(&self.plan)
            .and_then(|mut state| state.run_plan_with_eval(inputs, eval))
            .map_err(into_ours)?;
        value::values(&outputs.remove(0)).map_err(into_ours)
    }
}

/// The engine's own errors pass through tract as they are; what else comes is a fault of the program.
fn into_ours(error: TractError) -> Error {
    error.downcast().unwrap_or_else(|error| Error::Internal(format!("{error:#}")))
}
