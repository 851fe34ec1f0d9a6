//! `act(x · Wᵀ + b) [+ residual]`.

use diffused_kernels::pack::PANEL;
use diffused_kernels::{self as kernels, Epilogue, Level, LinearCall};
use tract_onnx::prelude::*;

use super::memory::{OperatorMemory, f32_bytes};
use super::pool::Pool;
use super::quantize;
use super::values::{OperatorInputs, channels, leading, values_mut};
use crate::error::{Error, Result};
use crate::layer::{Activation, Layer};
use crate::weights::{Shape, Weights};

/// Bytes of f32 results that a block of rows aims at, where results are quantized block by block.
const BLOCK: usize = 2 << 20;

/// The result is written over the residual where there is one.
pub(super) fn run(
    layer: &Layer,
    inputs: &mut OperatorInputs,
    weights: &mut Weights,
    pool: &mut Pool,
) -> Result<TVec<TValue>> {
    let Layer::Linear { weight, features, activation, residual, quantize } = layer else {
        return Err(Error::Internal(format!("{} is not a linear layer", layer.name())));
    };
    let x = inputs.activations(weight, weights)?;
    let rows: usize = leading(x.shape()).iter().product();
    let shape: Vec<usize> = leading(x.shape()).iter().copied().chain([*features]).collect();
    let epilogue = Epilogue { activation: (*activation).into(), accumulate: *residual, ..Epilogue::NONE };
    if let Some(blocks) = blocks(layer, rows, weights.shape(weight)?) {
        pool.reserve(blocks.scratch);
        let matrix = weights.whole(weight)?;
        let outputs = quantize::in_blocks(&shape, blocks.rows, pool, |rows, out| {
            let x = x.rows()?.part(rows.clone(), channels(x.shape()));
            matrix.panels(|&panels| {
                Level::current().linear(&LinearCall { x, panels, features: *features, epilogue }, out);
            });
            Ok(())
        })?;
        x.give(pool);
        pool.release(blocks.scratch);
        return Ok(outputs);
    }
    let mut out = if *residual { inputs.tensor(pool)? } else { pool.take::<f32>(&shape)? };
    let (rows, y) = (x.rows()?, values_mut(&mut out)?);
    weights.panels(weight, |&panels| {
        Level::current().linear(&LinearCall { x: rows, panels, features: *features, epilogue }, y);
    })?;
    x.give(pool);
    if *quantize { quantize::rows(out.into(), pool) } else { Ok(tvec![out.into()]) }
}

/// Memory of `run`: a residual, which is the last input, is written over.
pub(super) fn memory(layer: &Layer, weights: &[Shape], inputs: usize, output: &[usize]) -> OperatorMemory {
    let (Layer::Linear { residual, quantize, .. }, [weight]) = (layer, weights) else {
        return OperatorMemory::default();
    };
    let rows = leading(output).iter().product();
    if let Some(blocks) = blocks(layer, rows, *weight) {
        return OperatorMemory { scratch: blocks.scratch, ..OperatorMemory::default() };
    }
    let takes_over = if *residual { inputs.checked_sub(1) } else { None };
    OperatorMemory { takes_over, scratch: 0, unquantized: if *quantize { f32_bytes(output) } else { 0 } }
}

/// How a linear layer works in blocks of rows.
struct RowBlocks {
    /// Rows of a block.
    rows: usize,
    /// Bytes of the whole matrix and of a block's results in f32.
    scratch: usize,
}

/// Blocks where holding the whole matrix takes less memory than holding all results in f32 before they are quantized.
fn blocks(layer: &Layer, rows: usize, weight: Shape) -> Option<RowBlocks> {
    let Layer::Linear { features, residual: false, quantize: true, .. } = layer else { return None };
    let Shape::Matrix { layout, n } = weight else { return None };
    let row = features * size_of::<f32>();
    let block = (BLOCK / row).max(PANEL);
    let scratch = n.div_ceil(PANEL) * layout.panel_bytes() + block * row;
    (scratch < rows * row).then_some(RowBlocks { rows: block, scratch })
}

impl From<Activation> for kernels::ActivationFn {
    fn from(activation: Activation) -> kernels::ActivationFn {
        match activation {
            Activation::None => kernels::ActivationFn::None,
            Activation::Silu => kernels::ActivationFn::Silu,
            Activation::Gelu => kernels::ActivationFn::Gelu,
            Activation::QuickGelu => kernels::ActivationFn::QuickGelu,
            Activation::Geglu => kernels::ActivationFn::Geglu,
        }
    }
}
