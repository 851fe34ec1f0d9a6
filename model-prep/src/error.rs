//! What can go wrong while a model is read or a bundle is written: a file and the key or tensor in it, or an option.

use std::path::{Path, PathBuf};

/// model-prep's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of model-prep. Its text says what was wrong, where, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A bundle could not be read or written.
    #[error(transparent)]
    Bundle(#[from] diffused_engine::error::Error),
    /// A file is not what its name says.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A file or folder is no model but something else that is known, such as a LoRA.
    #[error("{}: {what}", path.display())]
    OtherKind {
        /// The file or folder.
        path: PathBuf,
        /// What it is, and what to do with it.
        what: String,
    },
    /// A configuration asks for what model-prep does not know.
    #[error("{}: {key} is {value}; supported: {supported}", path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The key in it.
        key: String,
        /// Its value, as JSON.
        value: String,
        /// What the value may be.
        supported: String,
    },
    /// A default that no picture could be painted with.
    #[error("{option} is {value}; allowed is {allowed}")]
    Default {
        /// The option, as `Options` names it.
        option: &'static str,
        /// Its value.
        value: String,
        /// What the value may be.
        allowed: String,
    },
    /// A tensor is missing, too much, of the wrong shape or of unusable values.
    #[error("{}: tensor {tensor}: {message}", path.display())]
    Tensor {
        /// The weights file, or the folder that should hold it.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        message: String,
    },
}

impl Error {
    /// An input or output error at `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |cause| Error::Io { path: path.to_owned(), cause }
    }

    /// A file that is not as it should be.
    pub(crate) fn file(path: &Path, message: impl Into<String>) -> Error {
        Error::File { path: path.to_owned(), message: message.into() }
    }

    /// What is known and no model.
    pub(crate) fn other_kind(path: &Path, what: impl Into<String>) -> Error {
        Error::OtherKind { path: path.to_owned(), what: what.into() }
    }

    /// A tensor that is not as it should be.
    pub(crate) fn tensor(path: &Path, tensor: &str, message: impl Into<String>) -> Error {
        Error::Tensor { path: path.to_owned(), tensor: tensor.to_owned(), message: message.into() }
    }
}
