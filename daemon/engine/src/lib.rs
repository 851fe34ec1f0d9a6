//! Stable Diffusion on the CPU in little memory: synchronous, no network, no clock, no environment.

pub mod bundle;
pub mod error;
pub mod layer;
pub mod request;
pub mod sampler;
pub mod source;

use bundle::Manifest;
use error::{Error, Result};
use request::{Observer, Parameters, Picture, Request};
pub use source::Source;

/// How the engine may use the machine.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Worker threads; `None`: one for each CPU.
    pub threads: Option<usize>,
    /// The most memory that the process may hold, bytes; `None`: weights stay in memory once they were read.
    pub memory: Option<u64>,
}

/// A model that is ready to paint.
pub struct Engine {
    manifest: Manifest,
    model_sha256: String,
}

impl Engine {
    /// Opens a bundle: reads and checks what is small, no weights yet.
    pub fn open(source: Source, _options: Options) -> Result<Engine> {
        Err(Error::Internal(format!("{source:?}: not yet")))
    }

    /// What the bundle says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of `bundle.json`, hexadecimal; since that lists the checksums of all files, it names the model.
    pub fn model_sha256(&self) -> &str {
        &self.model_sha256
    }

    /// Fills in what `request` leaves open and checks the rest; paints nothing.
    pub fn resolve(&self, _request: &Request) -> Result<Parameters> {
        Err(Error::Internal("not yet".into()))
    }

    /// Paints `request`, telling `observer` after each layer and step.
    pub fn generate(&mut self, _request: &Request, _observer: &mut dyn Observer) -> Result<Picture> {
        Err(Error::Internal("not yet".into()))
    }
}
