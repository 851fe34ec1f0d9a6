//! Single files: the tiny models of the goldens, written under the names that diffusers reads (`single_files.json`),
//! give the bundles of their folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use diffused_engine::bundle::Manifest;
use diffused_engine::sampler::{Prediction, SamplerKind, Spacing};
use model_prep::{Conversion, Format, Options, SourceOptions, convert};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;
use tempfile::TempDir;

use crate::changed::demo;

type FileTensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens")
}

pub(crate) fn folder(model: &str) -> PathBuf {
    if model == "demo" { demo() } else { goldens().join("models").join(model) }
}

/// By network, which tensors of the folder each tensor of the file is made of.
fn names(model: &str) -> BTreeMap<String, BTreeMap<String, Vec<String>>> {
    let mut all: Value = serde_json::from_slice(&fs::read(goldens().join("single_files.json")).unwrap()).unwrap();
    serde_json::from_value(all[model].take()).unwrap()
}

fn read(model: &str, network: &str) -> FileTensors {
    let stem = if network.starts_with("text") { "model" } else { "diffusion_pytorch_model" };
    let bytes = fs::read(folder(model).join(format!("{network}/{stem}.safetensors"))).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |view: &TensorView| (view.shape().to_vec(), view.data().to_vec());
    tensors.iter().map(|(name, view)| (name.to_owned(), tensor(&view))).collect()
}

/// Rows to columns.
fn transposed((shape, bytes): &(Vec<usize>, Vec<u8>)) -> (Vec<usize>, Vec<u8>) {
    let (rows, columns) = (shape[0], shape[1]);
    let size = bytes.len() / (rows * columns);
    let value = |i: usize| &bytes[size * i..size * (i + 1)];
    let values = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
    (vec![columns, rows], values.flat_map(value).copied().collect())
}

/// The tensors of the model's single file.
pub(crate) fn single(model: &str) -> FileTensors {
    let mut tensors = FileTensors::new();
    for (network, names) in names(model) {
        let source = read(model, &network);
        for (name, parts) in names {
            let parts: Vec<_> = parts
                .iter()
                .map(|part| match part.strip_suffix("^T") {
                    Some(part) => transposed(&source[part]),
                    None => source[part].clone(),
                })
                .collect();
            let mut shape = parts[0].0.clone();
            shape[0] = parts.iter().map(|(shape, _)| shape[0]).sum();
            tensors.insert(name, (shape, parts.into_iter().flat_map(|(_, bytes)| bytes).collect()));
        }
    }
    tensors
}

