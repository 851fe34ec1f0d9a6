//! A value once for each prompt, where what depends on the image alone meets what depends on the prompts (`wiring`).

use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

use super::shared::Shared;
use crate::ops;

/// As many copies of a value, one after the other along its first axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepeatOp {
    pub(super) times: usize,
}

impl RepeatOp {
    fn shape(&self, input: &[usize]) -> TVec<usize> {
        let mut shape: TVec<usize> = input.into();
        shape.first_mut().into_iter().for_each(|first| *first *= self.times);
        shape
    }
}

impl Op for RepeatOp {
    fn name(&self) -> StaticName {
        "Repeat".into()
    }

    op_as_typed_op!();
}

impl EvalOp for RepeatOp {
    not_out_of_plan!();

    fn eval(&self, context: &EvalContext, mut inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let value = inputs.pop().context("nothing to repeat")?;
        Ok(tvec![ops::repeat(value, self.times, &mut Shared::of(context)?.lock().pool)?.into()])
    }
}

impl TypedOp for RepeatOp {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec![inputs[0].datum_type.fact(&*self.shape(&super::concrete(inputs[0])?))])
    }

    as_op!();
}
