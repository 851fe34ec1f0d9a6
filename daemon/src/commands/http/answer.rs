//! Answers as A1111's web API gives them: JSON, and errors with the keys that its clients look for.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use crate::contract::fault::{Code, Fault};

/// What goes back to a client, whole.
pub(super) type Answer = Response<Full<Bytes>>;

/// `value` as the body of a good answer.
pub(super) fn good(value: &Value) -> Answer {
    with_status(StatusCode::OK, value)
}

fn with_status(status: StatusCode, value: &Value) -> Answer {
    let mut answer = Response::new(Full::new(value.to_string().into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// Why a request was not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HttpFault {
    pub(super) status: StatusCode,
    /// For programs: a code of the contract, or one of HTTP's own.
    name: &'static str,
    /// For people.
    pub(super) message: String,
    /// The request's key that is at fault.
    pub(super) field: Option<String>,
    header: Option<(header::HeaderName, &'static str)>,
}

impl HttpFault {
    pub(super) fn new(status: StatusCode, name: &'static str, message: impl Into<String>) -> HttpFault {
        HttpFault { status, name, message: message.into(), field: None, header: None }
    }

    /// `field` is of the wrong kind, or asks for what there is not.
    pub(super) fn param(field: &str, message: impl Into<String>) -> HttpFault {
        Fault::param(field, message).into()
    }

    /// Broker or device is not there now.
    pub(super) fn unavailable(message: impl Into<String>) -> HttpFault {
        let fault = HttpFault::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
        HttpFault { header: Some((header::RETRY_AFTER, "10")), ..fault }
    }

    /// The request or its answer is larger than what is taken.
    pub(super) fn too_large(message: impl Into<String>) -> HttpFault {
        HttpFault::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// The token is missing or wrong.
    pub(super) fn unauthorized() -> HttpFault {
        let message = "give the token as the password of any user (Basic), or as `Authorization: Bearer TOKEN`";
        let fault = HttpFault::new(StatusCode::UNAUTHORIZED, "unauthorized", message);
        HttpFault { header: Some((header::WWW_AUTHENTICATE, "Basic realm=\"diffused\", charset=\"UTF-8\"")), ..fault }
    }

    /// The path is served by other methods.
    pub(super) fn method(allowed: &'static str) -> HttpFault {
        let fault = HttpFault::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method Not Allowed");
        HttpFault { header: Some((header::ALLOW, allowed)), ..fault }
    }

    pub(super) fn answer(&self) -> Answer {
        let field = self.field.as_deref();
        let whole = field.map_or_else(|| self.message.clone(), |field| format!("{field}: {}", self.message));
        let body = json!({"error": self.name, "detail": whole, "body": "", "errors": whole, "field": field});
        let mut answer = with_status(self.status, &body);
        if let Some((name, value)) = &self.header {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

/// What the device says of a job that it did not paint.
impl From<Fault> for HttpFault {
    fn from(fault: Fault) -> HttpFault {
        let (status, name) = match fault.code {
            Code::InvalidJson => (StatusCode::BAD_REQUEST, "invalid_json"),
            Code::InvalidParam => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_param"),
            Code::OutOfMemory => (StatusCode::UNPROCESSABLE_ENTITY, "out_of_memory"),
            Code::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Code::QueueFull => (StatusCode::SERVICE_UNAVAILABLE, "queue_full"),
            Code::Expired => (StatusCode::REQUEST_TIMEOUT, "expired"),
            Code::Cancelled => (StatusCode::CONFLICT, "cancelled"),
            Code::DiskFull => (StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
            Code::ModelCorrupt => (StatusCode::INTERNAL_SERVER_ERROR, "model_corrupt"),
            Code::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        let header = (fault.code == Code::QueueFull).then_some((header::RETRY_AFTER, "10"));
        HttpFault { field: fault.field, header, ..HttpFault::new(status, name, fault.message) }
    }
}
