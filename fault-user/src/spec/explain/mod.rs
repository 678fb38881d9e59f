//! A fault in plain words.

mod when;

use std::{collections::BTreeSet, fmt::Display};

use super::{
    Call, CallError, Cell, Connections, DelaySpec, Direction, DiskFault, DiskFilter, DiskManner, DiskOp,
    DiskVerb, Distribution, Fault, FileFault, FileOp, FileVerb, Framing, Hold, NetFault, NetFilter, NetVerb,
    Part, Peer, ProcVerb, Protocol, Segment,
    units::{print_duration, print_probability},
};
use when::when;

/// A fault in plain words, each a sentence without its full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What happens to an operation that is hit, and how that looks to who suffers.
    pub what: String,
    /// Which operations it looks at.
    pub which: String,
    /// Which of these are hit; empty when all of them are.
    pub when: Vec<String>,
}

/// Explains `fault`.
#[must_use]
pub fn explain(fault: &Fault) -> Explanation {
    match fault {
        Fault::Net(net) => {
            Explanation { what: net_verb(net), which: packets(net), when: when(&net.trigger, "packet") }
        }
        Fault::Disk(disk) => Explanation {
            what: disk_verb(&disk.verb),
            which: bios(disk),
            when: when(&disk.trigger, "operation"),
        },
        Fault::File(file) => {
            let what = match &file.verb {
                FileVerb::Error(errno) => format!(
                    "the operation fails with {} before it has done anything; the file stays as it is",
                    errno.name()
                ),
                FileVerb::Delay(delay) => format!("the operation starts {}; {WAITS}", late(delay)),
            };
            Explanation { what, which: operations_on_files(file), when: when(&file.trigger, "operation") }
        }
        Fault::Proc(proc) => {
            let ProcVerb::Pause(duration) = proc.verb;
            Explanation {
                what: format!(
                    "every process stands still for {}, as on a machine that was suspended: it runs no instruction, answers \
                     nothing, and is told nothing of it",
                    print_duration(duration)
                ),
                which: "the target, all of it at once (its cgroup is frozen, and thawed)".to_owned(),
                when: when(&proc.trigger, "process"),
            }
        }
    }
}

/// `a`, `a or b`, `a, b or c`.
fn any<T: Display>(words: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| word.to_string()).collect();
    match words.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn net_verb(fault: &NetFault) -> String {
    match &fault.verb {
        NetVerb::Drop { ecn: false } => "the packet is lost as on a wire: its sender is told that it was sent, and TCP sends it again".to_owned(),
        NetVerb::Drop { ecn: true } => "the packet is marked (congestion experienced, RFC 3168) if its ends understand that, and TCP \
                                        sends more slowly; else it is lost as on a wire"
            .to_owned(),
        NetVerb::Delay(delay) => {
            format!("the packet arrives {}{}{}", late(delay), resemblance(delay), order(delay))
        }
        NetVerb::Slot { gap, packets, bytes } => {
            let most = [
                packets.map(|packets| format!("{packets} packets")),
                bytes.map(|bytes| bytes.to_string()),
            ];
            let most: Vec<_> = most.into_iter().flatten().collect();
            let most = if most.is_empty() { String::new() } else { format!(", {} in each", most.join(" or ")) };
            format!(
                "the packet waits for the next time its medium is granted, and leaves with all that came until then: one that \
                 finds none ahead is {}, and so are the next times after each other{most}; out and in one medium each, shared by \
                 the whole target, and what finds more than 1 s (or 64 times) ahead is lost",
                late(gap)
            )
        }
        NetVerb::Rate { rate, per_connection, framing } => {
            let whose = if *per_connection { "each socket has a link of its own" } else { "all connections of the target share it" };
            format!(
                "the packet waits for a link of {rate}, out and in one each; {whose}. The queue before it holds 1 s (or 64 full \
                 frames), and what finds that full is lost{}",
                on_link(framing)
            )
        }
        NetVerb::Duplicate => "the packet arrives twice, one copy right behind the other".to_owned(),
        NetVerb::Corrupt { bits, fix_checksum: false } => format!(
            "the packet arrives with {} flipped; the receiver's checksum finds out and drops it, and TCP sends it again",
            flipped(*bits)
        ),
        NetVerb::Corrupt { bits, fix_checksum: true } => format!(
            "the packet arrives with {} of its payload flipped and the checksum made right again: the program reads wrong data",
            flipped(*bits)
        ),
        NetVerb::Reset => {
            let who = match fault.filter.direction {
                Direction::In => "the target's program reads ECONNRESET",
                Direction::Out => "the peer reads ECONNRESET",
                Direction::Both => "both ends read ECONNRESET",
            };
            format!("the packet becomes the end of its TCP connection (RST): {who}")
        }
        NetVerb::Hang => "packets with data are lost, those of the handshake pass: connections come about and are silent, until \
                          somebody's patience ends"
            .to_owned(),
        NetVerb::Fail { error, .. } => format!("the call fails with {}, and nothing is sent; connections that exist go on", errno(*error)),
        NetVerb::Reorder { by } => {
            format!("the packet is held back for {}, and those behind it pass", print_duration(*by))
        }
    }
}

