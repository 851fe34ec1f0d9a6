//! The memory of a run's values at its worst moment, found by walking the nodes in their order without computing.
//!
//! A value lives from the node that makes it to the last one that reads it. What a node takes beside that is said by its
//! operator (`ops::memory`); of tract's own operators the outputs are counted.

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

use super::net_op::NetOp;
use super::order;
use super::segment::SegmentOp;
use crate::ops::OperatorMemory;

/// Bytes of values at the worst moment of a run that goes through `order`. Of a segment that runs in strips only the copy of
/// its input is in it: what it takes while it runs depends on the budget.
pub(super) fn peak(model: &TypedModel, order: &[usize]) -> TractResult<usize> {
    let last_use = last_uses(model, order);
    let mut live = 0;
    for outlet in model.input_outlets()? {
        live += node_bytes(model, outlet.node)?;
    }
    let mut peak = live;
    for (step, &id) in order.iter().enumerate() {
        let node = model.node(id);
        if node.inputs.is_empty() {
            continue;
        }
        let mut dying = order::inputs(node);
        dying.retain(|&input| last_use[input] == step);
        peak = peak.max(live + working(model, node, &dying)?);
        live += node_bytes(model, id)?;
        for input in dying {
            live -= node_bytes(model, input)?;
        }
        peak = peak.max(live);
    }
    Ok(peak)
}

/// Bytes that `node` holds at most beside what is alive before it; of that, `dying` are inputs that nothing reads later.
fn working(model: &TypedModel, node: &TypedNode, dying: &[usize]) -> TractResult<usize> {
    if node.op_is::<SegmentOp>() {
        return order::inputs(node).into_iter().map(|input| node_bytes(model, input)).sum();
    }
    let outputs = node_bytes(model, node.id)?;
    let memory = match node.op_as::<NetOp>() {
        Some(op) => op.memory(node.inputs.len(), &node.outputs[0].fact)?,
        None => OperatorMemory::default(),
    };
    let taken_over = memory.takes_over.and_then(|at| node.inputs.get(at)).is_some_and(|at| dying.contains(&at.node));
    let result = if memory.unquantized > 0 { memory.unquantized } else { outputs };
    let first = if taken_over { 0 } else { result } + memory.scratch;
    if memory.unquantized == 0 {
        return Ok(first);
    }
    let freed: usize = dying.iter().map(|&input| node_bytes(model, input)).sum::<TractResult<_>>()?;
    Ok(first.max((memory.unquantized + outputs).saturating_sub(freed)))
}

/// Bytes of all outputs of a node.
pub(super) fn node_bytes(model: &TypedModel, node: usize) -> TractResult<usize> {
    let size = |fact: &TypedFact| {
        let dims = super::concrete(fact)?;
        let bytes = dims.iter().try_fold(fact.datum_type.size_of(), |bytes, &dim| bytes.checked_mul(dim));
        bytes.with_context(|| format!("{}: values of shape {dims:?} are too large", model.node(node).name))
    };
    let mut bytes = 0usize;
    for output in &model.node(node).outputs {
        bytes = bytes.checked_add(size(&output.fact)?).context("values are too large")?;
    }
    Ok(bytes)
}

/// For each node the step at which its value is used for the last time.
fn last_uses(model: &TypedModel, order: &[usize]) -> Vec<usize> {
    let mut last = vec![usize::MAX; model.nodes().len()];
    for (step, &id) in order.iter().enumerate() {
        model.node(id).inputs.iter().for_each(|input| last[input.node] = step);
    }
    model.outputs.iter().for_each(|output| last[output.node] = usize::MAX);
    last
}
