//! Inputs and output of a graph in plain Rust: tract's types stay inside `graph` and `ops`.

use tract_onnx::prelude::*;

use super::ahead::KnownInput;

/// An input of a graph: its shape and its values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum InputValues {
    /// Numbers.
    F32(Vec<usize>, Vec<f32>),
    /// Token ids.
    I64(Vec<usize>, Vec<i64>),
}

/// An input's type and shape: what a schedule is made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InputShape {
    /// Numbers.
    F32(Vec<usize>),
    /// Numbers in half precision: what one run left for another.
    F16(Vec<usize>),
    /// Token ids.
    I64(Vec<usize>),
}

/// What goes into a graph and what has to come out: f32 of one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    pub(crate) inputs: Vec<InputShape>,
    pub(crate) output: Vec<usize>,
}

impl Signature {
    /// How many prompts there are beside one image, where there are several: then the first input, an image, is alone, and
    /// the result has one image for each prompt.
    pub(super) fn prompts(&self) -> Option<usize> {
        let images = self.inputs.first()?.dims().first()?;
        let results = *self.output.first()?;
        (*images == 1 && results > 1).then_some(results)
    }
}

impl InputValues {
    /// Their type and shape.
    pub(crate) fn shape(&self) -> InputShape {
        match self {
            InputValues::F32(shape, _) => InputShape::F32(shape.clone()),
            InputValues::I64(shape, _) => InputShape::I64(shape.clone()),
        }
    }

    /// The input at this place among a graph's, if it is one number.
    pub(crate) fn number(&self, index: usize) -> Option<KnownInput> {
        match self {
            InputValues::F32(shape, numbers) if shape[..] == [1] => {
                Some(KnownInput { index, numbers: numbers.clone() })
            }
            _ => None,
        }
    }

    pub(super) fn into_tensor(self) -> TractResult<TValue> {
        match self {
            InputValues::F32(shape, values) => Ok(Tensor::from_shape(&shape, &values)?.into()),
            InputValues::I64(shape, values) => Ok(Tensor::from_shape(&shape, &values)?.into()),
        }
    }
}

impl InputShape {
    pub(super) fn dims(&self) -> &[usize] {
        let (InputShape::F32(shape) | InputShape::F16(shape) | InputShape::I64(shape)) = self;
        shape
    }

    pub(super) fn fact(&self) -> TypedFact {
        let kind = match self {
            InputShape::F32(_) => DatumType::F32,
            InputShape::F16(_) => DatumType::F16,
            InputShape::I64(_) => DatumType::I64,
        };
        kind.fact(self.dims())
    }
}

pub(super) fn slice(tensor: &Tensor) -> TractResult<&[f32]> {
    tensor.try_as_plain_ram()?.as_slice()
}
