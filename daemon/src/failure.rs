//! Why a command ends without success, and the exit status that says so.

use std::process::ExitCode;

use crate::contract::fault::{Code, Fault};
use crate::painting::model::NoModel;

/// Why the program ends without success, in one line.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line or the configuration is wrong: trying again does not help. Exit status 2.
    #[error("{0}")]
    Usage(String),
    /// The model is missing or damaged. Exit status 3.
    #[error("{0}")]
    Model(String),
    /// The user did not wait for the end. Exit status 130, as shells have it.
    #[error("{0}")]
    Interrupted(String),
    /// Anything else. Exit status 1.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// What the program ends with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Usage(_) => ExitCode::from(2),
            Failure::Model(_) => ExitCode::from(3),
            Failure::Interrupted(_) => ExitCode::from(130),
            Failure::Other(_) => ExitCode::FAILURE,
        }
    }
}

/// What was wrong with a request, by the flag that gave it.
impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        match fault {
            Fault { field: Some(field), message, .. } => Failure::Usage(format!("{}: {message}", flag(&field))),
            Fault { code: Code::OutOfMemory, message, .. } => Failure::Usage(format!("--memory: {message}")),
            Fault { code: Code::ModelCorrupt, message, .. } => Failure::Model(message),
            fault => Failure::Other(fault.message),
        }
    }
}

impl From<diffused_engine::error::Error> for Failure {
    fn from(error: diffused_engine::error::Error) -> Failure {
        Fault::from(error).into()
    }
}

impl From<NoModel> for Failure {
    fn from(error: NoModel) -> Failure {
        Failure::Usage(error.to_string())
    }
}

/// The flag for a request's key.
fn flag(field: &str) -> String {
    match field {
        "sampler_name" => "--sampler".into(),
        "denoising_strength" => "--strength".into(),
        "hires.scale" => "--hires".into(),
        "hires.denoising_strength" => "--hires-strength".into(),
        "hires.sampler_name" => "--hires-sampler".into(),
        "init_images" => "--init-image".into(),
        "prompt" => "the prompt".into(),
        other => format!("--{}", other.replace(['_', '.'], "-")),
    }
}

#[cfg(test)]
mod tests {
    use diffused_engine::error::Error;

    use super::*;

    #[test]
    fn errors_name_the_flag() {
        let text = |field| Failure::from(Error::InvalidParam { field, message: "wrong".into() }).to_string();
        assert_eq!(text("sampler_name"), "--sampler: wrong");
        assert_eq!(text("cfg_scale"), "--cfg-scale: wrong");
        assert_eq!(text("hires.upscaler"), "--hires-upscaler: wrong");
        assert_eq!(text("hires.scale"), "--hires: wrong");
    }

    #[test]
    fn failures_have_their_own_exit_status() {
        let usage = Failure::Usage(String::new()).exit_code();
        assert_ne!(format!("{usage:?}"), format!("{:?}", Failure::Other(String::new()).exit_code()));
        assert_ne!(format!("{usage:?}"), format!("{:?}", Failure::Model(String::new()).exit_code()));
    }
}
