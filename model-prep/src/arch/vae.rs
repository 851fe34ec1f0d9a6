//! AutoencoderKL: pixels to the moments of latents, and latents to pixels.
//!
//! Above the latents' resolution convolutions round their results to half precision (except in exact bundles): in that
//! precision the engine stores large pictures where it stores them, and what it stores must not change what it paints.
//! The stock autoencoder of SDXL makes values beyond 65504, the largest in f16: they are rounded in units of 256.

use diffused_engine::layer::Padding;

use super::blocks::{AttentionBlock, Resnets};
use crate::network::{Builder, BuiltNetwork, Conv, Dim, GroupNorm, Value};
use crate::source::VaeConfig;
use diffused_kernels::pack::Format;

/// Added to the variance by all norms of the autoencoder.
const EPS: f32 = 1e-6;
/// Colour channels.
pub(super) const COLOURS: usize = 3;

/// Convolutions next to pixels and latents, never in int8: they are cheap and everything passes through them.
pub(super) const OUTER: Conv = Conv {
    kernel: 3,
    stride: 1,
    padding: Padding::Same,
    upsample: false,
    size: None,
    time: None,
    residual: None,
    precise: true,
    half: None,
    bias: true,
    relu: false,
};

/// The decoder's network.
pub(super) fn decoder(config: &VaeConfig, weights: Format) -> BuiltNetwork {
    let mut b = Builder::new(weights);
    let mut x = picture(&mut b, "latents", config.latent_channels);
    if config.post_quant_conv {
        x = b.conv(x, "post_quant_conv", config.latent_channels, Conv { kernel: 1, ..OUTER });
    }
    let last = config.channels.len() - 1;
    let x = b.conv(x, "decoder.conv_in", config.channels[last], OUTER);
    let mut x = middle(&mut b, x, "decoder.mid_block", config);
    for (i, &channels) in config.channels.iter().rev().enumerate() {
        let name = format!("decoder.up_blocks.{i}");
        for layer in 0..=config.layers {
            x = resnets(config, above(config, i > 0)).add(&mut b, x, &format!("{name}.resnets.{layer}"), channels);
        }
        if i < last {
            let double = Conv { upsample: true, half: above(config, true), ..Conv::default() };
            x = b.conv(x, &format!("{name}.upsamplers.0.conv"), channels, double);
        }
    }
    let x = b.group_norm(x, "decoder.conv_norm_out", resnets(config, None).norm());
    let x = b.conv(x, "decoder.conv_out", COLOURS, OUTER);
    b.finish("vae_decoder", x, "image")
}

/// The encoder's network; its output holds means, then log variances.
pub(super) fn encoder(config: &VaeConfig, weights: Format) -> BuiltNetwork {
    let mut b = Builder::new(weights);
    let x = picture(&mut b, "image", COLOURS);
    let last = config.channels.len() - 1;
    let mut x = b.conv(x, "encoder.conv_in", config.channels[0], Conv { half: above(config, last > 0), ..OUTER });
    for (i, &channels) in config.channels.iter().enumerate() {
        let name = format!("encoder.down_blocks.{i}");
        for layer in 0..config.layers {
            x = resnets(config, above(config, i < last)).add(&mut b, x, &format!("{name}.resnets.{layer}"), channels);
        }
        if i < last {
            let half = above(config, i + 1 < last);
            let halve = Conv { stride: 2, padding: Padding::End, half, ..Conv::default() };
            x = b.conv(x, &format!("{name}.downsamplers.0.conv"), channels, halve);
        }
    }
    let x = middle(&mut b, x, "encoder.mid_block", config);
    let x = b.group_norm(x, "encoder.conv_norm_out", resnets(config, None).norm());
    let moments = 2 * config.latent_channels;
    let mut x = b.conv(x, "encoder.conv_out", moments, OUTER);
    if config.quant_conv {
        x = b.conv(x, "quant_conv", moments, Conv { kernel: 1, ..OUTER });
    }
    b.finish("vae_encoder", x, "moments")
}

/// An input of images or latents.
pub(super) fn picture(b: &mut Builder, name: &'static str, channels: usize) -> Value {
    b.input(name, &[Dim::Any("batch"), Dim::Any("height"), Dim::Any("width"), Dim::Fixed(channels)])
}

/// The unit in which results above the latents' resolution are rounded to half precision.
fn above(config: &VaeConfig, above: bool) -> Option<usize> {
    above.then_some(config.half_unit)
}

fn resnets(config: &VaeConfig, half: Option<usize>) -> Resnets {
    Resnets { groups: config.groups, eps: EPS, time: None, half }
}

/// UNetMidBlock2D: two residual blocks, and between them every pixel attends to every other with one head.
fn middle(b: &mut Builder, x: Value, name: &str, config: &VaeConfig) -> Value {
    let mut x = resnets(config, None).add(b, x, &format!("{name}.resnets.0"), x.channels);
    if config.attention {
        let attention = format!("{name}.attentions.0");
        let norm = GroupNorm { groups: config.groups, eps: EPS, silu: false };
        let h = b.group_norm(x, &format!("{attention}.group_norm"), norm);
        x = AttentionBlock { heads: 1, bias: true, residual: x }.add(b, h, h, &attention);
    }
    resnets(config, None).add(b, x, &format!("{name}.resnets.1"), x.channels)
}
