//! What the sessions of this machine say of themselves, and how they are paused, resumed and healed from outside.
//!
//! | file | concern |
//! |---|---|
//! | `message` | what is asked and answered, as JSON |
//! | `registry` | the sessions of this process |
//! | `server` | the thread that answers |
//! | `client` | finds those who answer, and asks them |
//!
//! Every process with a session listens on a Unix socket in the abstract namespace, `@fault/PID`: it vanishes with the process,
//! however that ends, and nothing lies in a file system. Whoever asks must be root or have the process's own user id. Counters
//! are read from memory that the kernel writes to, so nobody who looks on holds a session up, and a session that is stuck is
//! still seen. An abstract name belongs to a network namespace: the client looks into all of them.

pub mod client;
pub mod message;
mod registry;
mod server;

use std::io;

pub use registry::{Face, Registration, RuleFace, SharedFace, Subject, Told, register};

use crate::kernel::load::LoadError;

/// What the names of all these sockets begin with; the process's number follows.
pub const PREFIX: &str = "fault/";

/// The live view does not see a session, or a session could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum BeaconError {
    /// The server's socket.
    #[error("listening on the abstract socket `@{PREFIX}{}` failed", std::process::id())]
    Listen(#[source] io::Error),
    /// As above, and it had failed before.
    #[error("there is no socket for it: {0}")]
    NotListening(String),
    /// The server's thread.
    #[error("starting the thread that answers failed")]
    Thread(#[source] io::Error),
    /// The counters.
    #[error(transparent)]
    Map(#[from] LoadError),
    /// A controller could not be asked.
    #[error("asking the controller {pid} failed")]
    Ask {
        /// Whom.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It answered, and would not.
    #[error("the controller {pid} refused: {why}")]
    Refused {
        /// Who.
        pid: u32,
        /// Why.
        why: String,
    },
}
