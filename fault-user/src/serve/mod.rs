//! `fault serve`: the controller as a service, HTTP and JSON over a Unix socket.
//!
//! | file | concern |
//! |---|---|
//! | `listen` | the socket in the file system |
//! | `connection` | whose a connection is, and how long it may be silent |
//! | `request` | what clients send |
//! | `routes` | what can be asked |
//! | `hub` | all sessions |
//! | `owner` | one session, in a thread of its own |
//! | `changes` | other faults for a session that is active |
//! | `events`, `metrics` | injections and counters for programs |
//! | `error` | every refusal |

mod changes;
mod connection;
mod error;
mod events;
mod hub;
mod listen;
mod metrics;
mod owner;
mod request;
mod routes;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::sync::Semaphore;

use crate::session::{End, active::Signals, keeper::Keeper};

pub use listen::{ListenError, path};

/// Connections that may be open at once; more wait to be accepted.
const CONNECTIONS: usize = 256;
/// How long answers may take that are under way when the service ends.
const PARTING: Duration = Duration::from_millis(300);
/// Between two attempts to accept a connection when descriptors run out.
const PAUSE: Duration = Duration::from_millis(50);

/// How to serve.
#[derive(Debug)]
pub struct Options {
    /// Where the socket lies.
    pub path: PathBuf,
    /// Users that may ask, beside root and our own.
    pub users: Vec<u32>,
    /// Sessions that may live at once.
    pub sessions: u32,
}

/// The service could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The handlers of signals.
    #[error("catching signals failed")]
    Signals(#[source] io::Error),
}

/// Serves until SIGINT, SIGTERM or SIGHUP, then heals all sessions. `ready` is called when clients may come.
///
/// # Errors
/// When the socket cannot be had.
pub async fn serve(options: Options, keeper: Arc<Keeper>, ready: impl FnOnce()) -> Result<(), ServeError> {
    let mut signals = Signals::catch().map_err(ServeError::Signals)?;
    let listening = listen::Listening::new(&options.path, !options.users.is_empty())?;
    let hub = Arc::new(hub::Hub::new(keeper, options.sessions));
    let ours = [0, nix::unistd::geteuid().as_raw()];
    let users = options.users.iter().copied().chain(ours).collect();
    let router = routes::router(routes::Service { hub: Arc::clone(&hub), users });
    tell(&[NotifyState::Ready]);
    ready();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let number = loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listening.listener.accept().await)
        };
        tokio::select! {
            number = signals.next() => break number,
            (place, accepted) = accepted => match accepted {
                Ok((stream, _)) => {
                    let router = router.clone();
                    tokio::spawn(async move {
                        connection::serve(stream, router).await;
                        drop(place);
                    });
                }
                // Descriptors run out, or the client has gone.
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
        }
    };
    tell(&[NotifyState::Stopping]);
    hub.close(End::Signal(number)).await;
    tokio::time::sleep(PARTING).await;
    Ok(())
}

/// Tells systemd, if it started us.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        eprintln!("fault: telling systemd failed: {error}");
    }
}
