//! Group and layer normalisation, with SiLU and quantization on the way out.

use diffused_kernels::{GroupSums, Level, Norm, NormOut};
use tract_onnx::prelude::*;

use super::memory::OperatorMemory;
use super::pool::Pool;
use super::values::{OperatorInputs, channels, leading, values, values_mut};
use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::weights::Weights;

/// `GroupNorm`; works in place where the input is nobody else's and the result is f32.
pub(super) fn group(
    layer: &Layer,
    inputs: &mut OperatorInputs,
    weights: &mut Weights,
    pool: &mut Pool,
) -> Result<TVec<TValue>> {
    let Layer::GroupNorm { weight, groups, eps, silu, quantize } = layer else {
        return Err(Error::Internal(format!("{} is not a group normalisation", layer.name())));
    };
    let x = inputs.value()?;
    let (channels, width) = (channels(x.shape()), x.shape()[2]);
    let table = weights.table(weight)?;
    let (gamma, beta) = table.split_at(channels);
    let picture = x.shape()[1] * width * channels;
    let scale_shift: Vec<(Vec<f32>, Vec<f32>)> = values::<f32>(&x)?
        .chunks_exact(picture)
        .map(|x| {
            let mut sums = GroupSums::new(channels);
            sums.add_rows(Level::current(), x, width);
            sums.finish(*groups, *eps, gamma, beta)
        })
        .collect();
    if !quantize && x.is_exclusive() {
        let mut x = x.into_tensor();
        for (x, (scale, shift)) in values_mut(&mut x)?.chunks_exact_mut(picture).zip(&scale_shift) {
            Level::current().normalize_in_place(&Norm::Scaled { scale, shift, silu: *silu }, x);
        }
        return Ok(tvec![x.into()]);
    }
    let mut outputs = Outputs::new(x.shape(), *quantize, pool)?;
    for ((x, (scale, shift)), out) in values(&x)?.chunks_exact(picture).zip(&scale_shift).zip(outputs.parts(picture)?) {
        Level::current().normalize(&Norm::Scaled { scale, shift, silu: *silu }, x, out);
    }
    pool.give(x);
    Ok(outputs.into_values())
}

/// Memory of `group`: a result in f32 is written over the input.
pub(super) fn group_memory(quantize: bool) -> OperatorMemory {
    OperatorMemory { takes_over: if quantize { None } else { Some(0) }, ..OperatorMemory::default() }
}

/// `LayerNorm`.
pub(super) fn layer(
    layer: &Layer,
    inputs: &mut OperatorInputs,
    weights: &mut Weights,
    pool: &mut Pool,
) -> Result<TVec<TValue>> {
    let Layer::LayerNorm { weight, eps, quantize } = layer else {
        return Err(Error::Internal(format!("{} is not a layer normalisation", layer.name())));
    };
    let x = inputs.value()?;
    let channels = channels(x.shape());
    let table = weights.table(weight)?;
    let (gamma, beta) = table.split_at(channels);
    let mut outputs = Outputs::new(x.shape(), *quantize, pool)?;
    let whole = x.len();
    for out in outputs.parts(whole)? {
        Level::current().normalize(&Norm::Layer { gamma, beta, eps: *eps }, values(&x)?, out);
    }
    pool.give(x);
    Ok(outputs.into_values())
}

/// What a normalisation writes: f32, or `q` and `scale`.
struct Outputs {
    values: Tensor,
    scale: Option<Tensor>,
}

impl Outputs {
    fn new(shape: &[usize], quantize: bool, pool: &mut Pool) -> Result<Outputs> {
        if !quantize {
            return Ok(Outputs { values: pool.take::<f32>(shape)?, scale: None });
        }
        Ok(Outputs { values: pool.take::<i8>(shape)?, scale: Some(pool.take::<f32>(leading(shape))?) })
    }

    /// One part for every `part` values.
    fn parts(&mut self, part: usize) -> Result<Vec<NormOut<'_>>> {
        let channels = channels(self.values.shape());
        let Some(scale) = &mut self.scale else {
            return Ok(values_mut(&mut self.values)?.chunks_exact_mut(part).map(NormOut::F32).collect());
        };
        let scales = values_mut(scale)?.chunks_exact_mut(part / channels);
        let parts = values_mut(&mut self.values)?.chunks_exact_mut(part).zip(scales);
        Ok(parts.map(|(q, scale)| NormOut::Int8 { q, scale }).collect())
    }

    fn into_values(self) -> TVec<TValue> {
        [Some(self.values), self.scale].into_iter().flatten().map(TValue::from).collect()
    }
}
