//! Tensors of safetensors files, read piece by piece: a tensor larger than memory is never held whole.
//!
//! Plain reads at an offset and not a memory map: what a conversion holds in memory is then what it asked for.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::unwrap_used))]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use diffused_engine::hash::Sha256;
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;

use crate::error::{Error, Result};

/// Most bytes of a header (safetensors' own limit).
const MAX_HEADER: u64 = 100_000_000;

/// A tensor in one of the files.
#[derive(Debug, Clone)]
struct TensorEntry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    offset: u64,
}

/// The tensors of a network.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    folder: PathBuf,
    files: Vec<(PathBuf, File)>,
    tensors: BTreeMap<String, TensorEntry>,
}

/// `NAME.safetensors.index.json`: which shard holds which tensor.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens `stem.safetensors` in `folder`, its shards, or its f16 variant.
    pub(crate) fn open(folder: &Path, stem: &str) -> Result<Checkpoint> {
        let mut checkpoint = Checkpoint { folder: folder.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        for name in weight_files(folder, stem)? {
            checkpoint.add(folder.join(name))?;
        }
        Ok(checkpoint)
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let mut file = File::open(&path).map_err(Error::io(&path))?;
        let len = file.metadata().map_err(Error::io(&path))?.len();
        let (header, data) = read_header(&path, &mut file, len)?;
        for (name, info) in header.tensors() {
            let entry = TensorEntry {
                file: self.files.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                offset: data + info.data_offsets.0 as u64,
            };
            if self.tensors.insert(name.clone(), entry).is_some() {
                return Err(Error::tensor(&path, &name, "is in two files"));
            }
        }
        self.files.push((path, file));
        Ok(())
    }

    /// Gives tensors other names; where `name` returns `None` the tensor is left out.
    pub(crate) fn rename(&mut self, name: impl Fn(&str) -> Option<String>) {
        let tensors = std::mem::take(&mut self.tensors);
        self.tensors = tensors.into_iter().filter_map(|(old, entry)| Some((name(&old)?, entry))).collect();
    }

    /// The tensors' names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// An error of tensor `name`, which may be missing.
    pub(crate) fn error(&self, name: &str, message: impl Into<String>) -> Error {
        let file = self.tensors.get(name).and_then(|entry| Some(&self.files.get(entry.file)?.0));
        Error::tensor(file.unwrap_or(&self.folder), name, message)
    }

    /// Checks that tensor `name` is there and has this shape; ones at the end of either do not matter, since a linear
    /// layer and a 1×1 convolution are the same.
    pub(crate) fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        let Some(entry) = self.tensors.get(name) else {
            return Err(self.error(name, format!("is missing; its shape should be {shape:?}")));
        };
        if !matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(self.error(name, format!("holds {:?}; supported: F32, F16, BF16", entry.dtype)));
        }
        if without_ones(&entry.shape) != without_ones(shape) {
            return Err(self.error(name, format!("has the shape {:?} instead of {shape:?}", entry.shape)));
        }
        Ok(())
    }

    /// Reads the values from `first` on.
    pub(crate) fn read(&self, name: &str, first: usize, values: &mut [f32]) -> Result<()> {
        let entry = self.tensors.get(name).ok_or_else(|| self.error(name, "is missing"))?;
        let size = entry.dtype.bitsize() / 8;
        let (path, file) = self.files.get(entry.file).ok_or_else(|| self.error(name, "is missing"))?;
        let mut bytes = vec![0; values.len() * size];
        file.read_exact_at(&mut bytes, entry.offset + (first * size) as u64).map_err(Error::io(path))?;
        match entry.dtype {
            Dtype::F32 => decode(&bytes, values, f32::from_le_bytes),
            Dtype::F16 => decode(&bytes, values, |bytes| f16::from_le_bytes(bytes).to_f32()),
            _ => decode(&bytes, values, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        }
        match values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            Some((at, value)) => Err(self.error(name, format!("value {} is {value}", first + at))),
            None => Ok(()),
        }
    }

    /// Adds the files to a checksum.
    pub(crate) fn hash(&self, hash: &mut Sha256) -> Result<()> {
        self.files.iter().try_for_each(|(path, _)| crate::files::add_file(hash, path))
    }
}

fn decode<const N: usize>(bytes: &[u8], values: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (value_out, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
        *value_out = value(*bytes);
    }
}

fn without_ones(shape: &[usize]) -> &[usize] {
    let end = shape.iter().rposition(|size| *size != 1).map_or(1, |last| last + 1);
    shape.get(..end).unwrap_or(shape)
}

/// The files of a network: whole before sharded, full precision before f16.
fn weight_files(folder: &Path, stem: &str) -> Result<Vec<String>> {
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

/// Reads the header of a safetensors file of `len` bytes; also where its data begins, bytes.
///
/// # Errors
///
/// With `path`, where the file is cut off or its header is not what safetensors allows.
pub fn read_header(path: &Path, file: &mut impl Read, len: u64) -> Result<(Metadata, u64)> {
    let broken = |message: String| Error::file(path, format!("not a whole safetensors file: {message}"));
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(|_| broken(format!("it has {len} bytes")))?;
    let size = u64::from_le_bytes(size);
    let fits = size <= MAX_HEADER && size <= len.saturating_sub(8);
    let Some(fitting) = usize::try_from(size).ok().filter(|_| fits) else {
        return Err(broken(format!("a header of {size} bytes in a file of {len}")));
    };
    let mut header = vec![0; fitting];
    file.read_exact(&mut header).map_err(Error::io(path))?;
    let data = 8 + size;
    let header = parse_header(&header, len - data).map_err(broken)?;
    Ok((header, data))
}

/// The header of a safetensors file, behind which `data` bytes follow. Every tensor lies in them, in the size that its shape
/// and type need.
fn parse_header(header: &[u8], data: u64) -> std::result::Result<Metadata, String> {
    let header: Metadata = serde_json::from_slice(header).map_err(|error| format!("its header: {error}"))?;
    let needed = header.data_len() as u64;
    match needed <= data {
        true => Ok(header),
        false => Err(format!("its tensors need {needed} bytes, but {data} follow the header; copy it again")),
    }
}
