//! The line that says what a source is.

use diffused_engine::bundle::Family;
use diffused_engine::sampler::{Prediction, SamplingConfig};

use super::Configs;
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
    match configs.unet.guidance_channels {
        Some(_) => format!("{name}, distilled (guidance embedding)"),
        None => name.to_owned(),
    }
}
