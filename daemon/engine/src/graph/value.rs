//! What goes into a graph and comes out of it, in plain Rust: tract's types stay inside `graph` and `ops`.

use tract_onnx::prelude::*;

/// An input of a graph: its shape and its values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Numbers.
    F32(Vec<usize>, Vec<f32>),
    /// Token ids.
    I64(Vec<usize>, Vec<i64>),
}

/// An input's kind and shape: what a plan is made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Numbers.
    F32(Vec<usize>),
    /// Token ids.
    I64(Vec<usize>),
}

impl Value {
    /// Its kind and shape.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Value::F32(shape, _) => Kind::F32(shape.clone()),
            Value::I64(shape, _) => Kind::I64(shape.clone()),
        }
    }

    pub(super) fn into_tensor(self) -> TractResult<TValue> {
        match self {
            Value::F32(shape, values) => Ok(Tensor::from_shape(&shape, &values)?.into()),
            Value::I64(shape, values) => Ok(Tensor::from_shape(&shape, &values)?.into()),
        }
    }
}

impl Kind {
    pub(super) fn fact(&self) -> InferenceFact {
        match self {
            Kind::F32(shape) => InferenceFact::dt_shape(DatumType::F32, shape),
            Kind::I64(shape) => InferenceFact::dt_shape(DatumType::I64, shape),
        }
    }
}

pub(super) fn slice(tensor: &Tensor) -> TractResult<&[f32]> {
    tensor.try_as_plain_ram()?.as_slice()
}
