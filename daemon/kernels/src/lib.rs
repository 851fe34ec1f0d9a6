//! The arithmetic of diffused: int8 and f32 kernels whose results have the same bits on every CPU.
//!
//! Slices in, slices out. `scalar` is the specification; the other levels equal it to the bit. What the functions
//! here split over threads they split over the current rayon pool, and the result does not depend on how.
//!
//! Activations are token-major: `[rows][channels]`, a picture is `[height][width][channels]`.

pub mod pack;
