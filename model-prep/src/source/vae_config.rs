//! `vae/config.json`: AutoencoderKL's configuration, with diffusers' defaults for what is absent.

use std::path::Path;

use serde_json::{Value, json};

use super::keys::Keys;
use crate::error::{Error, Result};
use crate::tensors::Checkpoint;

/// The autoencoder's configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VaeConfig {
    /// Channels of a resolution, finest first.
    pub(crate) channels: Vec<usize>,
    /// Residual blocks of a resolution in the encoder; the decoder has one more.
    pub(crate) layers: usize,
    /// Channels of the latents.
    pub(crate) latent_channels: usize,
    /// Groups of the norms.
    pub(crate) groups: usize,
    /// The lowest resolution has an attention.
    pub(crate) attention: bool,
    /// The encoder ends in a 1×1 convolution.
    pub(crate) quant_conv: bool,
    /// The decoder begins with a 1×1 convolution.
    pub(crate) post_quant_conv: bool,
    /// The UNet's latents are the encoder's times this.
    pub(crate) scaling_factor: f64,
    /// The unit in which large activations are rounded to half precision, a power of two.
    pub(crate) half_unit: usize,
}

/// `scaling_factor` of Stable Diffusion 1 and 2, and of XL.
const SCALE: f64 = 0.18215;
const XL_SCALE: f64 = 0.13025;

/// Keys that change nothing of what is computed in f32.
const INERT: [&str; 6] =
    ["_class_name", "_diffusers_version", "_name_or_path", "_commit_hash", "force_upcast", "sample_size"];

impl VaeConfig {
    /// Reads the configuration; what cannot be built is refused by name, what is not known goes into `warnings`.
    pub(crate) fn open(mut keys: Keys, warnings: &mut Vec<String>) -> Result<VaeConfig> {
        keys.only("_class_name", &[json!("AutoencoderKL")])?;
        keys.ignore(&INERT);
        for key in ["latents_mean", "latents_std"] {
            keys.only(key, &[Value::Null])?;
        }
        keys.only("shift_factor", &[Value::Null, json!(0)])?;
        keys.only("act_fn", &[json!("silu"), json!("swish")])?;
        keys.only("in_channels", &[json!(3)])?;
        keys.only("out_channels", &[json!(3)])?;
        let channels = keys.levels("block_out_channels", &[64])?;
        keys.only("down_block_types", &[json!(vec!["DownEncoderBlock2D"; channels.len()])])?;
        keys.only("up_block_types", &[json!(vec!["UpDecoderBlock2D"; channels.len()])])?;
        let groups = keys.count("norm_num_groups", 32)?;
        if let Some(channels) = channels.iter().find(|channels| !channels.is_multiple_of(groups)) {
            let divides = format!("a number that divides {channels} channels");
            return Err(keys.refuse("norm_num_groups", &json!(groups), &divides));
        }
        let config = VaeConfig {
            channels,
            layers: keys.layers("layers_per_block", 1)?,
            latent_channels: keys.count("latent_channels", 4)?,
            groups,
            attention: keys.flag("mid_block_add_attention", true)?,
            quant_conv: keys.flag("use_quant_conv", true)?,
            post_quant_conv: keys.flag("use_post_quant_conv", true)?,
            scaling_factor: keys.number("scaling_factor", SCALE)?,
            half_unit: 1,
        };
        warnings.extend(keys.left_over());
        Ok(config)
    }

    /// The scaling factor that autoencoders of a family were published with, of Stable Diffusion XL or of 1 and 2.
    pub(crate) fn published_scale(xl: bool) -> f64 {
        if xl { XL_SCALE } else { SCALE }
    }

    /// As SDXL's, whose stock weights make activations beyond 65504, the largest value in f16; in units of 256 it is 16
    /// million, and what is small is still exact to 1.5e-5.
    pub(crate) fn with_large_activations(self) -> VaeConfig {
        VaeConfig { half_unit: 256, ..self }
    }

    /// The configuration that the tensors of `file`, under diffusers' names, tell. What they do not tell is as in
    /// `own`, the model's autoencoder, else as in Stable Diffusion's; `scaling_factor` is the model's.
    pub(crate) fn of_tensors(
        file: &Path,
        tensors: &Checkpoint,
        own: Option<&VaeConfig>,
        scaling_factor: f64,
    ) -> Result<VaeConfig> {
        let has = |name: &str| tensors.shape(name).is_some();
        let rows = |name: &str| tensors.shape(name).and_then(|shape| shape.first().copied());
        let level = |level: usize| rows(&format!("encoder.down_blocks.{level}.resnets.0.conv1.weight"));
        let channels: Vec<usize> = (0..).map_while(level).collect();
        let layers =
            (0..).take_while(|layer| has(&format!("encoder.down_blocks.0.resnets.{layer}.conv1.weight"))).count();
        let latents = tensors.shape("decoder.conv_in.weight").and_then(|shape| shape.get(1).copied());
        let (false, Some(latent_channels)) = (channels.is_empty(), latents) else {
            let message = "does not hold an autoencoder, neither AutoencoderKL nor AutoencoderTiny (TAESD)";
            return Err(Error::file(file, message));
        };
        Ok(VaeConfig {
            channels,
            layers,
            latent_channels,
            groups: own.map_or(32, |own| own.groups),
            attention: has("decoder.mid_block.attentions.0.to_q.weight"),
            quant_conv: has("quant_conv.weight"),
            post_quant_conv: has("post_quant_conv.weight"),
            scaling_factor,
            half_unit: own.map_or(1, |own| own.half_unit),
        })
    }

    /// Pixels per latent along an axis.
    pub(crate) fn factor(&self) -> usize {
        1 << (self.channels.len() - 1)
    }
}
