//! Operators on each value for itself, next to pixels and latents, where there are few.
//!
//! Plain multiplications and additions, and the `libm` crate's functions: every CPU gives the same bits.

use rayon::prelude::*;
use tract_onnx::prelude::*;

use super::memory::OperatorMemory;
use super::pool::Pool;
use super::values::{OperatorInputs, values_mut};
use crate::error::Result;

/// Values that a thread takes at a time.
const PART: usize = 16 << 10;

/// `x · factor + offset`.
pub(super) fn affine(inputs: &mut OperatorInputs, factor: f32, offset: f32, pool: &mut Pool) -> Result<Tensor> {
    each(inputs, pool, |x| x * factor + offset)
}

/// `limit · tanh(x / limit)`.
pub(super) fn soft_clamp(inputs: &mut OperatorInputs, limit: f32, pool: &mut Pool) -> Result<Tensor> {
    each(inputs, pool, |x| libm::tanhf(x / limit) * limit)
}

/// Memory of both: the result is written over the input.
pub(super) fn memory() -> OperatorMemory {
    OperatorMemory { takes_over: Some(0), ..OperatorMemory::default() }
}

fn each(inputs: &mut OperatorInputs, pool: &mut Pool, f: impl Fn(f32) -> f32 + Sync) -> Result<Tensor> {
    let mut x = inputs.tensor(pool)?;
    values_mut::<f32>(&mut x)?.par_chunks_mut(PART).for_each(|x| x.iter_mut().for_each(|x| *x = f(*x)));
    Ok(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::values::values;

    #[test]
    fn each_value_for_itself() {
        let inputs = || OperatorInputs::new(tvec![tensor1(&[0.0f32, 0.75, -600.0, f32::NAN]).into()]);
        let found = affine(&mut inputs(), 2.0, -1.0, &mut Pool::default()).unwrap();
        assert_eq!(values::<f32>(&found).unwrap()[..3], [-1.0, 0.5, -1201.0]);
        let found = soft_clamp(&mut inputs(), 3.0, &mut Pool::default()).unwrap();
        // 3 tanh(0.25)
        let wanted = [0.0, 0.734_756_1, -3.0];
        let found = values::<f32>(&found).unwrap();
        assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6) && found[3].is_nan(), "{found:?}");
    }
}
