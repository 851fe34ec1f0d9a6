//! The arithmetic of diffused: int8 and f32 kernels whose results have the same bits on every CPU.
//!
//! Slices in, slices out. `scalar` is the specification; the other levels equal it to the bit. What the functions
//! here split over threads they split over the current rayon pool, and the result does not depend on how.
//! Each has a twin called `…_at` that takes the [`cpu::Level`] to run at, for tests and benches.
//!
//! Activations are token-major: `[rows][channels]`, a picture is `[height][width][channels]`. Values are finite.

pub mod attention;
pub mod cpu;
pub mod heap;
pub mod matmul;
pub mod norm;
pub mod pack;
mod pages;
pub mod peak;
mod product;
pub mod rows;
pub mod scalar;
mod shared;
mod simd;

pub use attention::{AttentionShape, attention, attention_int8};
pub use matmul::{Activation, ConvShape, Epilogue, Panels, Rows, Strip, conv2d, linear};
pub use norm::{GroupSums, Out, group_norm_apply, group_norm_in_place, layer_norm};
pub use rows::{f16_to_f32, f32_to_f16, quantize_rows, round_to_f16, silu};
