//! The arithmetic of diffused: int8 and f32 kernels whose results have the same bits on every CPU.
//!
//! Every kernel is a method of a [`Level`]: `Level::current().conv2d(&call, out)`. Slices in, slices out. `scalar` is the
//! specification; the other levels equal it to the bit. A kernel splits its work over the current rayon pool, and the result does
//! not depend on how. It can be stopped by another thread (`cancel`).
//!
//! Activations are token-major: `[rows][channels]`, an image is `[height][width][channels]`. Values are finite.

#![cfg_attr(
    not(any(target_arch = "aarch64", target_arch = "x86_64")),
    allow(dead_code, unused_imports, unused_macros, reason = "a CPU without a vector level runs the scalar one alone")
)]
#![warn(clippy::unwrap_used)]

mod attention;
pub mod cancel;
pub mod cpu;
mod layout;
mod matmul;
mod norm;
mod operands;
pub mod pack;
pub mod peak;
mod product;
mod rows;
pub mod scalar;
mod scratch;
mod simd;
mod tiles;

pub use cpu::Level;
pub use norm::{GroupSums, MadeRow, Norm, NormOut};
pub use operands::{
    ActivationFn, AttentionCall, AttentionShape, ConvCall, ConvShape, Enlarged, Epilogue, InputRows, LinearCall,
    MOST_TERMS, Panels, Rectifier, Strip,
};
pub use rows::FloatRows;
pub use scratch::release_scratch;
