//! The vocabulary: every word of the language, and what it means to the parser.
//!
//! A new verb or clause starts here: a variant of the layer's word type and one row of its table.
//! The compiler then leads to the parser, the printer and the tests, whose matches are exhaustive.

use std::sync::LazyLock;

use super::Layer;
use super::delay::Distribution;
use super::disk::{DiskManner, DiskOp};
use super::file::FileOp;
use super::net::{Call, Protocol, Segment};

/// One row of a vocabulary.
#[derive(Debug)]
pub(super) struct Entry<K: 'static> {
    /// The keyword.
    pub(super) word: &'static str,
    /// The keyword with its operands, for messages.
    pub(super) usage: &'static str,
    /// What the parser does with it.
    pub(super) meaning: K,
}

pub(super) type Table<K> = &'static [Entry<K>];

const fn entry<K>(word: &'static str, usage: &'static str, meaning: K) -> Entry<K> {
    Entry { word, usage, meaning }
}

/// The verbs and filters of one layer.
#[derive(Debug)]
pub(super) struct Vocabulary<V: 'static, C: 'static> {
    pub(super) layer: Layer,
    pub(super) verbs: Table<V>,
    pub(super) clauses: Table<C>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NetVerbWord {
    Drop,
    Delay,
    Rate,
    Slot,
    Duplicate,
    Reorder,
    Corrupt,
    Reset,
    Hang,
    Refuse,
    Unreachable,
    Fail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NetClause {
    /// An operand of `drop`.
    Ecn,
    /// An operand of `delay`.
    Ordered,
    /// Operands of `rate`.
    PerConnection,
    Overhead,
    Cell,
    CellOverhead,
    /// Operands of `slot`.
    Packets,
    Bytes,
    /// An operand of `reorder`.
    By,
    /// An operand of `corrupt`.
    FixChecksum,
    /// Of the verbs that make a call fail: which.
    Call(Call),
    /// One of many connections.
    Connection,
    /// A share of many connections.
    Connections,
    /// A filter.
    Filter(NetFilterWord),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NetFilterWord {
    In,
    Out,
    Protocol(Protocol),
    To,
    From,
    Port,
    LocalPort,
    Iface,
    Segment(Segment),
}

/// A filter of packets.
const fn packets(word: &'static str, usage: &'static str, filter: NetFilterWord) -> Entry<NetClause> {
    entry(word, usage, NetClause::Filter(filter))
}

pub(super) static NET: Vocabulary<NetVerbWord, NetClause> = Vocabulary {
    layer: Layer::Net,
    verbs: &[
        entry("drop", "drop", NetVerbWord::Drop),
        entry("delay", "delay DURATION", NetVerbWord::Delay),
        entry("rate", "rate RATE", NetVerbWord::Rate),
        entry("slot", "slot DURATION", NetVerbWord::Slot),
        entry("duplicate", "duplicate", NetVerbWord::Duplicate),
        entry("reorder", "reorder [by DURATION]", NetVerbWord::Reorder),
        entry("corrupt", "corrupt [N bits] [fix-checksum]", NetVerbWord::Corrupt),
        entry("reset", "reset", NetVerbWord::Reset),
        entry("hang", "hang", NetVerbWord::Hang),
        entry("refuse", "refuse", NetVerbWord::Refuse),
        entry("unreachable", "unreachable", NetVerbWord::Unreachable),
        entry("fail", "fail ERRNO", NetVerbWord::Fail),
    ],
    clauses: &[
        packets("in", "in", NetFilterWord::In),
        packets("out", "out", NetFilterWord::Out),
        packets("tcp", "tcp", NetFilterWord::Protocol(Protocol::Tcp)),
        packets("udp", "udp", NetFilterWord::Protocol(Protocol::Udp)),
        packets("icmp", "icmp", NetFilterWord::Protocol(Protocol::Icmp)),
        packets("to", "to ADDR[:PORT]", NetFilterWord::To),
        packets("from", "from ADDR[:PORT]", NetFilterWord::From),
        packets("port", "port P", NetFilterWord::Port),
        packets("local-port", "local-port P", NetFilterWord::LocalPort),
        packets("iface", "iface NAME", NetFilterWord::Iface),
        packets("syn", "syn", NetFilterWord::Segment(Segment::Syn)),
        packets("data", "data", NetFilterWord::Segment(Segment::Data)),
        packets("ack", "ack", NetFilterWord::Segment(Segment::Ack)),
        packets("fin", "fin", NetFilterWord::Segment(Segment::Fin)),
        entry("connections", "connections P%", NetClause::Connections),
        entry("connection", "connection N", NetClause::Connection),
        entry("ecn", "ecn", NetClause::Ecn),
        entry("ordered", "ordered", NetClause::Ordered),
        entry("per-connection", "per-connection", NetClause::PerConnection),
        entry("overhead", "overhead SIZE", NetClause::Overhead),
        entry("cell", "cell SIZE", NetClause::Cell),
        entry("cell-overhead", "cell-overhead SIZE", NetClause::CellOverhead),
        entry("packets", "packets N", NetClause::Packets),
        entry("bytes", "bytes SIZE", NetClause::Bytes),
        entry("by", "by DURATION", NetClause::By),
        entry("fix-checksum", "fix-checksum", NetClause::FixChecksum),
        entry("connect", "connect", NetClause::Call(Call::Connect)),
        entry("bind", "bind", NetClause::Call(Call::Bind)),
        entry("sendmsg", "sendmsg", NetClause::Call(Call::Sendmsg)),
    ],
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskVerbWord {
    Error,
    Delay,
    Hang,
    Rate,
    Iops,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskClause {
    /// An operand of `hang`.
    Then,
    /// A filter.
    Filter(DiskFilterWord),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskFilterWord {
    Op(DiskOp),
    Manner(DiskManner),
    On,
    Sectors,
    UntilWritten,
    File,
}

/// A filter of block operations.
const fn bios(word: &'static str, usage: &'static str, filter: DiskFilterWord) -> Entry<DiskClause> {
    entry(word, usage, DiskClause::Filter(filter))
}

pub(super) static DISK: Vocabulary<DiskVerbWord, DiskClause> = Vocabulary {
    layer: Layer::Disk,
    verbs: &[
        entry("error", "error", DiskVerbWord::Error),
        entry("delay", "delay DURATION", DiskVerbWord::Delay),
        entry("hang", "hang DURATION|forever [then error]", DiskVerbWord::Hang),
        entry("rate", "rate RATE", DiskVerbWord::Rate),
        entry("iops", "iops N", DiskVerbWord::Iops),
    ],
    clauses: &[
        bios("read", "read", DiskFilterWord::Op(DiskOp::Read)),
        bios("write", "write", DiskFilterWord::Op(DiskOp::Write)),
        bios("flush", "flush", DiskFilterWord::Op(DiskOp::Flush)),
        bios("discard", "discard", DiskFilterWord::Op(DiskOp::Discard)),
        bios("fua", "fua", DiskFilterWord::Manner(DiskManner::Fua)),
        bios("meta", "meta", DiskFilterWord::Manner(DiskManner::Meta)),
        bios("sync", "sync", DiskFilterWord::Manner(DiskManner::Sync)),
        bios("on", "on DEVICE|MOUNTPOINT", DiskFilterWord::On),
        bios("sectors", "sectors A..B", DiskFilterWord::Sectors),
        bios("until-written", "until-written", DiskFilterWord::UntilWritten),
        entry("then", "then error", DiskClause::Then),
        bios("file", "file GLOB", DiskFilterWord::File),
    ],
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileVerbWord {
    Error,
    Delay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileClause {
    Op(FileOp),
    File,
}

/// An operation on files.
const fn files(op: FileOp) -> Entry<FileClause> {
    entry(op.word(), op.word(), FileClause::Op(op))
}

pub(super) static FILE: Vocabulary<FileVerbWord, FileClause> = Vocabulary {
    layer: Layer::File,
    verbs: &[
        entry("error", "error ERRNO", FileVerbWord::Error),
        entry("delay", "delay DURATION", FileVerbWord::Delay),
    ],
    clauses: &[
        files(FileOp::Open),
        files(FileOp::Read),
        files(FileOp::Write),
        files(FileOp::Fsync),
        files(FileOp::Create),
        files(FileOp::Unlink),
        files(FileOp::Rename),
        files(FileOp::Mkdir),
        files(FileOp::Rmdir),
        files(FileOp::Link),
        files(FileOp::Symlink),
        files(FileOp::Truncate),
        files(FileOp::Mmap),
        entry("file", "file GLOB", FileClause::File),
    ],
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProcVerbWord {
    Pause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProcClause {
    After,
}

/// Its words are these alone: nothing is counted here, nor late.
pub(super) static PROC: Vocabulary<ProcVerbWord, ProcClause> = Vocabulary {
    layer: Layer::Proc,
    verbs: &[entry("pause", "pause DURATION", ProcVerbWord::Pause)],
    clauses: &[entry("after", "after DURATION", ProcClause::After)],
};

/// The operands of `delay` that have a keyword; every layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DelayWord {
    Jitter,
    Shape(Distribution),
    Table,
    Correlation,
}

pub(super) const DELAY: Table<DelayWord> = &[
    entry("jitter", "jitter DURATION", DelayWord::Jitter),
    entry("uniform", "uniform", DelayWord::Shape(Distribution::Uniform)),
    entry("normal", "normal", DelayWord::Shape(Distribution::Normal)),
    entry("pareto", "pareto", DelayWord::Shape(Distribution::Pareto)),
    entry("paretonormal", "paretonormal", DelayWord::Shape(Distribution::ParetoNormal)),
    entry("table", "table FILE", DelayWord::Table),
    entry("correlation", "correlation C%", DelayWord::Correlation),
];

/// The keywords of the trigger; every layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TriggerWord {
    Burst,
    Gilbert,
    Markov,
    Gap,
    Nth,
    Every,
    First,
    Times,
    After,
    For,
    Cycle,
}

pub(super) const TRIGGER: Table<TriggerWord> = &[
    entry("burst", "burst C%", TriggerWord::Burst),
    entry("gilbert", "gilbert P% R% [H% [K%]]", TriggerWord::Gilbert),
    entry("markov", "markov P13% [P31% [P32% [P23% [P14%]]]]", TriggerWord::Markov),
    entry("gap", "gap N", TriggerWord::Gap),
    entry("nth", "nth N", TriggerWord::Nth),
    entry("every", "every N", TriggerWord::Every),
    entry("first", "first N", TriggerWord::First),
    entry("times", "times N", TriggerWord::Times),
    entry("after", "after DURATION", TriggerWord::After),
    entry("for", "for DURATION", TriggerWord::For),
    entry("cycle", "cycle ON/OFF", TriggerWord::Cycle),
];

/// A word of a layer, without what it means to the parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) word: &'static str,
    pub(super) usage: &'static str,
    /// Whether it is a verb.
    pub(super) verb: bool,
}

fn known<K>(table: Table<K>, verb: bool) -> impl Iterator<Item = Known> {
    table.iter().map(move |entry| Known { word: entry.word, usage: entry.usage, verb })
}

fn all<V, C>(vocabulary: &Vocabulary<V, C>) -> Vec<Known> {
    known(vocabulary.verbs, true)
        .chain(known(vocabulary.clauses, false))
        .chain(known(DELAY, false))
        .chain(known(TRIGGER, false))
        .collect()
}

/// Every word of a layer: its verbs, its clauses, and, where operations are looked at, the words of `delay` and of the
/// trigger.
pub(super) fn of(layer: Layer) -> &'static [Known] {
    type Words = LazyLock<Vec<Known>>;
    static NET_WORDS: Words = Words::new(|| all(&NET));
    static DISK_WORDS: Words = Words::new(|| all(&DISK));
    static FILE_WORDS: Words = Words::new(|| all(&FILE));
    static PROC_WORDS: Words =
        Words::new(|| known(PROC.verbs, true).chain(known(PROC.clauses, false)).collect());
    match layer {
        Layer::Net => &NET_WORDS,
        Layer::Disk => &DISK_WORDS,
        Layer::File => &FILE_WORDS,
        Layer::Proc => &PROC_WORDS,
    }
}

/// The filters of packets: all that an exception may be made of.
pub(super) fn net_filters() -> Vec<Known> {
    let is_filter = |known: &Known| {
        let entry = NET.clauses.iter().find(|entry| entry.word == known.word);
        matches!(entry.map(|entry| &entry.meaning), Some(NetClause::Filter(_)))
    };
    known(NET.clauses, false).filter(is_filter).collect()
}

/// What `word` is in a layer, if it is a keyword there.
pub(super) fn find(layer: Layer, word: &str) -> Option<Known> {
    of(layer).iter().find(|known| known.word == word).copied()
}

/// The layer other than `layer` that has `word`, and what it is there.
pub(super) fn find_elsewhere(layer: Layer, word: &str) -> Option<(Layer, Known)> {
    let others = Layer::ALL.iter().filter(|other| **other != layer);
    others.filter_map(|other| find(*other, word).map(|known| (*other, known))).next()
}

/// The candidate that `word` is most likely meant to be, if any is near enough.
pub(super) fn nearest(word: &str, candidates: impl IntoIterator<Item = Known>) -> Option<Known> {
    nearest_of(word, candidates, |known| known.word)
}

/// As [`nearest`], among words of other languages.
pub(crate) fn nearest_word<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_of(word, candidates, |known| known)
}

/// Distance counts inserted, missing, changed and swapped letters; the longer the word, the more of them are forgiven. Among
/// equals the first.
fn nearest_of<'a, C: Copy>(
    word: &str,
    candidates: impl IntoIterator<Item = C>,
    text: impl Fn(C) -> &'a str,
) -> Option<C> {
    let word: String = word.to_lowercase();
    let length = word.chars().count();
    if length > 32 {
        return None;
    }
    candidates
        .into_iter()
        .map(|known| (known, forgiven(length.min(text(known).len()))))
        .filter(|(known, most)| letters_apart(&word, text(*known)) <= *most)
        .map(|(known, most)| (strsim::damerau_levenshtein(&word, text(known)), known, most))
        .filter(|(distance, _, most)| distance <= most)
        .min_by_key(|(distance, _, _)| *distance)
        .map(|(_, known, _)| known)
}

/// The letters that one of the two has more of: no fewer edits lead from one to the other (the bag distance; Bartolini, Ciaccia,
/// Patella: String Matching with Metric Trees Using an Approximate Distance, 2002). A fraction of what the distance costs.
fn letters_apart(one: &str, other: &str) -> usize {
    // Beyond ASCII letters share places, which only brings words closer together.
    let mut more = [0_isize; 128];
    one.chars().for_each(|letter| more[letter as usize % 128] += 1);
    other.chars().for_each(|letter| more[letter as usize % 128] -= 1);
    let sum = |sign: isize| more.iter().map(|count| (count * sign).max(0)).sum::<isize>();
    sum(1).max(sum(-1)).unsigned_abs()
}

const fn forgiven(letters: usize) -> usize {
    match letters {
        0..=1 => 0,
        2..=3 => 1,
        4..=6 => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_layer_has_a_word_twice() {
        for layer in Layer::ALL {
            let mut words: Vec<_> = of(*layer).iter().map(|known| known.word).collect();
            words.sort_unstable();
            let before = words.len();
            words.dedup();
            assert_eq!(before, words.len(), "{layer:?}");
        }
    }

    #[test]
    fn words_are_lower_case_and_begin_their_usage() {
        for known in Layer::ALL.iter().flat_map(|layer| of(*layer)) {
            assert!(known.usage.starts_with(known.word), "{known:?}");
            let letters = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(known.word.chars().all(letters), "{known:?}");
        }
    }

    #[test]
    fn words_are_no_nearer_than_their_letters() {
        let words: Vec<_> = Layer::ALL.iter().flat_map(|layer| of(*layer)).map(|known| known.word).collect();
        for (one, other) in words.iter().flat_map(|one| words.iter().map(move |other| (one, other))) {
            assert!(letters_apart(one, other) <= strsim::damerau_levenshtein(one, other), "{one}, {other}");
        }
        assert_eq!(
            [letters_apart("drop", "dorp"), letters_apart("drop", "drops"), letters_apart("ä", "é")],
            [0, 1, 1]
        );
    }

    #[test]
    fn the_nearest_word_is_the_one_that_was_meant() {
        let meant = |word| nearest(word, of(Layer::Net).iter().copied()).map(|known| known.word);
        assert_eq!(meant("dorp"), Some("drop"));
        assert_eq!(meant("dealy"), Some("delay"));
        assert_eq!(meant("jiter"), Some("jitter"));
        assert_eq!(meant("localport"), Some("local-port"));
        assert_eq!(meant("duplicat"), Some("duplicate"));
        assert_eq!(meant("ou"), Some("out"));
        assert_eq!(meant("xyzzy"), None);
        assert_eq!(meant(""), None);
        assert_eq!(meant(&"drop".repeat(1000)), None);
    }
}
