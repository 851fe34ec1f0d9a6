//! The same weights in every kind of file and under every usual name are the same bundle, and what was chosen is told.

use std::collections::BTreeMap;
use std::fs;

use crate::changed::{SourceCopy, TensorData};
use crate::single_file::{Converted, folder, safetensors_file, single};
use crate::torch_file::{PickledTensor, archive, pickle};
use half::{bf16, f16};
use model_prep::{Format, Options, SourceOptions, convert};
use safetensors::Dtype;

const TEXT: &str = "text_encoder/model.safetensors";
const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";

/// The `.weights` files of the bundle that `source` gives, and the warnings.
fn converted(source: &SourceCopy) -> (BTreeMap<String, Vec<u8>>, Vec<String>) {
    let options = Options { weights: Format::Int8, force: true, ..Options::default() };
    let warnings = convert(&source.path(), &source.bundle(), &options, &mut |_| ()).unwrap().warnings;
    let weights = fs::read_dir(source.bundle()).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        name.ends_with(".weights").then(|| (name, fs::read(path).unwrap()))
    });
    let weights = weights.collect::<BTreeMap<_, _>>();
    assert_eq!(weights.len(), 4);
    (weights, warnings)
}

/// `source`, with something done to it, is the same weights; the warnings.
#[track_caller]
fn check_same(source: &SourceCopy, change: impl FnOnce(&SourceCopy)) -> Vec<String> {
    let (wanted, _) = converted(source);
    change(source);
    let (found, warnings) = converted(source);
    for (name, wanted) in wanted {
        assert!(found[&name] == wanted, "{name} differs");
    }
    warnings
}

/// A torch archive of tensors.
fn torch(tensors: &BTreeMap<String, TensorData>, outer: Option<&str>) -> Vec<u8> {
    let class = |dtype| match dtype {
        Dtype::F16 => "HalfStorage",
        Dtype::BF16 => "BFloat16Storage",
        Dtype::F32 => "FloatStorage",
        _ => "DoubleStorage",
    };
    let described =
        tensors.iter().map(|(name, tensor)| PickledTensor { name, class: class(tensor.dtype), shape: &tensor.shape });
    let pickle = pickle(&described.collect::<Vec<_>>(), outer);
    let storages = (0..tensors.len()).map(|key| format!("archive/data/{key}")).collect::<Vec<_>>();
    let storages = storages.iter().map(String::as_str).zip(tensors.values().map(|tensor| &*tensor.bytes));
    archive([("archive/data.pkl", &*pickle)].into_iter().chain(storages))
}

fn values(tensor: &TensorData) -> Vec<f32> {
    tensor.bytes.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect()
}

#[test]
fn pickles_are_the_same_weights() {
    let source = SourceCopy::new();
    let warnings = check_same(&source, |source| {
        for (file, pickled, outer) in [
            (TEXT, "text_encoder/pytorch_model.bin", None),
            (UNET, "unet/diffusion_pytorch_model.bin", Some("state_dict")),
            (VAE, "vae/diffusion_pytorch_model.bin", None),
        ] {
            source.write(pickled, &torch(&source.tensors(file), outer));
            source.remove(file);
        }
    });
    let told = warnings.iter().filter(|warning| warning.starts_with("the weights are those of ")).count();
    assert_eq!(told, 3, "{warnings:?}");
}

#[test]
fn shards_of_pickles_are_the_same_weights() {
    check_same(&SourceCopy::new(), |source| {
        let mut first = source.tensors(UNET);
        let second = first.split_off("mid_block");
        let mut index = BTreeMap::new();
        for (i, tensors) in [first, second].iter().enumerate() {
            let file = format!("diffusion_pytorch_model-0000{}-of-00002.bin", i + 1);
            source.write(&format!("unet/{file}"), &torch(tensors, None));
            index.extend(tensors.keys().map(|name| (name.clone(), file.clone())));
        }
        source.remove(UNET);
        let json = serde_json::json!({"metadata": {}, "weight_map": index});
        source.write("unet/diffusion_pytorch_model.bin.index.json", json.to_string().as_bytes());
    });
}

#[test]
fn wider_types_are_the_same_weights() {
    for (dtype, bytes) in [
        (Dtype::F32, (|value: f32| value.to_le_bytes().to_vec()) as fn(f32) -> Vec<u8>),
        (Dtype::F64, |value| f64::from(value).to_le_bytes().to_vec()),
    ] {
        check_same(&SourceCopy::new(), |source| {
            source.change(UNET, |tensors| {
                for tensor in tensors.values_mut() {
                    tensor.bytes = values(tensor).into_iter().flat_map(bytes).collect();
                    tensor.dtype = dtype;
                }
            });
        });
    }
}

