//! One of our operators as tract sees it: shapes, memory and evaluation, each of which `ops` knows.

use diffused_kernels::pack::PANEL;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

use super::shared::{Resources, Shared};
use crate::error::Result;
use crate::layer::{Activation, Layer};
use crate::ops::{self, Operand, OperatorMemory};
use crate::weights::{Shape, WeightsFile};

/// A `Layer` and the shapes of the weights that it names.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NetOp {
    pub(super) layer: Layer,
    pub(super) weights: Vec<Shape>,
}

// Attributes that are not finite are refused where a node is parsed (`layer_onnx`), so that each layer equals itself.
impl Eq for NetOp {}

impl NetOp {
    /// Of a layer whose weights are not looked up yet.
    pub(super) fn new(layer: Layer) -> NetOp {
        NetOp { layer, weights: Vec::new() }
    }

    /// Looks up the weights' shapes.
    pub(super) fn bind(&mut self, file: &WeightsFile) -> Result<()> {
        self.weights =
            self.layer.weights().into_iter().map(|name| Ok(file.entry(name)?.shape())).collect::<Result<_>>()?;
        Ok(())
    }

    /// It has two outputs, `q` and `scale`.
    pub(super) fn quantizes(&self) -> bool {
        self.layer.quantizes()
    }

    /// Whether a block of its matrix ends between a panel of GEGLU's values and that of their gates.
    pub(super) fn splits_gates(&self, file: &WeightsFile) -> Result<bool> {
        let Layer::Linear { weight, activation: Activation::Geglu, .. } = &self.layer else { return Ok(false) };
        let entry = file.entry(weight)?;
        Ok(entry.blocks() > 1 && !entry.units_per_block().is_multiple_of(2))
    }

    /// The matrices that a run reads, in order.
    pub(super) fn matrices(&self) -> impl Iterator<Item = &str> {
        let named = self.layer.weights().into_iter().zip(&self.weights);
        named.filter(|(_, shape)| matches!(shape, Shape::Matrix { .. })).map(|(name, _)| name)
    }

    /// Bytes of its matrix.
    pub(super) fn matrix_bytes(&self) -> usize {
        match self.weights[..] {
            [Shape::Matrix { layout, n }, ..] => n.div_ceil(PANEL) * layout.panel_bytes(),
            _ => 0,
        }
    }

    /// Multiply-adds of a run on inputs and a first output of these types.
    pub(super) fn macs(&self, inputs: &[&TypedFact], output: &TypedFact) -> TractResult<u64> {
        let inputs = inputs.iter().map(|fact| super::concrete(fact)).collect::<TractResult<Vec<_>>>()?;
        Ok(ops::macs(&self.layer, &self.weights, &inputs, &super::concrete(output)?))
    }

    /// What a run takes of the memory, with so many inputs and this first output.
    pub(super) fn memory(&self, inputs: usize, output: &TypedFact) -> TractResult<OperatorMemory> {
        Ok(ops::memory(&self.layer, &self.weights, inputs, &super::concrete(output)?))
    }

    /// Bytes of the tables that it keeps in memory, as f32: all but the token table, of which only rows are read.
    pub(super) fn table_bytes(&self) -> usize {
        let skipped = if matches!(self.layer, Layer::Embedding { .. }) { 1 } else { 0 };
        let tables = self.weights.iter().skip(skipped);
        let bytes = tables.map(|shape| match *shape {
            Shape::Table { rows, columns, .. } => rows * columns * size_of::<f32>(),
            Shape::Matrix { .. } => 0,
        });
        bytes.sum()
    }

    fn outputs(&self, inputs: &[Operand]) -> TractResult<TVec<Operand>> {
        ops::outputs(&self.layer, &self.weights, inputs).map_err(|message| format_err!("{}: {message}", self.name()))
    }
}

impl Op for NetOp {
    fn name(&self) -> StaticName {
        self.layer.name().into()
    }

    op_as_typed_op!();
}

impl EvalOp for NetOp {
    not_out_of_plan!();

    fn eval(&self, context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let Resources { weights, pool, .. } = &mut *Shared::of(context)?.lock();
        Ok(ops::run(&self.layer, inputs, weights, pool)?)
    }
}

impl TypedOp for NetOp {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let operands = inputs.iter().map(|fact| {
            let shape = super::concrete(fact).with_context(|| self.name())?;
            Ok((fact.datum_type, shape))
        });
        let outputs = self.outputs(&operands.collect::<TractResult<TVec<_>>>()?)?;
        Ok(outputs.into_iter().map(|(kind, shape)| kind.fact(&*shape)).collect())
    }

    as_op!();
}
