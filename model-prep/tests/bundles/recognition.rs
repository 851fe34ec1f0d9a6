//! What a path leads to, and what is said where it is no model of ours.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::changed::{SourceCopy, demo};
use diffused_engine::bundle::Manifest;
use model_prep::{Options, convert};
use serde_json::{Value, json};

fn manifest(bundle: &Path) -> Manifest {
    Manifest::parse(&fs::read(bundle.join("bundle.json")).unwrap()).unwrap()
}

/// The error of converting `source`.
#[track_caller]
fn check(source: &Path, parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let error = convert(source, &folder.path().join("bundle"), &Options::default(), &mut |_| ()).unwrap_err();
    let error = error.to_string();
    parts.iter().for_each(|part| assert!(error.contains(part), "{part:?} is not in: {error}"));
}

/// The default size and what was said, where `unet/config.json` has these keys.
fn size(keys: &[(&str, Value)]) -> (usize, String) {
    let source = SourceCopy::new();
    keys.iter().for_each(|(key, value)| source.set("unet/config.json", key, value.clone()));
    let converted = convert(&source.path(), &source.bundle(), &Options::default(), &mut |_| ()).unwrap();
    (manifest(&source.bundle()).picture.default, converted.warnings.join("\n"))
}

#[test]
fn pipelines_of_other_kinds_are_named() {
    for (pipeline, kind) in [
        ("StableDiffusion3Pipeline", "Stable Diffusion 3, a transformer"),
        ("FluxPipeline", "another architecture"),
        ("PixArtAlphaPipeline", "another architecture"),
        ("ZImagePipeline", "another architecture"),
        ("OnnxStableDiffusionPipeline", "an ONNX export; take the original"),
        ("StableDiffusionControlNetPipeline", "a ControlNet pipeline"),
    ] {
        let source = SourceCopy::new();
        source.set("model_index.json", "_class_name", json!(pipeline));
        source.set("model_index.json", "text_encoder", json!(["transformers", "T5EncoderModel"]));
        check(
            &source.path(),
            &["model_index.json", pipeline, kind, "model-prep converts Stable Diffusion 1, 2 and XL"],
        );
    }
}

#[test]
fn places_that_are_no_model_are_told_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    check(Path::new("some-organisation/some-model"), &["if this is a model's name in a hub", "hf download"]);
    check(Path::new("https://example.org/some/model"), &["model-prep does not download", "hf download"]);
    check(&path("absent"), &["there is no such file or folder"]);
    symlink("nowhere", path("link")).unwrap();
    check(&path("link"), &["is a link to a file that is not there"]);
    check(folder.path(), &["holds neither model_index.json nor a file of weights"]);
    fs::create_dir(path("onnx")).unwrap();
    fs::write(path("onnx/model.onnx"), "").unwrap();
    check(&path("onnx"), &["is an ONNX export; take the original model"]);
    fs::write(path("onnx/adapter_config.json"), "{}").unwrap();
    check(&path("onnx"), &["holds a LoRA", "--lora"]);
    check(&demo().join("unet"), &["is a part of a model; give the folder above"]);
    check(&demo().join("../../../daemon/assets/demo"), &["is a bundle already"]);
    fs::create_dir_all(path("huggingface/hub/models--some-one--a-model")).unwrap();
    check(&path("huggingface"), &["is a hub's cache; give one of its models: hub/models--some-one--a-model"]);
    check(&path("huggingface/hub"), &["is a hub's cache; give one of its models: models--some-one--a-model"]);
    fs::create_dir(path("two")).unwrap();
    ["a.safetensors", "b.ckpt"].iter().for_each(|file| fs::write(path("two").join(file), "").unwrap());
    check(&path("two"), &["holds several models; give one of them: a.safetensors, b.ckpt"]);
}

/// TAESD as a diffusers folder and as its author's files: what people download beside a model, and may give as one.
#[test]
fn an_autoencoder_alone_is_told_where_it_belongs() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/models");
    for place in ["taesd", "taesd-halves", "sd1/vae"] {
        check(&models.join(place), &["is an autoencoder alone; give the model, and this folder with --vae"]);
    }
    for file in [
        "taesd/diffusion_pytorch_model.safetensors",
        "taesd-halves/taesd_decoder.safetensors",
        "taesd-halves/taesd_encoder.safetensors",
        "sd1/vae/diffusion_pytorch_model.safetensors",
    ] {
        check(&models.join(file), &["is an autoencoder alone; give the model, and this file with --vae"]);
    }
}

