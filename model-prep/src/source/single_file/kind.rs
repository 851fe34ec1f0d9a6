//! What a file of tensors is, by their names and shapes: a model of one of the families, or something else that people
//! have and that belongs elsewhere.

use std::path::Path;

use super::configs::SingleFamily;
use super::{CLIP, CPP_OPEN_CLIP, OPEN_CLIP, UNET, XL_CLIP, XL_OPEN_CLIP};
use crate::error::{Error, Result};
use crate::tensors::TensorFile;

/// Parts of names that tell what a file is, in the order in which they are looked for.
const KINDS: [(&str, &str); 25] = [
    ("lora_down", LORA),
    ("lora_A", LORA),
    ("lora.down", LORA),
    ("_lora.up", LORA),
    ("hada_w1", LORA),
    ("lokr_w", LORA),
    (".diff_b", LORA),
    ("emb_params", EMBEDDING),
    ("string_to_param", EMBEDDING),
    ("control_model.", "a ControlNet, which steers a model; give the model"),
    ("input_hint_block.", "a ControlNet, which steers a model; give the model"),
    ("controlnet_cond_embedding.", "a ControlNet, which steers a model; give the model"),
    ("ip_adapter.", "an IP-Adapter, which steers a model; give the model"),
    ("image_proj.", "an IP-Adapter, which steers a model; give the model"),
    ("motion_modules.", "a motion module for video; give the model"),
    ("joint_blocks.", "Stable Diffusion 3, a transformer, which model-prep does not convert"),
    ("double_blocks.", "Flux or a model like it, which model-prep does not convert"),
    ("single_transformer_blocks.", "Flux or a model like it, which model-prep does not convert"),
    ("time_stack.", "a model that paints videos (Stable Video Diffusion), which model-prep does not convert"),
    ("edm_mean", "a model with EDM's preconditioning (Playground 2.5), which no sampler of ours has"),
    (
        "down_blocks.0.resnets.0.time_emb_proj",
        "the UNet of a diffusers folder; give the folder, which holds model_index.json",
    ),
    ("input_blocks.1.0.in_layers.", "a UNet alone; take the full checkpoint of this model"),
    ("embeddings.token_embedding", "a text encoder alone; give the model"),
    ("decoder.conv_in", AUTOENCODER),
    // TAESD, whole or half.
    ("3.conv.0.weight", AUTOENCODER),
];
const LORA: &str = "a LoRA, not a model; give the model, and this file with --lora";
const AUTOENCODER: &str = "an autoencoder alone; give the model, and this file with --vae";
const EMBEDDING: &str = "a textual inversion, not a model; give the model, and this file with --embedding";

/// The family of the model in `file`.
///
/// # Errors
///
/// What it is instead, and what to do with it.
pub(super) fn family(path: &Path, file: &TensorFile) -> Result<SingleFamily> {
    let has =
        |prefix: &str| file.tensors.range(prefix.to_owned()..).next().is_some_and(|(name, _)| name.starts_with(prefix));
    let refused = |message: String| Err(Error::file(path, message));
    let other_kind = |what: String| Err(Error::other_kind(path, what));
    let other = KINDS.iter().find(|(part, _)| file.tensors.keys().any(|name| name.contains(part)));
    let model = has(&format!("{UNET}input_blocks."));
    match other {
        // Models contain text encoders and autoencoders, and merges the like of anything.
        Some((part, kind))
            if !model
                || ["control_model.", "joint_blocks.", "double_blocks.", "time_stack.", "edm_mean"].contains(part) =>
        {
            return other_kind(format!("is {kind}"));
        }
        _ => {}
    }
    if !model && is_embedding(file) {
        return other_kind(format!("is {EMBEDDING}"));
    }
    if !model {
        return refused(unknown(file));
    }
    if has(CPP_OPEN_CLIP) && has(CLIP) {
        return Ok(SingleFamily::Xl);
    }
    let text = [CLIP, OPEN_CLIP, XL_CLIP, XL_OPEN_CLIP].map(has);
    let channels = |axis: usize| {
        let conv_in = file.tensors.get(&format!("{UNET}input_blocks.0.0.weight"));
        conv_in.and_then(|entry| entry.shape.get(axis).copied()).unwrap_or(0)
    };
    match channels(1) {
        5 => return other_kind("is a model that needs a depth map (5 input channels)".into()),
        7 => return other_kind("is an upscaler (7 input channels)".into()),
        8 => return other_kind("is InstructPix2Pix, which edits pictures (8 input channels)".into()),
        _ => {}
    }
    match text {
        [true, _, true, _] | [true, _, _, true] | [_, true, true, _] | [_, true, _, true] | [true, true, ..] => {
            refused("holds the text encoders of two models".into())
        }
        [true, ..] => Ok(of_transformers_names(file)),
        [_, true, ..] => Ok(SingleFamily::Sd2),
        [_, _, true, true] => Ok(SingleFamily::Xl),
        [_, _, true, false] => refused("lacks the second text encoder of Stable Diffusion XL".into()),
        _ if has("conditioner.embedders.0.model.") => other_kind(
            "is Stable Diffusion XL's refiner, which goes over finished pictures; give the base model".into(),
        ),
        _ => refused(lacks("text encoder")),
    }
}

/// Stable Diffusion 1 or 2, where the text encoder has transformers' names, which some programs give to both: told by
/// the width of the text embeddings, or by the UNet's transformers, which begin in linear layers in 2.
fn of_transformers_names(file: &TensorFile) -> SingleFamily {
    let ends = |end: &str| file.tensors.iter().find(|(name, _)| name.starts_with(UNET) && name.ends_with(end));
    let width = ends(".attn2.to_k.weight").and_then(|(_, entry)| entry.shape.get(1).copied());
    let linear = || ends(".proj_in.weight").is_some_and(|(_, entry)| entry.shape.len() == 2);
    match width {
        Some(768) => SingleFamily::Sd1,
        Some(1024) => SingleFamily::Sd2,
        _ if linear() => SingleFamily::Sd2,
        _ => SingleFamily::Sd1,
    }
}

/// What is said of a file without one of the networks.
pub(super) fn lacks(network: &str) -> String {
    match network {
        "autoencoder" => "holds no autoencoder (first_stage_model.…); give one with --vae".into(),
        _ => format!("holds no {network}; take the full checkpoint of this model"),
    }
}

/// Whether a file whose names have none of the known parts holds a textual inversion. In diffusers' files the only
/// tensor is named as the word; those for Stable Diffusion XL have one for each encoder.
fn is_embedding(file: &TensorFile) -> bool {
    let only = file.tensors.first_key_value().filter(|_| file.tensors.len() == 1);
    let is_rows = only.is_some_and(|(_, entry)| matches!(entry.shape[..], [_] | [1..=75, _]));
    is_rows || file.tensors.contains_key("clip_l") || file.tensors.contains_key("clip_g")
}

/// What is said of a file whose names have none of the known parts.
fn unknown(file: &TensorFile) -> String {
    let names: Vec<&str> = file.tensors.keys().map(String::as_str).take(3).collect();
    let count = file.tensors.len();
    match names.is_empty() {
        true => "holds no tensors".into(),
        false => format!("is no model that model-prep knows: it holds {count} tensors, {}, …", names.join(", ")),
    }
}