/// The file of these tensors.
pub(crate) fn safetensors_file(tensors: &FileTensors) -> Vec<u8> {
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        let dtype = match bytes.len() / shape.iter().product::<usize>() {
            2 => Dtype::F16,
            4 => Dtype::F32,
            _ => Dtype::I64,
        };
        (name, TensorView::new(dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

fn write(path: &Path, tensors: &FileTensors) {
    fs::write(path, safetensors_file(tensors)).unwrap();
}

/// What the files of trainers hold beside the model.
fn add_what_is_not_needed(tensors: &mut FileTensors) {
    let unet = tensors.iter().filter(|(name, _)| name.starts_with("model.diffusion_model."));
    let ema = |name: &str| format!("model_ema.{}", name.trim_start_matches("model.").replace('.', ""));
    let ema: Vec<_> = unet.map(|(name, tensor)| (ema(name), tensor.clone())).collect();
    tensors.extend(ema);
    for name in ["betas", "alphas_cumprod", "cond_stage_model.model.logit_scale", "first_stage_model.loss.logvar"] {
        tensors.insert(name.into(), (vec![1], vec![0; 4]));
    }
    let clip = tensors.keys().find_map(|name| Some(name.split_once("text_model.embeddings")?.0.to_owned()));
    if let Some(clip) = clip {
        tensors.remove("cond_stage_model.model.logit_scale");
        tensors.insert(format!("{clip}text_model.embeddings.position_ids"), (vec![1, 77], vec![0; 8 * 77]));
    }
}

/// Stable Diffusion 2's files have OpenCLIP's last layer, too, which the model does not use.
fn add_last_layer(tensors: &mut FileTensors) {
    let last = |name: &str| name.contains("cond_stage_model.model.transformer.resblocks.2.");
    let copies: Vec<_> = tensors
        .iter()
        .filter(|(name, _)| last(name))
        .map(|(name, tensor)| (name.replace("resblocks.2.", "resblocks.3."), tensor.clone()))
        .collect();
    tensors.extend(copies);
    tensors.insert("cond_stage_model.model.text_projection".into(), (vec![2, 2], vec![0; 16]));
}

pub(crate) struct Converted {
    _folder: TempDir,
    bundle: PathBuf,
    pub(crate) conversion: Conversion,
}

impl Converted {
    pub(crate) fn new(source: &Path, options: SourceOptions) -> Converted {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("bundle");
        let options = Options { weights: Format::F32, source: options, ..Options::default() };
        let conversion = convert(source, &bundle, &options, &mut |_| ()).unwrap();
        Converted { _folder: folder, bundle, conversion }
    }

    pub(crate) fn manifest(&self) -> Manifest {
        Manifest::parse(&fs::read(self.bundle.join("bundle.json")).unwrap()).unwrap()
    }
}

/// The bundle of the file is the folder's: all of it with the folder's configurations, else the weights.
#[track_caller]
fn check(model: &str, recognised: &str, change: impl FnOnce(&mut FileTensors)) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("my-model.safetensors");
    let mut tensors = single(model);
    add_what_is_not_needed(&mut tensors);
    change(&mut tensors);
    write(&path, &tensors);
    let wanted = Converted::new(&folder(model), SourceOptions::default()).manifest();
    let config = SourceOptions { config: Some(folder(model)), ..SourceOptions::default() };
    let found = Converted::new(&path, config);
    assert_eq!(found.manifest().files, wanted.files);
    assert_eq!(found.conversion.warnings, Vec::<String>::new());
    assert_eq!((found.manifest().name.clone(), found.manifest().family), ("my-model".into(), wanted.family));
    let tokenizer = SourceOptions { tokenizer: Some(folder(model)), ..SourceOptions::default() };
    let found = Converted::new(&path, tokenizer);
    assert_eq!(found.conversion.recognised, recognised);
    let told = |warning: &String| warning.contains("guessed: its attentions have") && warning.contains("--config");
    assert!(found.conversion.warnings.iter().any(told), "{:?}", found.conversion.warnings);
    let (found, weights) = (found.manifest(), |file: &&String| file.ends_with(".weights"));
    for file in wanted.files.keys().filter(weights) {
        assert_eq!(found.files[file], wanted.files[file], "{file}");
    }
    assert_eq!((found.text.clone(), found.family), (wanted.text.clone(), wanted.family));
}

#[test]
fn stable_diffusion_1() {
    let recognised = "Stable Diffusion 1 (single file without its moving average (EMA), f32), prediction epsilon";
    check("sd1", recognised, |_| ());
}

/// Pruned files keep two numbers of the moving average: nothing of it was left out.
#[test]
fn the_counters_of_a_moving_average_are_not_one() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("pruned.safetensors");
    let mut tensors = single("sd1");
    ["decay", "num_updates"]
        .iter()
        .for_each(|name| drop(tensors.insert(format!("model_ema.{name}"), (vec![], vec![0; 4]))));
    write(&path, &tensors);
    let tokenizer = SourceOptions { tokenizer: Some(folder("sd1")), ..SourceOptions::default() };
    let recognised = Converted::new(&path, tokenizer).conversion.recognised;
    assert!(recognised.starts_with("Stable Diffusion 1 (single file, "), "{recognised}");
}

/// Text encoders without `text_model.`, as in files of NovelAI's descendants; diffusers fails on those.
#[test]
fn text_encoders_without_a_prefix() {
    let recognised = "Stable Diffusion 1 (single file without its moving average (EMA), f32), prediction epsilon";
    check("sd1", recognised, |tensors| {
        let old = std::mem::take(tensors);
        *tensors = old
            .into_iter()
            .map(|(name, tensor)| (name.replace("transformer.text_model.", "transformer."), tensor))
            .collect();
    });
}

#[test]
fn stable_diffusion_2() {
    let recognised = "Stable Diffusion 2 (single file without its moving average (EMA), f32), prediction epsilon";
    check("sd2", recognised, add_last_layer);
}

/// Both text encoders, the second one's projection transposed, and the pooled embedding's way into the UNet.
#[test]
fn stable_diffusion_xl() {
    let recognised = "Stable Diffusion XL (single file without its moving average (EMA), f16), prediction epsilon";
    check("sdxl", recognised, |_| ());
}

/// As stable-diffusion.cpp names Stable Diffusion 2's text encoder.
#[test]
fn stable_diffusion_2_with_transformers_names() {
    let recognised = "Stable Diffusion 2 (single file without its moving average (EMA), f32), prediction epsilon";
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.safetensors");
    let mut tensors = single("sd2");
    tensors.retain(|name, _| !name.starts_with("cond_stage_model."));
    for (name, tensor) in read("sd2", "text_encoder") {
        tensors.insert(format!("cond_stage_model.transformer.text_model.{name}"), tensor);
    }
    add_what_is_not_needed(&mut tensors);
    write(&path, &tensors);
    let config = SourceOptions { config: Some(folder("sd2")), ..SourceOptions::default() };
    let found = Converted::new(&path, config);
    assert_eq!(found.conversion.recognised, recognised.replace("epsilon", "v"));
    let wanted = Converted::new(&folder("sd2"), SourceOptions::default()).manifest();
    assert_eq!(found.manifest().files, wanted.files);
}

/// As stable-diffusion.cpp names Stable Diffusion XL's text encoders.
#[test]
fn stable_diffusion_xl_with_transformers_names() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.safetensors");
    let tensors = single("sdxl").into_iter().filter(|(name, _)| !name.starts_with("conditioner.embedders.1."));
    let first = |name: String| name.replace("conditioner.embedders.0.", "cond_stage_model.");
    let mut tensors: FileTensors = tensors.map(|(name, tensor)| (first(name), tensor)).collect();
    for (name, tensor) in read("sdxl", "text_encoder_2") {
        let name = name.trim_start_matches("text_model.");
        let (name, tensor) = match name {
            "text_projection.weight" => ("text_projection", transposed(&tensor)),
            name => (name, tensor),
        };
        tensors.insert(format!("cond_stage_model.1.transformer.text_model.{name}"), tensor);
    }
    write(&path, &tensors);
    let config = SourceOptions { config: Some(folder("sdxl")), ..SourceOptions::default() };
    let found = Converted::new(&path, config);
    assert_eq!(found.conversion.warnings, Vec::<String>::new());
    let wanted = Converted::new(&folder("sdxl"), SourceOptions::default()).manifest();
    assert_eq!(found.manifest().files, wanted.files);
}