/// optimum leaves model_index.json as it was.
#[test]
fn an_export_with_the_originals_index_is_told() {
    let source = SourceCopy::new();
    source.remove("unet/diffusion_pytorch_model.safetensors");
    source.remove("text_encoder/model.safetensors");
    source.write("unet/model.onnx", b"");
    check(&source.path(), &["is an ONNX export; take the original model"]);
}

/// `models--ORGANISATION--MODEL` with its snapshots: either folder may be given, and the name is the model's.
#[test]
fn a_hubs_cache_is_taken_with_the_models_name() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("models--some-one--a-model");
    fs::create_dir_all(cache.join("snapshots")).unwrap();
    symlink(demo(), cache.join("snapshots/5ede9e4b")).unwrap();
    let snapshot = cache.join("snapshots/0a1b2c");
    let copy = SourceCopy::new();
    fs::rename(copy.path(), &snapshot).unwrap();
    check(&cache, &["holds not one snapshot but none or several"]);
    fs::create_dir(cache.join("refs")).unwrap();
    fs::write(cache.join("refs/main"), "0a1b2c").unwrap();
    for (i, source) in [cache, snapshot].iter().enumerate() {
        let bundle = folder.path().join(format!("bundle{i}"));
        convert(source, &bundle, &Options::default(), &mut |_| ()).unwrap();
        assert_eq!(manifest(&bundle).name, "some-one/a-model");
    }
}

#[test]
fn keys_that_nobody_knows_are_told() {
    let source = SourceCopy::new();
    let files = ["unet/config.json", "vae/config.json", "text_encoder/config.json", "model_index.json"];
    files.iter().for_each(|file| source.set(file, "use_magic", json!(true)));
    let warnings = convert(&source.path(), &source.bundle(), &Options::default(), &mut |_| ()).unwrap().warnings;
    assert_eq!(warnings.len(), files.len(), "{warnings:?}");
    for file in files {
        assert!(warnings.iter().any(|told| told.ends_with(&format!("{file}: not taken over: use_magic"))));
    }
}

/// The demo model's factor is 8 and its UNet has three levels.
#[test]
fn default_sizes_are_ones_that_can_be_painted() {
    let old = ("_diffusers_version", json!("0.4.0.dev0"));
    assert_eq!(size(&[("sample_size", json!(32))]), (256, String::new()));
    for keys in [vec![("sample_size", json!(32)), old], vec![("sample_size", json!(null))]] {
        let (size, told) = size(&keys);
        assert!(size == 512 && told.ends_with("; 64 is taken"), "{size}, {told}");
    }
    assert_eq!(size(&[("sample_size", json!([16, 16]))]), (128, String::new()));
    let (side, told) = size(&[("sample_size", json!([16, 32]))]);
    assert!(side == 128 && told.contains("sample_size is [16,32]; 16 is taken"), "{told}");
    assert_eq!(size(&[("sample_size", json!(2))]).0, 32);
}

#[test]
fn absurd_counts_are_refused() {
    for (file, key, value, allowed) in [
        ("unet/config.json", "layers_per_block", json!(1_000_000_000), "at most 1000 in all blocks together"),
        ("unet/config.json", "transformer_layers_per_block", json!(1_000_000), "at most 1000 in all blocks together"),
        ("unet/config.json", "block_out_channels", json!(vec![64; 70]), "a list of at most 8"),
        ("unet/config.json", "norm_eps", json!(-1), "more than 0"),
        ("vae/config.json", "layers_per_block", json!(1_000_000), "1 to 1000"),
        ("vae/config.json", "block_out_channels", json!(vec![64; 70]), "a list of at most 8"),
        ("text_encoder/config.json", "num_hidden_layers", json!(1_000_000), "1 to 1000"),
        ("text_encoder/config.json", "layer_norm_eps", json!(-1), "more than 0"),
    ] {
        let source = SourceCopy::new();
        source.set(file, key, value);
        check(&source.path(), &[file, key, allowed]);
    }
    for (value, allowed) in [(json!(0), "0.001 to 1000"), (json!(1e-300), "0.001 to 1000"), (json!(-1), "0.001")] {
        let source = SourceCopy::new();
        source.set("vae/config.json", "scaling_factor", value);
        check(&source.path(), &["cannot be a bundle: picture.latent_scale", allowed]);
    }
    let source = SourceCopy::new();
    source.set("unet/config.json", "sample_size", json!(1_000_000_000));
    check(&source.path(), &["cannot be a bundle: picture.default", "to 2048"]);
}
