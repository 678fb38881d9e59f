//! Calls that fail, and with what.

use std::collections::BTreeSet;

/// A system call of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// connect(2).
    Connect,
    /// bind(2).
    Bind,
    /// sendto(2) and sendmsg(2) of a UDP socket that names its peer.
    Sendmsg,
}

impl Call {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Connect, Self::Bind, Self::Sendmsg];

    /// Those that fail when none is written: the calls that reach for a peer.
    pub fn usual() -> BTreeSet<Self> {
        BTreeSet::from([Self::Connect, Self::Sendmsg])
    }

    /// The word for it in a spec.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Bind => "bind",
            Self::Sendmsg => "sendmsg",
        }
    }
}

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
    /// Those that connect(2), sendmsg(2) and bind(2) document for sockets of the Internet, and those a program meets
    /// there in practice.
    pub const ALL: [Self; 23] = {
        const fn errno(name: &'static str, number: i32) -> Errno {
            Errno { name, number }
        }
        [
            errno("EACCES", libc::EACCES),
            errno("EADDRINUSE", libc::EADDRINUSE),
            errno("EADDRNOTAVAIL", libc::EADDRNOTAVAIL),
            errno("EAFNOSUPPORT", libc::EAFNOSUPPORT),
            errno("EAGAIN", libc::EAGAIN),
            errno("EBADF", libc::EBADF),
            errno("ECONNABORTED", libc::ECONNABORTED),
            errno("ECONNREFUSED", libc::ECONNREFUSED),
            errno("ECONNRESET", libc::ECONNRESET),
            errno("EHOSTDOWN", libc::EHOSTDOWN),
            errno("EHOSTUNREACH", libc::EHOSTUNREACH),
            errno("EINTR", libc::EINTR),
            errno("EINVAL", libc::EINVAL),
            errno("EMSGSIZE", libc::EMSGSIZE),
            errno("ENETDOWN", libc::ENETDOWN),
            errno("ENETRESET", libc::ENETRESET),
            errno("ENETUNREACH", libc::ENETUNREACH),
            errno("ENOBUFS", libc::ENOBUFS),
            errno("ENOMEM", libc::ENOMEM),
            errno("ENOTSOCK", libc::ENOTSOCK),
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
