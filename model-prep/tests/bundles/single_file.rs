//! Single files: the tiny models of the goldens, written under the names that diffusers reads (`single_files.json`), give
//! the bundles of their folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use diffused_engine::bundle::Manifest;
use model_prep::{Conversion, Format, Options, SourceOptions, convert};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;
use tempfile::TempDir;

type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens")
}

pub(crate) fn folder(model: &str) -> PathBuf {
    goldens().join("models").join(model)
}

/// By network, which tensors of the folder each tensor of the file is made of.
fn names(model: &str) -> BTreeMap<String, BTreeMap<String, Vec<String>>> {
    let mut all: Value = serde_json::from_slice(&fs::read(goldens().join("single_files.json")).unwrap()).unwrap();
    serde_json::from_value(all[model].take()).unwrap()
}

fn read(model: &str, network: &str) -> Tensors {
    let stem = if network.starts_with("text") { "model" } else { "diffusion_pytorch_model" };
    let bytes = fs::read(folder(model).join(format!("{network}/{stem}.safetensors"))).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |view: &TensorView| (view.shape().to_vec(), view.data().to_vec());
    tensors.iter().map(|(name, view)| (name.to_owned(), tensor(&view))).collect()
}

/// Rows to columns, of four bytes a value.
fn transposed((shape, bytes): &(Vec<usize>, Vec<u8>)) -> (Vec<usize>, Vec<u8>) {
    let (rows, columns) = (shape[0], shape[1]);
    let value = |i: usize| &bytes[4 * i..4 * i + 4];
    let values = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
    (vec![columns, rows], values.flat_map(value).copied().collect())
}

/// The tensors of the model's single file.
pub(crate) fn single(model: &str) -> Tensors {
    let mut tensors = Tensors::new();
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

fn write(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        let dtype = if name.ends_with("position_ids") { Dtype::I64 } else { Dtype::F32 };
        (name, TensorView::new(dtype, shape.clone(), bytes).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// What the files of trainers hold beside the model.
fn add_what_is_not_needed(tensors: &mut Tensors) {
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
fn add_last_layer(tensors: &mut Tensors) {
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
fn check(model: &str, recognised: &str, change: impl FnOnce(&mut Tensors)) {
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
    let (found, weights) = (found.manifest(), |file: &&String| file.ends_with(".weights"));
    for file in wanted.files.keys().filter(weights) {
        assert_eq!(found.files[file], wanted.files[file], "{file}");
    }
    assert_eq!((found.text.clone(), found.family), (wanted.text.clone(), wanted.family));
}

#[test]
fn stable_diffusion_1() {
    let recognised = "Stable Diffusion 1 (single file without its moving average, f32), prediction epsilon";
    check("sd1", recognised, |_| ());
}

/// Text encoders without `text_model.`, as in files of NovelAI's descendants; diffusers fails on those.
#[test]
fn text_encoders_without_a_prefix() {
    let recognised = "Stable Diffusion 1 (single file without its moving average, f32), prediction epsilon";
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
    let recognised = "Stable Diffusion 2 (single file without its moving average, f32), prediction epsilon";
    check("sd2", recognised, add_last_layer);
}
