//! What the user's path leads to: a diffusers folder, a hub's cache of one, a single file, or something that only looks
//! like a model. Who gives the wrong thing is told what it is and what to give instead.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What file names of weights end in.
const WEIGHTS: [&str; 6] = ["safetensors", "ckpt", "gguf", "bin", "pt", "pth"];
/// What the names of files and folders of other programs' exports end in, and whose they are.
const EXPORTS: [(&str, &str); 6] = [
    ("onnx", "an ONNX export"),
    ("xml", "an OpenVINO export"),
    ("mlmodelc", "a Core ML export"),
    ("mlpackage", "a Core ML export"),
    ("engine", "a TensorRT export"),
    ("msgpack", "a Flax model"),
];

/// What an autoencoder is told, such as TAESD.
const AUTOENCODER: &str = "an autoencoder alone; give the model, and this folder with --vae";

/// A model's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located {
    /// The diffusers folder or the file.
    pub(crate) path: PathBuf,
    /// It is a file.
    pub(crate) single: bool,
    /// The model's name: of the folder, of the file, or in the hub that it was taken from.
    pub(crate) name: String,
}

/// Finds the model at `path`.
///
/// # Errors
///
/// What the path leads to instead, and what to do.
pub(crate) fn locate(path: &Path) -> Result<Located> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => locate_folder(path),
        Ok(_) => Ok(Located { path: path.to_owned(), single: true, name: name_of(path.file_stem()) }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::file(path, not_there(path))),
        Err(error) => Err(Error::io(path)(error)),
    }
}

fn name_of(part: Option<&OsStr>) -> String {
    part.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What to say of a path that leads nowhere.
fn not_there(path: &Path) -> String {
    let text = path.to_string_lossy();
    let parts: Vec<&str> = text.split('/').collect();
    let download = "download it first (hf download ORGANISATION/MODEL --local-dir FOLDER) and give the folder or file";
    if path.symlink_metadata().is_ok() {
        return "is a link to a file that is not there".into();
    }
    if text.starts_with("http:") || text.starts_with("https:") {
        return format!("model-prep does not download; {download}");
    }
    let plain = |part: &&str| !part.is_empty() && !part.starts_with('.');
    match parts[..] {
        [organisation, model] if plain(&organisation) && plain(&model) && !Path::new(organisation).exists() => {
            format!("there is no such file or folder; if this is a model's name in a hub, {download}")
        }
        _ => "there is no such file or folder".into(),
    }
}

fn locate_folder(path: &Path) -> Result<Located> {
    let refused = |message: String| Err(Error::file(path, message));
    let other_kind = |what: String| Err(Error::other_kind(path, what));
    if let Some(snapshot) = snapshot(path)? {
        return locate_folder(&snapshot);
    }
    let export = export(path);
    if path.join("model_index.json").exists() {
        return match export {
            Some(kind) => refused(format!("is {kind}; take the original model that it was made of")),
            None => Ok(Located { path: path.to_owned(), single: false, name: folder_name(path)? }),
        };
    }
    if path.join("bundle.json").exists() {
        let message = "is a bundle already: give it to diffused (--model), or here the model that it was made of";
        return refused(message.into());
    }
    if path.join("adapter_config.json").exists() || path.join("pytorch_lora_weights.safetensors").exists() {
        return other_kind("holds a LoRA, not a model; give the model, and this file with --lora".into());
    }
    let weights = weights(path);
    match &weights[..] {
        _ if path.join("unet").is_dir() => {
            refused("has a folder unet but no model_index.json; download the whole model".into())
        }
        _ if path.join("config.json").exists() => other_kind(format!("is {}", part(path))),
        [file] => Ok(Located { path: path.join(file), single: true, name: name_of(Path::new(file).file_stem()) }),
        [] => match export {
            Some(kind) => refused(format!("is {kind}; take the original model that it was made of")),
            None => match cached_models(path) {
                models if models.is_empty() => {
                    refused("holds neither model_index.json nor a file of weights, so this is not a model".into())
                }
                models => refused(format!("is a hub's cache; give one of its models: {}", models.join(", "))),
            },
        },
        several if several.iter().all(|file| is_half(file)) => other_kind(format!("is {AUTOENCODER}")),
        several => refused(format!("holds several models; give one of them: {}", several.join(", "))),
    }
}

/// What the folder of one network is: a model's part, or something that is published alone.
fn part(folder: &Path) -> &'static str {
    let config = fs::read(folder.join("config.json")).unwrap_or_default();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap_or_default();
    match config.get("_class_name").and_then(serde_json::Value::as_str) {
        Some("AutoencoderTiny" | "AutoencoderKL") => AUTOENCODER,
        Some("ControlNetModel") => "a ControlNet, which steers a model; give the model",
        _ => "a part of a model; give the folder above, which holds model_index.json",
    }
}

