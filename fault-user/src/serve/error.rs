//! Every refusal of the service: a status, a word for programs, a sentence, and what to do next.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

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

/// Why something was refused, for programs. Codes are only ever added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// 400: not JSON, a field that is unknown or wrong, no target, no fault.
    BadRequest,
    /// 401: over TCP, without the token.
    NoToken,
    /// 403: another user than those who may ask.
    NotAllowed,
    /// 404: no such session.
    NoSuchSession,
    /// 404: no such path.
    NoSuchPath,
    /// 405: no such method there.
    NoSuchMethod,
    /// 408: the body did not arrive in time.
    TooSlow,
    /// 409: the session is over. The report is still there.
    Healed,
    /// 409: the session has no lease that could be renewed.
    NoLease,
    /// 409: the session keeps no events.
    NoEvents,
    /// 409: the target has more namespaces or interfaces than a session can have; 413: so large a body.
    TooLarge,
    /// 422: a spec is wrong.
    BadSpec,
    /// 422: the specs together are wrong.
    BadPlan,
    /// 422: no such target, or it cannot be one.
    BadTarget,
    /// 422: something that the faults name does not exist.
    Refused,
    /// 500: something of the service's went wrong.
    Internal,
    /// 501: this kernel cannot.
    Unsupported,
    /// 501: the service may not.
    NotPermitted,
    /// 503: a network namespace has no room for one more session.
    Busy,
    /// 503: the service has no room for one more session.
    TooManySessions,
    /// 503: the service is about to end.
    Closing,
}

/// The body of every refusal.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Refusal {
    error: Why,
}

#[derive(Debug, Serialize, ToSchema)]
struct Why {
    code: Code,
    /// One sentence.
    message: String,
    /// What to do.
    next: String,
}

/// A refusal and its status.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The status of the answer.
    pub status: StatusCode,
    /// For programs.
    pub code: Code,
    /// One sentence.
    pub message: String,
    /// What to do.
    pub next: String,
}

impl ApiError {
    pub(super) fn new(
        status: StatusCode,
        code: Code,
        message: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self { status, code, message: message.into(), next: next.into() }
    }

    /// No session of this id.
    pub(super) fn no_session(id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            Code::NoSuchSession,
            format!("there is no session {id:?}"),
            "GET /v1/sessions lists them; ids are never used again",
        )
    }

    /// Wrong words in a request.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::BadRequest, message, "docs/service.md has all fields")
    }

    /// Something of ours went wrong.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        let next = "this is not the request's fault: see the log of the service";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, message, next)
    }

    fn of_class(class: Class, code: Code, message: String) -> Self {
        match class {
            Class::Usage => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message, "correct it and ask again")
            }
            Class::Unsupported => {
                let next = "GET /v1/doctor tells what this kernel can, and what to change";
                Self::new(StatusCode::NOT_IMPLEMENTED, Code::Unsupported, message, next)
            }
            Class::NotPermitted => {
                let next = "start the service as root, with all capabilities";
                Self::new(StatusCode::NOT_IMPLEMENTED, Code::NotPermitted, message, next)
            }
            Class::Other => Self::internal(message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, code, message, next } = self;
        let mut response = (status, Json(Refusal { error: Why { code, message, next } })).into_response();
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110, section 11.6.1.
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<PrepareError> for ApiError {
    fn from(error: PrepareError) -> Self {
        let (code, help) = match &error {
            PrepareError::Spec(spec) => {
                (Code::BadSpec, miette::Diagnostic::help(&**spec).map(|help| help.to_string()))
            }
            PrepareError::Plan(_) => (Code::BadPlan, None),
        };
        let next = help.unwrap_or_else(|| "docs/spec.md has the whole language".to_owned());
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, sentence(&error), next)
    }
}

impl From<TargetError> for ApiError {
    fn from(error: TargetError) -> Self {
        Self::of_class(error.class(), Code::BadTarget, sentence(&error))
    }
}

impl From<Unsupported> for ApiError {
    fn from(error: Unsupported) -> Self {
        let message = format!("{} is missing: {}", error.capability.name(), error.cause);
        let code = if error.class() == Class::NotPermitted { Code::NotPermitted } else { Code::Unsupported };
        Self::new(StatusCode::NOT_IMPLEMENTED, code, message, error.remedy)
    }
}

impl From<&SessionError> for ApiError {
    fn from(error: &SessionError) -> Self {
        let message = sentence(error);
        match error {
            SessionError::Net(NetError::TooManySessions { .. }) => {
                let next = "delete a session of this network namespace first";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Busy, message, next)
            }
            SessionError::Net(
                NetError::TooManyInterfaces { .. }
                | NetError::TooManyNamespaces { .. }
                | NetError::Occupied { .. },
            ) => Self::new(StatusCode::CONFLICT, Code::TooLarge, message, "choose a smaller target"),
            other => Self::of_class(other.class(), Code::Refused, message),
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
