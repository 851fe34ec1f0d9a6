//! What a graph computes from inputs of one number, the timestep first of all: it is known for all runs before the first.
//!
//! A UNet's time embedding goes through a matrix of each residual block, 6 % of Stable Diffusion 1.5's weights, and each has
//! one row to multiply in a step. Ahead of the steps their rows are multiplied together, so that these matrices are read
//! once for all of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

use super::input::{self, Signature};
use super::net_op::NetOp;
use super::shared::{Resources, Shared};
use crate::layer::Layer;
use crate::ops;

/// Runs that are looked ahead to at a time: their rows take little memory, and the matrices little of what each run reads.
pub(crate) const RUNS_AHEAD: usize = 8;

/// Nodes that make a row from numbers, in their order; in a run each makes a row of `[1, channels]`.
#[derive(Debug, Default)]
pub(super) struct AheadNodes {
    order: Vec<usize>,
    /// Those whose rows other nodes read, and how long these are.
    read: HashMap<usize, usize>,
}

/// An input of one number: its place among the graph's inputs, and what it is in each run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KnownInput {
    pub(crate) index: usize,
    pub(crate) numbers: Vec<f32>,
}

impl KnownInput {
    /// The same before the last `left` runs, for as many of them as are looked ahead to.
    pub(crate) fn before(&self, left: usize) -> KnownInput {
        let made = self.numbers.len().saturating_sub(left);
        let numbers = self.numbers.iter().skip(made).take(RUNS_AHEAD).copied().collect();
        KnownInput { index: self.index, numbers }
    }
}

/// The rows of several runs.
pub(crate) struct Ahead {
    /// `[run, channels]` of each node whose rows other nodes read.
    rows: HashMap<usize, Tensor>,
    runs: usize,
    next: usize,
}

impl AheadNodes {
    /// Those of `model`, which runs in `order`.
    pub(super) fn of(model: &TypedModel, order: &[usize], signature: &Signature) -> TractResult<AheadNodes> {
        let numbers = model.inputs.iter().zip(&signature.inputs).filter(|(_, shape)| shape.dims() == [1]);
        let mut known: HashSet<usize> = numbers.map(|(input, _)| input.node).collect();
        let mut nodes = AheadNodes::default();
        for &id in order {
            let node = model.node(id);
            let by_rows = node.op_as::<NetOp>().is_some_and(|op| match op.layer {
                Layer::TimeEmbedding { .. } => true,
                Layer::Linear { quantize, .. } => !quantize,
                _ => false,
            });
            let fact = || super::concrete(model.outlet_fact(id.into())?);
            if by_rows && node.inputs.iter().all(|input| known.contains(&input.node)) && matches!(fact()?[..], [1, _]) {
                known.insert(id);
                nodes.order.push(id);
            }
        }
        for &id in &nodes.order {
            let mut readers = model.node(id).outputs.iter().flat_map(|output| &output.successors);
            if readers.any(|reader| !known.contains(&reader.node)) || model.outputs.contains(&id.into()) {
                nodes.read.insert(id, super::concrete(model.outlet_fact(id.into())?)?.iter().product());
            }
        }
        Ok(nodes)
    }

    /// Bytes of the rows that are held for a run.
    pub(super) fn row_bytes(&self) -> usize {
        self.read.values().sum::<usize>() * size_of::<f32>()
    }

    /// The matrices that they multiply with, in order.
    pub(super) fn matrices<'a>(&'a self, model: &'a TypedModel) -> impl Iterator<Item = Arc<str>> + 'a {
        let ops = self.order.iter().filter_map(|&id| model.node(id).op_as::<NetOp>());
        ops.flat_map(NetOp::matrices).map(Arc::from)
    }

    /// Whether `id` is one of them.
    pub(super) fn contains(&self, id: usize) -> bool {
        self.order.contains(&id)
    }

    /// The rows of as many runs as there are numbers of each input.
    pub(super) fn rows(&self, model: &TypedModel, inputs: &[KnownInput], shared: &Shared) -> TractResult<Ahead> {
        let runs = inputs.first().map_or(0, |input| input.numbers.len());
        let mut values: HashMap<usize, TValue> = HashMap::new();
        for KnownInput { index, numbers } in inputs {
            values.insert(model.inputs[*index].node, Tensor::from_shape(&[runs, 1], numbers)?.into());
        }
        let Resources { weights, pool, .. } = &mut *shared.lock();
        for &id in &self.order {
            let node = model.node(id);
            let op = node.op_as::<NetOp>().context("one of our operators")?;
            let inputs = node.inputs.iter().map(|input| values.get(&input.node).cloned());
            let inputs: TVec<TValue> = inputs.collect::<Option<_>>().context("an input that is not known ahead")?;
            let result = ops::run(&op.layer, inputs, weights, pool)?.pop().context("no result")?;
            values.insert(id, result);
        }
        let read = values.into_iter().filter(|(id, _)| self.read.contains_key(id));
        Ok(Ahead { rows: read.map(|(id, rows)| (id, rows.into_tensor())).collect(), runs, next: 0 })
    }
}

impl Ahead {
    /// Of runs that have nothing in them that is known ahead.
    pub(crate) fn none() -> Ahead {
        Ahead { rows: HashMap::new(), runs: usize::MAX, next: 0 }
    }

    /// Runs whose rows were not used yet.
    pub(crate) fn left(&self) -> usize {
        self.runs.saturating_sub(self.next)
    }

    /// The next run begins.
    pub(super) fn next_run(&mut self) {
        self.next += 1;
    }

    /// What node `id` makes in the run that has begun; nothing where no other node reads it.
    pub(super) fn row(&self, id: usize) -> TractResult<TValue> {
        let Some(rows) = self.rows.get(&id) else { return Ok(Tensor::zero::<f32>(&[0])?.into()) };
        let row = input::slice(rows)?.chunks_exact(rows.len() / self.runs).nth(self.next.saturating_sub(1));
        let row = row.context("a run that was not looked ahead to")?;
        Ok(Tensor::from_shape(&[1, row.len()], row)?.into())
    }
}
