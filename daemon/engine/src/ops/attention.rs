//! Attention without a matrix of scores.

use diffused_kernels::{AttentionCall, AttentionShape, Level};
use tract_onnx::prelude::*;

use super::memory::{OperatorMemory, f32_bytes};
use super::pool::Pool;
use super::values::{OperatorInputs, channels, leading, values, values_mut};
use crate::error::{Error, Result};
use crate::layer::Layer;

/// `softmax(q kᵀ / √d) v` per head; the result takes the queries' place.
pub(super) fn run(layer: &Layer, inputs: &mut OperatorInputs, pool: &mut Pool) -> Result<Tensor> {
    let Layer::Attention { heads, causal, int8, cross, .. } = *layer else {
        return Err(Error::Internal(format!("{} is not an attention layer", layer.name())));
    };
    let (mut q, k, v) = (inputs.tensor(pool)?, inputs.value()?, inputs.value()?);
    let batch = q.shape()[0];
    let tokens = |x: &Tensor| leading(x.shape()).iter().product::<usize>() / batch;
    let head_dim = channels(q.shape()) / heads;
    let shape = AttentionShape { batch, heads, head_dim, queries: tokens(&q), keys: tokens(&k), causal };
    let attention = match (int8, cross) {
        (false, _) => Level::attention,
        (true, false) => Level::attention_int8,
        (true, true) => Level::cross_attention_int8,
    };
    let packed = packed_bytes(int8 && !cross, &shape);
    pool.reserve(packed);
    attention(Level::current(), &AttentionCall { k: values(&k)?, v: values(&v)?, shape }, values_mut(&mut q)?);
    pool.release(packed);
    pool.give(k);
    pool.give(v);
    Ok(q)
}

/// Memory of `run`: the queries' is used again, and the result is quantized when queries, keys and values are dropped. Where `packs`
/// is set, in int8 and not to a text, a single head is packed, that of an image, whose pixels are queries and keys.
pub(super) fn memory(heads: usize, packs: bool, quantize: bool, output: &[usize]) -> OperatorMemory {
    let (batch, tokens) = (output[0], leading(output).iter().skip(1).product());
    let shape = AttentionShape {
        batch,
        heads,
        head_dim: channels(output) / heads,
        queries: tokens,
        keys: tokens,
        causal: false,
    };
    let scratch = packed_bytes(packs, &shape);
    let unquantized = if quantize { f32_bytes(output) } else { 0 };
    OperatorMemory { takes_over: Some(0), scratch, unquantized }
}

fn packed_bytes(packs: bool, shape: &AttentionShape) -> usize {
    if packs { shape.packed_bytes() } else { 0 }
}
