//! LoRA files and textual inversions that fit, that do not, and what is said of them.

use std::fs;
use std::path::{Path, PathBuf};

use diffused_engine::bundle::{AddedToken, Manifest};
use diffused_engine::sampler::{SamplerKind, Spacing};
use model_prep::{EmbeddingOption, Format, LoraOption, Options, SourceOptions, convert, verify};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

use crate::changed::{SourceCopy, demo};

const QUERY: &str = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q";

/// A file of f32 tensors, all values of one the same.
fn file(folder: &TempDir, name: &str, tensors: &[(&str, &[usize], f32)]) -> PathBuf {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, shape, value)| value.to_le_bytes().repeat(shape.iter().product())).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (name.to_string(), TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap())
    });
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    path
}

fn lora(path: &Path, strength: f32) -> SourceOptions {
    SourceOptions { lora: vec![LoraOption { path: path.to_owned(), strength }], ..SourceOptions::default() }
}

fn embedding(path: &Path, word: Option<&str>) -> SourceOptions {
    let option = EmbeddingOption { path: path.to_owned(), word: word.map(Into::into) };
    SourceOptions { embedding: vec![option], ..SourceOptions::default() }
}

/// Converts the demo model with `source` beside it; the warnings and the bundle's manifest.
fn bundle(folder: &TempDir, source: SourceOptions) -> Result<(Vec<String>, Manifest), String> {
    let out = folder.path().join("bundle");
    let options = Options { weights: Format::F32, source, force: true, ..Options::default() };
    let converted = convert(&demo(), &out, &options, &mut |_| ()).map_err(|error| error.to_string())?;
    Ok((converted.warnings, Manifest::parse(&fs::read(out.join("bundle.json")).unwrap()).unwrap()))
}

#[track_caller]
fn check_error(folder: &TempDir, source: SourceOptions, parts: &[&str]) {
    let error = bundle(folder, source).unwrap_err();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

/// The width of the demo model's lowest level.
fn width() -> usize {
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(demo().join("unet/config.json")).unwrap()).unwrap();
    config["block_out_channels"].as_array().unwrap().last().unwrap().as_u64().unwrap() as usize
}

#[test]
fn a_bundle_with_a_lora_is_verified_with_the_same_lora() {
    let folder = tempfile::tempdir().unwrap();
    let width = width();
    let [up, down] = [format!("{QUERY}.lora_up.weight"), format!("{QUERY}.lora_down.weight")];
    let path = file(&folder, "style.safetensors", &[(&up, &[width, 2], 0.1), (&down, &[2, width], 0.1)]);
    let (warnings, manifest) = bundle(&folder, lora(&path, 1.0)).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    let out = folder.path().join("bundle");
    let worst = |source: &SourceOptions| {
        let mut worst = f64::INFINITY;
        verify(&out, &demo(), source, &mut |difference| worst = difference.snr().min(worst)).unwrap();
        worst
    };
    assert_eq!(worst(&lora(&path, 1.0)), f64::INFINITY);
    assert!(worst(&SourceOptions::default()) < 60.0);
    let (_, plain) = bundle(&folder, SourceOptions::default()).unwrap();
    assert_ne!(plain.source_sha256, manifest.source_sha256);
    let (_, nothing) = bundle(&folder, lora(&path, 0.0)).unwrap();
    assert_eq!(plain.files, nothing.files);
}

#[test]
fn what_fits_nothing_is_listed_and_refused_unless_lenient() {
    let folder = tempfile::tempdir().unwrap();
    let width = width();
    let [up, down] = [format!("{QUERY}.lora_up.weight"), format!("{QUERY}.lora_down.weight")];
    let other = "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight";
    let path = file(
        &folder,
        "xl.safetensors",
        &[(&up, &[width, 2], 0.1), (&down, &[2, width], 0.1), (other, &[8, 2], 0.1), ("magic", &[1], 0.1)],
    );
    let said = ["xl.safetensors: fits nothing in this model: ", "magic", other, "made for Stable Diffusion XL"];
    check_error(&folder, lora(&path, 1.0), &said);
    check_error(&folder, lora(&path, 1.0), &["--lenient"]);
    let (warnings, _) = bundle(&folder, SourceOptions { lenient: true, ..lora(&path, 1.0) }).unwrap();
    assert!(said.iter().all(|part| warnings[0].contains(part)), "{warnings:?}");
    let nothing = file(&folder, "other.safetensors", &[(other, &[8, 2], 0.1)]);
    check_error(&folder, SourceOptions { lenient: true, ..lora(&nothing, 1.0) }, &["fits nothing"]);
}

