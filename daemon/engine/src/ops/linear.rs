//! `act(x · Wᵀ + b) [+ residual]`.

use diffused_kernels::{self as kernels, Epilogue};
use tract_onnx::prelude::*;

use super::values::{Inputs, leading, values_mut, zeros};
use crate::error::Result;
use crate::layer::Activation;
use crate::weights::Weights;

/// The result is written over the residual where there is one.
pub(super) fn run(
    inputs: &mut Inputs,
    weight: &str,
    features: usize,
    activation: Activation,
    residual: bool,
    weights: &mut Weights,
) -> Result<Tensor> {
    let x = inputs.activations(weight, weights)?;
    let rows: usize = leading(x.shape()).iter().product();
    let shape: Vec<usize> = leading(x.shape()).iter().copied().chain([features]).collect();
    let mut out = if residual { inputs.tensor()? } else { zeros::<f32>(&shape)? };
    let epilogue = Epilogue { activation: activation.into(), accumulate: residual, time: None };
    let (x, y) = (x.rows()?, values_mut(&mut out)?);
    weights.panels(weight, |panels| kernels::linear(x, rows, panels, features, &epilogue, y))?;
    Ok(out)
}

impl From<Activation> for kernels::Activation {
    fn from(activation: Activation) -> kernels::Activation {
        match activation {
            Activation::None => kernels::Activation::None,
            Activation::Silu => kernels::Activation::Silu,
            Activation::Gelu => kernels::Activation::Gelu,
            Activation::QuickGelu => kernels::Activation::QuickGelu,
            Activation::Geglu => kernels::Activation::Geglu,
        }
    }
}
