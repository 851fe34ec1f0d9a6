//! The standard operators between ours that move much memory: `Cast` to and from f16 and `Concat` of channels.
//!
//! A bundle has them as standard ONNX. tract's own would work on one thread and in new memory, which it fills with
//! zeros first; these do the same on all threads and through the pool.

use diffused_kernels::Level;
use half::f16;
use tract_onnx::prelude::*;

use super::joined::{self, Joined};
use super::pool::Pool;
use super::values::{values, values_mut};
use crate::error::{Error, Result};

/// One of these operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Glue {
    /// f32 to f16.
    ToHalf,
    /// f16 to f32.
    ToSingle,
    /// Tensors side by side along their last axis, as f32; those that waited in f16 may come as they are, and those that
    /// all images of the batch share once.
    Concat,
}

impl Glue {
    /// The type and shape of the output for inputs of these shapes.
    pub(crate) fn output(self, inputs: &[TVec<usize>]) -> Result<(DatumType, TVec<usize>)> {
        let first = inputs.first().ok_or_else(|| Error::Internal(format!("{self:?} without an input")))?;
        match self {
            Glue::ToHalf => Ok((DatumType::F16, first.clone())),
            Glue::ToSingle => Ok((DatumType::F32, first.clone())),
            Glue::Concat => Ok((DatumType::F32, joined::shape(inputs).unwrap_or_else(|| first.clone()))),
        }
    }

    /// Runs it; what it is the last to use goes to the pool.
    pub(crate) fn run(self, mut inputs: TVec<TValue>, pool: &mut Pool) -> Result<TVec<TValue>> {
        let output = match (self, &inputs[..]) {
            (Glue::Concat, inputs) => concat(inputs, pool)?,
            (Glue::ToHalf, [x]) => to_half(x, pool)?,
            (Glue::ToSingle, [x]) => to_single(x, pool)?,
            (Glue::ToHalf | Glue::ToSingle, _) => {
                return Err(Error::Internal(format!("{self:?} takes one input, not {}", inputs.len())));
            }
        };
        inputs.drain(..).for_each(|input| pool.give(input));
        Ok(tvec![output.into()])
    }
}

fn to_half(x: &Tensor, pool: &mut Pool) -> Result<Tensor> {
    let mut out = pool.take::<f16>(x.shape())?;
    Level::current().f32_to_f16(values(x)?, 1.0, values_mut(&mut out)?);
    Ok(out)
}

fn to_single(x: &Tensor, pool: &mut Pool) -> Result<Tensor> {
    let mut out = pool.take::<f32>(x.shape())?;
    Level::current().f16_to_f32(values(x)?, 1.0, values_mut(&mut out)?);
    Ok(out)
}

/// The channels of each input in turn.
fn concat(inputs: &[TValue], pool: &mut Pool) -> Result<Tensor> {
    let joined = Joined::of(inputs)?;
    let mut out = pool.take::<f32>(joined.shape())?;
    joined.read(0, values_mut(&mut out)?);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use tract_onnx::tract_core::internal::{EvalContext, EvalOp};
    use tract_onnx::tract_core::ops::array::TypedConcat;
    use tract_onnx::tract_core::ops::cast::Cast;

    use super::*;

    #[test]
    fn gives_what_tracts_own_give() {
        let numbers = |shape: [usize; 3], first: f32| -> TValue {
            let values: Vec<f32> = (0..shape.iter().product()).map(|i| first + i as f32 / 3.0).collect();
            Tensor::from_shape(&shape, &values).unwrap().into()
        };
        let single = numbers([2, 3, 5], 0.5);
        let half: TValue = single.cast_to::<f16>().unwrap().into_owned().into();
        let joined = tvec![single.clone(), numbers([2, 3, 16384], -7.0), single.clone()];
        let cases: [(Glue, Box<dyn EvalOp>, TVec<TValue>); 3] = [
            (Glue::Concat, Box::new(TypedConcat { axis: 2 }), joined),
            (Glue::ToHalf, Box::new(Cast { to: DatumType::F16 }), tvec![single]),
            (Glue::ToSingle, Box::new(Cast { to: DatumType::F32 }), tvec![half]),
        ];
        for (glue, theirs, inputs) in cases {
            let wanted = theirs.eval(&EvalContext::out_of_plan(), inputs.clone()).unwrap();
            let shapes: Vec<TVec<usize>> = inputs.iter().map(|input| input.shape().into()).collect();
            assert_eq!(glue.output(&shapes).unwrap(), (wanted[0].datum_type(), wanted[0].shape().into()));
            assert_eq!(glue.run(inputs, &mut Pool::default()).unwrap(), wanted, "{glue:?}");
        }
    }

    #[test]
    fn halves_go_beside_singles_as_if_cast_before() {
        let shape = [2, 3, 16384];
        let numbers: Vec<f32> = (0..shape.iter().product()).map(|i| i as f32 / 7.0).collect();
        let single: TValue = Tensor::from_shape(&shape, &numbers).unwrap().into();
        let half: TValue = single.cast_to::<f16>().unwrap().into_owned().into();
        let cast: TValue = half.cast_to::<f32>().unwrap().into_owned().into();
        let concat =
            |second: &TValue| Glue::Concat.run(tvec![single.clone(), second.clone()], &mut Pool::default()).unwrap();
        assert_eq!(concat(&half), concat(&cast));
    }

    #[test]
    fn what_the_images_share_goes_beside_each() {
        let numbers = |shape: [usize; 3]| -> Vec<f32> { (0..shape.iter().product()).map(|i| i as f32 / 7.0).collect() };
        let value = |shape: [usize; 3]| -> TValue { Tensor::from_shape(&shape, &numbers(shape)).unwrap().into() };
        let (own, shared) = (value([2, 5, 7000]), value([1, 5, 3000]));
        let twice: TValue = Tensor::from_shape(&[2, 5, 3000], &numbers([1, 5, 3000]).repeat(2)).unwrap().into();
        let concat = |second: TValue| Glue::Concat.run(tvec![own.clone(), second], &mut Pool::default()).unwrap();
        assert_eq!(concat(shared), concat(twice));
    }
}
