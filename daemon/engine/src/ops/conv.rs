//! Convolution over pixels, with the time embedding and the residual added and the result rounded on the way out.

use diffused_kernels::{ActivationFn, ConvCall, Epilogue, Level, Rectifier, Strip};
use tract_onnx::prelude::*;

use super::conv_shape::conv_shape;
use super::memory::OperatorMemory;
use super::pool::Pool;
use super::values::{OperatorInputs, values, values_mut};
use crate::error::{Error, Result};
use crate::layer::{Layer, half_unit};
use crate::weights::Weights;

/// The result is written over the residual where there is one.
pub(super) fn run(
    layer: &Layer,
    inputs: &mut OperatorInputs,
    weights: &mut Weights,
    pool: &mut Pool,
) -> Result<Tensor> {
    let Layer::Conv2d { weight, features, size, time, residual, half, relu, slopes, .. } = layer else {
        return Err(Error::Internal(format!("{} is not a convolution", layer.name())));
    };
    let x = inputs.activations(weight, weights)?;
    let time = if *time { Some(inputs.value()?) } else { None };
    let time = time.as_deref().map(values).transpose()?;
    let size = if *size { Some(inputs.value()?) } else { None };
    let size = size.map(|picture| [picture.shape()[1], picture.shape()[2]]);
    let shape = conv_shape(layer, &[weights.shape(weight)?], x.shape(), size)
        .ok_or_else(|| Error::Internal(format!("{weight}: cannot convolve {:?}", x.shape())))?;
    let mut out = match residual {
        true => inputs.tensor(pool)?,
        false => pool.take::<f32>(&[shape.batch, shape.out_height(), shape.out_width(), *features])?,
    };
    let slopes = slopes.as_ref().map(|name| weights.table(name)).transpose()?;
    let rectifier = rectifier(*relu, slopes.as_deref());
    let epilogue = Epilogue { activation: ActivationFn::None, accumulate: *residual, time, rectifier };
    let (rows, y) = (x.rows()?, values_mut(&mut out)?);
    weights.panels(weight, |&panels| {
        let strip = Strip::whole(&shape);
        Level::current().conv2d(&ConvCall { x: rows, shape, strip, panels, features: *features, epilogue }, y);
    })?;
    x.give(pool);
    if let Some(unit) = half_unit(*half) {
        Level::current().round_to_f16(values_mut(&mut out)?, unit);
    }
    Ok(out)
}

/// What becomes of what is negative in a convolution's result.
pub(crate) fn rectifier(relu: bool, slopes: Option<&[f32]>) -> Rectifier<'_> {
    match slopes {
        Some(slopes) => Rectifier::Prelu(slopes),
        None if relu => Rectifier::Relu,
        None => Rectifier::None,
    }
}

/// Memory of `run`: the residual, which is the last input, is written over.
pub(super) fn memory(residual: bool, inputs: usize) -> OperatorMemory {
    OperatorMemory { takes_over: if residual { inputs.checked_sub(1) } else { None }, ..OperatorMemory::default() }
}
