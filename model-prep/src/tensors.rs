//! Tensors of the files that people have, whatever container they are in, read piece by piece: a tensor larger than
//! memory is never held whole.
//!
//! A [`TensorFile`] is one file and the tensors in it, found by the file's first bytes. A [`Checkpoint`] is the tensors
//! of one network under the names that its graph asks for: views into files, to which adapters may add.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::unwrap_used))]

mod byte_reader;
mod checkpoint;
mod container;
mod dtype;
mod file;
mod folder;
mod ggml;
mod gguf;
mod pickle;
mod safetensors_header;
mod torch;
mod zip;

pub(crate) use checkpoint::Checkpoint;
pub(crate) use file::{TensorEntry, TensorFile};

use std::path::Path;

use crate::error::Result;

/// Opens the file of weights `path`, whatever container it is, and reads the first and the last value of each tensor;
/// how many tensors could be read. Made for fuzzing.
///
/// # Errors
///
/// A file that is not a whole one of weights.
pub fn probe_weights(path: &Path) -> Result<usize> {
    let file = TensorFile::open(path)?;
    let readable = |(name, entry): (&String, &TensorEntry)| {
        let ends = [0, entry.len().saturating_sub(1)];
        entry.len() == 0 || ends.iter().all(|at| file.read(name, *at, &mut [0.0]).is_ok())
    };
    Ok(file.tensors.iter().filter(|tensor| readable(*tensor)).count())
}

#[cfg(test)]
mod tests;
