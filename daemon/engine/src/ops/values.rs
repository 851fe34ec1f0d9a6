//! Taking tract's values apart and making new ones.

use diffused_kernels::InputRows;
use diffused_kernels::pack::Format;
use tract_onnx::prelude::tract_num_traits::Zero;
use tract_onnx::prelude::*;

use super::pool::Pool;
use crate::error::{Error, Result};
use crate::weights::{Shape, Weights};

/// An operator's inputs, taken one after the other.
pub(super) struct OperatorInputs(std::vec::IntoIter<TValue>);

impl OperatorInputs {
    pub(super) fn new(values: TVec<TValue>) -> OperatorInputs {
        OperatorInputs(values.into_vec().into_iter())
    }

    /// The next input, perhaps shared with others.
    pub(super) fn value(&mut self) -> Result<TValue> {
        self.0.next().ok_or_else(|| Error::Internal("an operator's input is missing".into()))
    }

    /// The inputs that are left.
    pub(super) fn rest(&mut self) -> Vec<TValue> {
        self.0.by_ref().collect()
    }

    /// The next input, f32, as our own: without a copy where nobody else holds it.
    pub(super) fn tensor(&mut self, pool: &mut Pool) -> Result<Tensor> {
        let value = self.value()?;
        if value.is_exclusive() {
            return Ok(value.into_tensor());
        }
        let mut copy = pool.take::<f32>(value.shape())?;
        values_mut(&mut copy)?.copy_from_slice(values::<f32>(&value)?);
        Ok(copy)
    }

    /// The next one or two inputs, as matrix `name` takes them.
    pub(super) fn activations(&mut self, name: &str, weights: &Weights) -> Result<Activations> {
        let values = self.value()?;
        let int8 = matches!(weights.shape(name)?, Shape::Matrix { layout, .. } if layout.format == Format::Int8);
        let scale = if int8 { Some(self.value()?) } else { None };
        Ok(Activations { values, scale })
    }
}

/// The rows that a matrix is multiplied with: f32, or int8 and a scale for each row.
pub(super) struct Activations {
    values: TValue,
    scale: Option<TValue>,
}

impl Activations {
    pub(super) fn shape(&self) -> &[usize] {
        self.values.shape()
    }

    /// Keeps them for others where nobody else holds them.
    pub(super) fn give(self, pool: &mut Pool) {
        pool.give(self.values);
        self.scale.into_iter().for_each(|scale| pool.give(scale));
    }

    pub(super) fn rows(&self) -> Result<InputRows<'_>> {
        match &self.scale {
            Some(scale) => Ok(InputRows::Int8 { q: values(&self.values)?, scale: values(scale)? }),
            None => Ok(InputRows::F32(values(&self.values)?)),
        }
    }
}

/// A tensor's values.
pub(super) fn values<T: Datum>(tensor: &Tensor) -> Result<&[T]> {
    tensor.try_as_plain_ram().and_then(|view| view.as_slice()).map_err(internal)
}

/// A tensor's values, to write to.
pub(super) fn values_mut<T: Datum>(tensor: &mut Tensor) -> Result<&mut [T]> {
    let view = tensor.to_plain_array_view_mut::<T>().map_err(internal)?;
    view.into_slice().ok_or_else(|| Error::Internal("a tensor that is not contiguous".into()))
}

/// A new tensor of zeros.
pub(super) fn zeros<T: Datum + Zero>(shape: &[usize]) -> Result<Tensor> {
    Tensor::zero::<T>(shape).map_err(internal)
}

/// All axes but the last.
pub(super) fn leading(shape: &[usize]) -> &[usize] {
    &shape[..shape.len() - 1]
}

/// The last axis: channels.
pub(super) fn channels(shape: &[usize]) -> usize {
    shape[shape.len() - 1]
}

pub(super) fn internal(error: TractError) -> Error {
    Error::Internal(format!("{error:#}"))
}
