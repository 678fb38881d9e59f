//! The token that clients over TCP must know: any process of the machine can connect there, and nothing says whose it is.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq as _;

/// Shortest token, in bytes: 128 bits in hexadecimal.
const SHORTEST: usize = 32;
/// Longest token, in bytes.
const LONGEST: usize = 4096;

/// The file of the token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("reading the token file {path} failed")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read it.
    #[error("the token file {path} can be read by others than its owner (mode {mode:04o}): chmod 600 {path}")]
    Open {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It belongs to another user, who could know it.
    #[error(
        "the token file {path} belongs to user {uid}: it must belong to root or to the service's own user"
    )]
    Foreign {
        /// Which.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// It holds no token.
    #[error(
        "the token file {0} must hold one token of {SHORTEST} to {LONGEST} visible ASCII characters: (umask 077; openssl rand -hex 32 > FILE)"
    )]
    Unfit(PathBuf),
}

/// What clients must know. Never shown.
pub struct Token(Vec<u8>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Reads it, without white space around it.
    ///
    /// # Errors
    /// When others could know it, or it is too short to be secret.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let failed = |source| TokenError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        // Of what was opened, whatever the name stands for by now.
        let about = file.metadata().map_err(failed)?;
        if about.mode() & 0o077 != 0 {
            return Err(TokenError::Open { path: path.to_owned(), mode: about.mode() & 0o7777 });
        }
        if ![0, nix::unistd::geteuid().as_raw()].contains(&about.uid()) {
            return Err(TokenError::Foreign { path: path.to_owned(), uid: about.uid() });
        }
        let mut text = Vec::new();
        file.take(LONGEST as u64 + 2).read_to_end(&mut text).map_err(failed)?;
        let token = text.trim_ascii();
        let fits = (SHORTEST..=LONGEST).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic);
        if fits { Ok(Self(token.to_owned())) } else { Err(TokenError::Unfit(path.to_owned())) }
    }

    /// Whether a request has it: `Authorization: Bearer TOKEN` (RFC 6750). How long that takes says nothing about the token but
    /// its length.
    pub(super) fn is_in(&self, headers: &HeaderMap) -> bool {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(given), None) = (given.next(), given.next()) else { return false };
        let Some((scheme, token)) = given.as_bytes().split_at_checked(b"Bearer ".len()) else { return false };
        scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(token.ct_eq(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    fn read(text: &str, mode: u32) -> Result<Token, TokenError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        Token::read(&path)
    }

    #[test]
    fn a_token_that_others_may_know_is_refused() {
        let good = "0123456789abcdef0123456789abcdef";
        assert!(matches!(read(good, 0o604), Err(TokenError::Open { mode: 0o604, .. })));
        assert!(matches!(read(good, 0o640), Err(TokenError::Open { .. })));
        assert!(matches!(read(&good[1..], 0o600), Err(TokenError::Unfit(_))));
        assert!(matches!(read(&format!("{good} {good}"), 0o600), Err(TokenError::Unfit(_))));
        assert!(matches!(read(&good.repeat(200), 0o600), Err(TokenError::Unfit(_))));
        assert!(matches!(Token::read(Path::new("/no/such")), Err(TokenError::Read { .. })));
        let token = read(&format!("{good}\n"), 0o600).expect("a token");
        let asks = |value: &str| {
            let value = axum::http::HeaderValue::from_str(value).expect("a header");
            token.is_in(&HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
        };
        assert!(asks(&format!("Bearer {good}")) && asks(&format!("bearer {good}")));
        for wrong in [&format!("Bearer {}", &good[1..]), &format!("Basic {good}"), good, "Bearer ", ""] {
            assert!(!asks(wrong), "{wrong:?} was let in");
        }
        assert!(!asks(&format!("Bearer {good}0")) && !token.is_in(&HeaderMap::new()));
    }
}
