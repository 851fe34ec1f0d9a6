//! One int8 scale for each row.

use std::ops::Range;

use diffused_kernels::Level;
use tract_onnx::prelude::*;

use super::pool::Pool;
use super::values::{channels, leading, values, values_mut};
use crate::error::Result;

/// `q` and `scale` of `x`.
pub(super) fn rows(x: TValue, pool: &mut Pool) -> Result<TVec<TValue>> {
    let (mut q, mut scale) = (pool.take::<i8>(x.shape())?, pool.take::<f32>(leading(x.shape()))?);
    Level::current().quantize_rows(values(&x)?, channels(x.shape()), values_mut(&mut q)?, values_mut(&mut scale)?);
    pool.give(x);
    Ok(tvec![q.into(), scale.into()])
}

/// `q` and `scale` of a tensor of `shape` that `compute` makes, `block` rows at a time.
pub(super) fn in_blocks(
    shape: &[usize],
    block: usize,
    pool: &mut Pool,
    mut compute: impl FnMut(Range<usize>, &mut [f32]) -> Result<()>,
) -> Result<TVec<TValue>> {
    let (channels, count) = (channels(shape), leading(shape).iter().product::<usize>());
    let (mut q, mut scale) = (pool.take::<i8>(shape)?, pool.take::<f32>(leading(shape))?);
    let mut buffer = vec![0.0; block.min(count) * channels];
    let parts = values_mut(&mut q)?.chunks_mut(block * channels).zip(values_mut(&mut scale)?.chunks_mut(block));
    for (index, (q, scale)) in parts.enumerate() {
        let (first, values) = (index * block, &mut buffer[..q.len()]);
        compute(first..first + scale.len(), values)?;
        Level::current().quantize_rows(values, channels, q, scale);
    }
    Ok(tvec![q.into(), scale.into()])
}
