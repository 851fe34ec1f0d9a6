//! The architectures: which operators, in which order, with which weights. One file a network, and one for what they share.

mod blocks;
mod text_encoder;
mod unet;
mod vae;

use diffused_kernels::pack::Format;

use crate::network::BuiltNetwork;
use crate::source::Configs;

/// The bundle's networks, in the order of `bundle::NETWORKS`.
pub(crate) fn networks(configs: &Configs, weights: Format) -> Vec<BuiltNetwork> {
    vec![
        text_encoder::build(&configs.text, weights),
        unet::build(&configs.unet, weights),
        vae::decoder(&configs.vae, weights),
        vae::encoder(&configs.vae, weights),
    ]
}
