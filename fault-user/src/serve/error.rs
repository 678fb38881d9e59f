//! Every refusal of the service: a status, a word for programs, a sentence, and what to do next.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{
    exit::Class,
    kernel::probe::Unsupported,
    net::error::NetError,
    sentence::sentence,
    session::{
        SessionError,
        prepare::{ArmError, PrepareError},
    },
    target::TargetError,
};

/// `{"error": {"code": …, "message": …, "next": …}}`.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The status of the answer.
    pub status: StatusCode,
    /// For programs.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub next: String,
}

impl ApiError {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self { status, code, message: message.into(), next: next.into() }
    }

    /// No session of this id.
    pub(super) fn no_session(id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no_such_session",
            format!("there is no session {id:?}"),
            "GET /v1/sessions lists them; ids are never used again",
        )
    }

    /// Wrong words in a request.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message, "docs/service.md has all fields")
    }

    /// Something of ours went wrong.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        let next = "this is not the request's fault: see the log of the service";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message, next)
    }

    fn of_class(class: Class, code: &'static str, message: String) -> Self {
        match class {
            Class::Usage => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message, "correct it and ask again")
            }
            Class::Unsupported => {
                let next = "GET /v1/doctor tells what this kernel can, and what to change";
                Self::new(StatusCode::NOT_IMPLEMENTED, "unsupported", message, next)
            }
            Class::NotPermitted => {
                let next = "start the service as root, with all capabilities";
                Self::new(StatusCode::NOT_IMPLEMENTED, "not_permitted", message, next)
            }
            Class::Other => Self::internal(message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, code, message, next } = self;
        (status, Json(json!({"error": {"code": code, "message": message, "next": next}}))).into_response()
    }
}

impl From<PrepareError> for ApiError {
    fn from(error: PrepareError) -> Self {
        let (code, help) = match &error {
            PrepareError::Spec(spec) => {
                ("bad_spec", miette::Diagnostic::help(&**spec).map(|help| help.to_string()))
            }
            PrepareError::Plan(_) => ("bad_plan", None),
        };
        let next = help.unwrap_or_else(|| "docs/spec.md has the whole language".to_owned());
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, sentence(&error), next)
    }
}

impl From<TargetError> for ApiError {
    fn from(error: TargetError) -> Self {
        Self::of_class(error.class(), "bad_target", sentence(&error))
    }
}

impl From<Unsupported> for ApiError {
    fn from(error: Unsupported) -> Self {
        let message = format!("{} is missing: {}", error.capability.name(), error.cause);
        let code = if error.class() == Class::NotPermitted { "not_permitted" } else { "unsupported" };
        Self::new(StatusCode::NOT_IMPLEMENTED, code, message, error.remedy)
    }
}

impl From<&SessionError> for ApiError {
    fn from(error: &SessionError) -> Self {
        let message = sentence(error);
        match error {
            SessionError::Net(NetError::TooManySessions { .. }) => {
                let next = "delete a session of this network namespace first";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message, next)
            }
            SessionError::Net(
                NetError::TooManyInterfaces { .. }
                | NetError::TooManyNamespaces { .. }
                | NetError::Occupied { .. },
            ) => Self::new(StatusCode::CONFLICT, "too_large", message, "choose a smaller target"),
            other => Self::of_class(other.class(), "refused", message),
        }
    }
}

impl From<ArmError> for ApiError {
    fn from(error: ArmError) -> Self {
        match error {
            ArmError::Session(error) => Self::from(&*error),
            ArmError::Unsupported(error) => error.into(),
        }
    }
}
