//! What the command line offers, one file a verb.

pub mod cli;
#[cfg(feature = "demo")]
pub mod demo;
pub mod doctor;
pub mod generate;
pub mod plan;
pub mod run;
