//! Devices and qdiscs of a network namespace, asked of the kernel: a picture is taken hundreds of times in a run, and
//! starting ip(8) and tc(8) for it takes longer than many a test.

use std::{fs, fs::File, path::Path, thread};

use anyhow::{Context as _, bail};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sched::{CloneFlags, setns};

/// Names of the devices and kinds of their qdiscs in the namespace behind `path`; `None` when it is gone.
pub(super) fn devices_and_qdiscs(name: &str, path: &Path) -> anyhow::Result<Option<Vec<String>>> {
    let Ok(namespace) = File::open(path) else { return Ok(None) };
    // A thread of its own: the others stay where they are.
    let look = || -> anyhow::Result<(String, Vec<TcMessage>)> {
        setns(&namespace, CloneFlags::CLONE_NEWNET).context("setns")?;
        Ok((fs::read_to_string("/proc/thread-self/net/dev")?, qdiscs()?))
    };
    let (devices, qdiscs) = thread::scope(|scope| scope.spawn(look).join())
        .map_err(|_| anyhow::anyhow!("looking into {name}"))?
        .with_context(|| format!("looking into {name}"))?;
    let mut things = vec![name.to_owned()];
    // Two lines of headings; counters change by themselves.
    let names = devices.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim()));
    things.extend(names.map(|device| format!("{name} device {device}")));
    for qdisc in qdiscs {
        let kind = qdisc.attributes.iter().find_map(|attribute| match attribute {
            TcAttribute::Kind(kind) => Some(kind.as_str()),
            _ => None,
        });
        things.push(format!("{name} qdisc {} on interface {}", kind.unwrap_or("?"), qdisc.header.index));
    }
    Ok(Some(things))
}

/// All qdiscs of the namespace the thread is in (rtnetlink(7), RTM_GETQDISC).
fn qdiscs() -> anyhow::Result<Vec<TcMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()));
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)?;
            let length = (message.header.length as usize).next_multiple_of(4).min(rest.len());
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewQueueDiscipline(qdisc)) => {
                    found.push(qdisc)
                }
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => bail!("listing qdiscs: {error}"),
                _ => {}
            }
            rest = &rest[length..];
        }
    }
}