/// Whether a file holds half an autoencoder by its name, as `taesd_decoder.safetensors`.
fn is_half(file: &str) -> bool {
    let stem = Path::new(file).file_stem().unwrap_or_default().to_string_lossy();
    stem.ends_with("decoder") || stem.ends_with("encoder")
}

/// The snapshot to take of a hub's cache of a model: the one that `refs/main` names, or the only one.
fn snapshot(path: &Path) -> Result<Option<PathBuf>> {
    let folder = path.join("snapshots");
    if !folder.is_dir() {
        return Ok(None);
    }
    if let Ok(hash) = fs::read_to_string(path.join("refs/main"))
        && folder.join(hash.trim()).is_dir()
    {
        return Ok(Some(folder.join(hash.trim())));
    }
    let mut snapshots: Vec<PathBuf> = fs::read_dir(&folder)
        .map_err(Error::io(&folder))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    match (snapshots.pop(), snapshots.is_empty()) {
        (Some(only), true) => Ok(Some(only)),
        _ => Err(Error::file(&folder, "holds not one snapshot but none or several; give one of the folders in it")),
    }
}

/// The folders of models in a hub's cache, whose root is `path` or its folder `hub`.
fn cached_models(path: &Path) -> Vec<String> {
    let of = |inner: &str| -> Vec<String> {
        let names = names(&path.join(inner)).into_iter().filter(|name| name.starts_with("models--"));
        names.map(|name| Path::new(inner).join(name).display().to_string()).collect()
    };
    [of(""), of("hub")].concat()
}

/// The model's name by its folder's; of a hub's cache, `models--ORGANISATION--MODEL/snapshots/HASH`, the hub's.
fn folder_name(path: &Path) -> Result<String> {
    let whole = path.canonicalize().map_err(Error::io(path))?;
    let cache = whole.parent().filter(|parent| parent.ends_with("snapshots")).and_then(Path::parent);
    let cache = cache.map(|cache| name_of(cache.file_name()));
    match cache.as_deref().and_then(|cache| cache.strip_prefix("models--")) {
        Some(name) => Ok(name.replace("--", "/")),
        None => Ok(name_of(whole.file_name())),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(std::result::Result::ok);
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn has_end(name: &str, ends: &[&str]) -> bool {
    let end = Path::new(name).extension().map(|end| end.to_string_lossy().to_lowercase());
    end.is_some_and(|end| ends.contains(&&*end))
}

/// The files of weights in `folder`.
fn weights(folder: &Path) -> Vec<String> {
    names(folder).into_iter().filter(|name| has_end(name, &WEIGHTS)).collect()
}

/// Whose export a folder holds instead of weights: there or in its parts.
fn export(folder: &Path) -> Option<&'static str> {
    let parts = [folder.to_owned(), folder.join("unet"), folder.join("text_encoder")];
    if parts.iter().any(|part| !weights(part).is_empty()) {
        return None;
    }
    let files: Vec<String> = parts.iter().flat_map(|part| names(part)).collect();
    let found = EXPORTS.iter().find(|(end, _)| files.iter().any(|file| has_end(file, &[end])));
    found.map(|(_, kind)| *kind)
}
