//! Attention without a matrix of scores.

use diffused_kernels::{self as kernels, AttentionShape};
use tract_onnx::prelude::*;

use super::pool::Pool;
use super::values::{Inputs, channels, leading, values, values_mut};
use crate::error::Result;

/// `softmax(q kᵀ / √d) v` per head; the result takes the queries' place.
pub(super) fn run(inputs: &mut Inputs, heads: usize, causal: bool, pool: &mut Pool) -> Result<Tensor> {
    let (mut q, k, v) = (inputs.tensor()?, inputs.value()?, inputs.value()?);
    let batch = q.shape()[0];
    let tokens = |x: &Tensor| leading(x.shape()).iter().product::<usize>() / batch;
    let head_dim = channels(q.shape()) / heads;
    let shape = AttentionShape { batch, heads, head_dim, queries: tokens(&q), keys: tokens(&k), causal };
    kernels::attention(values_mut(&mut q)?, values(&k)?, values(&v)?, &shape);
    pool.give(k);
    pool.give(v);
    Ok(q)
}
