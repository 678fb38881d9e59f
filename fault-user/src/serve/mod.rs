//! `fault serve`: the controller as a service, HTTP and JSON over a Unix socket, and over TCP for who knows a token.
//!
//! | file | concern |
//! |---|---|
//! | `listen` | the sockets |
//! | `token` | what clients over TCP have to know |
//! | `connection` | whose a connection is, and how long it may be silent |
//! | `request` | what clients send |
//! | `routes` | what can be asked |
//! | `api` | what its description says beyond the types |
//! | `hub` | all sessions |
//! | `memory` | what it holds when there is nothing to do |
//! | `owner` | one session, in a thread of its own |
//! | `changes` | other faults for a session that is active |
//! | `events`, `stream`, `metrics` | injections and counters for programs |
//! | `error` | every refusal |

mod api;
mod changes;
mod connection;
mod error;
mod events;
mod hub;
mod listen;
mod memory;
mod metrics;
mod owner;
mod request;
mod routes;
mod stream;
mod token;

use std::{io, sync::Arc, time::Duration};

use futures_util::future::select_all;
use sd_notify::NotifyState;
use tokio::sync::Semaphore;

use crate::session::{End, active::Signals, keeper::Keeper};

pub use listen::{Address, ListenError};
pub use token::{Token, TokenError};

/// Connections that may be open at once; more wait to be accepted.
const CONNECTIONS: usize = 256;
/// How long answers may take that are under way when the service ends.
const PARTING: Duration = Duration::from_millis(300);
/// Between two attempts to accept a connection when descriptors run out.
const PAUSE: Duration = Duration::from_millis(50);

/// How to serve.
#[derive(Debug)]
pub struct Options {
    /// Where: at least one.
    pub addresses: Vec<Address>,
    /// What clients over TCP have to know: if there are any, and only then.
    pub token: Option<Token>,
    /// Users that may ask over a Unix socket, beside root and our own.
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

/// Serves until SIGINT, SIGTERM or SIGHUP, then heals all sessions. `ready` is called when clients may come, with where.
///
/// # Errors
/// When a socket cannot be had.
pub async fn serve(
    options: Options,
    keeper: Arc<Keeper>,
    ready: impl FnOnce(&str),
) -> Result<(), ServeError> {
    memory::keep_together();
    let mut signals = Signals::catch().map_err(ServeError::Signals)?;
    let is_tcp = options.addresses.iter().any(|address| matches!(address, Address::Tcp(_)));
    match (is_tcp, &options.token) {
        (true, None) => return Err(ListenError::NoToken.into()),
        (false, Some(_)) => return Err(ListenError::NoPort.into()),
        (true, Some(_)) | (false, None) => {}
    }
    let mut listeners = Vec::new();
    for address in &options.addresses {
        listeners.push(listen::Listener::new(address, !options.users.is_empty()).await?);
    }
    let hub = Arc::new(hub::Hub::new(keeper, options.sessions));
    let ours = [0, nix::unistd::geteuid().as_raw()];
    let users = options.users.iter().copied().chain(ours).collect();
    let token = options.token.map(Arc::new);
    let router = routes::router(routes::Service { hub: Arc::clone(&hub), users, token });
    tell(&[NotifyState::Ready]);
    let places: Vec<String> = listeners.iter().map(ToString::to_string).collect();
    ready(&places.join(" and "));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let number = loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, select_all(listeners.iter().map(|listener| Box::pin(listener.accept()))).await.0)
        };
        tokio::select! {
            number = signals.next() => break number,
            (place, accepted) = accepted => match accepted {
                Ok((stream, peer)) => {
                    let router = router.clone();
                    tokio::spawn(async move {
                        connection::serve(stream, peer, router).await;
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

/// What can be asked, as an OpenAPI 3.1 document in JSON: what `/openapi.json` answers.
#[must_use]
pub fn openapi() -> String {
    // Maps with string keys: nothing serde_json could refuse.
    serde_json::to_string_pretty(&routes::document()).unwrap_or_default()
}

/// Tells systemd, if it started us.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        eprintln!("fault: telling systemd failed: {error}");
    }
}