/// What a packet is on a link, as the end of a sentence.
fn on_link(framing: &Framing) -> String {
    let Framing { overhead, cell } = framing;
    let mut text = match overhead {
        0 => String::new(),
        less if *less < 0 => format!("; {} bytes of each packet do not count", less.unsigned_abs()),
        more => format!("; each packet is {more} bytes longer on it"),
    };
    if let Some(Cell { size, overhead }) = cell {
        let whole = i64::from(size.get()) + i64::from(*overhead);
        text += &format!(
            "; packets travel in cells of {whole} bytes, {size} of them payload, and the last one is filled up"
        );
    }
    text
}

fn flipped(bits: u32) -> String {
    if bits == 1 { "one bit".to_owned() } else { format!("{bits} bits") }
}

const fn errno(error: CallError) -> &'static str {
    match error {
        CallError::Refused => "ECONNREFUSED",
        CallError::Unreachable => "EHOSTUNREACH",
        CallError::Errno(errno) => errno.name(),
    }
}

/// `100ms late`, with its jitter.
fn late(delay: &DelaySpec) -> String {
    let mean = print_duration(delay.mean);
    let Some(jitter) = delay.jitter else { return format!("{mean} late") };
    let spread = print_duration(jitter);
    if let Some(path) = &delay.table {
        return format!(
            "{mean} late on average, spread as {} says, in units of {spread}",
            path.value.display()
        );
    }
    match delay.distribution {
        Distribution::Uniform => {
            let least = print_duration(delay.mean.saturating_sub(jitter));
            format!("between {least} and {} late, all alike likely", print_duration(delay.mean + jitter))
        }
        Distribution::Normal => {
            format!("{mean} late on average, spread like a bell curve with a standard deviation of {spread}")
        }
        Distribution::Pareto => {
            format!(
                "{mean} late on average with a long tail (Pareto, standard deviation {spread}): a few are very late"
            )
        }
        Distribution::ParetoNormal => {
            format!(
                "{mean} late on average with a tail (a quarter normal, three quarters Pareto, as netem spreads by {spread})"
            )
        }
    }
}

fn order(delay: &DelaySpec) -> &'static str {
    match (delay.jitter.is_some(), delay.ordered) {
        (_, true) => "; packets of one connection stay in order",
        (true, false) => "; packets may overtake each other",
        (false, false) => "",
    }
}

/// How a delay resembles the one before.
fn resemblance(delay: &DelaySpec) -> String {
    delay.correlation.map_or_else(String::new, |correlation| {
        format!(
            ", and each like the one before with a rank correlation of {}",
            print_probability(correlation)
        )
    })
}

fn packets(fault: &NetFault) -> String {
    let NetFault { verb, filter, part, .. } = fault;
    let mut text = match verb {
        NetVerb::Fail { calls, .. } => calls_of(calls, filter),
        NetVerb::Drop { .. }
        | NetVerb::Slot { .. }
        | NetVerb::Delay(_)
        | NetVerb::Rate { .. }
        | NetVerb::Duplicate
        | NetVerb::Corrupt { .. }
        | NetVerb::Reset
        | NetVerb::Hang
        | NetVerb::Reorder { .. } => packets_of(filter),
    };
    text += &ends(filter);
    if let Some(iface) = &filter.iface {
        text += &format!(", by interface {}", iface.value);
    }
    text + &parts(*part)
}

