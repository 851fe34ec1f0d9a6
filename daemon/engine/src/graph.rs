//! A network's graph: ONNX without weights, parsed once, planned for each picture size, run by tract node by node.
//!
//! Our operators sit in tract's graph as `NetOp`, which says what shapes come out but cannot compute: a run hands each
//! of them to `ops::run` together with the weights, and leaves what is cheap of the rest (addition, reshape) to tract.
//! So nothing has to be bound into the graph, and one parsed graph serves every size.

mod footprint;
mod net_op;
mod order;
mod segment;
mod shapes;
mod value;

use std::ops::ControlFlow;
use std::sync::Arc;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::plan::eval as stock_eval;
use tract_onnx::tract_hir::infer::InferenceModel;
use tract_onnx::tract_hir::internal::{EvalContext, OpState, SimpleState};

use net_op::NetOp;
use segment::{Role, Strips};

use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::ops::{self, Pool};
use crate::strips::{self, Segment};
use crate::weights::{Weights, WeightsFile};

/// Plans that are kept for their input shapes.
const KEPT_PLANS: usize = 4;

pub(crate) use shapes::conv_shape;
pub(crate) use value::{Kind, Value};

/// A parsed graph.
pub(crate) struct Graph {
    path: std::path::PathBuf,
    model: InferenceModel,
    plans: Vec<(Vec<Kind>, bool, Arc<Plan>)>,
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

    /// The plan for these input shapes. With `strips`, large pictures are worked on in strips where that can be.
    pub(crate) fn plan(&mut self, inputs: &[Kind], strips: bool) -> Result<Arc<Plan>> {
        if let Some((.., plan)) = self.plans.iter().find(|(shapes, striped, _)| shapes == inputs && *striped == strips)
        {
            return Ok(plan.clone());
        }
        let plan = Plan::new(self.model.clone(), inputs, strips);
        let plan = Arc::new(plan.map_err(|error| self.corrupt(format!("the graph does not fit together: {error:#}")))?);
        self.plans.truncate(KEPT_PLANS - 1);
        self.plans.insert(0, (inputs.to_vec(), strips, plan.clone()));
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
    strips: Option<Strips>,
    tables: usize,
    activations: usize,
}

/// Ticks that a segment in strips counts for.
const STRIP_TICKS: usize = 1000;

impl Plan {
    fn new(mut model: InferenceModel, inputs: &[Kind], strips: bool) -> TractResult<Plan> {
        for (index, kind) in inputs.iter().enumerate() {
            model.set_input_fact(index, kind.fact())?;
        }
        let places = model.nodes().iter().map(|node| (node.name.clone(), node.id)).collect();
        let model = model.into_optimized()?;
        let plan = order::plan(model, &places)?;
        let order = plan.order_without_consts();
        let strips = if strips { Strips::find(plan.model(), order)? } else { None };
        let outside = |id: &usize| strips.as_ref().is_none_or(|strips| matches!(strips.role(*id), Role::Outside));
        let ops = |ids: &mut dyn Iterator<Item = usize>| -> Vec<&NetOp> {
            ids.filter_map(|id| plan.model().node(id).op_as()).collect()
        };
        let whole = ops(&mut order.iter().copied().filter(outside));
        let matrices = whole.iter().flat_map(|op| op.matrices()).map(Arc::from).collect();
        let layers = whole.len() + strips.as_ref().map_or(0, |_| STRIP_TICKS);
        let tables = ops(&mut order.iter().copied()).iter().map(|op| op.table_bytes()).sum();
        let activations = footprint::peak(plan.model(), order, &outside)?;
        Ok(Plan { layers, matrices, tables, activations, plan, strips })
    }

    /// Bytes of activations at a run's worst moment outside of strips.
    pub(crate) fn activations(&self) -> usize {
        self.activations
    }

    /// Bytes of the small tables that stay in memory.
    pub(crate) fn tables(&self) -> usize {
        self.tables
    }

    /// The part that runs in strips.
    pub(crate) fn segment(&self) -> Option<&Segment> {
        self.strips.as_ref().map(|strips| &strips.segment)
    }

