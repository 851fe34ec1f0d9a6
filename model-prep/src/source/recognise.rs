//! The line that says what a source is.

use diffused_engine::bundle::Family;
use diffused_engine::sampler::{Prediction, SamplingConfig};

use super::Configs;
use crate::options::LoraOption;
use crate::tensors::Checkpoint;

/// Family, form and prediction of a model, as `Stable Diffusion 1 (diffusers folder, f16), prediction epsilon`.
pub(super) fn line(configs: &Configs, sampling: &SamplingConfig, form: &str, unet: &Checkpoint) -> String {
    let prediction = match sampling.prediction {
        Prediction::Epsilon => "epsilon",
        Prediction::VPrediction => "v",
    };
    let dtype = unet.main_dtype().map(|dtype| format!(", {}", dtype.to_string().to_lowercase())).unwrap_or_default();
    format!("{} ({form}{dtype}), prediction {prediction}", family(configs))
}

fn family(configs: &Configs) -> String {
    let name = match configs.family() {
        Family::Sd1 => "Stable Diffusion 1",
        Family::Sd2 => "Stable Diffusion 2",
        Family::Sdxl => "Stable Diffusion XL",
    };
    match (configs.unet.guidance_channels, configs.unet.inpainting) {
        (Some(_), _) => format!("{name}, distilled (guidance embedding)"),
        (None, true) => format!("{name} for inpainting"),
        (None, false) => name.to_owned(),
    }
}

/// What was merged into a model and added to its `words`, as `; with style.safetensors × 0.8; new words: EasyNegative`.
pub(super) fn additions(loras: &[LoraOption], words: &[&str]) -> String {
    let file = |lora: &LoraOption| lora.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let loras: Vec<String> = loras.iter().map(|lora| format!("{} × {}", file(lora), lora.strength)).collect();
    let with = if loras.is_empty() { String::new() } else { format!("; with {}", loras.join(", ")) };
    let words = if words.is_empty() { String::new() } else { format!("; new words: {}", words.join(", ")) };
    with + &words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn additions_are_named() {
        let loras = ["a/style.safetensors:0.8", "b.safetensors"].map(|text| text.parse().unwrap());
        assert_eq!(additions(&loras, &[]), "; with style.safetensors × 0.8, b.safetensors × 1");
        assert_eq!(additions(&[], &["neg", "<cat>"]), "; new words: neg, <cat>");
        assert_eq!(additions(&[], &[]), "");
    }
}
