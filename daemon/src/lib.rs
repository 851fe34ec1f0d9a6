//! The service and the command line of `diffused`: images from prompts that arrive over MQTT.
//!
//! The rooms show the way of a message. `display` has what a display shows of an image, `contract` the topics and what
//! travels over them, `mqtt` is the wire, `jobs` the requests and what is known of them, `painting` the thread that owns
//! the engine, `service` the loop that ties them together, `commands` what the command line offers. Each depends on those
//! before it.

#![warn(clippy::unwrap_used)]

pub mod budget;
pub mod commands;
pub mod config;
pub mod contract;
pub mod display;
pub mod failure;
pub mod files;
pub mod health;
pub mod jobs;
pub mod logging;
pub mod mqtt;
pub mod painting;
pub mod random;
pub mod service;

/// Reuses and gives back large blocks, so that the memory budget is kept at full speed.
#[global_allocator]
static HEAP: diffused_heap::Heap = diffused_heap::Heap;
