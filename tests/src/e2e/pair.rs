//! A sender in the target's namespace and the counter of its datagrams at the far end.

use anyhow::ensure;

use crate::{
    driver::victim,
    net_lab::NetLab,
    process::Process,
    victim::report::{Counted, Sent},
};

/// The socket exists; nothing is sent before [`Pair::run`].
pub struct Pair {
    /// The target or bystander.
    pub sender: Process,
    /// Never a target.
    pub counter: Process,
}

/// `host:port`, with brackets where they belong.
pub fn endpoint(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

impl Pair {
    /// A sender of `count` datagrams to the peer.
    pub fn new(lab: &NetLab, address: &str, port: u16, count: u64) -> anyhow::Result<Self> {
        Self::with(lab, address, port, count, &[])
    }

    /// The same with more arguments for the sender.
    pub fn with(
        lab: &NetLab,
        address: &str,
        port: u16,
        count: u64,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let victim = victim()?;
        let to = endpoint(address, port);
        let counter = Process::start_until(lab.in_peer(&victim).args(["udp-count", &to]), "ready")?;
        let mut sender = lab.in_target(&victim);
        sender.args(["udp-send", &to, "--wait", "--count", &count.to_string()]).args(arguments);
        Ok(Self { sender: Process::start_until(&mut sender, "ready")?, counter })
    }

    /// Sends everything; what was sent and what arrived.
    pub fn run(mut self) -> anyhow::Result<(Sent, Counted)> {
        self.sender.release()?;
        Ok((self.sender.report()?, self.counter.report()?))
    }
}

/// All `count` datagrams were sent and arrived.
pub fn untouched(who: &str, sent: &Sent, counted: &Counted, count: u64) -> anyhow::Result<()> {
    ensure!(sent.sent == count && sent.errors.is_empty(), "{who}: sending was noticed: {sent:?}");
    ensure!(counted.received == count, "{who}: {} of {count} arrived", counted.received);
    Ok(())
}

/// A counter at the peer, for senders of another kind than [`Pair`] has.
pub fn counter(lab: &NetLab, address: &str, port: u16) -> anyhow::Result<Process> {
    let to = endpoint(address, port);
    Process::start_until(lab.in_peer(&victim()?).args(["udp-count", &to]), "ready")
}
