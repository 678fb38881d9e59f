//! Calls that fail, and with what.

/// What a call fails with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallError {
    /// `refuse`: ECONNREFUSED.
    Refused,
    /// `unreachable`: EHOSTUNREACH.
    Unreachable,
    /// `fail ERRNO`.
    Errno(Errno),
}

impl CallError {
    /// Its number.
    pub const fn number(self) -> i32 {
        match self {
            Self::Refused => libc::ECONNREFUSED,
            Self::Unreachable => libc::EHOSTUNREACH,
            Self::Errno(errno) => errno.number,
        }
    }
}

/// An error number with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno {
    name: &'static str,
    number: i32,
}

impl Errno {
    /// Those that connect(2) and sendmsg(2) document, and those a program meets there in practice.
    pub const ALL: [Self; 20] = {
        const fn errno(name: &'static str, number: i32) -> Errno {
            Errno { name, number }
        }
        [
            errno("EACCES", libc::EACCES),
            errno("EADDRINUSE", libc::EADDRINUSE),
            errno("EADDRNOTAVAIL", libc::EADDRNOTAVAIL),
            errno("EAFNOSUPPORT", libc::EAFNOSUPPORT),
            errno("EAGAIN", libc::EAGAIN),
            errno("ECONNABORTED", libc::ECONNABORTED),
            errno("ECONNREFUSED", libc::ECONNREFUSED),
            errno("ECONNRESET", libc::ECONNRESET),
            errno("EHOSTDOWN", libc::EHOSTDOWN),
            errno("EHOSTUNREACH", libc::EHOSTUNREACH),
            errno("EINTR", libc::EINTR),
            errno("EMSGSIZE", libc::EMSGSIZE),
            errno("ENETDOWN", libc::ENETDOWN),
            errno("ENETRESET", libc::ENETRESET),
            errno("ENETUNREACH", libc::ENETUNREACH),
            errno("ENOBUFS", libc::ENOBUFS),
            errno("ENOMEM", libc::ENOMEM),
            errno("EPERM", libc::EPERM),
            errno("EPIPE", libc::EPIPE),
            errno("ETIMEDOUT", libc::ETIMEDOUT),
        ]
    };

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|errno| errno.name == name)
    }

    /// As in errno(3).
    pub const fn name(self) -> &'static str {
        self.name
    }
}