#[test]
fn loras_of_other_sizes_are_refused_by_their_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let key = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k";
    let [up, down] = [format!("{key}.lora_up.weight"), format!("{key}.lora_down.weight")];
    let path = file(&folder, "xl.safetensors", &[(&up, &[1280, 2], 0.1), (&down, &[2, 2048], 0.1)]);
    check_error(&folder, lora(&path, 1.0), &[&down, "changes a layer of 1280×2048", "made for Stable Diffusion XL"]);
    let path = file(&folder, "half.safetensors", &[(&up, &[1280, 2], 0.1)]);
    check_error(&folder, lora(&path, 1.0), &[&up, "has no Down"]);
    let path = file(&folder, "ranks.safetensors", &[(&up, &[1280, 3], 0.1), (&down, &[2, 2048], 0.1)]);
    check_error(&folder, lora(&path, 1.0), &[&up, "3 columns for 2 rows"]);
    let path =
        file(&folder, "twice.safetensors", &[(&up, &[8, 2], 0.1), (&up.replace("lora_up", "lora_B"), &[8, 2], 0.1)]);
    check_error(&folder, lora(&path, 1.0), &["is there twice"]);
    let (blocks, alpha) = (format!("{QUERY}.oft_blocks"), format!("{QUERY}.alpha"));
    let path = file(&folder, "oft.safetensors", &[(&blocks, &[2, 4, 4], 0.1), (&alpha, &[], 1.0)]);
    check_error(&folder, lora(&path, 1.0), &[&blocks, "is of OFT, which turns weights"]);
    let path = file(&folder, "no.safetensors", &[("emb_params", &[1, 8], 0.1)]);
    check_error(&folder, lora(&path, 1.0), &["no.safetensors", "--embedding"]);
}

#[test]
fn loras_for_few_steps_change_the_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let width = width();
    let [up, down] = [format!("{QUERY}.lora_up.weight"), format!("{QUERY}.lora_down.weight")];
    let tensors: [(&str, &[usize], f32); 2] = [(&up, &[width, 2], 0.1), (&down, &[2, width], 0.1)];
    let lcm = file(&folder, "lcm-lora-sdv1-5/pytorch_lora_weights.safetensors", &tensors);
    let (warnings, manifest) = bundle(&folder, lora(&lcm, 1.0)).unwrap();
    let sampling = &manifest.sampling;
    assert_eq!((sampling.default, sampling.steps, sampling.cfg_scale), (SamplerKind::Lcm, 4, 1.0));
    assert!(warnings[0].contains("4 steps of lcm without guidance"), "{warnings:?}");
    let hyper = file(&folder, "Hyper-SD15-8steps-CFG-lora.safetensors", &tensors);
    let (_, manifest) = bundle(&folder, lora(&hyper, 1.0)).unwrap();
    let sampling = &manifest.sampling;
    assert_eq!((sampling.default, sampling.steps, sampling.cfg_scale), (SamplerKind::Ddim, 8, 5.0));
    assert_eq!(sampling.spacing, Some(Spacing::Trailing));
    let options = SourceOptions { sampler: Some(SamplerKind::Euler), ..lora(&lcm, 1.0) };
    let (warnings, manifest) = bundle(&folder, options).unwrap();
    assert_eq!(manifest.sampling.default, SamplerKind::Euler);
    assert!(warnings[0].contains("4 steps of euler"), "{warnings:?}");
}

#[test]
fn words_of_textual_inversions_are_those_of_the_option_the_file_or_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let unnamed = file(&folder, "Bad-Hands.safetensors", &[("emb_params", &[2, 128], 0.5)]);
    let named = file(&folder, "learned_embeds.safetensors", &[("<cat-toy>", &[128], 0.5)]);
    let added = |source| bundle(&folder, source).unwrap().1.text.added.clone();
    let token = |text: &str, ids: &[u32]| AddedToken { text: text.into(), ids: ids.into(), exact: false };
    assert_eq!(added(embedding(&unnamed, None)), [token("Bad-Hands", &[653, 654]), token("Bad-Hands_1", &[654])]);
    assert_eq!(added(embedding(&unnamed, Some("neg"))), [token("neg", &[653, 654]), token("neg_1", &[654])]);
    assert_eq!(added(embedding(&named, None)), [token("<cat-toy>", &[653])]);
}

#[test]
fn textual_inversions_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "neg.safetensors", &[("emb_params", &[2, 768], 0.5)]);
    check_error(&folder, embedding(&path, None), &["emb_params", "768 values", "have 128", "Stable Diffusion 1"]);
    let path = file(&folder, "xl.safetensors", &[("clip_l", &[2, 128], 0.5), ("clip_g", &[2, 1280], 0.5)]);
    check_error(&folder, embedding(&path, None), &["clip_g", "Stable Diffusion XL"]);
    let path = file(&folder, "fine.safetensors", &[("emb_params", &[1, 128], 0.5)]);
    check_error(&folder, embedding(&path, Some("A")), &["\"A\" is a token of this model already", "FILE=WORD"]);
    let path = file(&folder, "many.safetensors", &[("emb_params", &[76, 128], 0.5)]);
    check_error(&folder, embedding(&path, None), &["[76] embeddings", "1 to 75"]);
    let path = file(&folder, "lora.safetensors", &[("a.lora_A.weight", &[1, 128], 0.5), ("b", &[1, 128], 0.5)]);
    check_error(&folder, embedding(&path, None), &["not a textual inversion", "--lora"]);
}

#[test]
fn models_that_were_saved_with_a_lora_beside_their_weights_are_told_so() {
    let source = SourceCopy::new();
    let query = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
    source.change("unet/diffusion_pytorch_model.safetensors", |tensors| {
        let weight = tensors.remove(&format!("{query}.weight")).unwrap();
        tensors.insert(format!("{query}.base_layer.weight"), weight);
    });
    let error = convert(&source.path(), &source.bundle(), &Options::default(), &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains(&format!("tensor {query}.base_layer.weight: was saved with a LoRA")), "{error}");
    assert!(error.contains("--lora"), "{error}");
}
