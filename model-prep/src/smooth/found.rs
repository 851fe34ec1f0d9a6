//! The scales that a bundle was made with, from the bundle and its source.

use diffused_engine::bundle::WeightsFile;

use super::{int8_links, scale};
use crate::error::{Error, Result};
use crate::network::{BuiltNetwork, ChannelLink};
use crate::tensors::Checkpoint;

/// Sets the scales of the network's weights to those that `file` was written with: the power of two by which a channel
/// is smaller there than in the source, where it is made. If `file` has something else there than the source's channel,
/// then the weights that read it differ too.
pub(crate) fn as_found(network: &mut BuiltNetwork, source: &Checkpoint, file: &WeightsFile) -> Result<()> {
    for link in int8_links(network) {
        let exponents = largest(network, &link, source, file)?;
        scale(network, &link, exponents.into_iter().map(|(found, wanted)| logarithm(wanted / found)).collect());
    }
    Ok(())
}

/// The largest magnitude of what makes each channel, in the bundle and in the source.
fn largest(
    network: &BuiltNetwork,
    link: &ChannelLink,
    source: &Checkpoint,
    file: &WeightsFile,
) -> Result<Vec<(f32, f32)>> {
    let parameter = &network.parameters[link.producer];
    let (mut largest, mut index) = (vec![(0f32, 0f32); link.channels], 0);
    file.each_block::<Error>(&parameter.name, |block| {
        for unit in block.chunks_exact(parameter.stored().unit_bytes()) {
            parameter.compare_channels(source, index, unit, &mut |channel, values| {
                let Some((found, wanted)) = largest.get_mut(channel) else { return };
                for value in values {
                    (*found, *wanted) = (found.max(value.0.abs()), wanted.max(value.1.abs()));
                }
            })?;
            index += 1;
        }
        Ok(())
    })?;
    Ok(largest)
}

/// The logarithm to the base 2, rounded; 0 where there is none.
fn logarithm(ratio: f32) -> i32 {
    if ratio.is_normal() { ratio.log2().round() as i32 } else { 0 }
}
