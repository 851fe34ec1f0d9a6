//! A network's graph: ONNX without weights, parsed once, scheduled for each image size.
//!
//! tract does what a graph needs: it parses the ONNX, infers the shapes of all values from those of the inputs,
//! optimises, and walks the nodes, holding each value until its last use. It evaluates each node through its operator's
//! `EvalOp`: ours (`NetOp`, `GlueOp`) find weights and pool in what the run shares (`shared`), the few standard ones
//! that a bundle may bring (`check`) are tract's own. The order of the nodes is ours (`order`).
//!
//! One thing goes around `EvalOp`: progress. `Schedule::run` reports each of our operators to the caller's closure, and
//! a segment in strips reports from inside. That closure borrows from the caller and is not `'static`,
//! as whatever lies in tract's `TurnShared` must be; so it is called by the walk's callback, which hands every other
//! node on to tract's evaluation.

mod ahead;
mod check;
mod footprint;
mod glue_op;
mod input;
mod layers;
mod net_op;
mod order;
mod repeat;
mod segment;
mod shared;
mod standard;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tract_onnx::Onnx;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::plan::eval;
use tract_onnx::tract_hir::infer::{Factoid, InferenceModel};
use tract_onnx::tract_hir::internal::{DimLike, EvalContext, OpState, SimpleState, TractErrorContext, ensure};

use ahead::AheadNodes;
use net_op::NetOp;
use segment::SegmentOp;

use crate::bundle::{Bundle, WeightsIndex};
use crate::cancel;
use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::quantized::QuantizedValues;
use crate::strips::{self, Segment, StripPlan};
use crate::weights::WeightsFile;

/// Schedules that are kept for their input shapes.
const KEPT_SCHEDULES: usize = 4;

pub(crate) use ahead::{Ahead, KnownInput, RUNS_AHEAD};
pub(crate) use input::{InputShape, InputValues, Signature};
pub(crate) use layers::blocks_before_embeddings;
pub(crate) use shared::Shared;

/// Called before each layer with the part of the run's multiply-adds that is done, from 0 to 1.
pub type Tick<'a> = dyn FnMut(f64) + 'a;

/// A parsed graph.
pub(crate) struct Graph {
    path: PathBuf,
    model: InferenceModel,
    schedules: Vec<(Signature, bool, Arc<Schedule>)>,
    /// Layers of a text encoder that its embeddings leave out.
    left_out: usize,
}

impl Graph {
    /// Parses `NETWORK.onnx` and checks every weight that it names against the weights file.
    pub(crate) fn open(bundle: &Bundle, network: &str, weights: &WeightsFile) -> Result<Graph> {
        let file = format!("{network}.onnx");
        Graph::parse(bundle.source.path(&file), &bundle.read(&file)?, weights)
    }

