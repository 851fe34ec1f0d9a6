//! Bundles of the demo model: complete, equal to their source within their format's error, and the same every time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::changed::{SourceCopy, TensorData, demo};
use diffused_engine::Source;
use diffused_engine::bundle::{Manifest, PAGE, WeightsFile};
use diffused_engine::layer::Layer;
use diffused_engine::layer_onnx::from_node;
use diffused_engine::sampler::{Prediction, SamplerKind};
use half::{bf16, f16};
use model_prep::{Difference, Format, Options, SourceOptions, convert, inspect, verify};
use prost::Message;
use safetensors::Dtype;
use tract_onnx::pb::{ModelProto, NodeProto};

const TEXT: &str = "text_encoder/model.safetensors";
const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";

fn convert_to(source: &Path, out: &Path, weights: Format) {
    convert(source, out, &Options { weights, ..Options::default() }, &mut |_| ()).unwrap();
}

/// What the committed demo bundle was made with.
fn demo_options() -> Options {
    Options { name: Some("demo".into()), cfg_scale: Some(5.0), ..Options::default() }
}

fn manifest(bundle: &Path) -> Manifest {
    Manifest::parse(&fs::read(bundle.join("bundle.json")).unwrap()).unwrap()
}

fn nodes(bundle: &Path, network: &str) -> Vec<NodeProto> {
    let bytes = fs::read(bundle.join(format!("{network}.onnx"))).unwrap();
    ModelProto::decode(&*bytes).unwrap().graph.unwrap().node
}

fn layers(bundle: &Path, network: &str) -> Vec<Layer> {
    let ours = nodes(bundle, network).into_iter().filter(|node| Layer::NAMES.contains(&node.op_type.as_str()));
    ours.map(|node| from_node(&node).unwrap()).collect()
}

fn weights(bundle: &Path, network: &str) -> WeightsFile {
    WeightsFile::open(&Source::Folder(bundle.to_owned()), network).unwrap()
}

#[test]
fn the_committed_demo_bundle_is_what_its_source_gives() {
    let out = tempfile::tempdir().unwrap();
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../daemon/assets/demo");
    let bundle = out.path().join("bundle");
    convert(&demo(), &bundle, &demo_options(), &mut |_| ()).unwrap();
    assert_eq!(manifest(&bundle), manifest(&committed));
    for file in manifest(&committed).files.keys() {
        assert!(fs::read(bundle.join(file)).unwrap() == fs::read(committed.join(file)).unwrap(), "{file} differs");
    }
    inspect(&committed, &Options::default()).unwrap();
}

#[test]
fn tensors_equal_their_source_within_their_formats_error() {
    for (weights, least) in [(Format::Int8, 38.0), (Format::F16, f64::INFINITY), (Format::F32, f64::INFINITY)] {
        let out = tempfile::tempdir().unwrap();
        let bundle = out.path().join("bundle");
        convert_to(&demo(), &bundle, weights);
        let mut differences: Vec<Difference> = Vec::new();
        verify(&bundle, &demo(), &SourceOptions::default(), &mut |difference| differences.push(difference)).unwrap();
        // In int8 the shortcuts of what is joined are in two parts.
        let parts = if weights == Format::Int8 { 6 } else { 0 };
        assert_eq!(differences.len(), 35 + 184 + parts + 54 + 38);
        for difference in differences {
            // The source is in f16, so beside int8 only sums of its values lose anything.
            let least = if difference.format == Format::Int8 { least } else { least_in_half(&difference) };
            assert!(difference.snr() >= least, "{difference:?}: {} dB", difference.snr());
        }
    }
}

/// The least that a weight in f16 or f32 keeps, decibels: in f16 the sums of a doubled image's phases are rounded.
pub(crate) fn least_in_half(difference: &Difference) -> f64 {
    let in_phases = difference.network == "vae_decoder" && difference.tensor.ends_with("upsamplers.0.conv");
    if in_phases && difference.format == Format::F16 { 70.0 } else { f64::INFINITY }
}

