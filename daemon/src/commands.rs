//! What the command line offers, one file a verb.

mod arrivals;
pub mod bench;
pub mod cancel;
pub mod check;
pub mod cli;
mod client;
#[cfg(feature = "demo")]
pub mod demo;
pub mod doctor;
pub mod generate;
pub mod http;
pub mod list;
mod output;
pub mod page;
pub mod plan;
mod preview_file;
mod progress_line;
pub mod run;
pub mod starts;
pub mod status;
pub mod submit;
pub mod watch;
