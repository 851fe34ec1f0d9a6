//! Which files of a network's folder hold its weights.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};

/// `NAME.safetensors.index.json`: which shard holds which tensor.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// The files of a network: whole before sharded, full precision before f16.
pub(crate) fn weight_files(folder: &Path, stem: &str) -> Result<Vec<String>> {
    for (whole, index) in [
        (format!("{stem}.safetensors"), format!("{stem}.safetensors.index.json")),
        (format!("{stem}.fp16.safetensors"), format!("{stem}.safetensors.index.fp16.json")),
    ] {
        if folder.join(&whole).exists() {
            return Ok(vec![whole]);
        }
        let path = folder.join(index);
        if path.exists() {
            return shards(&path);
        }
    }
    let pickled = folder.join(format!("{stem}.bin")).exists();
    let advice = if pickled { "; convert the .bin file to safetensors first" } else { "" };
    Err(Error::file(&folder.join(format!("{stem}.safetensors")), format!("there is no such file{advice}")))
}

fn shards(path: &Path) -> Result<Vec<String>> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let index: ShardIndex =
        serde_json::from_slice(&bytes).map_err(|error| Error::file(path, format!("no index of shards: {error}")))?;
    let mut files: Vec<String> = index.weight_map.into_values().collect();
    files.sort();
    files.dedup();
    match files.iter().find(|file| file.contains(['/', '\\'])) {
        Some(file) => Err(Error::file(path, format!("{file:?} is not in the same folder"))),
        None => Ok(files),
    }
}
