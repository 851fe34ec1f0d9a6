//! Stable Diffusion on the CPU in little memory: synchronous, no network, no clock, no environment.

pub mod bundle;
pub mod error;
pub mod layer;
pub mod request;
pub mod sampler;
