//! One connection: whose it is, whether it still is, and how long it may be silent.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::sleep,
};

/// How long a connection may take for the head of a request, or stay open between two; one that is a lease may for ever.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// The user, as the kernel says (`SO_PEERCRED`); none if it does not.
    User(Option<u32>),
    /// Somebody who has to know the token.
    Network,
}

/// A stream of either kind.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What handlers know of the connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) peer: Peer,
    /// Its sender goes with the connection.
    pub(super) open: watch::Receiver<()>,
    progress: Arc<Progress>,
}

#[derive(Debug)]
struct Progress {
    busy: AtomicUsize,
    leased: AtomicBool,
    silent_since: Mutex<Instant>,
}

/// A request is being answered while this lives.
pub(super) struct Busy(Arc<Progress>);

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.silent_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    /// With `peer`, and what must live as long as the connection does.
    pub(super) fn new(peer: Peer) -> (Self, watch::Sender<()>) {
        let (alive, open) = watch::channel(());
        let progress = Progress {
            busy: AtomicUsize::new(0),
            leased: AtomicBool::new(false),
            silent_since: Mutex::new(Instant::now()),
        };
        (Self { peer, open, progress: Arc::new(progress) }, alive)
    }

    /// A request is being answered from now on.
    pub(super) fn busy(&self) -> Busy {
        self.progress.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(&self.progress))
    }

    /// It is the lease of a session and may be silent.
    pub(super) fn lease(&self) {
        self.progress.leased.store(true, Ordering::Relaxed);
    }

    /// Waits until it has been silent for too long.
    async fn overdue(&self) {
        let progress = &self.progress;
        loop {
            sleep(LOOK).await;
            let since = *progress.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
            let may = progress.busy.load(Ordering::Relaxed) > 0 || progress.leased.load(Ordering::Relaxed);
            if !may && since.elapsed() >= PATIENCE {
                return;
            }
        }
    }
}

/// Answers the requests of one connection until it ends.
pub(super) async fn serve(stream: Box<dyn Duplex>, peer: Peer, router: Router) {
    let (connection, alive) = Connection::new(peer);
    let service = TowerToHyperService::new(router.layer(Extension(connection.clone())));
    let mut http = http1::Builder::new();
    http.header_read_timeout(None);
    tokio::select! {
        // Whatever broke it: there is nobody to tell.
        _ = http.serve_connection(TokioIo::new(stream), service) => {}
        () = connection.overdue() => {}
    }
    drop(alive);
}
