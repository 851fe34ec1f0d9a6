//! One int8 scale for each row.

use std::ops::Range;

use diffused_kernels::{FloatRows, Level};
use tract_onnx::prelude::*;

use super::joined::{self, Joined};
use super::memory::OperatorMemory;
use super::pool::Pool;
use super::values::{channels, leading, values, values_mut};
use crate::error::Result;

/// `q` and `scale` of `x`, which may have waited in f16.
pub(super) fn rows(x: TValue, pool: &mut Pool) -> Result<TVec<TValue>> {
    let (mut q, mut scale) = (pool.take::<i8>(x.shape())?, pool.take::<f32>(leading(x.shape()))?);
    let rows = match x.datum_type() {
        DatumType::F16 => FloatRows::F16(values(&x)?, 1.0),
        _ => FloatRows::F32(values(&x)?),
    };
    Level::current().quantize_rows(rows, channels(x.shape()), values_mut(&mut q)?, values_mut(&mut scale)?);
    pool.give(x);
    Ok(tvec![q.into(), scale.into()])
}

/// `q` and `scale` of what lies side by side.
pub(super) fn joined(mut parts: Vec<TValue>, pool: &mut Pool) -> Result<TVec<TValue>> {
    if let [_] = parts[..] {
        return rows(parts.remove(0), pool);
    }
    let joined = Joined::of(&parts)?;
    let (shape, block) = (joined.shape().to_vec(), joined::block_rows(joined.shape()));
    pool.reserve(joined::block_bytes(&shape));
    let outputs = in_blocks(&shape, block, pool, |rows, out| {
        joined.read(rows.start, out);
        Ok(())
    })?;
    pool.release(joined::block_bytes(&shape));
    parts.into_iter().for_each(|part| pool.give(part));
    Ok(outputs)
}

/// Memory of `joined`.
pub(super) fn memory(inputs: usize, output: &[usize]) -> OperatorMemory {
    let scratch = if inputs > 1 { joined::block_bytes(output) } else { 0 };
    OperatorMemory { scratch, ..OperatorMemory::default() }
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
        Level::current().quantize_rows(FloatRows::F32(values), channels, q, scale);
    }
    Ok(tvec![q.into(), scale.into()])
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn what_waited_in_f16_is_quantized_as_if_cast_before() {
        let numbers: Vec<f32> = (0..3 * 40).map(|i| (i * 37 % 101) as f32 / 7.0 - 5.0).collect();
        let half = Tensor::from_shape(&[3, 40], &numbers).unwrap().cast_to::<f16>().unwrap().into_owned();
        let single = half.cast_to::<f32>().unwrap().into_owned();
        let quantized = |x: Tensor| rows(x.into(), &mut Pool::default()).unwrap();
        assert_eq!(quantized(half), quantized(single));
    }
}
