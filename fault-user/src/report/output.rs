//! Where `--json` and `--events` go.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::exit::Class;

/// A report could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {what} to {destination}: {source}")]
pub struct OutputError {
    /// `the report`, `the events`.
    pub what: &'static str,
    /// The file, or `standard output`.
    pub destination: String,
    /// Why not.
    pub source: io::Error,
}

impl OutputError {
    /// Decides the exit status: a file that cannot be written is a wrong argument.
    #[must_use]
    pub const fn class(&self) -> Class {
        Class::Usage
    }
}

/// `FILE|-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `-`.
    Stdout,
    /// A file, made or replaced.
    File(PathBuf),
}

impl From<PathBuf> for Destination {
    fn from(path: PathBuf) -> Self {
        if path.as_os_str() == "-" { Self::Stdout } else { Self::File(path) }
    }
}

impl Destination {
    /// Whether it can be written, without changing it: to be asked before anything is armed.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check(&self, what: &'static str) -> Result<(), OutputError> {
        let Self::File(path) = self else { return Ok(()) };
        let result = if is_replaceable(path) {
            // A file without a name, gone at once whatever happens.
            tempfile::tempfile_in(directory(path)).map(drop)
        } else {
            File::options().append(true).open(path).map(drop)
        };
        result.map_err(|source| self.error(what, source))
    }

    /// Opens it for writing piece by piece; a file is made or emptied.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self, what: &'static str) -> Result<Box<dyn Write + Send>, OutputError> {
        match self {
            Self::Stdout => Ok(Box::new(io::stdout())),
            Self::File(path) => match File::create(path) {
                Ok(file) => Ok(Box::new(file)),
                Err(source) => Err(self.error(what, source)),
            },
        }
    }

    /// Writes all of `bytes`. Whoever reads a regular file sees the old content or all of the new one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, what: &'static str, bytes: &[u8]) -> Result<(), OutputError> {
        let result = match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes).and_then(|()| stdout.flush())
            }
            Self::File(path) if is_replaceable(path) => replace(path, bytes),
            Self::File(path) => {
                File::options().append(true).open(path).and_then(|mut file| file.write_all(bytes))
            }
        };
        result.map_err(|source| self.error(what, source))
    }

    pub(super) fn error(&self, what: &'static str, source: io::Error) -> OutputError {
        let destination = match self {
            Self::Stdout => "standard output".to_owned(),
            Self::File(path) => path.display().to_string(),
        };
        OutputError { what, destination, source }
    }
}

/// Regular files, and what does not exist yet. `/dev/stderr` and FIFOs are written to, not replaced.
fn is_replaceable(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |metadata| metadata.is_file())
}

fn directory(path: &Path) -> PathBuf {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // What a symbolic link leads to, so that the link stays one.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    // As `open(2)` would make it: the umask takes its share. An existing file keeps its permissions.
    let permissions = fs::metadata(&path)
        .map_or_else(|_| fs::Permissions::from_mode(0o666), |metadata| metadata.permissions());
    let mut file = tempfile::Builder::new()
        .prefix(".fault-report-")
        .permissions(permissions.clone())
        .tempfile_in(directory(&path))?;
    file.write_all(bytes)?;
    if path.exists() {
        file.as_file().set_permissions(permissions)?;
    }
    file.persist(&path)?;
    Ok(())
}
