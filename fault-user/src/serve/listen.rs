//! Where the service listens: the socket in the file system, made, guarded and removed; and, only when asked, a port of the
//! loopback interface.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use tokio::net::{TcpListener, UnixListener};

use super::{
    connection::{Duplex, Peer},
    token::TokenError,
};

/// The socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// `--listen` of another kind.
    #[error("cannot listen on {0:?}: expected unix:PATH or tcp:127.0.0.1:PORT")]
    Address(String),
    /// TCP that other machines could reach.
    #[error(
        "cannot listen on {0}: only loopback addresses are allowed (tcp:127.0.0.1:PORT); for other machines, tunnel (ssh -L)"
    )]
    NotLoopback(SocketAddr),
    /// TCP without a token.
    #[error("to listen on a port, a token is needed that clients must know: --token-file FILE")]
    NoToken,
    /// A token without TCP.
    #[error("a token file is for --listen tcp:127.0.0.1:PORT only")]
    NoPort,
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A port cannot be had.
    #[error("cannot listen on {address}")]
    Port {
        /// Which.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody answers there.
    #[error("another service already listens on {0}")]
    Taken(PathBuf),
    /// What is there is no socket.
    #[error("{0} exists and is no socket")]
    NoSocket(PathBuf),
    /// A system call failed.
    #[error("cannot {operation} {path}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `unix:PATH`.
    Unix(PathBuf),
    /// `tcp:ADDRESS:PORT`, of the loopback interface.
    Tcp(SocketAddr),
}

impl FromStr for Address {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let wrong = || ListenError::Address(text.to_owned());
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => {
                let address: SocketAddr = address.parse().map_err(|_| wrong())?;
                if address.ip().is_loopback() {
                    Ok(Self::Tcp(address))
                } else {
                    Err(ListenError::NotLoopback(address))
                }
            }
            _ => Err(wrong()),
        }
    }
}

/// A socket of either kind.
#[derive(Debug)]
pub(super) enum Listener {
    Unix(Listening),
    Tcp(TcpListener),
}

impl Listener {
    /// Listens at `address`; `open` as for [`Listening::new`].
    pub(super) async fn new(address: &Address, open: bool) -> Result<Self, ListenError> {
        match address {
            Address::Unix(path) => Listening::new(path, open).map(Self::Unix),
            Address::Tcp(address) => {
                let failed = |source| ListenError::Port { address: *address, source };
                TcpListener::bind(address).await.map(Self::Tcp).map_err(failed)
            }
        }
    }

    /// The next connection, and who it is. Cancel safe.
    pub(super) async fn accept(&self) -> io::Result<(Box<dyn Duplex>, Peer)> {
        match self {
            Self::Unix(listening) => {
                let (stream, _) = listening.listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                Ok((Box::new(stream), Peer::User(uid)))
            }
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Box::new(stream), Peer::Network))
            }
        }
    }
}

/// As `--listen` says it, with the port that was chosen when 0 was asked for.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(listening) => write!(f, "unix:{}", listening.path.display()),
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "tcp:{address}"),
                Err(_) => f.write_str("tcp:?"),
            },
        }
    }
}

/// A socket, removed when dropped; with its directory, if that was made for it.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) listener: UnixListener,
    path: PathBuf,
    directory: Option<PathBuf>,
}

impl Listening {
    /// Listens at `path`. With `open`, everybody may connect (and is asked who it is); else root only.
    pub(super) fn new(path: &Path, open: bool) -> Result<Self, ListenError> {
        let failed = |operation| {
            let path = path.to_owned();
            move |source| ListenError::System { operation, path, source }
        };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists());
        if let Some(directory) = directory {
            fs::create_dir(directory).map_err(failed("make the directory of"))?;
        }
        if let Ok(about) = fs::symlink_metadata(path) {
            if !about.file_type().is_socket() {
                return Err(ListenError::NoSocket(path.to_owned()));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(ListenError::Taken(path.to_owned()));
            }
            // Of a service that was killed.
            fs::remove_file(path).map_err(failed("remove the abandoned socket"))?;
        }
        let listener = UnixListener::bind(path).map_err(failed("listen on"))?;
        let listening = Self { listener, path: path.to_owned(), directory: directory.map(Path::to_owned) };
        let mode = if open { 0o666 } else { 0o600 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed("set the mode of"))?;
        Ok(listening)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Whoever removed it first did no harm.
        let _ = fs::remove_file(&self.path);
        if let Some(directory) = &self.directory {
            let _ = fs::remove_dir(directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_listened_on() {
        for address in ["tcp:127.0.0.1:80", "tcp:[::1]:0"] {
            assert!(matches!(address.parse(), Ok(Address::Tcp(_))), "{address}");
        }
        for address in ["tcp:0.0.0.0:80", "tcp:[::]:80", "tcp:192.0.2.1:80"] {
            assert!(matches!(address.parse::<Address>(), Err(ListenError::NotLoopback(_))), "{address}");
        }
        for address in ["tcp:localhost:80", "tcp:127.0.0.1", "unix:", "/run/x", ""] {
            assert!(matches!(address.parse::<Address>(), Err(ListenError::Address(_))), "{address}");
        }
    }
}
