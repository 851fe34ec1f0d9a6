//! Turns Stable Diffusion models in diffusers' folder layout into bundles that `diffused` runs.
//!
//! This crate knows architectures, so that the daemon need not: it writes each network as a graph of the engine's
//! operators, and its weights in the layout that the kernels read.

mod arch;
mod convert;
mod error;
mod inspect;
mod network;
mod parameter;
mod place;
mod reader;
mod source;
mod synth;
mod verify;
mod writer;

pub use convert::{Options, Progress, convert};
pub use error::{Error, Result};
pub use inspect::{Inspection, NetworkSummary, inspect};
pub use network::Weights;
pub use synth::{Arch, Dtype, synth};
pub use verify::{Difference, verify};

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
