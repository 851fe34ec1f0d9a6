//! From a job to image files: the thread that owns the engine.

pub mod checkpoint;
pub mod cooling;
pub mod model;
pub mod output;
pub mod pictures;
pub mod placed;
pub mod preview;
pub mod progress;
pub mod worker;
