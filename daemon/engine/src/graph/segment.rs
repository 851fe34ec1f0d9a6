//! The part of a graph that can run in strips: all that works row by row above the smallest resolution of its images, or
//! the whole graph where nothing works otherwise.
//!
//! It becomes one node of the schedule, whose input is the segment's and whose output is the segment's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

use super::net_op::NetOp;
use crate::layer::{Layer, half_unit};
use crate::ops;
use crate::strips::{Extent, RowNode, RowOp, Segment};
use crate::weights::Shape;

/// A segment as one operator. `Schedule::run` runs it: it reports progress from inside through the caller's closure,
/// which only the walk has.
#[derive(Debug, Clone)]
pub(super) struct SegmentOp(pub(super) Arc<Segment>);

impl PartialEq for SegmentOp {
    fn eq(&self, other: &SegmentOp) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SegmentOp {}

impl SegmentOp {
    /// Shape of the result.
    pub(super) fn shape(&self) -> TVec<usize> {
        let Extent { height, width, channels } = self.0.result();
        tvec![1, height, width, channels]
    }
}

impl Op for SegmentOp {
    fn name(&self) -> StaticName {
        "Segment".into()
    }

    op_as_typed_op!();
}

impl EvalOp for SegmentOp {
    not_out_of_plan!();

    fn eval(&self, _: &EvalContext, _: TVec<TValue>) -> TractResult<TVec<TValue>> {
        bail!("a segment runs in strips, by Schedule::run")
    }
}

impl TypedOp for SegmentOp {
    fn output_facts(&self, _: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec![DatumType::F32.fact(&*self.shape())])
    }

    as_op!();
}

/// `model`, whose nodes run in `order`, with its segment as one node; none if it has no such part.
pub(super) fn replace(model: &TypedModel, order: &[usize]) -> TractResult<Option<TypedModel>> {
    let inside = inside(model, order)?;
    let Some(&sink) = order.iter().rev().find(|id| inside.contains(id)) else { return Ok(None) };
    let inputs = order.iter().filter(|id| inside.contains(id)).flat_map(|&id| &model.node(id).inputs);
    let sources: HashSet<OutletId> = inputs.copied().filter(|outlet| !inside.contains(&outlet.node)).collect();
    let leaves = order.iter().filter(|id| inside.contains(id)).filter(|&&id| {
        let node = model.node(id);
        let used = node.outputs.iter().flat_map(|output| &output.successors);
        used.clone().any(|inlet| !inside.contains(&inlet.node)) || used.count() == 0
    });
    let is_output = |id: &usize| model.outputs.iter().any(|outlet| outlet.node == *id);
    let hidden_output = inside.iter().any(|id| *id != sink && is_output(id));
    // Anything else runs whole: its rows would have to come from, or go to, more than one place.
    let ([source], 1, 1, false) =
        (&*Vec::from_iter(sources), leaves.count(), model.node(sink).outputs.len(), hidden_output)
    else {
        return Ok(None);
    };
    let Some(segment) = segment(model, order, &inside, *source)? else { return Ok(None) };
    let mut patch = TypedModelPatch::default();
    let tap = patch.tap_model(model, *source)?;
    let result = patch.wire_node(&model.node(sink).name, SegmentOp(Arc::new(segment)), &[tap])?;
    patch.shunt_outside(model, OutletId::new(sink, 0), result[0])?;
    let mut model = model.clone();
    patch.apply(&mut model)?;
    model.compact()?;
    Ok(Some(model))
}

/// The extents of a node's first input and first output, where both are single images.
fn extents(model: &TypedModel, id: usize) -> TractResult<Option<(Extent, Extent)>> {
    let node = model.node(id);
    let (Some(&input), Some(output)) = (node.inputs.first(), node.outputs.first()) else { return Ok(None) };
    Ok(extent(model.outlet_fact(input)?).zip(extent(&output.fact)))
}

fn extent(fact: &TypedFact) -> Option<Extent> {
    match *fact.shape.as_concrete()? {
        [1, height, width, channels] => Some(Extent { height, width, channels }),
        _ => None,
    }
}

/// The nodes that work row by row and whose input or output is larger than the smallest image; all nodes where each
/// works row by row.
fn inside(model: &TypedModel, order: &[usize]) -> TractResult<HashSet<usize>> {
    let mut images = Vec::new();
    for &id in order.iter().filter(|id| layer(model, **id).is_some_and(is_row_wise)) {
        images.extend(extents(model, id)?.map(|(from, to)| (id, from.height, to.height)));
    }
    let computing = order.iter().filter(|id| !model.node(**id).inputs.is_empty());
    if computing.count() == images.len() {
        return Ok(images.iter().map(|&(id, ..)| id).collect());
    }
    let smallest = images.iter().map(|&(_, from, to)| from.min(to)).min().unwrap_or(0);
    let mut inside: HashSet<usize> =
        images.iter().filter(|(_, from, to)| from.max(to) > &smallest).map(|&(id, ..)| id).collect();
    // What is quantized for them alone belongs to them.
    for &(id, ..) in &images {
        let mut users = model.node(id).outputs.iter().flat_map(|output| &output.successors);
        if matches!(layer(model, id), Some(Layer::Quantize {})) && users.all(|user| inside.contains(&user.node)) {
            inside.insert(id);
        }
    }
    Ok(inside)
}