#[test]
fn graphs_and_weights_know_the_same_tensors_in_the_same_order() {
    let out = tempfile::tempdir().unwrap();
    let bundle = out.path().join("bundle");
    convert_to(&demo(), &bundle, Format::Int8);
    for network in manifest(&bundle).networks() {
        let (layers, weights) = (layers(&bundle, network), weights(&bundle, network));
        let used: Vec<&str> = layers.iter().flat_map(Layer::weights).collect();
        assert_eq!(used.len(), weights.index().entries().len(), "{network}");
        let offsets: Vec<u64> = used.iter().map(|name| weights.entry(name).unwrap().offset()).collect();
        assert!(offsets.is_sorted() && offsets.iter().all(|offset| offset % PAGE == 0), "{network}: {offsets:?}");
    }
}

#[test]
fn every_value_is_made_once_and_before_it_is_used() {
    let out = tempfile::tempdir().unwrap();
    let bundle = out.path().join("bundle");
    convert_to(&demo(), &bundle, Format::Int8);
    for network in manifest(&bundle).networks() {
        let bytes = fs::read(bundle.join(format!("{network}.onnx"))).unwrap();
        let graph = ModelProto::decode(&*bytes).unwrap().graph.unwrap();
        let mut known: Vec<String> = graph.input.iter().map(|input| input.name.clone()).collect();
        for node in &graph.node {
            assert!(node.input.iter().all(|name| known.contains(name)), "{network}: {}", node.name);
            assert!(node.output.iter().all(|name| !known.contains(name)), "{network}: {}", node.name);
            known.extend(node.output.iter().cloned());
        }
        assert!(known.contains(&graph.output[0].name), "{network}");
    }
}

#[test]
fn norms_and_attentions_feed_int8_matrices_without_a_step_between() {
    let out = tempfile::tempdir().unwrap();
    let bundle = out.path().join("bundle");
    convert_to(&demo(), &bundle, Format::Int8);
    let nodes = nodes(&bundle, "unet");
    let named = |name: &str| nodes.iter().find(|node| node.name == name).unwrap_or_else(|| panic!("no {name}"));
    let block = "down_blocks.0.attentions.0.transformer_blocks.0";
    for part in ["to_q", "to_k", "to_v"] {
        let inputs = &named(&format!("{block}.attn1.{part}")).input;
        assert_eq!(*inputs, [format!("{block}.norm1.q"), format!("{block}.norm1.scale")]);
    }
    // The text is quantized once, before its first use; what is added to is quantized beside the f32 that waits.
    assert_eq!(nodes.iter().filter(|node| node.input == ["encoder_hidden_states"]).count(), 1);
    assert_eq!(named("down_blocks.0.downsamplers.0.conv").input[0], "down_blocks.0.attentions.0.proj_out.q");
    assert_eq!(named("down_blocks.0.attentions.0.proj_out.quantize").op_type, "Quantize");
    assert!(nodes.iter().all(|node| node.op_type != "Quantize" || !node.name.contains("norm")));
}

#[test]
fn exact_bundles_round_nothing() {
    let out = tempfile::tempdir().unwrap();
    let bundle = out.path().join("bundle");
    convert_to(&demo(), &bundle, Format::F32);
    for network in manifest(&bundle).networks() {
        assert!(nodes(&bundle, network).iter().all(|node| node.op_type != "Cast"), "{network}");
        let rounds = |layer: &Layer| layer.quantizes() || matches!(layer, Layer::Conv2d { half: 1.., .. });
        assert!(!layers(&bundle, network).iter().any(rounds), "{network}");
    }
}

