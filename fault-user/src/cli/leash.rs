//! `--until-eof`: who started the controller holds the other end of its standard input, and lets go by ending, however that
//! comes.

use std::os::fd::AsFd as _;

use tokio::net::unix::pipe;

use super::error::CliError;

/// The end of standard input.
pub(super) struct Leash(pipe::Receiver);

impl Leash {
    /// Takes hold of standard input.
    ///
    /// # Errors
    /// When it is no pipe: a terminal or a file would never end, or has ended already.
    pub(super) fn take() -> Result<Self, CliError> {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned().map_err(CliError::Leash)?;
        Ok(Self(pipe::Receiver::from_owned_fd(stdin).map_err(CliError::Leash)?))
    }

    /// Waits until it ends. What it says is nobody's business.
    pub(super) async fn ended(self) {
        let mut ignored = [0; 256];
        loop {
            if self.0.readable().await.is_err() {
                return;
            }
            match self.0.try_read(&mut ignored) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}
