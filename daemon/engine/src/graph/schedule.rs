//! A graph with all shapes known: the order of its nodes, what a run takes, and the run itself.

use std::sync::Arc;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{EvalContext, OpState, SimpleState, TractErrorContext};
use tract_onnx::tract_core::plan::eval;

use super::ahead::{Ahead, AheadNodes, KnownInput};
use super::file::GraphFile;
use super::input::{self, InputValues, Signature};
use super::net_op::NetOp;
use super::segment::{self, SegmentOp};
use super::shallow::{DeepFeatures, GraphPart};
use super::shared::Shared;
use super::wiring::{self, WiredGraph};
use super::{Tick, concrete, footprint, glue_op, into_ours, order};
use crate::cancel;
use crate::error::{Error, Result};
use crate::layer_kinds::{WorkByKind, WorkKind};
use crate::quantized::QuantizedValues;
use crate::strips::{self, Segment, StripPlan};

/// A graph with all shapes known, in the order in which it runs.
pub(crate) struct Schedule {
    pub(super) plan: Arc<TypedSimplePlan>,
    matrices: Vec<Arc<str>>,
    ahead: AheadNodes,
    /// Multiply-adds of each operator outside of the segment in strips, in order.
    operator_macs: Vec<u64>,
    segment: Option<Arc<Segment>>,
    tables: usize,
    activations: usize,
    deep_bytes: usize,
    work: WorkByKind,
    part: GraphPart,
}

impl Schedule {
    /// Of `file`, of which only a part may be left.
    pub(super) fn new(file: &GraphFile, signature: &Signature, part: GraphPart, strips: bool) -> TractResult<Schedule> {
        let WiredGraph { mut model, places } = wiring::wire(file, signature)?;
        glue_op::spare_copies(&mut model)?;
        let mut plan = order::plan(model, &places)?;
        let tables = net_ops(&plan).map(|(_, op)| op.table_bytes()).sum();
        let mut work = WorkByKind::default();
        for ((_, op), macs) in net_ops(&plan).zip(operator_macs(&plan)?) {
            WorkKind::of(&op.layer).into_iter().for_each(|kind| work.count(kind, macs));
        }
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
        let mut activations = footprint::peak(plan.model(), order)?;
        let deep = match part {
            GraphPart::Whole => None,
            GraphPart::Keeping => plan.model().outputs.get(1),
            GraphPart::Shallow => plan.model().inputs.last(),
        };
        let deep_bytes = deep.map_or(Ok(0), |deep| footprint::node_bytes(plan.model(), deep.node))?;
        if part == GraphPart::Shallow {
            // A run does not end the deep features' life.
            activations += deep_bytes;
        }
        Ok(Schedule { matrices, ahead, operator_macs, segment, tables, activations, deep_bytes, work, part, plan })
    }

    /// Bytes of activations at a run's worst moment outside of the segment in strips.
    pub(crate) fn activations(&self) -> usize {
        self.activations
    }

    /// Bytes of the deep features that a run leaves or takes up.
    pub(crate) fn deep_bytes(&self) -> usize {
        self.deep_bytes
    }

    /// The shape of the deep features that a run leaves; `None` where it leaves none.
    pub(super) fn deep_features(&self) -> Result<Option<TVec<usize>>> {
        let output = self.plan.model().outputs.get(1);
        let shape = output.map(|output| concrete(self.plan.model().outlet_fact(*output)?));
        shape.transpose().map_err(into_ours)
    }

    /// Multiply-adds of a run.
    pub(crate) fn work(&self) -> WorkByKind {
        self.work
    }

    /// Bytes of the small tables that stay in memory.
    pub(crate) fn tables(&self) -> usize {
        self.tables
    }

    /// The part that runs in strips.
    pub(crate) fn segment(&self) -> Option<&Segment> {
        self.segment.as_deref()
    }

    /// Whether a run reads matrices after the segment in strips.
    pub(crate) fn reads_after_segment(&self) -> bool {
        let (model, order) = (self.plan.model(), self.plan.order_without_consts());
        let after = order.iter().skip_while(|id| !model.node(**id).op_is::<SegmentOp>());
        let mut operators = after.filter_map(|id| model.node(*id).op_as::<NetOp>());
        operators.any(|op| op.matrices().next().is_some())
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

    /// Runs the graph once; a segment in strips as `strips` has it, with what was computed `ahead`. `deep` is what a run of
    /// the shallow part takes up, and what a run that keeps it leaves. `tick` is called before each of our operators, with
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
        deep: &mut Option<DeepFeatures>,
        shared: &Shared,
        tick: &mut Tick,
    ) -> Result<Vec<f32>> {
        ahead.next_run();
        let inputs = inputs.into_iter().map(InputValues::into_tensor).collect::<TractResult<TVec<_>>>();
        let mut inputs = inputs.map_err(into_ours)?;
        match self.part {
            GraphPart::Whole => {}
            GraphPart::Keeping => *deep = None,
            GraphPart::Shallow => {
                let DeepFeatures(kept) = deep.as_ref().ok_or_else(|| Error::Internal("no deep features".into()))?;
                inputs.push(kept.clone());
            }
        }
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
            let mut macs = 0;
            if node.op_is::<NetOp>() {
                cancel::check()?;
                tick(done as f64 / all);
                macs = *operators.next().unwrap_or(&0);
                done += macs;
            }
            let shape = node.outputs.first().map(|output| tracing::field::debug(&output.fact.shape));
            tracing::trace!(operator = &*node.op.name(), node = &*node.name, shape, macs);
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
        let mut outputs = outputs.map_err(into_ours)?;
        cancel::check()?;
        if self.part == GraphPart::Keeping {
            *deep = outputs.pop().map(DeepFeatures);
        }
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
    let mut shared = shared.lock();
    shared.pool.clear();
    let stored = strips::store_input(&op.0, input::slice(&source)?)?;
    drop(source);
    let result = strips::run(&op.0, plan, stored, &mut shared.weights, tick)?;
    Ok(tvec![Tensor::from_shape(&op.shape(), &result)?.into()])
}