/// Values of eight bits' precision are the same in f16, bf16 and f32.
#[test]
fn bf16_is_the_same_weights_where_it_holds_them() {
    let source = SourceCopy::new();
    let set = |source: &SourceCopy, dtype, bytes: fn(f32) -> Vec<u8>| {
        source.change(UNET, |tensors| {
            for tensor in tensors.values_mut() {
                tensor.bytes = values(tensor).into_iter().flat_map(bytes).collect();
                tensor.dtype = dtype;
            }
        });
    };
    // Fewer bits than bf16 has, and exponents that f16 has.
    let short = |value: f32| if value.abs() < 1e-4 { 0.0 } else { bf16::from_f32(value).to_f32() };
    source.change(UNET, |tensors| {
        for tensor in tensors.values_mut() {
            tensor.bytes =
                values(tensor).into_iter().flat_map(|value| f16::from_f32(short(value)).to_le_bytes()).collect();
        }
    });
    check_same(&source, |source| set(source, Dtype::BF16, |value| bf16::from_f32(value).to_le_bytes().to_vec()));
}

#[test]
fn usual_names_are_found_and_told_of() {
    for (file, other) in [
        (TEXT, "text_encoder/pytorch_model.safetensors"),
        (TEXT, "text_encoder/model.bf16.safetensors"),
        (UNET, "unet/diffusion_pytorch_model.non_ema.safetensors"),
        (UNET, "unet/diffusion_pytorch_model.fp16.safetensors"),
        (UNET, "unet/dreamlike.safetensors"),
    ] {
        let source = SourceCopy::new();
        let warnings = check_same(&source, |source| {
            source.write(other, &fs::read(source.path().join(file)).unwrap());
            source.remove(file);
        });
        let told = warnings.iter().any(|warning| warning.ends_with(other));
        assert_eq!(told, !other.ends_with("pytorch_model.safetensors"), "{other}: {warnings:?}");
    }
}

#[test]
fn the_moving_average_is_taken_before_the_other_weights() {
    let source = SourceCopy::new();
    let warnings = check_same(&source, |source| {
        source.write("unet/diffusion_pytorch_model.non_ema.safetensors", b"");
        source.write("unet/diffusion_pytorch_model.fp16.safetensors", b"");
    });
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn a_pointer_does_not_hide_a_whole_file() {
    let source = SourceCopy::new();
    let warnings = check_same(&source, |source| {
        source.write("unet/diffusion_pytorch_model.fp16.safetensors", &fs::read(source.path().join(UNET)).unwrap());
        source.write(UNET, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    });
    let told = |part: &str| warnings.iter().any(|warning| warning.contains(part));
    assert!(told("git lfs pull") && told("diffusion_pytorch_model.fp16.safetensors was taken instead"), "{warnings:?}");
}

#[test]
fn a_renamed_file_is_read_and_told_of() {
    let source = SourceCopy::new();
    let warnings = check_same(&source, |source| source.write(UNET, &torch(&source.tensors(UNET), None)));
    assert!(warnings.iter().any(|warning| warning.contains("is a torch file")), "{warnings:?}");
}

/// A single file's tensors in f32 or f16, by name, with their shapes and bytes.
type SingleTensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

fn is_half(shape: &[usize], bytes: &[u8]) -> bool {
    bytes.len() == 2 * shape.iter().product::<usize>()
}

/// As a training framework saves it: under `state_dict`, beside it what only that program needs.
fn as_checkpoint(tensors: &SingleTensors) -> Vec<u8> {
    let tensor = |(name, (shape, bytes)): (&String, &(Vec<usize>, Vec<u8>))| {
        let dtype = if is_half(shape, bytes) { Dtype::F16 } else { Dtype::F32 };
        (name.clone(), TensorData { dtype, shape: shape.clone(), bytes: bytes.clone() })
    };
    torch(&tensors.iter().map(tensor).collect(), Some("state_dict"))
}

fn as_gguf(tensors: &SingleTensors) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let mut header = [&b"GGUF\x03\0\0\0"[..], &(tensors.len() as u64).to_le_bytes(), &1u64.to_le_bytes()].concat();
    header.extend([text("general.architecture"), 8u32.to_le_bytes().to_vec(), text("sd")].concat());
    let mut data = Vec::new();
    for (name, (shape, bytes)) in tensors {
        header.extend([text(name), (shape.len() as u32).to_le_bytes().to_vec()].concat());
        header.extend(shape.iter().rev().flat_map(|size| (*size as u64).to_le_bytes()));
        // GGML's types: 0 is f32, 1 is f16.
        header
            .extend([&u32::from(is_half(shape, bytes)).to_le_bytes()[..], &(data.len() as u64).to_le_bytes()].concat());
        data.extend_from_slice(bytes);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    header.resize(header.len().next_multiple_of(32), 0);
    [header, data].concat()
}

#[test]
fn a_single_file_is_the_same_weights_in_every_container() {
    for model in ["sd1", "demo"] {
        let place = tempfile::tempdir().unwrap();
        let wanted = Converted::new(&folder(model), SourceOptions::default()).manifest();
        let tensors = single(model);
        for (name, bytes) in [
            ("model.safetensors", safetensors_file(&tensors)),
            ("model.ckpt", as_checkpoint(&tensors)),
            ("model.bin", as_checkpoint(&tensors)),
            ("model.gguf", as_gguf(&tensors)),
        ] {
            let path = place.path().join(name);
            fs::write(&path, bytes).unwrap();
            let options = SourceOptions { config: Some(folder(model)), ..SourceOptions::default() };
            let found = Converted::new(&path, options);
            assert_eq!(found.conversion.warnings, Vec::<String>::new());
            assert_eq!(found.manifest().files, wanted.files, "{model} as {name}");
        }
    }
}