fn calls_of(calls: &BTreeSet<Call>, filter: &NetFilter) -> String {
    let calls = any(calls.iter().map(|call| match call {
        Call::Connect => "connect(2)",
        Call::Bind => "bind(2)",
        Call::Sendmsg => "sendto(2) and sendmsg(2) of UDP sockets that name their peer",
    }));
    format!("{}calls of the target: {calls}", protocols(filter))
}

fn packets_of(filter: &NetFilter) -> String {
    let way = match filter.direction {
        Direction::In => "to the target",
        Direction::Out => "from the target",
        Direction::Both => "from and to the target",
    };
    let kinds = any(filter.segments.iter().map(|segment| match segment {
        Segment::Syn => "of the handshake (SYN)",
        Segment::Data => "with payload",
        Segment::Ack => "that only acknowledge",
        Segment::Fin => "that end a connection (FIN)",
    }));
    let kinds = if kinds.is_empty() { kinds } else { format!(" {kinds}") };
    format!("{}packets {way}{kinds}", protocols(filter))
}

fn protocols(filter: &NetFilter) -> String {
    let words = any(filter.protocols.iter().map(|protocol| match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Icmp => "ICMP",
    }));
    if words.is_empty() { words } else { format!("{words} ") }
}

/// The two ends of the conversation.
fn ends(filter: &NetFilter) -> String {
    let mut text = String::new();
    if !filter.to.is_empty() {
        let peers = any(filter.to.iter().map(|endpoint| endpoint.value.to_string()));
        text += &format!(", of conversations with {peers}");
        if filter.to.iter().any(|endpoint| matches!(endpoint.value.peer, Peer::Name(_))) {
            text += " (names are looked up once, at the start)";
        }
    }
    if let Some(port) = filter.port {
        text += &format!(", remote port {port}");
    }
    if let Some(port) = filter.local_port {
        text += &format!(", local port {port}");
    }
    text
}

fn parts(part: Part) -> String {
    let mut text = match part.connections {
        Some(Connections::Share(chance)) => {
            format!("; of {} of the connections, drawn once for each", print_probability(chance))
        }
        Some(Connections::Number(number)) => {
            format!("; of connection number {number} that it meets, and of no other")
        }
        None => String::new(),
    };
    if let Some(size) = part.after {
        text += &format!("; behind the first {size} of each TCP connection");
    }
    text
}

/// What becomes of who is late.
const WAITS: &str = "the task waits in the kernel, on no CPU, as for a slow disk";

fn disk_verb(verb: &DiskVerb) -> String {
    match verb {
        DiskVerb::Error => "the operation fails with EIO".to_owned(),
        DiskVerb::Delay(delay) => {
            format!("the operation starts {}{}; {WAITS}", late(delay), resemblance(delay))
        }
        DiskVerb::Rate(rate) => format!(
            "the operation waits for its turn on one disk, shared by the whole target, that moves {rate}; {WAITS}"
        ),
        DiskVerb::Iops(number) => format!(
            "the operation waits for its turn on one disk, shared by the whole target, that does {number} operations a \
             second; {WAITS}"
        ),
        DiskVerb::Hang { hold, then_error } => {
            let stuck = match hold {
                Hold::For(duration) => format!("for {}", print_duration(*duration)),
                Hold::Forever => format!(
                    "until the session ends (which fails nobody), at most for {},",
                    print_duration(hold.longest())
                ),
            };
            let then = if *then_error { "and then fails with EIO" } else { "and then goes on" };
            format!("the operation is stuck {stuck} {then}; {WAITS}")
        }
    }
}

fn bios(fault: &DiskFault) -> String {
    let DiskFilter { ops, manners, on, sectors, until_written, glob } = &fault.filter;
    let operations = any(ops.iter().map(|op| match op {
        DiskOp::Read => "reads",
        DiskOp::Write => "writes",
        DiskOp::Flush => "flushes of the device's cache (fsync)",
        DiskOp::Discard => "discards",
    }));
    let mut operations =
        if operations.is_empty() { "reads, writes, flushes and discards".to_owned() } else { operations };
    for manner in manners {
        operations += match manner {
            DiskManner::Fua => ", if durable when done (FUA)",
            DiskManner::Meta => ", if of a file system's own data",
            DiskManner::Sync => ", if somebody waits for them",
        };
    }
    let mut text = format!("{operations} that reach a disk");
    if let Some(on) = on {
        text = format!("{operations} that reach {}", on.value.display());
    }
    if let Some(sectors) = sectors {
        text += &format!(", sectors {} of 512 bytes", sectors.value);
    }
    if *until_written {
        text += ", those of them that nobody has written since";
    }
    if let Some(glob) = glob {
        text += &format!(
            ", of files one of whose names matches {} at that moment (what the file system writes on its own behalf, such as its \
             journal, is in no file)",
            glob.value
        );
    }
    text + "; what the page cache answers reaches none"
}

