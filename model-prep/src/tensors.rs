//! Tensors of the files that people have, whatever container they are in, read piece by piece: a tensor larger than memory
//! is never held whole.
//!
//! A [`TensorFile`] is one file and the tensors in it, found by the file's first bytes. A [`Checkpoint`] is the tensors of
//! one network under the names that its graph asks for: views into files, to which adapters may add.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::unwrap_used))]
#![allow(dead_code, unused_imports, reason = "readers of single files and adapters use what no reader of folders does")]

mod checkpoint;
mod dtype;
mod file;
mod folder;
mod safetensors_header;

pub(crate) use checkpoint::Checkpoint;
pub(crate) use dtype::TensorDtype;
pub(crate) use file::{TensorEntry, TensorFile};
pub use safetensors_header::read_header;
