//! One int8 scale for each row.

use diffused_kernels as kernels;
use tract_onnx::prelude::*;

use super::values::{channels, leading, values, values_mut, zeros};
use crate::error::Result;

/// `q` and `scale` of `x`.
pub(super) fn rows(x: &Tensor) -> Result<TVec<TValue>> {
    let (mut q, mut scale) = (zeros::<i8>(x.shape())?, zeros::<f32>(leading(x.shape()))?);
    kernels::quantize_rows(values(x)?, channels(x.shape()), values_mut(&mut q)?, values_mut(&mut scale)?);
    Ok(tvec![q.into(), scale.into()])
}