    fn parse(path: PathBuf, bytes: &[u8], weights: &WeightsFile) -> Result<Graph> {
        let mut model = parse(bytes)
            .map_err(|error| Error::ModelCorrupt { path: path.clone(), message: format!("not a graph: {error:#}") })?;
        for node in &mut model.nodes {
            if let Some(op) = node.op_as_mut::<NetOp>() {
                op.bind(weights)?;
                if op.splits_gates(weights)? {
                    let message = format!("node {}: its blocks of weights part values from their gates", node.name);
                    return Err(Error::ModelCorrupt { path, message });
                }
            }
        }
        Ok(Graph { path, model, schedules: Vec::new(), left_out: 0 })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Number of inputs.
    pub(crate) fn inputs(&self) -> usize {
        self.model.inputs.len()
    }

    /// Checks that the operators fit each other, their weights and these shapes; cheaper than a schedule.
    ///
    /// # Errors
    ///
    /// `ModelCorrupt`, as of `schedule`.
    pub(crate) fn check(&self, signature: &Signature) -> Result<()> {
        infer(self.model.clone(), signature).map_err(|error| self.unfit(error))
    }

    /// Of a text encoder: takes the embeddings `layers` layers before the last one that the graph has.
    ///
    /// # Errors
    ///
    /// `InvalidParam` where it has no more layers than that.
    pub(crate) fn leave_out(&mut self, layers: usize) -> Result<()> {
        if layers != self.left_out {
            layers::take_embeddings_earlier(&mut self.model, self.left_out, layers)?;
            self.left_out = layers;
            self.schedules.clear();
        }
        Ok(())
    }

    fn unfit(&self, error: TractError) -> Error {
        let message = format!("the graph does not fit together: {error:#}");
        Error::ModelCorrupt { path: self.path.clone(), message }
    }

    /// The schedule for these shapes. With `strips`, the part that can run in strips is to do so.
    ///
    /// # Errors
    ///
    /// `ModelCorrupt` if the operators do not fit each other or their weights, or if something else comes out.
    pub(crate) fn schedule(&mut self, signature: &Signature, strips: bool) -> Result<Arc<Schedule>> {
        let mut kept = self.schedules.iter();
        if let Some((.., schedule)) = kept.find(|(shapes, striped, _)| shapes == signature && *striped == strips) {
            return Ok(schedule.clone());
        }
        let schedule = Schedule::new(self.model.clone(), signature, strips).map_err(|error| self.unfit(error))?;
        let schedule = Arc::new(schedule);
        self.schedules.truncate(KEPT_SCHEDULES - 1);
        self.schedules.insert(0, (signature.clone(), strips, schedule.clone()));
        Ok(schedule)
    }
}

fn parse(bytes: &[u8]) -> TractResult<InferenceModel> {
    let mut onnx = Onnx { op_register: standard::register(), ignore_value_info: true, ..Onnx::default() };
    for name in Layer::NAMES {
        onnx.op_register.insert(name, net_op::build);
    }
    let proto = onnx.proto_model_for_read(&mut &*bytes)?;
    check::check(&proto)?;
    onnx.model_for_proto_model(&proto)
}

/// Infers all shapes and compares the output's.
fn infer(mut model: InferenceModel, signature: &Signature) -> TractResult<()> {
    for (index, shape) in signature.inputs.iter().enumerate() {
        model.set_input_fact(index, shape.fact())?;
    }
    model.analyse(false)?;
    let output = model.output_fact(0)?;
    let shape = output.shape.concretize().context("its output has no known shape")?;
    let shape = shape.iter().map(|dim| Ok(dim.to_usize()?)).collect::<TractResult<Vec<usize>>>()?;
    let fits = output.datum_type.concretize() == Some(DatumType::F32) && shape == signature.output;
    ensure!(fits, "it makes {output:?} of {:?}, but f32 {:?} is needed", signature.inputs, signature.output);
    Ok(())
}

/// Parses the graph `onnx` of weights whose index is `index` (JSON) and checks it for f32 inputs and an output of these
/// shapes: what the bytes of a bundle can bring about before anything is computed. For fuzzing.
#[doc(hidden)]
pub fn check_graph(onnx: &[u8], index: &[u8], inputs: &[Vec<usize>], output: &[usize]) -> Result<()> {
    let path = PathBuf::from("graph.onnx");
    let index =
        WeightsIndex::parse(index, 1 << 40).map_err(|message| Error::ModelCorrupt { path: path.clone(), message })?;
    let graph = Graph::parse(path.clone(), onnx, &WeightsFile::without_values(index))?;
    if graph.inputs() != inputs.len() {
        return Err(Error::ModelCorrupt { path, message: format!("the graph has {} inputs", graph.inputs()) });
    }
    let inputs = inputs.iter().cloned().map(InputShape::F32).collect();
    graph.check(&Signature { inputs, output: output.to_vec() })
}

/// A graph with all shapes known, in the order in which it runs.
pub(crate) struct Schedule {
    plan: Arc<TypedSimplePlan>,
    matrices: Vec<Arc<str>>,
    ahead: AheadNodes,
    /// Multiply-adds of each operator outside of the segment in strips, in order.
    operator_macs: Vec<u64>,
    segment: Option<Arc<Segment>>,
    tables: usize,
    activations: usize,
    standard: usize,
    macs: u64,
}

impl Schedule {
    fn new(mut model: InferenceModel, signature: &Signature, strips: bool) -> TractResult<Schedule> {
        for (index, shape) in signature.inputs.iter().enumerate() {
            model.set_input_fact(index, shape.fact())?;
        }
        let mut places: HashMap<String, usize> =
            model.nodes().iter().map(|node| (node.name.clone(), node.id)).collect();
        repeat::insert(&mut model, signature, &mut places)?;
        let mut model = model.into_optimized()?;
        let result = model.output_fact(0)?;
        let fits = result.datum_type == DatumType::F32 && concrete(result)?[..] == signature.output[..];
        ensure!(fits, "it makes {result:?} of {:?}, but f32 {:?} is needed", signature.inputs, signature.output);
        glue_op::replace(&mut model)?;
        let mut plan = order::plan(model, &places)?;
        let tables = net_ops(&plan).map(|(_, op)| op.table_bytes()).sum();
        let macs = operator_macs(&plan)?.iter().sum();
        let striped = if strips { segment::replace(plan.model(), plan.order_without_consts())? } else { None };
        if let Some(model) = striped {
            plan = order::plan(model, &places)?;
        }
        let order = plan.order_without_consts();
        let segment = order.iter().find_map(|id| Some(plan.model().node(*id).op_as::<SegmentOp>()?.0.clone()));
        let operator_macs = operator_macs(&plan)?;
        let ahead = AheadNodes::of(plan.model(), order, signature)?;
        let each_run = net_ops(&plan).filter(|(id, _)| !ahead.contains(*id));
        let matrices = each_run.flat_map(|(_, op)| op.matrices()).map(Arc::from).collect();
        let activations = footprint::peak(plan.model(), order)?;
        let standard = footprint::standard_outputs(plan.model(), order)?;
        Ok(Schedule { matrices, ahead, operator_macs, segment, tables, activations, standard, macs, plan })
    }

