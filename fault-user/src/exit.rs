//! Exit statuses (DESIGN.md §2).

use std::process::ExitCode;

/// What kind of failure an error is; decides the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The user asked for something that makes no sense or does not exist: 2.
    Usage,
    /// This kernel (or its configuration) cannot do it: 69, `EX_UNAVAILABLE` of sysexits(3).
    Unsupported,
    /// Root or a capability is missing: 77, `EX_NOPERM` of sysexits(3).
    NotPermitted,
    /// Anything else: 1.
    Other,
}

impl Class {
    /// The status a process ends with.
    #[must_use]
    pub const fn status(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::Unsupported => 69,
            Self::NotPermitted => 77,
            Self::Other => 1,
        }
    }
}

impl From<Class> for ExitCode {
    fn from(class: Class) -> Self {
        Self::from(class.status())
    }
}
