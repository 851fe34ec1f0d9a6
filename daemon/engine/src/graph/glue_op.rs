//! `Cast` and `Concat` as tract sees them.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

use super::net_op::NetOp;
use super::repeat::RepeatOp;
use super::shared::Shared;
use crate::layer::Layer;
use crate::ops::{self, Glue};

/// An operator of ours that a bundle has as standard ONNX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GlueOp(pub(super) Glue);

/// Lets joined tensors be read side by side and as they are, where that spares copies.
pub(super) fn spare_copies(model: &mut TypedModel) -> TractResult<()> {
    join_halves(model)?;
    read_joined(model)
}

/// Lets what norms and quantizes joined tensors read them side by side: the joined tensor, twice as large as what it is
/// made from, is then never held whole. It would be at the worst moment of a UNet.
fn read_joined(model: &mut TypedModel) -> TractResult<()> {
    let reads = |inlet: &InletId| {
        inlet.slot == 0 && model.node(inlet.node).op_as::<NetOp>().is_some_and(|op| ops::reads_joined(&op.layer))
    };
    let mut reading = Vec::new();
    for node in model.nodes().iter().filter(|node| is_glue(node, Glue::Concat)) {
        let readers = &node.outputs[0].successors;
        if readers.iter().all(reads) && !model.outputs.contains(&node.id.into()) {
            reading.extend(readers.iter().map(|reader| (node.inputs.clone(), reader.node)));
        }
    }
    if reading.is_empty() {
        return Ok(());
    }
    for (inputs, reader) in reading {
        inputs.iter().enumerate().try_for_each(|(slot, input)| model.add_edge(*input, InletId::new(reader, slot)))?;
    }
    model.compact()
}

/// Lets what joins or quantizes read as it is what was cast to f32 for such readers alone, and what joins also what was
/// repeated: that would be a copy twice as large, beside it at the worst moment of a UNet.
fn join_halves(model: &mut TypedModel) -> TractResult<()> {
    let mut joins = Vec::new();
    for node in model.nodes().iter().filter(|node| reads_halves(node)) {
        for (slot, input) in node.inputs.iter().enumerate() {
            let mut source = *input;
            while is_spared(model, source)
                && (is_glue(node, Glue::Concat) || !model.node(source.node).op_is::<RepeatOp>())
            {
                source = model.node(source.node).inputs[0];
            }
            if source != *input {
                joins.push((source, InletId::new(node.id, slot)));
            }
        }
    }
    if joins.is_empty() {
        return Ok(());
    }
    joins.into_iter().try_for_each(|(source, inlet)| model.add_edge(source, inlet))?;
    model.compact()
}

fn is_glue(node: &TypedNode, glue: Glue) -> bool {
    node.op_as::<GlueOp>().is_some_and(|op| op.0 == glue)
}

/// It reads values in f16, too.
fn reads_halves(node: &TypedNode) -> bool {
    is_glue(node, Glue::Concat) || node.op_as::<NetOp>().is_some_and(|op| op.layer == Layer::Quantize {})
}

/// A copy that none of its readers needs.
fn is_spared(model: &TypedModel, copy: OutletId) -> bool {
    let node = model.node(copy.node);
    let unneeded = |reader: &InletId| {
        let reader = model.node(reader.node);
        reads_halves(reader) || (reader.op_is::<RepeatOp>() && is_spared(model, reader.id.into()))
    };
    (is_glue(node, Glue::ToSingle) || node.op_is::<RepeatOp>())
        && node.outputs.iter().flat_map(|output| &output.successors).all(unneeded)
        && !model.outputs.contains(&copy)
}

impl Op for GlueOp {
    fn name(&self) -> StaticName {
        format!("{:?}", self.0).into()
    }

    op_as_typed_op!();
}

impl EvalOp for GlueOp {
    not_out_of_plan!();

    fn eval(&self, context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        Ok(self.0.run(inputs, &mut Shared::of(context)?.lock().pool)?)
    }
}

impl TypedOp for GlueOp {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shapes: Vec<TVec<usize>> = inputs.iter().map(|fact| super::concrete(fact)).collect::<TractResult<_>>()?;
        let (datum, shape) = self.0.output(&shapes)?;
        Ok(tvec![datum.fact(&*shape)])
    }

    as_op!();
}