    /// Bytes of activations at a run's worst moment outside of the segment in strips.
    pub(crate) fn activations(&self) -> usize {
        self.activations
    }

    /// Bytes of activations that the pool may count with: those of standard operators are tract's, never the pool's.
    pub(crate) fn pooled(&self) -> usize {
        self.activations.saturating_sub(self.standard)
    }

    /// Multiply-adds of a run.
    pub(crate) fn macs(&self) -> u64 {
        self.macs
    }

    /// Bytes of the small tables that stay in memory.
    pub(crate) fn tables(&self) -> usize {
        self.tables
    }

    /// The part that runs in strips.
    pub(crate) fn segment(&self) -> Option<&Segment> {
        self.segment.as_deref()
    }

    /// The segment where it is all that runs.
    pub(crate) fn whole_segment(&self) -> Option<&Segment> {
        let model = self.plan.model();
        let computing = self.plan.order_without_consts().iter().filter(|id| !model.node(**id).inputs.is_empty());
        self.segment().filter(|_| computing.count() == 1)
    }

    /// The matrices that each run reads outside of the segment in strips, in order.
    pub(crate) fn matrices(&self) -> &[Arc<str>] {
        &self.matrices
    }

    /// The matrices that are read ahead of the runs, in order.
    pub(crate) fn matrices_ahead(&self) -> Vec<Arc<str>> {
        self.ahead.matrices(self.plan.model()).collect()
    }

    /// Bytes that are held for each run that is looked ahead to.
    pub(crate) fn ahead_bytes(&self) -> usize {
        self.ahead.row_bytes()
    }

    /// What the runs with these inputs have in it that can be computed ahead of them.
    pub(crate) fn look_ahead(&self, inputs: &[KnownInput], shared: &Shared) -> Result<Ahead> {
        let ahead = self.ahead.rows(self.plan.model(), inputs, shared).map_err(into_ours)?;
        cancel::check()?;
        Ok(ahead)
    }

