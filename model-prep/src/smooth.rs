//! Evens out channels before they are quantized (SmoothQuant, Xiao et al. 2023).
//!
//! int8 activations have one scale for each row and int8 weights one for each output, so a channel much larger than the
//! others takes their bits. Where a value goes from a norm, a projection or a gated layer to int8 matrices alone
//! (`network::ChannelLink`), a channel of it is divided by `s` where it is made and multiplied by `s` where it is read.
//! `s` is a power of two, so that in f32 the network computes the same values to the bit.
//!
//! `s` is the square root of the channel's size over the size of the weights that read it, which shares the burden
//! equally between the two. The median channel of a link has 1, and so have all channels near it: what does not stand
//! out stays as it is. SmoothQuant compares largest magnitudes; here it is root mean squares, of weights in parts of
//! their rows' largest: one large row, which has a scale of its own, does not make all of its columns look large.

mod calibration;
mod found;
mod ranges;

pub(crate) use calibration::count;
pub(crate) use found::as_found;

use std::collections::BTreeMap;

use diffused_engine::quantized::ChannelSquares;

use crate::error::Result;
use crate::network::{BuiltNetwork, ChannelLink};
use crate::parameter::power_of_two;
use crate::tensors::Checkpoint;

/// The least exponent of a channel that stands out: its ratio of values to weights is 8 times the median's, or an
/// eighth.
const LEAST_BY_WEIGHTS: i32 = 2;
/// The same of painted values, which spread more: 32 times the median's, or a thirty-second.
const LEAST_BY_ACTIVATIONS: i32 = 3;
/// The variance that rounding to an integer adds.
const ROUNDING: f32 = 1.0 / 12.0;
/// The largest exponent.
const MOST_EXPONENT: i32 = 20;

/// A link, and what of it does not depend on how it was scaled.
pub(crate) struct WeighedLink {
    link: ChannelLink,
    /// The size of the weights that read each channel, up to a common factor.
    weights: Vec<f32>,
}

/// Sets the scales of the network's weights, as far as the weights themselves show which channels stand out.
pub(crate) fn by_weights(network: &mut BuiltNetwork, source: &Checkpoint) -> Result<Vec<WeighedLink>> {
    let mut links = Vec::new();
    for link in int8_links(network) {
        let weights = ranges::read(network, &link, source)?;
        scale(network, &link, exponents(&ranges::made(network, &link, source)?, &weights, LEAST_BY_WEIGHTS));
        links.push(WeighedLink { link, weights });
    }
    Ok(links)
}

/// Sets the scales of the network's weights by what its values were in a bundle that has the scales that are set now;
/// whether that changes any. A value that was not counted keeps its scales.
pub(crate) fn by_activations(
    network: &mut BuiltNetwork,
    links: &[WeighedLink],
    counted: &BTreeMap<String, ChannelSquares>,
) -> bool {
    let before = network.parameters.clone();
    for WeighedLink { link, weights } in links {
        let Some(values) = counted.get(&format!("{}/{}", network.name, link.node)) else { continue };
        let scales = &network.parameters[link.consumers[0]].scales.inputs;
        let sizes: Vec<f32> = (values.sums.iter().enumerate())
            .map(|(channel, sum)| {
                let scale = power_of_two(scales.get(channel).copied().unwrap_or(0));
                (*sum as f32 + values.rows as f32 * ROUNDING).sqrt() * scale
            })
            .collect();
        scale(network, link, exponents(&sizes, weights, LEAST_BY_ACTIVATIONS));
    }
    network.parameters != before
}

/// The links all of whose consumers are in int8.
fn int8_links(network: &BuiltNetwork) -> Vec<ChannelLink> {
    let int8 = |link: &ChannelLink| link.consumers.iter().all(|consumer| network.parameters[*consumer].is_int8());
    network.links().into_iter().filter(int8).collect()
}

/// Multiplies the channels of a link by two to the power of `exponents` where they are read, and divides them where
/// they are made.
fn scale(network: &mut BuiltNetwork, link: &ChannelLink, exponents: Vec<i32>) {
    let exponents = if exponents.iter().all(|exponent| *exponent == 0) { Vec::new() } else { exponents };
    network.parameters[link.producer].scales.outputs = exponents.iter().map(|exponent| -exponent).collect();
    for consumer in &link.consumers {
        network.parameters[*consumer].scales.inputs.clone_from(&exponents);
    }
}

/// Each channel's exponent, from the size of its values and of the weights that read it, each up to a common factor.
fn exponents(values: &[f32], weights: &[f32], least: i32) -> Vec<i32> {
    let ratios: Vec<f32> = values.iter().zip(weights).map(|(value, weight)| value / weight).collect();
    let mut sorted: Vec<f32> = ratios.iter().copied().filter(|ratio| ratio.is_normal()).collect();
    sorted.sort_by(f32::total_cmp);
    let Some(median) = sorted.get(sorted.len() / 2) else { return vec![0; ratios.len()] };
    ratios.iter().map(|ratio| exponent(ratio / median, least)).collect()
}

/// Half the logarithm of `ratio` to the base 2, rounded, where that stands out; 0 where the channel is not used.
fn exponent(ratio: f32, least: i32) -> i32 {
    if !ratio.is_normal() {
        return 0;
    }
    let half = (binary_exponent(ratio) + 1).div_euclid(2);
    if half.abs() < least { 0 } else { half.clamp(-MOST_EXPONENT, MOST_EXPONENT) }
}

/// The logarithm of a normal positive number to the base 2, rounded down: exact, and so the same on every machine.
fn binary_exponent(value: f32) -> i32 {
    (value.to_bits() >> (f32::MANTISSA_DIGITS - 1)) as i32 - (f32::MAX_EXP - 1)
}

/// Scales every channel that can be scaled, by powers of two from an eighth to eight; of how many links.
#[cfg(test)]
pub(crate) fn scale_all(network: &mut BuiltNetwork) -> usize {
    let links = network.links();
    for link in &links {
        scale(network, link, (0..link.channels as i32).map(|channel| channel % 7 - 3).collect());
    }
    links.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_half_logarithms_rounded() {
        for (ratio, expected) in [
            (1.0, 0),
            (7.99, 0),
            (8.0, 2),
            (31.9, 2),
            (32.0, 3),
            (1e30, 20),
            (0.126, 0),
            (0.124, -2),
            (1.0 / 1024.0, -5),
            (0.0, 0),
            (f32::NAN, 0),
            (f32::INFINITY, 0),
        ] {
            assert_eq!(exponent(ratio, 2), expected, "{ratio}");
        }
    }

    #[test]
    fn what_stands_out_is_relative_to_the_median() {
        let values = [3.0, 3.5, 96.0, 2.5, 0.0, 3.0];
        assert_eq!(exponents(&values, &[0.1, 0.1, 0.003, 0.1, 0.1, 12.0], 2), [0, 0, 5, 0, 0, -3]);
        assert_eq!(exponents(&[0.0; 3], &[1.0; 3], 2), [0; 3]);
    }
}
