//! UNet2DConditionModel: down through the resolutions, through the middle, and up again with the way down's
//! activations.

use diffused_engine::layer::Activation;

use super::blocks::{AttentionBlock, Resnets};
use crate::network::{Builder, BuiltNetwork, Conv, Dim, GroupNorm, Linear, Value};
use crate::source::{AddedEmbedding, Middle, UnetBlock, UnetConfig};
use diffused_kernels::pack::Format;

/// Added to the variance by a transformer's own group norm.
const TRANSFORMER_EPS: f32 = 1e-6;
/// Added to the variance by the layer norms.
const LAYER_NORM_EPS: f32 = 1e-5;
/// Width of the feed-forward's middle, in widths of the block.
const FEED_FORWARD: usize = 4;

/// Dimensions of a picture, and of a list of rows.
const PICTURE: usize = 4;
const ROWS: usize = 2;

/// The UNet's network.
pub(super) fn build(config: &UnetConfig, weights: Format) -> BuiltNetwork {
    let mut b = Builder::new(weights);
    let input = if config.inpainting { 2 * config.latent_channels + 1 } else { config.latent_channels };
    let picture = [Dim::Any("batch"), Dim::Any("height"), Dim::Any("width"), Dim::Fixed(input)];
    let sample = b.input("sample", &picture);
    let timestep = b.input("timestep", &[Dim::Fixed(1)]);
    let text_channels = config.blocks[0].text_channels;
    let text = b.input("encoder_hidden_states", &[Dim::Any("batch"), Dim::Any("tokens"), Dim::Fixed(text_channels)]);
    let guidance = config.guidance_channels.map(|_| b.input("guidance", &[Dim::Fixed(1)]));
    let added = config.added.map(|AddedEmbedding { pooled, ids, .. }| {
        let rows = |channels| [Dim::Any("batch"), Dim::Fixed(channels)];
        (b.input("text_embeds", &rows(pooled)), b.input("time_ids", &rows(ids)))
    });
    let time = time(&mut b, config, timestep, guidance, added);
    let resnets = Resnets { groups: config.groups, eps: config.eps, time: Some(time), half: None };
    let conv_in = Conv { kernel: config.conv_in_kernel, precise: true, ..Conv::default() };
    let x = b.conv(sample, "conv_in", config.blocks[0].channels, conv_in);
    let mut unet = UnetBuilder { b, config, resnets, text, skips: Vec::new() };
    let x = unet.down(x);
    let x = unet.middle(x);
    let x = unet.up(x);
    let UnetBuilder { mut b, .. } = unet;
    let x = b.group_norm(x, "conv_norm_out", resnets.norm());
    let conv_out = Conv { kernel: config.conv_out_kernel, precise: true, ..Conv::default() };
    let x = b.conv(x, "conv_out", config.latent_channels, conv_out);
    b.finish("unet", x, "out_sample")
}

/// The time embedding after SiLU, which is all that anything needs of it: one row, or, where the pooled text and the
/// picture's sizes (`added`) are part of it, one for each picture of the batch.
fn time(
    b: &mut Builder,
    config: &UnetConfig,
    timestep: Value,
    guidance: Option<Value>,
    added: Option<(Value, Value)>,
) -> Value {
    let silu = Linear { activation: Activation::Silu, precise: true, ..Linear::default() };
    let channels = config.blocks[0].channels;
    let mut x = b.time_embedding(timestep, "time_proj", channels, config.flip_sin_to_cos, config.freq_shift);
    if let (Some(guidance), Some(width)) = (guidance, config.guidance_channels) {
        let guidance = b.time_embedding(guidance, "guidance_proj", width, false, 1.0);
        let onto = Linear { bias: false, residual: Some(x), precise: true, ..Linear::default() };
        x = b.linear(guidance, "time_embedding.cond_proj", channels, onto);
    }
    let x = b.linear(x, "time_embedding.linear_1", config.time_channels, silu);
    let (Some((pooled, ids)), Some(sizes)) = (added, config.added) else {
        return b.linear(x, "time_embedding.linear_2", config.time_channels, silu);
    };
    let plain = Linear { activation: Activation::None, ..silu };
    let x = b.linear(x, "time_embedding.linear_2", config.time_channels, plain);
    let ids = b.time_embedding(ids, "add_time_proj", sizes.id_channels, config.flip_sin_to_cos, config.freq_shift);
    let added = b.concat(pooled, ids, "add_embedding.concat", ROWS);
    let added = b.linear(added, "add_embedding.linear_1", config.time_channels, silu);
    let added = b.linear(added, "add_embedding.linear_2", config.time_channels, plain);
    b.add_silu(x, added, "time_embedding.sum")
}

struct UnetBuilder<'a> {
    b: Builder,
    config: &'a UnetConfig,
    resnets: Resnets,
    text: Value,
    /// Activations of the way down that wait for the way up.
    skips: Vec<Value>,
}

