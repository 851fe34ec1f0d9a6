//! Reads a bundle back, for those who look at it or compare it. Everything read answers to a checksum.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use diffused_engine::bundle::{Index, Manifest, SCHEMA, Tensor, TensorKind};
use diffused_kernels::pack::{Format, Layout, PANEL};
use serde_json::Value;

use crate::convert::sha256;
use crate::error::{Error, Result};
use crate::writer::checksum;

/// A bundle's manifest.
pub(crate) fn manifest(bundle: &Path) -> Result<Manifest> {
    let path = bundle.join("bundle.json");
    let json = fs::read(&path).map_err(Error::io(&path))?;
    let wrong = |error| Error::file(&path, format!("no bundle's manifest: {error}"));
    // The version before the rest, whose form depends on it.
    let json: Value = serde_json::from_slice(&json).map_err(wrong)?;
    match json["schema"].as_u64() {
        Some(other) if other != u64::from(SCHEMA) => {
            let message = format!("is of format {other}; this program reads {SCHEMA}; convert the model again");
            Err(Error::file(&path, message))
        }
        _ => serde_json::from_value(json).map_err(wrong),
    }
}

/// Compares every file of the bundle with the checksum in its manifest.
pub(crate) fn check_files(bundle: &Path, manifest: &Manifest) -> Result<()> {
    for (name, wanted) in &manifest.files {
        let path = bundle.join(name);
        if sha256(&path)? != *wanted {
            return Err(Error::file(&path, "does not match its checksum in bundle.json; copy the bundle again"));
        }
    }
    Ok(())
}

/// A network's `.weights` file.
pub(crate) struct WeightsFile {
    path: PathBuf,
    file: File,
    /// What it holds.
    pub(crate) index: Index,
}

impl WeightsFile {
    /// Opens the file of `network`.
    pub(crate) fn open(bundle: &Path, network: &str) -> Result<WeightsFile> {
        let path = bundle.join(format!("{network}.weights"));
        let file = File::open(&path).map_err(Error::io(&path))?;
        let len = file.metadata().map_err(Error::io(&path))?.len();
        let mut size = [0; 8];
        file.read_exact_at(&mut size, 0).map_err(Error::io(&path))?;
        let size = u64::from_le_bytes(size);
        if size > len {
            return Err(Error::file(&path, format!("an index of {size} bytes in a file of {len}")));
        }
        let mut json = vec![0; size as usize];
        file.read_exact_at(&mut json, 8).map_err(Error::io(&path))?;
        let index = serde_json::from_slice(&json)
            .map_err(|error| Error::file(&path, format!("its index is not as expected: {error}")))?;
        Ok(WeightsFile { path, file, index })
    }

    /// The bytes of tensor `name`, one block after the other, checked.
    pub(crate) fn blocks(&self, name: &str, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let tensor = self.index.tensors.get(name).ok_or_else(|| self.error(name, "is missing"))?;
        let mut left = bytes(tensor).ok_or_else(|| self.error(name, "has sizes that overflow"))?;
        let mut offset = tensor.offset;
        for wanted in &tensor.checksums {
            let len = left.min(tensor.block_bytes as u64);
            let mut block = vec![0; len as usize];
            self.file.read_exact_at(&mut block, offset).map_err(Error::io(&self.path))?;
            if checksum(&block) != *wanted {
                return Err(self.error(name, format!("does not match its checksum at byte {offset}")));
            }
            each(&block)?;
            (offset, left) = (offset + len, left - len);
        }
        match left {
            0 => Ok(()),
            _ => Err(self.error(name, format!("has {left} bytes that no checksum covers"))),
        }
    }

    /// An error of one of its tensors.
    pub(crate) fn error(&self, name: &str, message: impl Into<String>) -> Error {
        Error::tensor(&self.path, name, message)
    }
}

/// Bytes of a tensor.
pub(crate) fn bytes(tensor: &Tensor) -> Option<u64> {
    let (units, unit) = match &tensor.kind {
        TensorKind::Matrix { format, n, k, taps } => {
            let format = [Format::Int8, Format::F16, Format::F32]
                .into_iter()
                .find(|known| crate::parameter::format_name(*known) == format)?;
            taps.checked_mul(*k)?.checked_mul(PANEL * 8)?;
            (n.div_ceil(PANEL), Layout { format, k: *k, taps: *taps }.panel_bytes())
        }
        TensorKind::Table { format, rows, columns } => {
            (*rows, columns.checked_mul(if format == "f16" { 2 } else { 4 })?)
        }
    };
    (units as u64).checked_mul(unit as u64)
}
