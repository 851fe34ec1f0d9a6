//! Copies of a value one after the other, for the images of a batch that share it until then.

use half::f16;
use rayon::prelude::*;
use tract_onnx::prelude::tract_num_traits::Zero;
use tract_onnx::prelude::*;

use super::pool::Pool;
use super::values::{values, values_mut};
use crate::error::{Error, Result};

/// Values that a thread copies at a time.
const PART: usize = 16 << 10;

/// `times` copies of `value` along its first axis; if this is the last reference to it, it goes to the pool.
pub(crate) fn run(value: TValue, times: usize, pool: &mut Pool) -> Result<Tensor> {
    let copies = match value.datum_type() {
        DatumType::F32 => copies::<f32>(&value, times, pool),
        DatumType::F16 => copies::<f16>(&value, times, pool),
        DatumType::I8 => copies::<i8>(&value, times, pool),
        other => Err(Error::Internal(format!("values of {other:?} are not repeated"))),
    }?;
    pool.give(value);
    Ok(copies)
}

fn copies<T: Datum + Zero + Copy>(value: &Tensor, times: usize, pool: &mut Pool) -> Result<Tensor> {
    let mut shape: TVec<usize> = value.shape().into();
    shape[0] *= times;
    let (mut out, from) = (pool.take::<T>(&shape)?, values::<T>(value)?);
    for copy in values_mut::<T>(&mut out)?.chunks_exact_mut(from.len()) {
        copy.par_chunks_mut(PART).zip(from.par_chunks(PART)).for_each(|(copy, from)| copy.copy_from_slice(from));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_follow_each_other() {
        let numbers: Vec<f32> = (0..3 * PART).map(|i| i as f32).collect();
        let value: TValue = Tensor::from_shape(&[1, 3, PART], &numbers).unwrap().into();
        let found = run(value.clone(), 3, &mut Pool::default()).unwrap();
        assert_eq!(found.shape(), [3, 3, PART]);
        assert_eq!(values::<f32>(&found).unwrap(), numbers.repeat(3));
        let half: TValue = value.cast_to::<f16>().unwrap().into_owned().into();
        let found = run(half.clone(), 2, &mut Pool::default()).unwrap();
        assert_eq!(values::<f16>(&found).unwrap(), values::<f16>(&half).unwrap().repeat(2));
    }
}
