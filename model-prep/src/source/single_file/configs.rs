//! The configurations that a single file lacks: what its shapes show, and for the rest what its family has.
#![allow(clippy::indexing_slicing, reason = "a key that is assigned to a JSON object is added to it")]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::VaeConfig;
use super::layout::UnetLayout;
use crate::tensors::Checkpoint;

/// What single files hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SingleFamily {
    /// Stable Diffusion 1, with OpenAI's text encoder.
    Sd1,
    /// Stable Diffusion 2, with OpenCLIP's.
    Sd2,
    /// Stable Diffusion XL, with both.
    Xl,
}

/// Norms have so many groups, where the channels can be divided so.
const GROUPS: usize = 32;
/// Channels of an attention's head in Stable Diffusion 2 and XL, and in all text encoders.
const HEAD: usize = 64;
/// Heads in Stable Diffusion 1.
const HEADS: usize = 8;

/// Channels of the UNet's first level in all published models of these families.
const CHANNELS: usize = 320;
/// Channels of the UNet's input where it repaints parts of pictures: latents, a mask, and the picture without them.
const INPAINTING_CHANNELS: usize = 9;

/// The networks of a file.
pub(super) struct Parts<'a> {
    pub(super) text: &'a Checkpoint,
    pub(super) text_2: Option<&'a Checkpoint>,
    pub(super) unet: &'a Checkpoint,
    pub(super) vae: Option<&'a Checkpoint>,
}

/// How a model was trained, which its shapes do not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Training {
    /// The UNet predicts v.
    pub(super) velocity: bool,
    /// The last timestep is pure noise.
    pub(super) zero_snr: bool,
}

/// The JSON files of a diffusers folder of the same model.
pub(super) fn files(
    family: SingleFamily,
    layout: &UnetLayout,
    parts: &Parts,
    training: Training,
) -> BTreeMap<&'static str, Value> {
    let mut files = BTreeMap::from([
        ("model_index.json", model_index(family, parts.unet)),
        ("text_encoder/config.json", text(parts.text, if family == SingleFamily::Sd2 { "gelu" } else { "quick_gelu" })),
        ("unet/config.json", unet(family, layout, parts, training.velocity)),
        ("scheduler/scheduler_config.json", scheduler(family, parts.unet, training)),
    ]);
    if let Some(vae_part) = parts.vae {
        files.insert("vae/config.json", vae(family, vae_part));
    }
    if let Some(text_2) = parts.text_2 {
        files.insert("text_encoder_2/config.json", text(text_2, "gelu"));
    }
    files
}

/// What is said of a model of unusual sizes, whose heads its shapes do not show.
pub(super) fn guess(family: SingleFamily, parts: &Parts) -> Option<String> {
    let channels = size(parts.unet, "conv_in.weight", 0);
    let text = size(parts.text, "embeddings.token_embedding.weight", 1);
    let usual = channels == CHANNELS && text.is_multiple_of(HEAD);
    let heads = match family {
        SingleFamily::Sd1 => format!("{} heads", divisor(HEADS, &[channels])),
        SingleFamily::Sd2 | SingleFamily::Xl => format!("heads of {} channels", HEAD.min(channels)),
    };
    (!usual).then(|| format!("guessed: its attentions have {heads}; --config FOLDER gives the model's configurations"))
}

fn model_index(family: SingleFamily, unet: &Checkpoint) -> Value {
    let mut index = json!({
        "_class_name": "StableDiffusionPipeline",
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    });
    if size(unet, "conv_in.weight", 1) == INPAINTING_CHANNELS {
        index["_class_name"] = json!("StableDiffusionInpaintPipeline");
    }
    if family == SingleFamily::Xl {
        index["_class_name"] = json!("StableDiffusionXLPipeline");
        index["force_zeros_for_empty_prompt"] = json!(true);
        index["text_encoder_2"] = json!(["transformers", "CLIPTextModelWithProjection"]);
        index["tokenizer_2"] = json!(["transformers", "CLIPTokenizer"]);
    }
    index
}

