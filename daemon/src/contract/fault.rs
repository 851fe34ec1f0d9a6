//! Why a request failed, as clients see it: a stable code, a text for people, and the field that is at fault.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diffused_engine::error::Error;
use serde::{Deserialize, Serialize};
use tracing::error;

/// The stable codes of the MQTT contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The payload is neither a JSON object nor text.
    InvalidJson,
    /// A parameter is missing, of the wrong kind or out of range.
    InvalidParam,
    /// A value is larger than the daemon takes.
    TooLarge,
    /// The queue holds as many jobs as it may.
    QueueFull,
    /// The job's deadline passed before it was started.
    Expired,
    /// Somebody cancelled the job, or the service stopped.
    Cancelled,
    /// The image does not fit the memory budget.
    OutOfMemory,
    /// The image could be neither sent nor kept.
    DiskFull,
    /// The model's files are damaged or unreadable.
    ModelCorrupt,
    /// A fault of the program itself.
    Internal,
}

/// What clients get as `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[error("{}{message}", field.as_deref().map(|f| format!("{f}: ")).unwrap_or_default())]
pub struct Fault {
    /// For programs.
    pub code: Code,
    /// For people: what was wrong and what is allowed.
    pub message: String,
    /// The request's key that is at fault, where there is one.
    pub field: Option<String>,
}

impl Fault {
    /// On one line, for the log: what clients write may hold line breaks.
    pub fn one_line(&self) -> String {
        self.to_string().replace(char::is_control, " ")
    }

    /// A fault of no particular field.
    pub fn new(code: Code, message: impl Into<String>) -> Fault {
        Fault { code, message: message.into(), field: None }
    }

    /// `field` is missing, of the wrong kind or out of range.
    pub fn param(field: &str, message: impl Into<String>) -> Fault {
        Fault { code: Code::InvalidParam, message: message.into(), field: Some(field.into()) }
    }

    /// `field` is larger than the daemon takes.
    pub fn too_large(field: &str, message: impl Into<String>) -> Fault {
        Fault { code: Code::TooLarge, message: message.into(), field: Some(field.into()) }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        let code = match &error {
            Error::InvalidParam { field, message } => return Fault::param(field, message),
            Error::OutOfMemory(_) => Code::OutOfMemory,
            Error::ModelCorrupt { .. } | Error::Io { .. } => Code::ModelCorrupt,
            Error::Cancelled => Code::Cancelled,
            Error::Checkpoint(_) | Error::Internal(_) => Code::Internal,
        };
        Fault::new(code, error.to_string())
    }
}

/// Runs `work`; a panic in it is logged and becomes a fault of the program. What `work` changed is in an unknown state then.
pub fn catch_panic<T>(work: impl FnOnce() -> T) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".into());
        error!("panicked: {message}");
        Fault::new(Code::Internal, format!("a fault of the program: {message}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_internal_fault() {
        assert_eq!(catch_panic(|| 7), Ok(7));
        let divide = |by: usize| 7 / by;
        let fault = catch_panic(|| divide(0)).unwrap_err();
        assert_eq!(fault.code, Code::Internal);
        assert!(fault.message.contains("divide by zero"), "{fault}");
    }
}
