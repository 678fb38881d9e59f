//! The socket in the file system: made, guarded and removed.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

/// The socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// `--listen` of another kind.
    #[error("cannot listen on {0:?}: expected unix:PATH")]
    Address(String),
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

/// The path in `unix:PATH`.
///
/// # Errors
/// When it is something else.
pub fn path(address: &str) -> Result<PathBuf, ListenError> {
    match address.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => Err(ListenError::Address(address.to_owned())),
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