impl UnetBuilder<'_> {
    fn down(&mut self, mut x: Value) -> Value {
        self.skip(x);
        let last = self.config.blocks.len() - 1;
        for (i, block) in self.config.blocks.iter().enumerate() {
            let name = format!("down_blocks.{i}");
            for layer in 0..block.layers {
                x = self.layer(x, &name, layer, block, block.down.as_deref());
                self.skip(x);
            }
            if i < last {
                let conv = Conv { stride: 2, padding: self.config.downsample_padding, ..Conv::default() };
                x = self.b.conv(x, &format!("{name}.downsamplers.0.conv"), block.channels, conv);
                self.skip(x);
            }
        }
        x
    }

    fn middle(&mut self, x: Value) -> Value {
        let Some(lowest) = self.config.blocks.last() else { return x };
        let depth = match self.config.middle {
            Middle::Absent => return x,
            Middle::Resnet => None,
            Middle::CrossAttention(depth) => Some(depth),
        };
        let x = self.resnets.add(&mut self.b, x, "mid_block.resnets.0", lowest.channels);
        let Some(depth) = depth else { return x };
        let x =
            self.transformer(x, "mid_block.attentions.0", &UnetBlock { only_cross: false, ..lowest.clone() }, depth);
        self.resnets.add(&mut self.b, x, "mid_block.resnets.1", lowest.channels)
    }

    fn up(&mut self, mut x: Value) -> Value {
        let last = self.config.blocks.len() - 1;
        for (i, (block, depths)) in self.config.blocks.iter().rev().zip(&self.config.up).enumerate() {
            let name = format!("up_blocks.{i}");
            for layer in 0..=block.layers {
                x = self.join(x, &format!("{name}.resnets.{layer}"));
                x = self.layer(x, &name, layer, block, depths.as_deref());
            }
            if i < last {
                // Halving rounded odd sides: the skip that is joined next has the size that they had.
                let conv = Conv { upsample: true, size: self.skips.last().copied(), ..Conv::default() };
                x = self.b.conv(x, &format!("{name}.upsamplers.0.conv"), block.channels, conv);
            }
        }
        x
    }

    /// Sets `x` aside for the way up.
    fn skip(&mut self, x: Value) {
        let name = format!("skips.{}.store", self.skips.len());
        let skip = self.b.set_aside(x, &name);
        self.skips.push(skip);
    }

    /// `x` beside what was set aside last.
    fn join(&mut self, x: Value, name: &str) -> Value {
        let Some(skip) = self.skips.pop() else { return x };
        let skip = self.b.take_up(skip, &format!("skips.{}.load", self.skips.len()));
        self.b.concat(x, skip, &format!("{name}.concat"), PICTURE)
    }

    /// A residual block, and a transformer where the block has them.
    fn layer(&mut self, x: Value, name: &str, layer: usize, block: &UnetBlock, depths: Option<&[usize]>) -> Value {
        let x = self.resnets.add(&mut self.b, x, &format!("{name}.resnets.{layer}"), block.channels);
        match depths {
            None => x,
            Some(depths) => self.transformer(x, &format!("{name}.attentions.{layer}"), block, depths[layer]),
        }
    }

    /// Transformer2DModel; its projections are linear layers whether stored as such or as 1×1 convolutions.
    fn transformer(&mut self, x: Value, name: &str, block: &UnetBlock, depth: usize) -> Value {
        let norm = GroupNorm { groups: self.config.groups, eps: TRANSFORMER_EPS, silu: false };
        let h = self.b.group_norm(x, &format!("{name}.norm"), norm);
        let mut h = self.b.linear(h, &format!("{name}.proj_in"), x.channels, Linear::default());
        for i in 0..depth {
            h = self.transformer_block(h, &format!("{name}.transformer_blocks.{i}"), block);
        }
        let onto = Linear { residual: Some(x), ..Linear::default() };
        self.b.linear(h, &format!("{name}.proj_out"), x.channels, onto)
    }

    /// BasicTransformerBlock: attention to the picture, attention to the text, feed-forward.
    fn transformer_block(&mut self, x: Value, name: &str, block: &UnetBlock) -> Value {
        let (b, text) = (&mut self.b, self.text);
        let attention = |residual| AttentionBlock { heads: block.heads, bias: false, residual };
        let h = b.layer_norm(x, &format!("{name}.norm1"), LAYER_NORM_EPS);
        let context = if block.only_cross { text } else { h };
        let x = attention(x).add(b, h, context, &format!("{name}.attn1"));
        let h = b.layer_norm(x, &format!("{name}.norm2"), LAYER_NORM_EPS);
        let x = attention(x).add(b, h, text, &format!("{name}.attn2"));
        let h = b.layer_norm(x, &format!("{name}.norm3"), LAYER_NORM_EPS);
        let gated = Linear { activation: Activation::Geglu, ..Linear::default() };
        let h = b.linear(h, &format!("{name}.ff.net.0.proj"), x.channels * FEED_FORWARD, gated);
        let onto = Linear { residual: Some(x), ..Linear::default() };
        b.linear(h, &format!("{name}.ff.net.2"), x.channels, onto)
    }
}