fn operations_on_files(fault: &FileFault) -> String {
    let operations = any(fault.filter.ops.iter().map(|op| match op {
        FileOp::Open => "opening",
        FileOp::Read => "reading",
        FileOp::Write => "writing",
        FileOp::Fsync => "fsync and fdatasync",
        FileOp::Create => "making a file",
        FileOp::Unlink => "removing a name",
        FileOp::Rename => "renaming",
        FileOp::Mkdir => "making a directory",
        FileOp::Rmdir => "removing a directory",
        FileOp::Link => "making a hard link",
        FileOp::Symlink => "making a symbolic link",
        FileOp::Truncate => "setting the length",
        FileOp::Mmap => "mapping into memory",
    }));
    let operations = if operations.is_empty() { "every operation".to_owned() } else { operations };
    match &fault.filter.glob {
        Some(glob) => format!(
            "{operations}, of files whose path matches {} when it is done, those that are there and those that will be",
            glob.value
        ),
        None => format!("{operations}, of any file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Layer, parse};

    #[test]
    fn words_are_golden() {
        let specs = [
            (Layer::Net, "drop 5% out to 10.0.0.0/8:5432"),
            (Layer::Net, "drop 0%"),
            (Layer::Net, "delay 100ms jitter 20ms in tcp udp"),
            (Layer::Net, "delay 1s jitter 3s pareto ordered 10% burst 25%"),
            (Layer::Net, "rate 10mbit per-connection after 64KiB"),
            (Layer::Net, "duplicate gilbert 1% 10% icmp"),
            (Layer::Net, "reorder by 30ms iface eth0"),
            (Layer::Net, "corrupt 3 bits nth 5"),
            (Layer::Net, "corrupt fix-checksum data every 3 first 9"),
            (Layer::Net, "reset in port 80-90 connection 2"),
            (Layer::Net, "reset out ack fin"),
            (Layer::Net, "hang to payment.example:443 connections 10%"),
            (Layer::Net, "refuse tcp port 5432 times 3"),
            (Layer::Net, "fail EADDRINUSE bind local-port 8080 after 5s for 1m"),
            (Layer::Net, "drop cycle 5s/25s"),
            (Layer::Net, "drop ecn 5% gap 10 out"),
            (Layer::Net, "drop markov 5% 30% 20% 50% 1%"),
            (Layer::Net, "delay 100ms jitter 20ms normal correlation 25%"),
            (Layer::Net, "rate 8mbit overhead 8B cell 48B cell-overhead 5B"),
            (Layer::Net, "rate 8mbit overhead -14B"),
            (Layer::Net, "slot 20ms jitter 5ms packets 4 bytes 6kB out"),
            (Layer::Net, "slot 20ms"),
            (Layer::Disk, "delay 20ms jitter 5ms table /x.dist read"),
            (Layer::Disk, "rate 1MiB/s read"),
            (Layer::Disk, "iops 100 write sync meta"),
            (Layer::Disk, "error read sectors 8..16 on /dev/vdb until-written"),
            (Layer::Disk, "error 1% read write on /var/lib/pg"),
            (Layer::Disk, "delay 30ms jitter 10ms flush"),
            (Layer::Disk, "hang 3s then error read sectors 2048..4096 on /dev/vdb"),
            (Layer::Disk, "hang forever 10% write"),
            (Layer::File, "error ENOSPC write file /data/wal/**"),
            (Layer::File, "error EMFILE 10% open"),
            (Layer::File, "error EIO nth 3"),
            (Layer::Proc, "pause 5s after 10s"),
        ];
        let mut text = String::new();
        for (layer, spec) in specs {
            let Explanation { what, which, when } = explain(&parse(layer, spec).unwrap());
            text += &format!("{layer} {spec}\n  {what}\n  {which}\n");
            text += &when.iter().map(|when| format!("  {when}\n")).collect::<String>();
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/spec/tests/explained.txt");
        if std::env::var_os("FAULT_BLESS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(path).unwrap(), "{text}");
    }
}
