//! The architectures: which operators, in which order, with which weights. One file a network, and one for what they
//! share.

mod blocks;
mod text_encoder;
mod tiny_vae;
mod unet;
mod upscaler;
mod vae;

use diffused_kernels::pack::Format;

use crate::network::BuiltNetwork;
use crate::source::{Configs, VaeConfigs};
pub(crate) use upscaler::build as upscaler;

/// The bundle's networks, in the order of `bundle::NETWORKS`.
pub(crate) fn networks(configs: &Configs, weights: Format) -> Vec<BuiltNetwork> {
    let second = configs.text_2.as_ref().map(|text| text_encoder::build("text_encoder_2", text, weights));
    let mut networks = vec![text_encoder::build("text_encoder", &configs.text, weights)];
    networks.extend(second);
    networks.push(unet::build(&configs.unet, weights));
    networks.extend(autoencoders(&configs.vae, weights));
    networks.extend(configs.upscaler.as_ref().map(|config| upscaler(config, weights)));
    networks
}

/// Those of the autoencoders alone.
pub(crate) fn autoencoders(configs: &VaeConfigs, weights: Format) -> Vec<BuiltNetwork> {
    let mut networks = Vec::new();
    if let Some(full) = &configs.full {
        networks.extend([vae::decoder(full, weights), vae::encoder(full, weights)]);
    }
    if let Some(tiny) = &configs.tiny {
        networks.extend(tiny.decoder.as_ref().map(|half| tiny_vae::decoder(tiny, half, weights)));
        networks.extend(tiny.encoder.as_ref().map(|half| tiny_vae::encoder(tiny, half, weights)));
    }
    networks
}
