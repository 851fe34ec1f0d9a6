//! What a LoRA was made for, for messages: its keys and shapes show it, or what its trainer wrote into the file.

use super::key::{LoraKey, LoraPart};
use crate::tensors::TensorFile;

/// What tells of a family in a key.
const KEYS: [(&str, &str); 7] = [
    ("lora_te2_", XL),
    ("text_encoder_2.", XL),
    ("double_blocks", FLUX),
    ("single_transformer_blocks", FLUX),
    ("joint_blocks", SD3),
    ("add_embedding", XL),
    ("label_emb", XL),
];

const SD1: &str = "Stable Diffusion 1";
const SD2: &str = "Stable Diffusion 2";
const SD3: &str = "Stable Diffusion 3";
const XL: &str = "Stable Diffusion XL";
const FLUX: &str = "Flux";

/// The family that `file` was made for, if it can be told.
pub(super) fn family(file: &TensorFile) -> Option<&'static str> {
    let by_key = |name: &String| KEYS.iter().find(|(part, _)| name.contains(part)).map(|(_, family)| *family);
    let by_width = || file.tensors.iter().find_map(|(name, tensor)| by_text_width(name, &tensor.shape));
    file.tensors.keys().find_map(by_key).or_else(by_width).or_else(|| by_metadata(file))
}

/// Cross-attention's keys and values are made of text embeddings, whose width is the family's.
fn by_text_width(name: &str, shape: &[usize]) -> Option<&'static str> {
    let LoraKey { module, part, .. } = LoraKey::parse(name)?;
    let of_text = module.ends_with("attn2_to_k") || module.ends_with("attn2_to_v");
    match (part, shape.get(1)) {
        (LoraPart::Down | LoraPart::HadaW1B, Some(width)) if of_text => match width {
            768 => Some(SD1),
            1024 => Some(SD2),
            2048 => Some(XL),
            _ => None,
        },
        _ => None,
    }
}

/// kohya's trainer and the SAI model specification name the base model.
fn by_metadata(file: &TensorFile) -> Option<&'static str> {
    let said = ["modelspec.architecture", "ss_base_model_version"].iter().find_map(|key| file.metadata.get(*key))?;
    let starts = [
        ("stable-diffusion-xl", XL),
        ("sdxl", XL),
        ("stable-diffusion-v1", SD1),
        ("sd_v1", SD1),
        ("stable-diffusion-v2", SD2),
        ("sd_v2", SD2),
        ("stable-diffusion-3", SD3),
        ("sd3", SD3),
        ("flux", FLUX),
    ];
    starts.iter().find(|(start, _)| said.to_lowercase().starts_with(start)).map(|(_, family)| *family)
}
