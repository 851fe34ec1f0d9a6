//! The part of an autoencoder's graph that runs in strips: all that works row by row above the latents' resolution.
//!
//! tract still walks over these nodes, in its order; the first ones hand the source over, the last one runs the whole segment,
//! and what passes between them stands for rows that exist only in strips.

use std::collections::HashSet;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

use super::net_op::NetOp;
use crate::layer::Layer;
use crate::strips::{Node, Op, Segment, Size};

/// A segment of a plan's graph.
#[derive(Debug)]
pub(super) struct Strips {
    pub(super) segment: Segment,
    inside: HashSet<usize>,
    source: OutletId,
    sink: usize,
}

/// What a node is to a segment.
pub(super) enum Role {
    Outside,
    Inside,
    /// The node whose output is the segment's result.
    Last,
}

impl Strips {
    /// The segment of `model`; none if nothing is larger than the latents.
    pub(super) fn find(model: &TypedModel, order: &[usize]) -> TractResult<Option<Strips>> {
        let inside = inside(model, order)?;
        let Some(&sink) = order.iter().rev().find(|id| inside.contains(id)) else { return Ok(None) };
        let outside_inputs = order.iter().filter(|id| inside.contains(id)).flat_map(|&id| &model.node(id).inputs);
        let sources: HashSet<OutletId> =
            outside_inputs.copied().filter(|outlet| !inside.contains(&outlet.node)).collect();
        let leaves = order.iter().filter(|id| inside.contains(id)).filter(|&&id| {
            let used = model.node(id).outputs.iter().flat_map(|output| &output.successors);
            used.clone().any(|inlet| !inside.contains(&inlet.node)) || used.count() == 0
        });
        // Anything else is a graph of another kind, which runs whole.
        let (1, 1) = (sources.len(), leaves.count()) else { return Ok(None) };
        let source = sources.into_iter().next().context("one source")?;
        let Some(segment) = segment(model, order, &inside, source)? else { return Ok(None) };
        Ok(Some(Strips { segment, inside, source, sink }))
    }

    /// What node `id` is to it.
    pub(super) fn role(&self, id: usize) -> Role {
        match self.inside.contains(&id) {
            false => Role::Outside,
            true if id == self.sink => Role::Last,
            true => Role::Inside,
        }
    }

    /// The source, if it is among a node's inputs.
    pub(super) fn source(&self, node: &TypedNode, inputs: &TVec<TValue>) -> Option<TValue> {
        node.inputs.iter().position(|outlet| *outlet == self.source).map(|at| inputs[at].clone())
    }

    /// Shape of the result.
    pub(super) fn shape(&self) -> [usize; 4] {
        let size = self.segment.nodes[self.segment.nodes.len() - 1].size;
        [1, size.height, size.width, size.channels]
    }
}

/// What stands for a node's outputs while only strips of them exist.
pub(super) fn placeholders(node: &TypedNode) -> TractResult<TVec<TValue>> {
    let placeholder = |output: &Outlet<TypedFact>| {
        // tract checks shapes in debug builds.
        let shape = match cfg!(debug_assertions) {
            true => output.fact.shape.as_concrete().unwrap_or(&[0]),
            false => &[0],
        };
        Ok(Tensor::zero_dt(output.fact.datum_type, shape)?.into())
    };
    node.outputs.iter().map(placeholder).collect()
}

/// The pictures' sizes, where a node has such inputs and outputs.
fn sizes(model: &TypedModel, id: usize) -> TractResult<Option<(Size, Size)>> {
    let node = model.node(id);
    let Some(&input) = node.inputs.first() else { return Ok(None) };
    let (from, to) = (size(model.outlet_fact(input)?), size(&node.outputs[0].fact));
    Ok(from.zip(to))
}

fn size(fact: &TypedFact) -> Option<Size> {
    match *fact.shape.as_concrete()? {
        [1, height, width, channels] => Some(Size { height, width, channels }),
        _ => None,
    }
}

/// The nodes that work row by row and whose input or output is larger than the smallest picture.
fn inside(model: &TypedModel, order: &[usize]) -> TractResult<HashSet<usize>> {
    let row_wise = |id: &usize| {
        let layer = model.node(*id).op_as::<NetOp>().map(|op| &op.layer);
        matches!(
            layer,
            Some(Layer::Conv2d { time: false, size: false, .. } | Layer::GroupNorm { .. } | Layer::Quantize {})
        )
    };
    let mut pictures = Vec::new();
    for &id in order.iter().filter(|id| row_wise(id)) {
        pictures.extend(sizes(model, id)?.map(|(from, to)| (id, from.height, to.height)));
    }
    let smallest = pictures.iter().map(|&(_, from, to)| from.min(to)).min().unwrap_or(0);
    let mut inside: HashSet<usize> =
        pictures.iter().filter(|(_, from, to)| from.max(to) > &smallest).map(|&(id, ..)| id).collect();
    // What is quantized for them alone belongs to them.
    for &(id, ..) in &pictures {
        let quantize = matches!(model.node(id).op_as::<NetOp>().map(|op| &op.layer), Some(Layer::Quantize {}));
        let mut users = model.node(id).outputs.iter().flat_map(|output| &output.successors);
        if quantize && users.all(|user| inside.contains(&user.node)) {
            inside.insert(id);
        }
    }
    Ok(inside)
}

fn segment(
    model: &TypedModel,
    order: &[usize],
    inside: &HashSet<usize>,
    source: OutletId,
) -> TractResult<Option<Segment>> {
    let Some(size) = size(model.outlet_fact(source)?) else { return Ok(None) };
    let mut nodes = vec![Node { op: Op::Source, inputs: vec![], size, weight_bytes: 0 }];
    let mut index = HashMap::from([(source.node, 0)]);
    for &id in order.iter().filter(|id| inside.contains(id)) {
        let Some((from, to)) = sizes(model, id)? else { return Ok(None) };
        let node = model.node(id);
        let op = node.op_as::<NetOp>().context("one of our operators")?;
        let mut inputs: Vec<usize> = node.inputs.iter().map(|outlet| index[&outlet.node]).collect();
        // `q` and `scale` come from one node.
        inputs.dedup();
        nodes.push(Node { op: row_op(&op.layer, from), inputs, size: to, weight_bytes: op.matrix_bytes() });
        index.insert(id, nodes.len() - 1);
    }
    Ok(Some(Segment { nodes }))
}

fn row_op(layer: &Layer, from: Size) -> Op {
    let input = [1, from.height, from.width, from.channels];
    match layer {
        Layer::GroupNorm { weight, groups, eps, silu, quantize } => {
            Op::Norm { weight: weight.clone(), groups: *groups, eps: *eps, silu: *silu, quantize: *quantize }
        }
        Layer::Conv2d { weight, half, .. } => match super::conv_shape(layer, &input, None) {
            Some(shape) => Op::Conv { weight: weight.clone(), shape, half: *half },
            None => Op::Source,
        },
        _ => Op::Quantize,
    }
}
