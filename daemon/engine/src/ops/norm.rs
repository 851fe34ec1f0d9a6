//! Group and layer normalisation, with SiLU and quantization on the way out.

use std::ops::Range;

use diffused_kernels::{FloatRows, GroupSums, Level, Norm, NormOut};
use tract_onnx::prelude::*;

use super::joined::{self, Joined};
use super::memory::OperatorMemory;
use super::pool::Pool;
use super::values::{OperatorInputs, channels, leading, values, values_mut};
use crate::error::{Error, Result};
use crate::layer::Layer;
use crate::weights::Weights;

/// What a group normalisation does to its input.
struct GroupNormCall<'a> {
    groups: usize,
    eps: f32,
    gamma: &'a [f32],
    beta: &'a [f32],
    silu: bool,
    quantize: bool,
}

/// `GroupNorm`; works in place where the input is nobody else's and the result is f32.
pub(super) fn group(
    layer: &Layer,
    inputs: &mut OperatorInputs,
    weights: &mut Weights,
    pool: &mut Pool,
) -> Result<TVec<TValue>> {
    let &Layer::GroupNorm { ref weight, groups, eps, silu, quantize } = layer else {
        return Err(Error::Internal(format!("{} is not a group normalisation", layer.name())));
    };
    let table = weights.table(weight)?;
    let (gamma, beta) = table.split_at(table.len() / 2);
    let norm = GroupNormCall { groups, eps, gamma, beta, silu, quantize };
    let mut parts = inputs.rest();
    match (parts.pop(), parts.is_empty()) {
        (Some(x), true) => norm.whole(x, pool),
        (last, _) => norm.joined(parts.into_iter().chain(last).collect(), pool),
    }
}

impl GroupNormCall<'_> {
    fn whole(&self, x: TValue, pool: &mut Pool) -> Result<TVec<TValue>> {
        let (channels, width) = (channels(x.shape()), x.shape()[2]);
        let picture = x.shape()[1] * width * channels;
        let scale_shift: Vec<(Vec<f32>, Vec<f32>)> = values::<f32>(&x)?
            .chunks_exact(picture)
            .map(|x| {
                let mut sums = GroupSums::new(channels);
                sums.add_rows(Level::current(), x, width);
                self.scale_shift(&sums)
            })
            .collect();
        let scaled = |(scale, shift)| Norm::Scaled { scale, shift, silu: self.silu };
        let norms = scale_shift.iter().map(|(scale, shift)| scaled((&**scale, &**shift)));
        if !self.quantize && x.is_exclusive() {
            let mut x = x.into_tensor();
            for (x, norm) in values_mut(&mut x)?.chunks_exact_mut(picture).zip(norms) {
                Level::current().normalize_in_place(&norm, x);
            }
            return Ok(tvec![x.into()]);
        }
        let mut outputs = Outputs::new(x.shape(), self.quantize, pool)?;
        for ((x, norm), out) in values(&x)?.chunks_exact(picture).zip(norms).zip(outputs.parts(picture)?) {
            Level::current().normalize(&norm, FloatRows::F32(x), out);
        }
        pool.give(x);
        Ok(outputs.into_values())
    }

    /// Of what lies side by side.
    fn joined(&self, parts: Vec<TValue>, pool: &mut Pool) -> Result<TVec<TValue>> {
        let joined = Joined::of(&parts)?;
        let &[images, height, width, channels] = joined.shape() else {
            return Err(Error::Internal(format!("a group normalisation of {:?}", joined.shape())));
        };
        let (pixels, block) = (height * width, joined::block_rows(joined.shape()));
        pool.reserve(joined::block_bytes(joined.shape()));
        let mut outputs = Outputs::new(joined.shape(), self.quantize, pool)?;
        let mut buffer = vec![0.0; block.min(pixels) * channels];
        for image in (0..images).map(|image| image * pixels..(image + 1) * pixels) {
            let blocks = image.clone().step_by(block).map(|at| at..image.end.min(at + block));
            let mut sums = GroupSums::new(channels);
            for rows in blocks.clone() {
                let x = &mut buffer[..rows.len() * channels];
                joined.read(rows.start, x);
                sums.add_rows(Level::current(), x, width);
            }
            let (scale, shift) = self.scale_shift(&sums);
            let norm = Norm::Scaled { scale: &scale, shift: &shift, silu: self.silu };
            for rows in blocks {
                let x = &mut buffer[..rows.len() * channels];
                joined.read(rows.start, x);
                Level::current().normalize(&norm, FloatRows::F32(x), outputs.of_rows(rows)?);
            }
        }
        pool.release(joined::block_bytes(joined.shape()));
        parts.into_iter().for_each(|part| pool.give(part));
        Ok(outputs.into_values())
    }

    fn scale_shift(&self, sums: &GroupSums) -> (Vec<f32>, Vec<f32>) {
        sums.finish(self.groups, self.eps, self.gamma, self.beta)
    }
}

/// Memory of `group`: a result in f32 is written over the input.
pub(super) fn group_memory(quantize: bool, inputs: usize, output: &[usize]) -> OperatorMemory {
    let scratch = if inputs > 1 { joined::block_bytes(output) } else { 0 };
    OperatorMemory { takes_over: if quantize { None } else { Some(0) }, scratch, ..OperatorMemory::default() }
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
        Level::current().normalize(&Norm::Layer { gamma, beta, eps: *eps }, FloatRows::F32(values(&x)?), out);
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

    /// Some of the rows.
    fn of_rows(&mut self, rows: Range<usize>) -> Result<NormOut<'_>> {
        let channels = channels(self.values.shape());
        let part = rows.start * channels..rows.end * channels;
        Ok(match &mut self.scale {
            None => NormOut::F32(&mut values_mut(&mut self.values)?[part]),
            Some(scale) => {
                NormOut::Int8 { q: &mut values_mut(&mut self.values)?[part], scale: &mut values_mut(scale)?[rows] }
            }
        })
    }

    fn into_values(self) -> TVec<TValue> {
        [Some(self.values), self.scale].into_iter().flatten().map(TValue::from).collect()
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::ops::glue::Glue;
    use crate::ops::quantize;

    /// An image for each prompt, and one in f16 that both share, in blocks of which the last is smaller.
    #[test]
    fn what_lies_side_by_side_is_read_as_if_it_were_joined() {
        let image = |shape: [usize; 4], seed: usize| -> TValue {
            let number = |i: usize| ((i * 7919 + seed) % 2003) as f32 / 500.0 - 2.0;
            let values: Vec<f32> = (0..shape.iter().product()).map(number).collect();
            Tensor::from_shape(&shape, &values).unwrap().into()
        };
        let shared: TValue = image([1, 65, 24, 160], 5).cast_to::<f16>().unwrap().into_owned().into();
        let parts = || vec![image([2, 65, 24, 320], 1), shared.clone()];
        let pool = &mut Pool::default();
        let whole = Glue::Concat.run(parts().into(), pool).unwrap().remove(0);
        let table: Vec<f32> = (0..960).map(|i| 0.5 + (i % 7) as f32 / 3.0).collect();
        let (gamma, beta) = table.split_at(480);
        let norm = GroupNormCall { groups: 32, eps: 1e-5, gamma, beta, silu: true, quantize: true };
        assert_eq!(norm.joined(parts(), pool).unwrap(), norm.whole(whole.clone(), pool).unwrap());
        assert_eq!(quantize::joined(parts(), pool).unwrap(), quantize::rows(whole, pool).unwrap());
    }
}
