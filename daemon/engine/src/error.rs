//! What can go wrong while a bundle is opened or an image is painted.

use std::path::PathBuf;

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the engine. Its text names what was wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A parameter of the request is out of range or of the wrong kind.
    #[error("{field}: {message}")]
    InvalidParam {
        /// The request's key, as clients spell it (`width`, `sampler_name`, …).
        field: &'static str,
        /// What is wrong and what is allowed.
        message: String,
    },
    /// The requested image does not fit the memory budget.
    #[error("{0}")]
    OutOfMemory(String),
    /// The bundle is damaged, incomplete or of another version.
    #[error("{}: {message}", path.display())]
    ModelCorrupt {
        /// The file that is at fault.
        path: PathBuf,
        /// What is wrong with it (names the tensor where one is known).
        message: String,
    },
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The observer stopped the work.
    #[error("cancelled")]
    Cancelled,
    /// A checkpoint cannot be gone on from: it is damaged, or of another painting, model or version of the program.
    #[error("the checkpoint cannot be used: {0}; paint from the start")]
    Checkpoint(String),
    /// A fault of the program itself.
    #[error("internal error: {0}")]
    Internal(String),
}
