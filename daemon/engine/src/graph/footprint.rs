//! What a run holds in memory at its worst moment, found by walking the plan without computing.
//!
//! It mirrors what `Plan::run` and the operators do: a value dies at its last use, a residual's or a norm's memory is taken
//! over by the result, and an operator that quantizes first makes its result in f32.

use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::DimLike;

use super::net_op::NetOp;
use super::order;
use crate::layer::Layer;

/// Bytes of activations at the worst moment of a run that goes through `order`; nodes that are not `whole` make nothing.
pub(super) fn peak(model: &TypedModel, order: &[usize], whole: &dyn Fn(&usize) -> bool) -> TractResult<usize> {
    let bytes = |id: usize| if whole(&id) { node_bytes(model, id) } else { Ok(0) };
    let last_use = last_uses(model, order);
    let mut live = 0;
    for outlet in model.input_outlets()? {
        live += bytes(outlet.node)?;
    }
    let mut peak = live;
    for (step, &id) in order.iter().enumerate() {
        let node = model.node(id);
        if node.inputs.is_empty() {
            continue;
        }
        let mut dying = order::inputs(node);
        dying.retain(|&input| last_use[input] == step);
        if whole(&id) {
            peak = peak.max(live + working(model, node, &dying)?);
        }
        live += bytes(id)?;
        for input in dying {
            live -= bytes(input)?;
        }
        peak = peak.max(live);
    }
    Ok(peak)
}

/// Bytes that `node` holds beside what is alive before it, inputs that die here included.
fn working(model: &TypedModel, node: &TypedNode, dying: &[usize]) -> TractResult<usize> {
    let made = node_bytes(model, node.id)?;
    let Some(op) = node.op_as::<NetOp>() else { return Ok(made) };
    let single = node.outputs[0].fact.shape.volume().to_usize()? * size_of::<f32>();
    if let Some(block) = op.block_bytes(&node.outputs[0].fact)? {
        return Ok(made + block);
    }
    // The input whose place the result in f32 takes.
    let taken = match &op.layer {
        Layer::Linear { residual: true, .. } | Layer::Conv2d { residual: true, .. } => node.inputs.last(),
        Layer::GroupNorm { quantize: false, .. } | Layer::Attention { .. } => node.inputs.first(),
        _ => None,
    };
    let taken = taken.is_some_and(|input| dying.contains(&input.node));
    let result = if taken { 0 } else { single };
    match op.layer {
        Layer::Linear { quantize: true, .. } | Layer::Attention { quantize: true, .. } => {
            let freed = dying.iter().map(|&input| node_bytes(model, input)).sum::<TractResult<usize>>()?;
            Ok(result.max((single + made).saturating_sub(freed)))
        }
        _ if op.layer.quantizes() => Ok(made),
        _ => Ok(result),
    }
}

/// Bytes of all outputs of a node.
pub(super) fn node_bytes(model: &TypedModel, node: usize) -> TractResult<usize> {
    let size = |fact: &TypedFact| Ok(fact.shape.volume().to_usize()? * fact.datum_type.size_of());
    model.node(node).outputs.iter().map(|output| size(&output.fact)).sum()
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
