//! How large the channels of a value are, and how large the weights are that read them.

use crate::error::Result;
use crate::network::{BuiltNetwork, ChannelLink};
use crate::parameter::{Parameter, ParameterShape};
use crate::tensors::Checkpoint;

/// Rows of a matrix that are read at once.
const ROWS: usize = 64;

/// The root mean square of each channel as the weight that makes it suggests, up to a common factor: of a norm, whose
/// inputs have the variance 1, and of a matrix, whose inputs are not known and count as alike. Gated values are as
/// large as their gates, too.
pub(super) fn made(network: &BuiltNetwork, link: &ChannelLink, source: &Checkpoint) -> Result<Vec<f32>> {
    let parameter = &network.parameters[link.producer];
    let mut sizes = Vec::with_capacity(link.channels);
    match parameter.shape {
        ParameterShape::Matrix { n, gated, .. } => {
            each_row(parameter, n, source, |row| {
                sizes.push(row.iter().map(|weight| weight * weight).sum::<f32>().sqrt());
            })?;
            let gates = sizes.split_off(link.channels);
            if gated {
                sizes.iter_mut().zip(gates).for_each(|(value, gate)| *value *= gate);
            }
        }
        ParameterShape::Norm { .. } | ParameterShape::Slopes { .. } | ParameterShape::Table { .. } => {
            let [mut gamma, mut beta] = [(); 2].map(|()| vec![0f32; link.channels]);
            source.read(&format!("{}.weight", parameter.name), 0, &mut gamma)?;
            source.read(&format!("{}.bias", parameter.name), 0, &mut beta)?;
            sizes.extend(gamma.iter().zip(beta).map(|(gamma, beta)| (gamma * gamma + beta * beta).sqrt()));
        }
    }
    Ok(sizes)
}

/// The root mean square of the weights that read each channel, up to a common factor. They count in parts of their
/// row's largest, as rows are quantized each by itself.
pub(super) fn read(network: &BuiltNetwork, link: &ChannelLink, source: &Checkpoint) -> Result<Vec<f32>> {
    let mut squares = vec![0f32; link.channels];
    for consumer in &link.consumers {
        let parameter = &network.parameters[*consumer];
        let ParameterShape::Matrix { n, kernel, .. } = parameter.shape else { continue };
        each_row(parameter, n, source, |row| {
            let largest = row.iter().fold(f32::MIN_POSITIVE, |largest, weight| largest.max(weight.abs()));
            for (square, weights) in squares.iter_mut().zip(row.chunks_exact(kernel * kernel)) {
                *square += weights.iter().map(|weight| (weight / largest) * (weight / largest)).sum::<f32>();
            }
        })?;
    }
    Ok(squares.into_iter().map(f32::sqrt).collect())
}

/// The first `rows` rows of a matrix, as the source has them: an input's taps side by side.
fn each_row(parameter: &Parameter, rows: usize, source: &Checkpoint, mut each: impl FnMut(&[f32])) -> Result<()> {
    let ParameterShape::Matrix { k, kernel, .. } = parameter.shape else { return Ok(()) };
    let (name, len) = (format!("{}.weight", parameter.name), k * kernel * kernel);
    let mut values = vec![0.0; ROWS.min(rows) * len];
    for first in (0..rows).step_by(ROWS) {
        values.truncate((rows - first).min(ROWS) * len);
        source.read(&name, first * len, &mut values)?;
        values.chunks_exact(len).for_each(&mut each);
    }
    Ok(())
}
