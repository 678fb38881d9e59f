//! What can go wrong with faults.

use std::{io, process::ExitStatus};

use crate::spec::SpecError;

/// Nothing is armed, or nothing is known of what was.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// A spec that is wrong; [`SpecError::render`] points at the word.
    #[error(transparent)]
    Spec(Box<SpecError>),
    /// There is no controller.
    #[error("cannot start `{program}`: {source}; install it, or name it in $FAULT")]
    Start {
        /// What was looked for.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// The controller refused, and armed nothing.
    #[error("{sentence}")]
    Refused {
        /// Of what kind the refusal is.
        why: Refusal,
        /// What it said.
        sentence: String,
    },
    /// The controller ended, and left no report.
    #[error("the controller ended with {status} and no report: {sentence}")]
    NoReport {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        sentence: String,
    },
    /// Talking to it failed.
    #[error("cannot {operation} the controller: {source}")]
    Controller {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Why a session was refused, by the exit status of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 2: it was asked for something that makes no sense, or for somebody who does not exist.
    Usage,
    /// 69: this kernel cannot do it.
    Unsupported,
    /// 77: not permitted.
    NotPermitted,
    /// Anything else.
    Other,
}

impl Refusal {
    pub(super) fn of(status: ExitStatus) -> Self {
        match status.code() {
            Some(2) => Self::Usage,
            Some(69) => Self::Unsupported,
            Some(77) => Self::NotPermitted,
            _ => Self::Other,
        }
    }
}