/// As older programs wrote models: prefixes, other names, shards, other types.
#[test]
fn other_forms_of_the_same_model_give_the_same_bundle() {
    let source = SourceCopy::new();
    source.change(TEXT, |tensors| {
        *tensors =
            std::mem::take(tensors).into_iter().map(|(name, t)| (format!("text_model.{name}"), widened(t))).collect();
        let ids = TensorData { dtype: Dtype::I64, shape: vec![1, 77], bytes: vec![0; 8 * 77] };
        tensors.insert("text_model.embeddings.position_ids".into(), ids);
    });
    source.change(VAE, |tensors| {
        *tensors = std::mem::take(tensors).into_iter().map(|(name, tensor)| (old_vae_name(&name), tensor)).collect();
    });
    shard(&source);
    let plain = SourceCopy::new();
    convert_to(&source.path(), &source.bundle(), Format::Int8);
    convert_to(&plain.path(), &plain.bundle(), Format::Int8);
    let (found, wanted) = (manifest(&source.bundle()), manifest(&plain.bundle()));
    assert_eq!(found.files, wanted.files);
    assert_ne!(found.source_sha256, wanted.source_sha256);
}

fn old_vae_name(name: &str) -> String {
    let old = [(".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")];
    old.iter().fold(name.to_owned(), |name, (new, old)| name.replace(new, old))
}

fn widened(tensor: TensorData) -> TensorData {
    let values = tensor.bytes.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32());
    TensorData { dtype: Dtype::F32, bytes: values.flat_map(f32::to_le_bytes).collect(), ..tensor }
}

/// The UNet's tensors in two files and an index.
fn shard(source: &SourceCopy) {
    let mut first = source.tensors(UNET);
    let second = first.split_off("mid_block");
    let mut index = BTreeMap::new();
    for (i, tensors) in [first, second].iter().enumerate() {
        let file = format!("diffusion_pytorch_model-0000{}-of-00002.safetensors", i + 1);
        source.write_tensors(&format!("unet/{file}"), tensors);
        index.extend(tensors.keys().map(|name| (name.clone(), file.clone())));
    }
    source.remove(UNET);
    let json = serde_json::json!({"metadata": {}, "weight_map": index});
    source.write("unet/diffusion_pytorch_model.safetensors.index.json", json.to_string().as_bytes());
}

#[test]
fn bf16_is_read() {
    let source = SourceCopy::new();
    source.change(TEXT, |tensors| {
        for tensor in tensors.values_mut() {
            let values = tensor.bytes.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32());
            tensor.bytes = values.flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect();
            tensor.dtype = Dtype::BF16;
        }
    });
    convert_to(&source.path(), &source.bundle(), Format::F32);
    let mut text = Vec::new();
    verify(&source.bundle(), &demo(), &SourceOptions::default(), &mut |d| {
        text.extend((d.network == "text_encoder").then_some(d))
    })
    .unwrap();
    // bf16 keeps 8 bits of each value: 40 to 60 dB from the f16 that it was made of.
    let matrices = text.iter().filter(|difference| difference.tensor.contains("mlp"));
    assert!(matrices.clone().count() == 8 && matrices.clone().all(|d| (40.0..60.0).contains(&d.snr())), "{text:?}");
}

#[test]
fn the_f16_variant_is_taken_where_there_is_no_other() {
    let source = SourceCopy::new();
    source.write("unet/diffusion_pytorch_model.fp16.safetensors", &fs::read(source.path().join(UNET)).unwrap());
    source.remove(UNET);
    convert_to(&source.path(), &source.bundle(), Format::Int8);
}

/// As transformers 5 saves a tokenizer: vocabulary and merges in one file.
#[test]
fn a_tokenizer_in_one_file_is_the_same_tokenizer() {
    let plain = SourceCopy::new();
    convert_to(&plain.path(), &plain.bundle(), Format::Int8);
    let vocab: serde_json::Value =
        serde_json::from_slice(&fs::read(plain.path().join("tokenizer/vocab.json")).unwrap()).unwrap();
    let merges = fs::read_to_string(plain.path().join("tokenizer/merges.txt")).unwrap();
    let lines = || merges.lines().skip(1);
    let pairs: Vec<Vec<&str>> = lines().map(|line| line.split(' ').collect()).collect();
    for merges in [serde_json::json!(pairs), serde_json::json!(lines().collect::<Vec<_>>())] {
        let source = SourceCopy::new();
        let model = serde_json::json!({"type": "BPE", "vocab": vocab, "merges": merges});
        let json = serde_json::json!({"version": "1.0", "model": model});
        source.write("tokenizer/tokenizer.json", json.to_string().as_bytes());
        source.remove("tokenizer/vocab.json");
        source.remove("tokenizer/merges.txt");
        convert_to(&source.path(), &source.bundle(), Format::Int8);
        let (found, wanted) = (manifest(&source.bundle()), manifest(&plain.bundle()));
        assert_eq!(found.text, wanted.text);
        assert_eq!(found.files["tokenizer/merges.txt"], wanted.files["tokenizer/merges.txt"]);
        let file = fs::read(source.bundle().join("tokenizer/vocab.json")).unwrap();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&file).unwrap(), vocab);
    }
}

