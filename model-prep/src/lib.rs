//! Turns Stable Diffusion models as people have them, single files and diffusers folders, into bundles for `diffused`.
//!
//! This crate knows architectures, so that the daemon need not: it writes each network as a graph of the engine's
//! operators, and its weights in the layout that the kernels read.

#![warn(clippy::unwrap_used)]

mod adapters;
mod arch;
pub mod cli;
mod convert;
mod error;
mod files;
mod inspect;
mod network;
mod options;
mod parameter;
mod place;
mod plan;
mod smooth;
mod source;
mod synth;
mod tensors;
mod verify;

pub use diffused_kernels::pack::Format;

pub use adapters::added_words;
pub use convert::{Conversion, Options, Progress, convert};
pub use error::{Error, Result};
pub use inspect::{Inspection, NetworkSummary, inspect};
pub use options::{EmbeddingOption, LoraOption, SourceOptions};
pub use place::remove_unfinished;
pub use plan::{Plan, plan};
pub use synth::{Arch, Dtype, synth};
pub use tensors::probe_weights;
pub use verify::{Difference, SAME_OPTIONS, verify};
