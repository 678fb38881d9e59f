//! The names of all errors of Linux.

/// A name and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileErrno {
    name: &'static str,
    number: i32,
}

macro_rules! errnos {
    ($($name:ident)*) => {
        &[$(FileErrno { name: stringify!($name), number: libc::$name }),*]
    };
}

impl FileErrno {
    /// All of errno(3) that Linux has, each once, in the order of the alphabet.
    pub const ALL: &'static [Self] = errnos! {
        E2BIG EACCES EADDRINUSE EADDRNOTAVAIL EADV EAFNOSUPPORT EAGAIN EALREADY EBADE EBADF EBADFD EBADMSG EBADR
        EBADRQC EBADSLT EBFONT EBUSY ECANCELED ECHILD ECHRNG ECOMM ECONNABORTED ECONNREFUSED ECONNRESET EDEADLK
        EDESTADDRREQ EDOM EDOTDOT EDQUOT EEXIST EFAULT EFBIG EHOSTDOWN EHOSTUNREACH EHWPOISON EIDRM EILSEQ
        EINPROGRESS EINTR EINVAL EIO EISCONN EISDIR EISNAM EKEYEXPIRED EKEYREJECTED EKEYREVOKED EL2HLT EL2NSYNC
        EL3HLT EL3RST ELIBACC ELIBBAD ELIBEXEC ELIBMAX ELIBSCN ELNRNG ELOOP EMEDIUMTYPE EMFILE EMLINK EMSGSIZE
        EMULTIHOP ENAMETOOLONG ENAVAIL ENETDOWN ENETRESET ENETUNREACH ENFILE ENOANO ENOBUFS ENOCSI ENODATA
        ENODEV ENOENT ENOEXEC ENOKEY ENOLCK ENOLINK ENOMEDIUM ENOMEM ENOMSG ENONET ENOPKG ENOPROTOOPT ENOSPC
        ENOSR ENOSTR ENOSYS ENOTBLK ENOTCONN ENOTDIR ENOTEMPTY ENOTNAM ENOTRECOVERABLE ENOTSOCK ENOTTY ENOTUNIQ
        ENXIO EOPNOTSUPP EOVERFLOW EOWNERDEAD EPERM EPFNOSUPPORT EPIPE EPROTO EPROTONOSUPPORT EPROTOTYPE ERANGE
        EREMCHG EREMOTE EREMOTEIO ERESTART ERFKILL EROFS ESHUTDOWN ESOCKTNOSUPPORT ESPIPE ESRCH ESRMNT ESTALE
        ESTRPIPE ETIME ETIMEDOUT ETOOMANYREFS ETXTBSY EUCLEAN EUNATCH EUSERS EXDEV EXFULL
    };

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        // Linux gives these one number each.
        let name = match name {
            "ENOTSUP" => "EOPNOTSUPP",
            "EWOULDBLOCK" => "EAGAIN",
            "EDEADLOCK" => "EDEADLK",
            name => name,
        };
        Self::ALL.iter().copied().find(|errno| errno.name == name)
    }

    /// The name for this number.
    pub fn numbered(number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|errno| errno.number.unsigned_abs() == number)
    }

    /// As in errno(3).
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Its number, more than 0.
    pub const fn number(self) -> i32 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_one_name() {
        let mut numbers: Vec<_> = FileErrno::ALL.iter().map(|errno| errno.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), FileErrno::ALL.len());
        // 1 to 133, without the two that are none (41 and 58).
        assert_eq!((numbers[0], numbers[numbers.len() - 1], numbers.len()), (1, 133, 131));
        for errno in FileErrno::ALL {
            assert_eq!(FileErrno::named(errno.name), Some(*errno));
            assert_eq!(FileErrno::numbered(errno.number.unsigned_abs()), Some(*errno));
        }
        assert_eq!(FileErrno::named("ENOTSUP").map(FileErrno::number), Some(libc::ENOTSUP));
        assert_eq!(FileErrno::named("ENOSPACE"), None);
    }
}