/// The error of converting a file of these tensors.
fn refused(tensors: &FileTensors) -> String {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("file.safetensors");
    write(&path, tensors);
    let error = convert(&path, &place.path().join("bundle"), &Options::default(), &mut |_| ()).unwrap_err();
    error.to_string()
}

fn named(names: &[&str]) -> FileTensors {
    names.iter().map(|name| ((*name).to_owned(), (vec![1], vec![0; 4]))).collect()
}

#[test]
fn files_of_other_kinds_are_told_what_they_are() {
    for (name, kind) in [
        (
            "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",
            "is a LoRA, not a model; give the model, and",
        ),
        ("unet.down_blocks.0.attentions.0.proj_in.lora_A.weight", "this file with --lora"),
        ("lora_unet_mid_block_attentions_0_proj_in.hada_w1_a", "this file with --lora"),
        ("emb_params", "is a textual inversion, not a model; give the model, and this file with --embedding"),
        ("control_model.input_blocks.0.0.weight", "is a ControlNet"),
        ("model.diffusion_model.input_blocks.1.0.time_stack.in_layers.0.weight", "is a model that paints videos"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "is Stable Diffusion 3"),
        ("double_blocks.0.img_attn.qkv.weight", "is Flux"),
        ("down_blocks.0.resnets.0.time_emb_proj.weight", "is the UNet of a diffusers folder; give the folder"),
        ("text_model.embeddings.token_embedding.weight", "is a text encoder alone"),
        ("decoder.conv_in.weight", "is an autoencoder alone; give the model, and this file with --vae"),
        ("clip_g", "is a textual inversion, not a model"),
        ("<cat-toy>", "is a textual inversion, not a model"),
    ] {
        let error = refused(&named(&[name]));
        assert!(error.contains(kind), "{kind:?} is not in: {error}");
    }
    let error = refused(&named(&["something.else", "something.more"]));
    assert!(error.contains("is no model that model-prep knows: it holds 2 tensors, something.else, some"), "{error}");
    assert!(refused(&FileTensors::new()).contains("holds no tensors"));
}

