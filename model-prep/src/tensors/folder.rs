//! Which files of a network's folder hold its weights.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::file::TensorFile;
use crate::error::{Error, Result};

/// The names that diffusers and transformers give to files of weights.
const STEMS: [&str; 3] = ["diffusion_pytorch_model", "model", "pytorch_model"];

/// The variants that are published, best first: the plain one has the most exact values (and the moving average of the
/// training, where there are both); of the others f16 is the most exact.
const VARIANTS: [&str; 5] = ["", ".fp32", ".fp16", ".bf16", ".non_ema"];

/// Endings of files that hold weights, ours to read or not.
const ENDINGS: [&str; 9] = ["safetensors", "bin", "ckpt", "pt", "pth", "gguf", "msgpack", "h5", "onnx"];

/// `NAME.safetensors.index.json`: which shard holds which tensor.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// The weights of a folder.
pub(crate) struct FolderWeights {
    /// Its files.
    pub(crate) files: Vec<Arc<TensorFile>>,
    /// How they were chosen, where that is worth a word.
    pub(crate) choice: Option<String>,
}

/// Opens the weights of a network's folder, whose files are called `stem` or as is usual elsewhere. The first is taken
/// that can be read, of those that the library would take before variants that it takes only when asked.
///
/// # Errors
///
/// A folder without such files, and the first of them where none can be read.
pub(crate) fn open(folder: &Path, stem: &str) -> Result<FolderWeights> {
    let mut refused = None;
    for candidate in candidates(folder, stem)? {
        let opened = shards(&candidate).and_then(|paths| {
            paths.iter().map(|path| Ok(Arc::new(TensorFile::open(path)?))).collect::<Result<Vec<_>>>()
        });
        match opened {
            Ok(files) => {
                let taken = candidate.display();
                let choice = match &refused {
                    Some(error) => Some(format!("{error}; {taken} was taken instead")),
                    None => (!is_plain(&candidate)).then(|| format!("the weights are those of {taken}")),
                };
                return Ok(FolderWeights { files, choice });
            }
            Err(error) => drop(refused.get_or_insert(error)),
        }
    }
    Err(refused.unwrap_or_else(|| nothing(folder, stem)))
}

/// The files of weights and indexes of shards that are there, best first.
fn candidates(folder: &Path, stem: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let stems = || std::iter::once(stem).chain(STEMS.into_iter().filter(|other| *other != stem));
    for variant in VARIANTS {
        for ending in ["safetensors", "bin"] {
            for stem in stems() {
                found.push(folder.join(format!("{stem}{variant}.{ending}")));
                found.push(folder.join(format!("{stem}.{ending}.index{variant}.json")));
            }
        }
    }
    found.retain(|path| path.exists());
    let others = weight_files(folder)?;
    match others.as_slice() {
        // Whatever it is called, it must be what is meant.
        [only] if found.is_empty() && only.exists() => Ok(vec![only.clone()]),
        _ => Ok(found),
    }
}

/// The files of `folder` whose endings are those of weights, sorted; links that lead nowhere too.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if ENDINGS.contains(&ending.as_str()) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// There is nothing that could be read: what is there instead.
fn nothing(folder: &Path, stem: &str) -> Error {
    let files = weight_files(folder).unwrap_or_default();
    let names = files.iter().map(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let lost = if path.exists() { "" } else { " (a link to a file that is not there)" };
        format!("{name}{lost}")
    });
    let there = match names.collect::<Vec<_>>().join(", ") {
        names if names.is_empty() => "nor another file of weights".to_owned(),
        names => format!("and these are not read: {names}"),
    };
    Error::file(&folder.join(format!("{stem}.safetensors")), format!("there is no such file, {there}"))
}

/// Neither a variant nor a pickle.
fn is_plain(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    STEMS.iter().any(|stem| {
        let rest = name.strip_prefix(stem).unwrap_or_default();
        [".safetensors", ".safetensors.index.json"].contains(&rest)
    })
}

/// The files that `path` names, if it is an index of shards; else the file itself.
fn shards(path: &Path) -> Result<Vec<PathBuf>> {
    if path.extension().unwrap_or_default() != "json" {
        return Ok(vec![path.to_owned()]);
    }
    let bytes = fs::read(path).map_err(Error::io(path))?;
    let index: ShardIndex =
        serde_json::from_slice(&bytes).map_err(|error| Error::file(path, format!("no index of shards: {error}")))?;
    let mut files: Vec<String> = index.weight_map.into_values().collect();
    files.sort();
    files.dedup();
    match files.iter().find(|file| file.contains(['/', '\\'])) {
        Some(file) => Err(Error::file(path, format!("{file:?} is not in the same folder"))),
        None => Ok(files.into_iter().map(|file| path.with_file_name(file)).collect()),
    }
}
