//! AutoencoderTiny (TAESD by O. Bohan): 3×3 convolutions of one width and ReLU, no norms and no attention, between
//! pixels and latents.
//!
//! Its own pixels are from 0 to 1; the engine's are from -1 to 1.

use diffused_kernels::pack::Format;

use super::vae::{COLOURS, OUTER, picture};
use crate::network::{Builder, BuiltNetwork, Conv, Value};
use crate::source::{TinyHalf, TinyVaeConfig};

/// The decoder keeps its latents within this.
const MAGNITUDE: f32 = 3.0;

/// The decoder's network.
pub(super) fn decoder(config: &TinyVaeConfig, half: &TinyHalf, weights: Format) -> BuiltNetwork {
    let mut b = Builder::new(weights);
    let x = picture(&mut b, "latents", config.latent_channels);
    let x = b.soft_clamp(x, "decoder.clamp", MAGNITUDE);
    // Layer 1 is the activation after layer 0.
    let mut x = b.conv(x, "decoder.layers.0", half.channels, Conv { relu: true, ..OUTER });
    let (mut layer, last) = (2, half.blocks.len() - 1);
    for (level, &count) in half.blocks.iter().enumerate() {
        x = blocks(&mut b, x, "decoder", &mut layer, count);
        if level < last {
            // The enlargement is a layer of its own there.
            let double = Conv { upsample: true, bias: false, ..Conv::default() };
            x = b.conv(x, &format!("decoder.layers.{}", layer + 1), half.channels, double);
            layer += 2;
        }
    }
    let x = b.conv(x, &format!("decoder.layers.{layer}"), COLOURS, OUTER);
    let x = b.affine(x, "decoder.range", 2.0, -1.0);
    b.finish("tiny_decoder", x, "image")
}

/// The encoder's network; its output is latents.
pub(super) fn encoder(config: &TinyVaeConfig, half: &TinyHalf, weights: Format) -> BuiltNetwork {
    let mut b = Builder::new(weights);
    let x = picture(&mut b, "image", COLOURS);
    let x = b.affine(x, "encoder.range", 0.5, 0.5);
    let mut x = b.conv(x, "encoder.layers.0", half.channels, OUTER);
    let mut layer = 1;
    for (level, &count) in half.blocks.iter().enumerate() {
        if level > 0 {
            let halve = Conv { stride: 2, bias: false, ..Conv::default() };
            x = b.conv(x, &format!("encoder.layers.{layer}"), half.channels, halve);
            layer += 1;
        }
        x = blocks(&mut b, x, "encoder", &mut layer, count);
    }
    let x = b.conv(x, &format!("encoder.layers.{layer}"), config.latent_channels, OUTER);
    b.finish("tiny_encoder", x, "latents")
}

/// AutoencoderTinyBlock, `count` times: three convolutions, the input added, ReLU after each.
fn blocks(b: &mut Builder, mut x: Value, name: &str, layer: &mut usize, count: usize) -> Value {
    for _ in 0..count {
        let relu = |residual| Conv { relu: true, residual, ..Conv::default() };
        let h = b.conv(x, &format!("{name}.layers.{layer}.conv.0"), x.channels, relu(None));
        let h = b.conv(h, &format!("{name}.layers.{layer}.conv.2"), x.channels, relu(None));
        x = b.conv(h, &format!("{name}.layers.{layer}.conv.4"), x.channels, relu(Some(x)));
        *layer += 1;
    }
    x
}
