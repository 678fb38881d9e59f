//! Files and sockets that may be anybody's: a root-owned program must neither hang nor choke on them.

use std::{
    fs::OpenOptions,
    io::{self, Read as _, Write as _},
    os::unix::{
        fs::{MetadataExt as _, OpenOptionsExt as _},
        net::UnixStream,
    },
    path::Path,
    time::{Duration, Instant},
};

/// Longest file or answer: about 1 KiB for each container.
const LONGEST: u64 = 16 << 20;
/// How long a server may take for its whole answer. It is asked in the middle of a session.
const PATIENCE: Duration = Duration::from_millis(500);

/// The content of a plain file, and whose it is. Not of a FIFO, a device, or what a link leads to.
pub(super) fn file(path: &Path) -> io::Result<(Vec<u8>, u32)> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut content = Vec::new();
    file.take(LONGEST).read_to_end(&mut content)?;
    Ok((content, about.uid()))
}

/// What a server answers to `request` before it hangs up.
pub(super) fn answer(socket: &Path, request: &[u8]) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let (mut answer, mut chunk) = (Vec::new(), [0; 16 << 10]);
    while (answer.len() as u64) < LONGEST {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => return Ok(answer),
            length => answer.extend_from_slice(&chunk[..length]),
        }
    }
    Err(io::ErrorKind::FileTooLarge.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::{fs::symlink, net::UnixListener};

    #[test]
    fn plain_files_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("plain"), "text").unwrap();
        symlink(path("plain"), path("link")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(file(&path("plain")).unwrap().0, b"text");
        assert!(file(&path("link")).is_err());
        assert!(file(&path("fifo")).is_err());
        assert!(file(Path::new("/dev/zero")).is_err());
    }

    #[test]
    fn a_server_that_drips_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let server = UnixListener::bind(&path).unwrap();
        let dripping = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        assert!(answer(&path, b"?").is_err());
        dripping.join().unwrap();
    }

    #[test]
    fn a_server_that_hangs_up_has_answered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let server = UnixListener::bind(&path).unwrap();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            stream.read_exact(&mut [0; 1]).unwrap();
            stream.write_all(b"yes").unwrap();
        });
        assert_eq!(answer(&path, b"?").unwrap(), b"yes");
        answering.join().unwrap();
    }
}
