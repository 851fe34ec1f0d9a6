//! The operators: each a thin shell that takes tract's values apart and calls a kernel.
//!
//! Shapes were checked when the schedule was made (`shapes`). Inputs come by value: an operator that is the last to
//! use a tensor drops it as soon as it can, or writes its result into it.

mod attention;
mod conv;
mod conv_shape;
mod embedding;
mod glue;
mod joined;
mod linear;
mod memory;
mod norm;
mod pointwise;
mod pool;
mod quantize;
mod repeat;
mod shapes;
mod values;

use tract_onnx::prelude::*;

use crate::error::Result;
use crate::layer::Layer;
use crate::weights::{Shape, Weights};
use values::OperatorInputs;

pub(crate) use conv::rectifier;
pub(crate) use conv_shape::conv_shape;
pub(crate) use glue::Glue;
pub(crate) use memory::OperatorMemory;
pub(crate) use pool::Pool;
pub(crate) use repeat::run as repeat;
pub(crate) use shapes::{Operand, macs, outputs};

/// Runs `layer` on `inputs`; what it is the last to use goes to the pool.
pub(crate) fn run(layer: &Layer, inputs: TVec<TValue>, weights: &mut Weights, pool: &mut Pool) -> Result<TVec<TValue>> {
    let inputs = &mut OperatorInputs::new(inputs);
    let output = match layer {
        Layer::Embedding { tokens, positions } => embedding::tokens(inputs, tokens, positions, weights, pool)?,
        Layer::TimeEmbedding { channels, flip_sin_to_cos, freq_shift } => {
            embedding::time(inputs, *channels, *flip_sin_to_cos, *freq_shift)?
        }
        Layer::AddSilu {} => embedding::add_silu(inputs, pool)?,
        Layer::Linear { .. } => return linear::run(layer, inputs, weights, pool),
        Layer::Conv2d { .. } => conv::run(layer, inputs, weights, pool)?,
        Layer::GroupNorm { .. } => return norm::group(layer, inputs, weights, pool),
        Layer::LayerNorm { .. } => return norm::layer(layer, inputs, weights, pool),
        Layer::Attention { .. } => attention::run(layer, inputs, pool)?,
        Layer::Affine { factor, offset } => pointwise::affine(inputs, *factor, *offset, pool)?,
        Layer::SoftClamp { limit } => pointwise::soft_clamp(inputs, *limit, pool)?,
        Layer::Quantize {} => return quantize::joined(inputs.rest(), pool),
    };
    if layer.quantizes() { quantize::rows(output.into(), pool) } else { Ok(tvec![output.into()]) }
}

/// Whether `layer` may have instead of its input several that lie side by side.
pub(crate) fn reads_joined(layer: &Layer) -> bool {
    matches!(layer, Layer::GroupNorm { quantize: true, .. } | Layer::Quantize {})
}

/// The memory that `run` takes for `layer` with so many inputs and a result of shape `output`.
pub(crate) fn memory(layer: &Layer, weights: &[Shape], inputs: usize, output: &[usize]) -> OperatorMemory {
    match layer {
        Layer::Linear { .. } => linear::memory(layer, weights, inputs, output),
        Layer::Conv2d { residual, .. } => conv::memory(*residual, inputs),
        Layer::GroupNorm { quantize, .. } => norm::group_memory(*quantize, inputs, output),
        Layer::Quantize {} => quantize::memory(inputs, output),
        Layer::Attention { heads, int8, cross, quantize, .. } => {
            attention::memory(*heads, *int8 && !cross, *quantize, output)
        }
        Layer::Affine { .. } | Layer::SoftClamp { .. } => pointwise::memory(),
        Layer::Embedding { .. } | Layer::TimeEmbedding { .. } | Layer::AddSilu {} | Layer::LayerNorm { .. } => {
            OperatorMemory::default()
        }
    }
}
