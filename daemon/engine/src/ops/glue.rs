//! The standard operators between ours that move much memory: on all threads and through the pool, which tract's own
//! would not use.

use diffused_kernels::Level;
use half::f16;
use rayon::prelude::*;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::array::TypedConcat;
use tract_onnx::tract_core::ops::cast::Cast;

use super::pool::Pool;
use super::values::{channels, leading, values, values_mut};
use crate::error::Result;

/// Values that a thread copies at a time.
const PART: usize = 16 << 10;

/// Runs `op` if it is one of these; `None`: it is not.
pub(crate) fn run(op: &dyn TypedOp, inputs: &mut TVec<TValue>, pool: &mut Pool) -> Option<Result<TVec<TValue>>> {
    let plain = |datum: DatumType| inputs.iter().all(|input| input.datum_type() == datum);
    let output = if let Some(Cast { to }) = op.downcast_ref() {
        match *to {
            DatumType::F16 if plain(DatumType::F32) => to_half(&inputs[0], pool),
            DatumType::F32 if plain(DatumType::F16) => to_single(&inputs[0], pool),
            _ => return None,
        }
    } else if let Some(TypedConcat { axis }) = op.downcast_ref() {
        if !plain(DatumType::F32) || inputs.iter().any(|input| input.rank() != axis + 1) {
            return None;
        }
        concat(inputs, pool)
    } else {
        return None;
    };
    inputs.drain(..).for_each(|input| pool.give(input));
    Some(output.map(|output| tvec![output.into()]))
}

fn to_half(x: &Tensor, pool: &mut Pool) -> Result<Tensor> {
    let mut out = pool.take::<f16>(x.shape())?;
    Level::current().f32_to_f16(values(x)?, values_mut(&mut out)?);
    Ok(out)
}

fn to_single(x: &Tensor, pool: &mut Pool) -> Result<Tensor> {
    let mut out = pool.take::<f32>(x.shape())?;
    Level::current().f16_to_f32(values(x)?, values_mut(&mut out)?);
    Ok(out)
}

/// The channels of each input in turn.
fn concat(inputs: &[TValue], pool: &mut Pool) -> Result<Tensor> {
    let widths: Vec<usize> = inputs.iter().map(|input| channels(input.shape())).collect();
    let width: usize = widths.iter().sum();
    let shape: Vec<usize> = leading(inputs[0].shape()).iter().copied().chain([width]).collect();
    let sources: Vec<&[f32]> = inputs.iter().map(|input| values(input)).collect::<Result<_>>()?;
    let mut out = pool.take::<f32>(&shape)?;
    let rows = PART.div_ceil(width);
    values_mut::<f32>(&mut out)?.par_chunks_mut(rows * width).enumerate().for_each(|(part, out)| {
        for (row, mut out) in (part * rows..).zip(out.chunks_exact_mut(width)) {
            for (source, &width) in sources.iter().zip(&widths) {
                let to = out.split_off_mut(..width).unwrap_or_default();
                to.copy_from_slice(&source[row * width..(row + 1) * width]);
            }
        }
    });
    Ok(out)
}

#[cfg(test)]
mod tests {
    use tract_onnx::tract_hir::internal::EvalContext;

    use super::*;

    #[test]
    fn gives_what_tract_gives() {
        let numbers = |shape: [usize; 3], first: f32| -> TValue {
            let values: Vec<f32> = (0..shape.iter().product()).map(|i| first + i as f32 / 3.0).collect();
            Tensor::from_shape(&shape, &values).unwrap().into()
        };
        let single = numbers([2, 3, 5], 0.5);
        let half: TValue = single.cast_to::<f16>().unwrap().into_owned().into();
        let cases: [(Box<dyn TypedOp>, TVec<TValue>); 3] = [
            (Box::new(TypedConcat { axis: 2 }), tvec![single.clone(), numbers([2, 3, 16384], -7.0), single.clone()]),
            (Box::new(Cast { to: DatumType::F16 }), tvec![single]),
            (Box::new(Cast { to: DatumType::F32 }), tvec![half]),
        ];
        for (op, mut inputs) in cases {
            let wanted = op.eval(&EvalContext::out_of_plan(), inputs.clone()).unwrap();
            assert_eq!(run(&*op, &mut inputs, &mut Pool::default()).unwrap().unwrap(), wanted, "{op:?}");
        }
    }

    #[test]
    fn leaves_the_rest_alone() {
        let rows: TValue = Tensor::zero::<f32>(&[2, 3]).unwrap().into();
        let op = TypedConcat { axis: 0 };
        assert!(run(&op, &mut tvec![rows.clone(), rows], &mut Pool::default()).is_none());
    }
}
