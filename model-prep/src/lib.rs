//! Turns Stable Diffusion models in diffusers' folder layout into bundles that `diffused` runs.
//!
//! This crate knows architectures, so that the daemon need not: it writes each network as a graph of the engine's
//! operators, and its weights in the layout that the kernels read.

mod arch;
mod convert;
mod error;
mod network;
mod parameter;
mod source;
mod writer;

pub use convert::{Options, Progress, convert};
pub use error::{Error, Result};
pub use network::Weights;

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
