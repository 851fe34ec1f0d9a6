//! The service and the command line of `diffused`: images from prompts that arrive over MQTT.
//!
//! `mqtt` is the wire, `request` the meaning of what arrives, `queue` and `outbox` the state, `worker` the thread that
//! paints, `service` the loop that ties them together.

#![warn(clippy::unwrap_used)]

pub mod budget;
pub mod cli;
pub mod config;
#[cfg(feature = "demo")]
pub mod demo;
pub mod doctor;
pub mod failure;
pub mod fault;
pub mod generate;
pub mod health;
pub mod init_image;
pub mod logging;
pub mod model;
pub mod mqtt;
pub mod notify;
pub mod outbox;
pub mod pictures;
pub mod plan;
pub mod progress;
pub mod queue;
pub mod random;
pub mod report;
pub mod request;
pub mod run;
pub mod service;
pub mod topics;
pub mod worker;

/// Reuses and gives back large blocks, so that the memory budget is kept at full speed.
#[global_allocator]
static HEAP: diffused_heap::Heap = diffused_heap::Heap;