/// Axis `axis` of tensor `name`; 0 where there is no such tensor, which is then refused as missing.
fn size(part: &Checkpoint, name: &str, axis: usize) -> usize {
    part.shape(name).and_then(|shape| shape.get(axis).copied()).unwrap_or(0)
}

/// How many of `{prefix}0{suffix}`, `{prefix}1{suffix}`, … there are.
fn count(part: &Checkpoint, prefix: &str, suffix: &str) -> usize {
    (0..).take_while(|i| part.shape(&format!("{prefix}{i}{suffix}")).is_some()).count()
}

/// The usual number, or the largest part of it that divides all of `channels`.
fn divisor(usual: usize, channels: &[usize]) -> usize {
    let halves = std::iter::successors(Some(usual), |n| (*n > 1).then_some(n / 2));
    halves.into_iter().find(|n| channels.iter().all(|channels| channels.is_multiple_of(*n))).unwrap_or(1)
}

fn text(part: &Checkpoint, activation: &str) -> Value {
    let channels = size(part, "embeddings.token_embedding.weight", 1);
    let projection = size(part, "text_projection.weight", 0);
    json!({
        "model_type": "clip_text_model",
        "vocab_size": size(part, "embeddings.token_embedding.weight", 0),
        "max_position_embeddings": size(part, "embeddings.position_embedding.weight", 0),
        "hidden_size": channels,
        "intermediate_size": size(part, "encoder.layers.0.mlp.fc1.weight", 0),
        "num_hidden_layers": count(part, "encoder.layers.", ".layer_norm1.weight"),
        "num_attention_heads": (channels / HEAD).max(1),
        "hidden_act": activation,
        "projection_dim": if projection > 0 { projection } else { channels },
        "eos_token_id": 2,
    })
}