    /// How the part that runs in strips does so in `budget` bytes; none where there is no such part.
    pub(crate) fn strips(&self, budget: usize) -> Option<strips::Plan> {
        self.strips.as_ref().map(|strips| strips::plan(&strips.segment, budget))
    }

    /// The matrices that a run reads, in order.
    pub(crate) fn matrices(&self) -> &[Arc<str>] {
        &self.matrices
    }

    /// Runs the graph once. `tick` is called before each of our operators with how many are done and how many there are.
    pub(crate) fn run(
        &self,
        inputs: Vec<Value>,
        strips: Option<&strips::Plan>,
        weights: &mut Weights,
        pool: &mut Pool,
        tick: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Vec<f32>> {
        let inputs = inputs.into_iter().map(Value::into_tensor).collect::<TractResult<_>>().map_err(into_ours)?;
        let strips = self.strips.as_ref().zip(strips);
        let mut run = Run { layers: self.layers, strips, source: None, done: 0, weights, pool, tick };
        run.pool.begin();
        let eval = |context: &EvalContext,
                    state: Option<&mut dyn OpState>,
                    node: &TypedNode,
                    mut inputs: TVec<TValue>| match node.op_as() {
            Some(op) => run.layer(node, op, inputs),
            None => match ops::run_glue(&*node.op, &mut inputs, run.pool) {
                Some(outputs) => outputs,
                None => stock_eval(context, state, node, inputs).map_err(into_ours),
            },
        };
        let mut outputs = SimpleState::new(&self.plan)
            .and_then(|mut state| state.run_plan_with_eval(inputs, eval))
            .map_err(into_ours)?;
        Ok(value::slice(&outputs.remove(0)).map_err(into_ours)?.to_vec())
    }
}

/// One run of a plan.
struct Run<'a> {
    layers: usize,
    strips: Option<(&'a Strips, &'a strips::Plan)>,
    /// What the segment in strips starts from, once it is there.
    source: Option<TValue>,
    done: usize,
    weights: &'a mut Weights,
    pool: &'a mut Pool,
    tick: &'a mut dyn FnMut(usize, usize) -> ControlFlow<()>,
}

impl Run<'_> {
    /// Runs one of our operators, or its part of the segment.
    fn layer(&mut self, node: &TypedNode, op: &NetOp, inputs: TVec<TValue>) -> Result<TVec<TValue>> {
        let Some((strips, plan)) = self.strips else { return self.whole(op, inputs) };
        let role = strips.role(node.id);
        if matches!(role, Role::Outside) {
            return self.whole(op, inputs);
        }
        self.source = strips.source(node, &inputs).or(self.source.take());
        drop(inputs);
        match role {
            Role::Last => self.segment(strips, plan),
            _ => segment::placeholders(node).map_err(into_ours),
        }
    }

    fn whole(&mut self, op: &NetOp, inputs: TVec<TValue>) -> Result<TVec<TValue>> {
        if (self.tick)(self.done, self.layers).is_break() {
            return Err(Error::Cancelled);
        }
        self.done += 1;
        ops::run(&op.layer, inputs, self.weights, self.pool)
    }

    fn segment(&mut self, strips: &Strips, plan: &strips::Plan) -> Result<TVec<TValue>> {
        let source = self.source.take().ok_or_else(|| Error::Internal("strips without a source".into()))?;
        let stored = strips::source(&strips.segment, value::slice(&source).map_err(into_ours)?)?;
        drop(source);
        self.pool.clear();
        let (done, layers) = (self.done, self.layers);
        let mut tick = |part: usize, parts: usize| (self.tick)(done + part * STRIP_TICKS / parts, layers);
        let result = strips::run(&strips.segment, plan, stored, self.weights, &mut tick)?;
        self.done += STRIP_TICKS;
        let tensor = Tensor::from_shape(&strips.shape(), &result).map_err(into_ours)?;
        Ok(tvec![tensor.into()])
    }
}

/// The engine's own errors pass through tract as they are; what else comes is a fault of the program.
fn into_ours(error: TractError) -> Error {
    error.downcast().unwrap_or_else(|error| Error::Internal(format!("{error:#}")))
}