#[test]
fn padding_is_the_tokenizers_own() {
    let source = SourceCopy::new();
    let special = r#"{"bos_token": {"content": "<|startoftext|>"}, "eos_token": "<|endoftext|>", "pad_token": "!"}"#;
    source.write("tokenizer/special_tokens_map.json", special.as_bytes());
    convert_to(&source.path(), &source.bundle(), Format::Int8);
    let vocab: BTreeMap<String, u32> =
        serde_json::from_slice(&fs::read(source.path().join("tokenizer/vocab.json")).unwrap()).unwrap();
    let text = manifest(&source.bundle()).text.clone();
    assert_eq!((text.bos, text.eos, text.pad), (vocab["<|startoftext|>"], vocab["<|endoftext|>"], vocab["!"]));
}

#[test]
fn words_and_examples_come_from_the_source() {
    let source = SourceCopy::new();
    source.write("words.txt", b"# in any order\nRed\nhouse\na\nred\n");
    source.write("examples.txt", "a red house\n\n# the end\na house, a house\n".as_bytes());
    convert_to(&source.path(), &source.bundle(), Format::Int8);
    let with = manifest(&source.bundle());
    assert_eq!(with.text.words.as_deref(), Some(&["a", "house", "red"].map(str::to_owned)[..]));
    assert_eq!(with.examples, ["a red house", "a house, a house"]);
    source.remove("words.txt");
    source.remove("examples.txt");
    fs::remove_dir_all(source.bundle()).unwrap();
    convert_to(&source.path(), &source.bundle(), Format::Int8);
    let without = manifest(&source.bundle());
    assert_eq!((&without.text.words, &*without.examples), (&None, &[][..]));
}

/// "Clip skip" 2 is a text encoder of a layer less, and the default sampler and prediction are the user's.
#[test]
fn the_users_word_goes_before_the_sources() {
    let (skipped, edited) = (SourceCopy::new(), SourceCopy::new());
    let source = SourceOptions {
        clip_skip: Some(2),
        sampler: Some(SamplerKind::Euler),
        prediction: Some(Prediction::VPrediction),
        ..SourceOptions::default()
    };
    let options = Options { source, ..Options::default() };
    let warnings = convert(&skipped.path(), &skipped.bundle(), &options, &mut |_| ()).unwrap().warnings;
    edited.set("text_encoder/config.json", "num_hidden_layers", serde_json::json!(3));
    convert_to(&edited.path(), &edited.bundle(), Format::Int8);
    assert_eq!(warnings, Vec::<String>::new());
    let (found, wanted) = (manifest(&skipped.bundle()), manifest(&edited.bundle()));
    assert_eq!(found.files, wanted.files);
    assert_eq!((found.sampling.default, found.sampling.prediction), (SamplerKind::Euler, Prediction::VPrediction));
    let options = Options {
        source: SourceOptions { clip_skip: Some(5), ..SourceOptions::default() },
        force: true,
        ..Options::default()
    };
    let error = convert(&skipped.path(), &skipped.bundle(), &options, &mut |_| ()).unwrap_err().to_string();
    assert_eq!(error, "clip_skip is 5; allowed is 1 to 4, the text encoder's layers");
}