#[test]
fn parts_that_are_missing_or_there_twice_are_named() {
    let model = single("sd1");
    let without = |prefix: &str| {
        let rest = model.iter().filter(|(name, _)| !name.starts_with(prefix));
        refused(&rest.map(|(name, tensor)| (name.clone(), tensor.clone())).collect())
    };
    assert!(without("first_stage_model.").contains("holds no autoencoder (first_stage_model.…); give one with --vae"));
    assert!(without("cond_stage_model.").contains("holds no text encoder; take the full checkpoint"));
    let mut two = model.clone();
    two.extend(single("sdxl").into_iter().filter(|(name, _)| name.starts_with("conditioner.")));
    assert!(refused(&two).contains("holds the text encoders of two models"));
    let mut eight = model.clone();
    let conv_in = eight.get_mut("model.diffusion_model.input_blocks.0.0.weight").unwrap();
    *conv_in = (vec![16, 8, 3, 3], vec![0; 16 * 8 * 9 * 4]);
    assert!(refused(&eight).contains("is InstructPix2Pix, which edits pictures (8 input channels)"));
    let mut twice = model.clone();
    let name = "cond_stage_model.transformer.text_model.final_layer_norm.bias";
    twice.insert(name.replace("text_model.", ""), model[name].clone());
    assert!(refused(&twice).contains("is there twice"), "{}", refused(&twice));
}

/// Newer files say how they were trained by tensors of these names; the name of a file may say for how many steps.
#[test]
fn what_a_file_says_of_its_training_is_taken() {
    let place = tempfile::tempdir().unwrap();
    let mut tensors = single("sd1");
    let options = || SourceOptions { tokenizer: Some(folder("sd1")), ..SourceOptions::default() };
    let path = place.path().join("dreamshaper_8LCM.safetensors");
    write(&path, &tensors);
    let found = Converted::new(&path, options());
    let (sampling, warnings) = (found.manifest().sampling.clone(), found.conversion.warnings);
    assert_eq!((sampling.default, sampling.steps, sampling.cfg_scale), (SamplerKind::Lcm, 4, 1.0));
    assert!(matches!(&warnings[..], [_, told] if told.contains("by its name it paints in few steps")), "{warnings:?}");
    tensors.extend(named(&["v_pred", "ztsnr"]));
    let path = place.path().join("model.safetensors");
    write(&path, &tensors);
    let sampling = Converted::new(&path, options()).manifest().sampling.clone();
    assert_eq!((sampling.prediction, sampling.rescale_betas_zero_snr), (Prediction::VPrediction, true));
    assert_eq!((sampling.spacing, sampling.steps), (Some(Spacing::Trailing), 20));
    // PNDM, which such files get otherwise, cannot begin at pure noise.
    assert_eq!(sampling.default, SamplerKind::Ddim);
}

#[test]
fn configurations_for_a_folder_are_told_to_be_left_out() {
    let place = tempfile::tempdir().unwrap();
    let source_options = SourceOptions { config: Some(folder("sd1")), ..SourceOptions::default() };
    let options = Options { source: source_options, ..Options::default() };
    let warnings = convert(&folder("sd1"), &place.path().join("bundle"), &options, &mut |_| ()).unwrap().warnings;
    assert_eq!(warnings, ["--config is for single files; the folder's own configurations are taken"]);
}

/// Weights alone do not say the scale of the latents; the family does.
#[test]
fn an_autoencoder_for_a_file_without_one_has_the_scale_of_the_family() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.safetensors");
    let vae = place.path().join("vae.safetensors");
    for (model, scale) in [("sd1", 0.18215), ("sdxl", 0.13025)] {
        let (of_vae, others) = single(model).into_iter().partition(|(name, _)| name.starts_with("first_stage_model."));
        write(&path, &others);
        write(&vae, &of_vae);
        let tokenizer = Some(folder(model));
        let options = SourceOptions { tokenizer, vae: Some(vae.clone()), ..SourceOptions::default() };
        assert_eq!(Converted::new(&path, options).manifest().picture.latent_scale, scale, "{model}");
    }
}
