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
    let second = configs.text_2.as_ref().map(|text| text_encoder::build("text_encoder_2", text, weights));
    let mut networks = vec![text_encoder::build("text_encoder", &configs.text, weights)];
    networks.extend(second);
    networks.extend([
        unet::build(&configs.unet, weights),
        vae::decoder(&configs.vae, weights),
        vae::encoder(&configs.vae, weights),
    ]);
    networks
}
