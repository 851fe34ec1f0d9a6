//! The configurations of published models, and older names.

use std::collections::BTreeMap;
use std::fs;

use diffused_engine::sampler::{Prediction, SamplerKind};

use serde_json::Value;

use super::*;
use crate::arch;
use diffused_kernels::pack::Format;

/// What a published model's configurations should come to.
struct Known {
    name: &'static str,
    /// Values of the UNet, as published.
    unet: usize,
    sampler: SamplerKind,
    prediction: Prediction,
    picture: usize,
}

const fn known(name: &'static str, unet: usize, sampler: SamplerKind, prediction: Prediction, picture: usize) -> Known {
    Known { name, unet, sampler, prediction, picture }
}

const PUBLISHED: [Known; 11] = [
    known("Stable Diffusion 1.4", 859_520_964, SamplerKind::Pndm, Prediction::Epsilon, 512),
    known("Stable Diffusion 1.5", 859_520_964, SamplerKind::Pndm, Prediction::Epsilon, 512),
    known("Stable Diffusion 2.1 base", 865_910_724, SamplerKind::Pndm, Prediction::Epsilon, 512),
    known("Stable Diffusion 2.1", 865_910_724, SamplerKind::Ddim, Prediction::VPrediction, 768),
    known("LCM Dreamshaper v7", 859_602_884, SamplerKind::Lcm, Prediction::Epsilon, 768),
    known("BK-SDM-Small", 482_346_884, SamplerKind::Pndm, Prediction::Epsilon, 512),
    known("Stable Diffusion XL base 1.0", 2_567_463_684, SamplerKind::Euler, Prediction::Epsilon, 1024),
    known("SDXL-Turbo", 2_567_463_684, SamplerKind::EulerAncestral, Prediction::Epsilon, 512),
    known("SSD-1B", 1_331_334_404, SamplerKind::Euler, Prediction::Epsilon, 1024),
    known("tiny-sd", 323_384_964, SamplerKind::Dpmpp2m, Prediction::Epsilon, 512),
    known(
        "a fine-tune saved by diffusers 0.42 with its moving average",
        859_520_964,
        SamplerKind::Euler,
        Prediction::Epsilon,
        512,
    ),
];

/// The configurations of models that people have, every key of them, are understood.
#[test]
fn published_models_are_understood() {
    let published: BTreeMap<String, BTreeMap<String, Value>> =
        serde_json::from_str(include_str!("../../tests/published.json")).unwrap();
    assert_eq!(published.len(), PUBLISHED.len());
    for Known { name, unet, sampler, prediction, picture } in PUBLISHED {
        let folder = tempfile::tempdir().unwrap();
        for (file, json) in &published[name] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, json.to_string()).unwrap();
        }
        let mut warnings = Vec::new();
        let files = ConfigFiles::folder(folder.path());
        let index = ModelIndex::open(files.keys("model_index.json").unwrap(), &mut warnings).unwrap();
        let configs = Configs::open(&files, &mut warnings).unwrap();
        let guidance_embedding = configs.unet.guidance_channels.is_some();
        let options = SourceOptions::default();
        let context = SamplingContext { index: &index, guidance_embedding, options: &options };
        let sampling = sampling_config::open(&files, context, &mut warnings).unwrap();
        assert_eq!((sampling.default, sampling.prediction), (sampler, prediction), "{name}");
        // Of SDXL-Turbo it is told that its defaults are a single step without guidance.
        warnings.retain(|warning| name != "SDXL-Turbo" || !warning.contains("paints in a single step"));
        assert_eq!(warnings, Vec::<String>::new(), "{name}");
        assert_eq!(configs.unet.sample_size * configs.vae.factor(), picture, "{name}");
        let networks = arch::networks(&configs, Format::F32);
        let network = networks.iter().find(|network| network.name == "unet").unwrap();
        let shapes = network.parameters.iter().flat_map(|parameter| parameter.tensors());
        assert_eq!(shapes.map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>(), unet, "{name}");
    }
}

#[test]
fn older_names_are_understood() {
    assert_eq!(unwrapped("module._orig_mod.conv_in.bias"), "conv_in.bias");
    assert_eq!(text_name("text_model.final_layer_norm.bias").as_deref(), Some("final_layer_norm.bias"));
    assert_eq!(text_name("text_model.embeddings.position_ids"), None);
}

#[test]
fn the_end_of_the_first_of_two_text_encoders_is_not_needed() {
    let files = ConfigFiles::values(Path::new("m"), BTreeMap::from([("text_encoder/config.json", json!({}))]));
    let keys = files.keys("text_encoder/config.json").unwrap();
    let alone = TextConfig::open(keys, &mut Vec::new()).unwrap();
    let (first, second) = (alone.clone().first_of_two(), alone.clone().second_of_two());
    let needs = |name| [&alone, &first, &second].map(|config| config.needs(name));
    assert_eq!(needs("encoder.layers.10.mlp.fc1.bias"), [true; 3]);
    assert_eq!(needs("encoder.layers.11.mlp.fc1.bias"), [true, false, true]);
    assert_eq!(needs("final_layer_norm.bias"), [true, false, true]);
    assert_eq!(needs("text_projection.weight"), [false, false, true]);
}