fn layer(model: &TypedModel, id: usize) -> Option<&Layer> {
    Some(&model.node(id).op_as::<NetOp>()?.layer)
}

/// Whether a row of the result needs a few rows of the inputs, and nothing else but a norm's statistics.
fn is_row_wise(layer: &Layer) -> bool {
    match layer {
        Layer::Conv2d { time, size, .. } => !time && !size,
        Layer::GroupNorm { .. } | Layer::Quantize {} => true,
        Layer::Embedding { .. }
        | Layer::TimeEmbedding { .. }
        | Layer::AddSilu {}
        | Layer::Linear { .. }
        | Layer::LayerNorm { .. }
        | Layer::Attention { .. }
        | Layer::Affine { .. }
        | Layer::SoftClamp { .. } => false,
    }
}

fn segment(
    model: &TypedModel,
    order: &[usize],
    inside: &HashSet<usize>,
    source: OutletId,
) -> TractResult<Option<Segment>> {
    let Some(extent) = extent(model.outlet_fact(source)?) else { return Ok(None) };
    let mut nodes = vec![RowNode { op: RowOp::Input, inputs: vec![], extent, weight_bytes: 0 }];
    let mut index = HashMap::from([(source.node, 0)]);
    for &id in order.iter().filter(|id| inside.contains(id)) {
        let Some((from, to)) = extents(model, id)? else { return Ok(None) };
        let node = model.node(id);
        let op = node.op_as::<NetOp>().context("one of our operators")?;
        let Some(read) = read(&op.layer, &node.inputs) else { return Ok(None) };
        let number = |outlet: &OutletId| {
            index.get(&outlet.node).copied().with_context(|| format!("{} runs before its inputs", node.name))
        };
        let inputs = read.iter().map(number).collect::<TractResult<_>>()?;
        let row_op = row_op(&op.layer, &op.weights, from).with_context(|| format!("{} in strips", node.name))?;
        nodes.push(RowNode { op: row_op, inputs, extent: to, weight_bytes: op.matrix_bytes() });
        index.insert(id, nodes.len() - 1);
    }
    Ok(Some(Segment { nodes, handed_out: false }))
}

/// The values that a node reads: `q` and `scale`, which must be one node's, count as one. The second is the residual.
fn read(layer: &Layer, inputs: &[OutletId]) -> Option<Vec<OutletId>> {
    let (&first, &last) = (inputs.first()?, inputs.last()?);
    let residual = matches!(layer, Layer::Conv2d { residual: true, .. });
    let activations = &inputs[..inputs.len() - usize::from(residual)];
    let whole = match *activations {
        [_] => true,
        [q, scale] => q.node == scale.node && (q.slot, scale.slot) == (0, 1),
        _ => false,
    };
    whole.then(|| if residual { vec![first, last] } else { vec![first] })
}

fn row_op(layer: &Layer, weights: &[Shape], from: Extent) -> TractResult<RowOp> {
    match layer {
        Layer::GroupNorm { weight, groups, eps, silu, quantize } => {
            Ok(RowOp::Norm { weight: weight.clone(), groups: *groups, eps: *eps, silu: *silu, quantize: *quantize })
        }
        Layer::Conv2d { weight, half, relu, slopes, .. } => {
            let input = [1, from.height, from.width, from.channels];
            let shape = ops::conv_shape(layer, weights, &input, None);
            let shape = shape.with_context(|| format!("{weight}: cannot convolve {input:?}"))?;
            let (weight, slopes) = (weight.clone(), slopes.clone());
            Ok(RowOp::Conv { weight, shape, half: half_unit(*half), relu: *relu, slopes })
        }
        Layer::Quantize {} => Ok(RowOp::Quantize),
        Layer::Embedding { .. }
        | Layer::TimeEmbedding { .. }
        | Layer::AddSilu {}
        | Layer::Linear { .. }
        | Layer::LayerNorm { .. }
        | Layer::Attention { .. }
        | Layer::Affine { .. }
        | Layer::SoftClamp { .. } => bail!("{} does not work row by row", layer.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_work_row_by_row_is_an_error_and_nothing_else() {
        let extent = Extent { height: 8, width: 8, channels: 4 };
        let attention = Layer::Attention { heads: 1, causal: false, int8: false, cross: false, quantize: false };
        assert!(row_op(&attention, &[], extent).unwrap_err().to_string().contains("Attention"));
        let conv = Layer::Conv2d {
            weight: "w".into(),
            features: 4,
            kernel: 5,
            stride: 1,
            padding: crate::layer::Padding::Same,
            upsample: false,
            size: false,
            time: false,
            residual: false,
            half: 0,
            relu: false,
            slopes: None,
        };
        let message = row_op(&conv, &[], extent).unwrap_err().to_string();
        assert!(message.contains("w: cannot convolve"), "{message}");
    }
}
