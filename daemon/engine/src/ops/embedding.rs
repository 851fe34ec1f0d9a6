//! Token ids and timesteps to vectors.

use diffused_kernels::Level;
use tract_onnx::prelude::*;

use super::pool::Pool;
use super::values::{OperatorInputs, leading, values, values_mut, zeros};
use crate::error::{Error, Result};
use crate::weights::Weights;

/// The longest wavelength of a time embedding, in units of 2π.
const MAX_PERIOD: f64 = 10_000.0;

/// A row of `tokens` plus a row of `positions` for each id; of the token table only these rows are read.
pub(super) fn tokens(
    inputs: &mut OperatorInputs,
    tokens: &str,
    positions: &str,
    weights: &mut Weights,
    pool: &mut Pool,
) -> Result<Tensor> {
    let ids = inputs.value()?;
    let &[batch, length] = ids.shape() else {
        return Err(Error::Internal(format!("token ids of shape {:?}", ids.shape())));
    };
    let wanted = values::<i64>(&ids)?.iter().map(|&id| row(id)).collect::<Result<Vec<_>>>()?;
    let rows = weights.rows(tokens, &wanted)?;
    let positions = weights.table(positions)?;
    let channels = rows.len() / wanted.len();
    let mut out = pool.take::<f32>(&[batch, length, channels])?;
    let positions = positions[..length * channels].iter().cycle();
    for ((out, row), position) in values_mut::<f32>(&mut out)?.iter_mut().zip(rows).zip(positions) {
        *out = row + position;
    }
    Ok(out)
}

/// The table's row of a token.
fn row(id: i64) -> Result<usize> {
    usize::try_from(id).map_err(|_| Error::Internal(format!("token id {id} is negative")))
}

/// diffusers' `get_timestep_embedding` of each number: sines and cosines of it at geometrically spaced frequencies.
pub(super) fn time(inputs: &mut OperatorInputs, channels: usize, flip: bool, freq_shift: f32) -> Result<Tensor> {
    let numbers = inputs.value()?;
    let (rows, numbers) = (leading(numbers.shape()).iter().product::<usize>(), values::<f32>(&numbers)?);
    let mut out = zeros::<f32>(&[rows, numbers.len() / rows * channels])?;
    for (out, number) in values_mut::<f32>(&mut out)?.chunks_exact_mut(channels).zip(numbers) {
        sinusoids(*number, flip, freq_shift, out);
    }
    Ok(out)
}

fn sinusoids(number: f32, flip: bool, freq_shift: f32, out: &mut [f32]) {
    let half = out.len() / 2;
    let (first, second) = out.split_at_mut(half);
    let (sines, cosines) = if flip { (second, first) } else { (first, second) };
    for i in 0..half {
        let exponent = -libm::log(MAX_PERIOD) as f32 * i as f32 / (half as f32 - freq_shift);
        let angle = number * libm::exp(f64::from(exponent)) as f32;
        sines[i] = libm::sin(f64::from(angle)) as f32;
        cosines[i] = libm::cos(f64::from(angle)) as f32;
    }
}

/// SiLU of the second input's rows, to each of which the first input's only row is added.
pub(super) fn add_silu(inputs: &mut OperatorInputs, pool: &mut Pool) -> Result<Tensor> {
    let (added, mut out) = (inputs.value()?, inputs.tensor(pool)?);
    let (added, rows) = (values::<f32>(&added)?, values_mut::<f32>(&mut out)?);
    rows.chunks_exact_mut(added.len()).for_each(|row| row.iter_mut().zip(added).for_each(|(x, added)| *x += added));
    Level::current().silu(rows);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embedding(timestep: f32, channels: usize, flip: bool, freq_shift: f32) -> Vec<f32> {
        let mut inputs = OperatorInputs::new(tvec![tensor1(&[timestep]).into()]);
        values::<f32>(&time(&mut inputs, channels, flip, freq_shift).unwrap()).unwrap().to_vec()
    }

    #[test]
    fn time_zero_is_sines_of_zero_and_cosines_of_zero() {
        assert_eq!(embedding(0.0, 4, false, 1.0), [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(embedding(0.0, 4, true, 0.0), [1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn frequencies_fall_geometrically() {
        // torch: get_timestep_embedding(torch.tensor([1.0]), 4, downscale_freq_shift=1) = sin(1), sin(1e-4), cos(1),
        // cos(1e-4)
        let found = embedding(1.0, 4, false, 1.0);
        let wanted = [0.841_471, 1e-4, 0.540_302_3, 1.0];
        assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-7), "{found:?}");
    }

    #[test]
    fn several_numbers_are_embedded_side_by_side_for_each_image() {
        let embed = |numbers: Tensor| {
            let mut inputs = OperatorInputs::new(tvec![numbers.into()]);
            time(&mut inputs, 4, true, 0.0).unwrap()
        };
        let [one, two, three] = [1.0, 2.0, 3.0].map(|number| embedding(number, 4, true, 0.0));
        assert_eq!(values::<f32>(&embed(tensor1(&[1.0f32, 2.0]))).unwrap(), [one.clone(), two.clone()].concat());
        let batch = embed(tensor2(&[[1.0f32, 2.0], [3.0, 1.0]]));
        assert_eq!(batch.shape(), [2, 8]);
        assert_eq!(values::<f32>(&batch).unwrap(), [one.clone(), two, three, one].concat());
    }

    #[test]
    fn one_row_is_added_to_all() {
        let inputs = tvec![tensor2(&[[1.0f32, -1.0]]).into(), tensor2(&[[-1.0f32, 3.0], [0.0, -1.0]]).into()];
        let found = add_silu(&mut OperatorInputs::new(inputs), &mut Pool::default()).unwrap();
        let silu = |x: f32| x / (1.0 + (-x).exp());
        let wanted = [0.0, silu(2.0), silu(1.0), silu(-2.0)];
        let near = |(a, b): (&f32, f32)| (a - b).abs() < 1e-6;
        assert!(values::<f32>(&found).unwrap().iter().zip(wanted).all(near), "{found:?}");
    }

    #[test]
    fn a_negative_token_id_is_an_error() {
        assert_eq!(row(7).unwrap(), 7);
        assert!(row(-1).unwrap_err().to_string().contains("token id -1"));
    }

    #[test]
    fn an_odd_width_ends_in_zero() {
        assert_eq!(embedding(3.0, 5, false, 0.0)[4], 0.0);
    }
}
