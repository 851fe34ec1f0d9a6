//! What is wrong with a model or a bundle is said by name: the file, the key or tensor, and what would be right.

use std::fs;

use crate::changed::{SourceCopy, TensorData, demo};
use half::f16;
use model_prep::{Format, Options, SourceOptions, convert, inspect, verify};
use safetensors::Dtype;
use serde_json::{Value, json};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

/// The error of converting `source`; nothing may be left behind.
fn error(source: &SourceCopy, weights: Format) -> String {
    let error = convert(&source.path(), &source.bundle(), &Options { weights, ..Options::default() }, &mut |_| ());
    let left: Vec<_> = fs::read_dir(source.path().parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    error.unwrap_err().to_string()
}

#[track_caller]
fn check(source: &SourceCopy, parts: &[&str]) {
    let error = error(source, Format::Int8);
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[track_caller]
fn check_key(file: &str, key: &str, value: Value, supported: &str) {
    let source = SourceCopy::new();
    source.set(file, key, value.clone());
    check(&source, &[file, &format!(": {key} is {value}; supported: {supported}")]);
}

#[track_caller]
fn check_tensor(tensor: &str, message: &str, change: impl FnOnce(&mut TensorData)) {
    let source = SourceCopy::new();
    source.change(UNET, |tensors| change(tensors.get_mut(tensor).unwrap()));
    check(&source, &[UNET, &format!("tensor {tensor}: {message}")]);
}

#[test]
fn values_that_cannot_be_built_are_refused() {
    let unet = "unet/config.json";
    check_key(unet, "act_fn", json!("mish"), "\"silu\", \"swish\"");
    check_key(unet, "attention_head_dim", json!(5), "a number of heads that divides");
    check_key(unet, "attention_head_dim", json!([4, 4]), "a positive integer or a list of 3");
    check_key(unet, "block_out_channels", json!(64), "a list of positive integers");
    check_key(unet, "class_embed_type", json!("timestep"), "null");
    check_key(unet, "cross_attention_dim", json!(256), "128, as hidden_size");
    check_key(unet, "down_block_types", json!(["AttnDownBlock2D"]), "a list of 3 (one for each block) of CrossAttn");
    check_key(
        unet,
        "in_channels",
        json!(8),
        "4, as out_channels is, or 9 of an inpainting model; this is InstructPix2Pix",
    );
    check_key(unet, "mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn"), "\"UNetMidBlock2DCrossAttn\"");
    check_key(unet, "norm_num_groups", json!(48), "a number that divides 64 channels");
    check_key(unet, "resnet_time_scale_shift", json!("scale_shift"), "\"default\"");
    check_key(unet, "sample_size", json!(0), "a positive integer");
    check_key(unet, "transformer_layers_per_block", json!([[1], [1], [1]]), "a list of integers, or reverse_");
    check_key("vae/config.json", "down_block_types", json!(["AttnDownEncoderBlock2D"]), "[\"DownEncoderBlock2D\"");
    check_key("vae/config.json", "latents_mean", json!([0.1]), "null");
    check_key("vae/config.json", "shift_factor", json!(0.5), "null, 0");
    check_key("text_encoder/config.json", "hidden_act", json!("relu"), "\"quick_gelu\", \"gelu\"");
    check_key("text_encoder/config.json", "num_attention_heads", json!(3), "a number that divides hidden_size, 128");
    check_key("model_index.json", "unet", json!(["diffusers", "UNet3DConditionModel"]), "[\"diffusers\",\"UNet2D");
}

#[test]
fn larger_families_are_refused_by_name() {
    let second = json!(["transformers", "T5EncoderModel"]);
    check_key("model_index.json", "text_encoder_2", second, "null, [null,null], [\"transformers\",\"CLIPTextModelWith");
    let source = SourceCopy::new();
    source.set("model_index.json", "text_encoder_2", json!(["transformers", "CLIPTextModelWithProjection"]));
    check(&source, &["text_encoder_2/config.json: there is no such file"]);
}

#[test]
fn defaults_that_no_picture_could_have_are_refused() {
    let source = SourceCopy::new();
    let refused =
        |options: Options| convert(&source.path(), &source.bundle(), &options, &mut |_| ()).unwrap_err().to_string();
    assert_eq!(refused(Options { steps: Some(0), ..Options::default() }), "steps is 0; allowed is 1 to 1000");
    for scale in [-1.0, 50.5, f64::NAN] {
        let error = refused(Options { cfg_scale: Some(scale), ..Options::default() });
        assert_eq!(error, format!("cfg_scale is {scale}; allowed is 0 to 50"));
    }
}

#[test]
fn tensors_are_named() {
    check_tensor("conv_in.weight", "has the shape [64, 36] instead of [64, 4, 3, 3]", |t| t.shape = vec![64, 36]);
    check_tensor("conv_in.bias", "holds I16; supported: F32, F16, BF16", |t| t.dtype = Dtype::I16);
    check_tensor("conv_out.bias", "value 1 is NaN", |t| t.bytes[2..4].copy_from_slice(&f16::NAN.to_le_bytes()));
    let source = SourceCopy::new();
    source.change(UNET, |tensors| drop(tensors.remove("conv_in.bias")));
    check(&source, &["unet: tensor conv_in.bias: is missing; its shape should be [64]"]);
    source.change(UNET, |tensors| {
        let bias = TensorData { dtype: Dtype::F16, shape: vec![64], bytes: vec![0; 128] };
        tensors.extend([("conv_in.bias".to_owned(), bias.clone()), ("conv_in.extra".to_owned(), bias)]);
    });
    let warnings = convert(&source.path(), &source.bundle(), &Options::default(), &mut |_| ()).unwrap().warnings;
    let told = format!("{UNET}: tensor conv_in.extra: left out: it is not part of the network that is converted");
    assert!(matches!(&warnings[..], [warning] if warning.ends_with(&told)), "{warnings:?}");
}

#[test]
fn values_that_f16_cannot_hold_are_refused() {
    let source = SourceCopy::new();
    source.change(UNET, |tensors| {
        let weight = tensors.get_mut("conv_in.weight").unwrap();
        weight.bytes = [70_000f32.to_le_bytes(); 64 * 4 * 9].concat();
        weight.dtype = Dtype::F32;
    });
    check(&source, &["tensor conv_in.weight: holds 70000, which is too large for f16; use --weights f32"]);
}

#[test]
fn broken_files_are_named() {
    let source = SourceCopy::new();
    let whole = fs::read(demo().join(UNET)).unwrap();
    source.write(UNET, &whole[..whole.len() - 1]);
    check(&source, &[UNET, "not a whole safetensors file: its tensors need"]);
    source.write(UNET, &whole[..100]);
    check(&source, &[UNET, "not a whole safetensors file: a header of"]);
    source.write(UNET, b"x");
    check(&source, &[UNET, "not a whole file with weights (1 bytes)"]);
    source.write(UNET, &[&whole[..], b"x"].concat());
    check(&source, &[UNET, "1 bytes follow its last tensor"]);
    source.remove(UNET);
    check(&source, &[UNET, "there is no such file, nor another file of weights"]);
    source.write("unet/diffusion_pytorch_model.bin", b"");
    check(&source, &["unet/diffusion_pytorch_model.bin: is empty"]);
    source.remove("unet/diffusion_pytorch_model.bin");
    for file in ["flax_model.msgpack", "model.onnx"] {
        source.write(&format!("unet/{file}"), b"");
    }
    check(&source, &[UNET, "and these are not read: flax_model.msgpack, model.onnx"]);
    source.write("vae/config.json", b"{");
    check(&source, &["vae/config.json: no JSON object"]);
    source.remove("model_index.json");
    check(&source, &["has a folder unet but no model_index.json; download the whole model"]);
}

#[test]
fn tokenizers_are_checked() {
    let source = SourceCopy::new();
    source.write("tokenizer/merges.txt", b"#version: 0.2\na b c\n");
    check(&source, &["tokenizer/merges.txt: line 2: \"a b c\" is not a pair"]);
    let source = SourceCopy::new();
    source.write("tokenizer/vocab.json", br#"{"a": 653}"#);
    check(&source, &["tokenizer/vocab.json: the token \"a\" has the id 653, but", "vocab_size is 653"]);
}

#[test]
fn a_bundle_is_replaced_only_when_asked() {
    let source = SourceCopy::new();
    let (path, out) = (source.path(), source.bundle());
    let mut options = Options::default();
    convert(&path, &out, &options, &mut |_| ()).unwrap();
    fs::write(out.join("unet.onnx"), "").unwrap();
    let refused = convert(&path, &out, &options, &mut |_| ()).unwrap_err().to_string();
    assert!(refused.contains("is already there") && refused.contains("--force"), "{refused}");
    options.force = true;
    convert(&path, &out, &options, &mut |_| ()).unwrap();
    inspect(&out, &Options::default()).unwrap();
}

#[test]
fn words_and_examples_are_checked() {
    let source = SourceCopy::new();
    source.write("words.txt", b"# colours\nred\nlight blue\n");
    check(&source, &["words.txt: \"light blue\" is not one word"]);
    source.write("words.txt", b"# none\n");
    check(&source, &["words.txt: lists no words"]);
    source.write("words.txt", b"red\nhouse\na\n");
    source.write("examples.txt", b"a red mouse\n");
    check(&source, &["examples.txt: \"a red mouse\" has the word \"mouse\", which words.txt does not list"]);
}

#[test]
fn bundles_that_were_changed_are_noticed() {
    let source = SourceCopy::new();
    convert(&source.path(), &source.bundle(), &Options::default(), &mut |_| ()).unwrap();
    let weights = source.bundle().join("unet.weights");
    let whole = fs::read(&weights).unwrap();
    let mut edited = whole.clone();
    edited[whole.len() / 2] ^= 1;
    for bytes in [&edited[..], &whole[..whole.len() - 1]] {
        fs::write(&weights, bytes).unwrap();
        let error = inspect(&source.bundle(), &Options::default()).unwrap_err().to_string();
        assert!(error.contains("unet.weights: does not match its checksum"), "{error}");
    }
}

#[test]
fn a_bundle_of_another_model_is_noticed() {
    let source = SourceCopy::new();
    convert(&source.path(), &source.bundle(), &Options::default(), &mut |_| ()).unwrap();
    source.set("unet/config.json", "flip_sin_to_cos", json!(false));
    let error =
        verify(&source.bundle(), &source.path(), &SourceOptions::default(), &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("unet.onnx: is not the graph that the source's configuration describes"), "{error}");
}
