//! A file with tensors.
//!
//! Plain reads at an offset and not a memory map: what a conversion holds in memory is then what it asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::dtype::TensorDtype;
use super::safetensors_header::read_entries;
use crate::error::{Error, Result};

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TensorEntry {
    /// The type of its values.
    pub(crate) dtype: TensorDtype,
    /// Its shape, as torch has it.
    pub(crate) shape: Vec<usize>,
    /// Where its first value begins, bytes of the file.
    pub(crate) offset: u64,
}

impl TensorEntry {
    /// The number of its values.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A file and the tensors in it.
#[derive(Debug)]
pub(crate) struct TensorFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its tensors, under the names that they have there.
    pub(crate) tensors: BTreeMap<String, TensorEntry>,
    /// What the file says of itself.
    pub(crate) metadata: BTreeMap<String, String>,
    file: File,
}

impl TensorFile {
    /// Opens the file `path`.
    pub(crate) fn open(path: &Path) -> Result<TensorFile> {
        let mut file = File::open(path).map_err(Error::io(path))?;
        let len = file.metadata().map_err(Error::io(path))?.len();
        let (tensors, metadata) = read_entries(path, &mut file, len)?;
        Ok(TensorFile { path: path.to_owned(), tensors, metadata, file })
    }

    /// Reads values of tensor `name` from value `first` on, in the order of its shape.
    ///
    /// # Errors
    ///
    /// A tensor that is missing or too short, and a value that is not finite.
    pub(crate) fn read(&self, name: &str, first: usize, values: &mut [f32]) -> Result<()> {
        let error = |message: String| Error::tensor(&self.path, name, message);
        let Some(entry) = self.tensors.get(name) else { return Err(error("is missing".into())) };
        let size = entry.dtype.bytes();
        if size == 0 {
            return Err(error(format!("holds {}, which is not read", entry.dtype)));
        }
        if first.saturating_add(values.len()) > entry.len() {
            return Err(error(format!("has {} values; asked for are {} from {first} on", entry.len(), values.len())));
        }
        let mut bytes = vec![0; values.len() * size];
        self.file.read_exact_at(&mut bytes, entry.offset + (first * size) as u64).map_err(Error::io(&self.path))?;
        entry.dtype.decode(&bytes, values);
        match values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            Some((at, value)) => Err(error(format!("value {} is {value}", first + at))),
            None => Ok(()),
        }
    }

    /// All values of tensor `name`, which should be a small one.
    ///
    /// # Errors
    ///
    /// Those of `read`.
    pub(crate) fn read_all(&self, name: &str) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.tensors.get(name).map_or(0, TensorEntry::len)];
        self.read(name, 0, &mut values)?;
        Ok(values)
    }
}