    /// Runs the graph once; a segment in strips as `strips` has it, with what was computed `ahead`. `tick` is called before each of our operators, with
    /// the part of the multiply-adds that is done: their time is nearly all of a run's.
    ///
    /// # Errors
    ///
    /// `Cancelled`: no result that a cancelled kernel had a part in gets out; errors of reading weights.
    pub(crate) fn run(
        &self,
        inputs: Vec<InputValues>,
        strips: Option<&StripPlan>,
        ahead: &mut Ahead,
        shared: &Shared,
        tick: &mut Tick,
    ) -> Result<Vec<f32>> {
        ahead.next_run();
        let inputs =
            inputs.into_iter().map(InputValues::into_tensor).collect::<TractResult<TVec<_>>>().map_err(into_ours)?;
        let mut resources = shared.lock();
        resources.pool.begin(&inputs);
        let quantized = resources.quantized.clone();
        drop(resources);
        let in_strips = strips.map_or(0, |strips| strips.macs);
        let all = (self.operator_macs.iter().sum::<u64>() + in_strips).max(1) as f64;
        let (mut done, mut operators) = (0, self.operator_macs.iter());
        let walk = |context: &EvalContext, state: Option<&mut dyn OpState>, node: &TypedNode, inputs: TVec<TValue>| {
            if let Some(op) = node.op_as::<SegmentOp>() {
                let mut tick = |macs: u64| tick((done + macs) as f64 / all);
                let result = run_segment(op, strips, inputs, shared, &mut tick)?;
                done += in_strips;
                return TractResult::Ok(result);
            }
            if node.op_is::<NetOp>() {
                cancel::check()?;
                tick(done as f64 / all);
                done += operators.next().unwrap_or(&0);
            }
            if self.ahead.contains(node.id) {
                return Ok(tvec![ahead.row(node.id)?]);
            }
            let outputs = eval(context, state, node, inputs)?;
            if let Some(counts) = &quantized {
                count(counts, node, &outputs)?;
            }
            Ok(outputs)
        };
        let outputs = SimpleState::new(&self.plan).and_then(|mut state| {
            state.turn_state.shared.insert(shared.clone());
            state.run_plan_with_eval(inputs, walk)
        });
        let outputs = outputs.map_err(into_ours)?;
        cancel::check()?;
        let output = outputs.first().ok_or_else(|| Error::Internal("a graph without an output".into()))?;
        Ok(input::slice(output).map_err(into_ours)?.to_vec())
    }
}

/// Counts what `node` has quantized, if it has.
fn count(counts: &QuantizedValues, node: &TypedNode, outputs: &TVec<TValue>) -> TractResult<()> {
    if node.op_as().is_some_and(NetOp::quantizes)
        && let [q, _] = &outputs[..]
    {
        let channels = q.shape().last().copied().unwrap_or(1);
        counts.count(&node.name, q.try_as_plain_ram()?.as_slice()?, channels);
    }
    Ok(())
}

/// The operators of ours that a plan runs one by one, in its order, with their nodes.
fn net_ops(plan: &TypedSimplePlan) -> impl Iterator<Item = (usize, &NetOp)> {
    plan.order_without_consts().iter().filter_map(|&id| Some((id, plan.model().node(id).op_as()?)))
}

/// Multiply-adds of the operators of ours that a plan runs one by one, in its order.
fn operator_macs(plan: &TypedSimplePlan) -> TractResult<Vec<u64>> {
    let model = plan.model();
    net_ops(plan).map(|(id, op)| op.macs(&model.node_input_facts(id)?, model.outlet_fact(id.into())?)).collect()
}

fn run_segment(
    op: &SegmentOp,
    plan: Option<&StripPlan>,
    mut inputs: TVec<TValue>,
    shared: &Shared,
    tick: &mut dyn FnMut(u64),
) -> TractResult<TVec<TValue>> {
    let plan = plan.context("a segment without a plan for its strips")?;
    let source = inputs.pop().context("a segment without an input")?;
    let stored = strips::store_input(&op.0, input::slice(&source)?)?;
    drop(source);
    let mut shared = shared.lock();
    shared.pool.clear();
    let result = strips::run(&op.0, plan, stored, &mut shared.weights, tick)?;
    Ok(tvec![Tensor::from_shape(&op.shape(), &result)?.into()])
}

/// The dimensions of a value, all of which are known in a schedule.
fn concrete(fact: &TypedFact) -> TractResult<TVec<usize>> {
    let dims = fact.shape.as_concrete().with_context(|| format!("a value of unknown shape {:?}", fact.shape))?;
    Ok(dims.into())
}

/// The engine's own errors pass through tract as they are; anything else is a fault of the program, and says at which
/// node it was found.
fn into_ours(error: TractError) -> Error {
    match error.downcast_ref() {
        Some(Error::Internal(_)) | None => Error::Internal(format!("{error:#}")),
        Some(_) => error.downcast().unwrap_or_else(|error| Error::Internal(format!("{error:#}"))),
    }
}