fn unet(family: SingleFamily, layout: &UnetLayout, parts: &Parts, velocity: bool) -> Value {
    let part = parts.unet;
    let out = |i: usize| size(part, &format!("down_blocks.{i}.resnets.0.conv1.weight"), 0);
    let channels: Vec<usize> = (0..layout.down.len()).map(out).collect();
    let layers: Vec<usize> = layout.down.iter().map(Vec::len).collect();
    let cross = |levels: &[Vec<usize>]| levels.iter().map(|level| level.iter().any(|depth| *depth > 0)).collect();
    let (down, up): (Vec<bool>, Vec<bool>) = (cross(&layout.down), cross(&layout.up));
    let types = |cross: &[bool], with: &str, without: &str| -> Vec<String> {
        cross.iter().map(|cross| if *cross { with } else { without }.to_owned()).collect()
    };
    let heads = match family {
        SingleFamily::Sd1 => json!(divisor(HEADS, &channels)),
        SingleFamily::Sd2 | SingleFamily::Xl => {
            json!(channels.iter().map(|channels| (channels / HEAD).max(1)).collect::<Vec<_>>())
        }
    };
    let text = part.names().find(|name| name.ends_with("attn2.to_k.weight")).map_or(0, |name| size(part, name, 1));
    let mut config = json!({
        "_class_name": "UNet2DConditionModel",
        "in_channels": size(part, "conv_in.weight", 1),
        "out_channels": size(part, "conv_out.weight", 0),
        "sample_size": match family {
            SingleFamily::Xl => 128,
            SingleFamily::Sd2 if velocity => 96,
            SingleFamily::Sd1 | SingleFamily::Sd2 => 64,
        },
        "block_out_channels": channels,
        "layers_per_block": layers,
        "attention_head_dim": heads,
        "cross_attention_dim": text,
        "transformer_layers_per_block": depths(&layout.down),
        "reverse_transformer_layers_per_block": depths(&layout.up),
        "down_block_types": types(&down, "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": types(&up, "CrossAttnUpBlock2D", "UpBlock2D"),
        "mid_block_type": match layout.middle[..] {
            [] => Value::Null,
            [_] => json!("UNetMidBlock2D"),
            _ => json!("UNetMidBlock2DCrossAttn"),
        },
        "norm_num_groups": divisor(GROUPS, &channels),
    });
    let guidance = size(part, "time_embedding.cond_proj.weight", 1);
    if guidance > 0 {
        config["time_cond_proj_dim"] = json!(guidance);
    }
    if family == SingleFamily::Xl {
        config["addition_embed_type"] = json!("text_time");
        // The pooled embedding, and six numbers of the picture's sizes.
        let (added, pooled) = (
            size(part, "add_embedding.linear_1.weight", 1),
            parts.text_2.map_or(0, |text| size(text, "text_projection.weight", 0)),
        );
        config["addition_time_embed_dim"] = json!(added.saturating_sub(pooled) / 6);
        config["projection_class_embeddings_input_dim"] = json!(added);
    }
    config
}

/// Transformer blocks after each residual block, one at least: without attentions they are not built.
fn depths(levels: &[Vec<usize>]) -> Value {
    let level = |level: &Vec<usize>| level.iter().map(|depth| (*depth).max(1)).collect::<Vec<_>>();
    levels.iter().map(level).collect::<Vec<_>>().into()
}

fn vae(family: SingleFamily, part: &Checkpoint) -> Value {
    let levels = count(part, "decoder.up_blocks.", ".resnets.0.conv1.weight");
    let out = |i: usize| size(part, &format!("encoder.down_blocks.{i}.resnets.0.conv1.weight"), 0);
    let channels: Vec<usize> = (0..levels).map(out).collect();
    json!({
        "_class_name": "AutoencoderKL",
        "latent_channels": size(part, "decoder.conv_in.weight", 1),
        "block_out_channels": channels,
        "layers_per_block": count(part, "encoder.down_blocks.0.resnets.", ".conv1.weight"),
        "norm_num_groups": divisor(GROUPS, &channels),
        "down_block_types": vec!["DownEncoderBlock2D"; levels],
        "up_block_types": vec!["UpDecoderBlock2D"; levels],
        "mid_block_add_attention": part.shape("decoder.mid_block.attentions.0.to_q.weight").is_some(),
        "use_quant_conv": part.shape("quant_conv.weight").is_some(),
        "use_post_quant_conv": part.shape("post_quant_conv.weight").is_some(),
        "scaling_factor": VaeConfig::published_scale(family == SingleFamily::Xl),
        "force_upcast": true,
    })
}

/// The scheduler that the family was published with; of latent consistency models theirs.
fn scheduler(family: SingleFamily, unet: &Checkpoint, Training { velocity, zero_snr }: Training) -> Value {
    let class = match family {
        _ if unet.shape("time_embedding.cond_proj.weight").is_some() => "LCMScheduler",
        SingleFamily::Xl => "EulerDiscreteScheduler",
        // PNDM cannot begin at pure noise.
        SingleFamily::Sd1 | SingleFamily::Sd2 if zero_snr => "DDIMScheduler",
        SingleFamily::Sd2 if velocity => "DDIMScheduler",
        SingleFamily::Sd1 | SingleFamily::Sd2 => "PNDMScheduler",
    };
    let mut scheduler = json!({
        "_class_name": class,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": false,
        "set_alpha_to_one": false,
        "skip_prk_steps": true,
        "steps_offset": 1,
        "prediction_type": if velocity { "v_prediction" } else { "epsilon" },
    });
    if family == SingleFamily::Xl {
        scheduler["timestep_spacing"] = json!("leading");
    }
    if zero_snr {
        scheduler["rescale_betas_zero_snr"] = json!(true);
        scheduler["timestep_spacing"] = json!("trailing");
    }
    scheduler
}
