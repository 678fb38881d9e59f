//! Work in somebody else's network namespace.

use std::{fs::File, thread};

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns};

/// Does `work` in the network namespace of that name; a socket made there stays there.
pub(super) fn inside<T: Send>(
    namespace: &str,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    let path = format!("/run/netns/{namespace}");
    let namespace = File::open(&path).context(path)?;
    let enter_and_work = move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).context("entering the namespace")?;
        work()
    };
    thread::scope(|scope| scope.spawn(enter_and_work).join())
        .map_err(|_| anyhow::anyhow!("the thread in the namespace panicked"))?
}
