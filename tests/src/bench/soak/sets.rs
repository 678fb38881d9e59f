//! The rule sets that follow each other.
//!
//! The first fault of each looks at every datagram, whatever becomes of it, so that its counter is the number of
//! datagrams sent. Those that duplicate datagrams say so in their spec. Nothing else touches datagrams but what is
//! late without being lost.

use fault_user::{
    session::plan::Plan,
    spec::{Fault, Layer, parse, parse_exception},
};

/// One rule set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Set {
    pub(super) faults: &'static [&'static str],
    pub(super) except: &'static [&'static str],
}

const fn set(faults: &'static [&'static str]) -> Set {
    Set { faults, except: &[] }
}

/// What every kernel can do.
const BASE: &[Set] = &[
    set(&["drop 5% out udp", "drop 2% tcp"]),
    set(&["drop gilbert 2% 30% out udp", "drop gilbert 1% 20% tcp", "duplicate 3% out udp"]),
    set(&["drop 4% burst 25% out udp", "drop 1% burst 50% in tcp", "duplicate 2% tcp"]),
    set(&["drop every 7 out udp", "drop every 100 times 5 tcp", "drop nth 3 syn out"]),
    set(&["drop times 3 out udp", "drop data connections 10% 20% tcp", "duplicate first 50 in tcp"]),
    set(&["drop first 3 out udp", "reset data connections 1% after 2KiB nth 1", "drop 1% ack tcp"]),
    set(&["drop 1% out udp", "duplicate 10% out udp", "drop 5% after 16KiB tcp", "refuse 20% tcp connect"]),
    Set {
        faults: &["drop 50% out udp", "drop 30% tcp", "duplicate 5% tcp"],
        except: &["out udp port 9000", "in tcp ack"],
    },
    set(&["drop 3% out udp", "hang connections 2% tcp", "drop connection 17 10% tcp"]),
    set(&["drop 0% out udp", "reset 0.02% tcp", "drop fin 50%"]),
];

/// What needs the lane, or the checksum of the wire.
const WHOLE: &[Set] = &[
    set(&["drop 2% out udp", "delay 20ms jitter 10ms normal tcp", "delay 5ms jitter 5ms out udp"]),
    set(&["drop 1% out udp", "rate 50mbit tcp", "duplicate 5% out udp"]),
    set(&["drop gilbert 1% 30% out udp", "reorder 5% by 10ms tcp", "reorder 10% out udp"]),
    set(&["drop every 9 out udp", "corrupt 1% tcp", "delay 30ms pareto jitter 10ms 20% in tcp"]),
    set(&[
        "drop 3% out udp",
        "duplicate 3% out udp",
        "delay 10ms 50% out udp",
        // One bit: the checksum lets one packet in 340 through of which three were flipped, and nothing may be echoed wrong.
        "corrupt 0.5% tcp",
        "rate 10mbit per-connection tcp",
        "delay 10ms ordered jitter 5ms tcp",
    ]),
];

/// All of them.
pub(super) fn all(whole: bool) -> Vec<Set> {
    let mut sets = Vec::new();
    // One of each kind in turn: what the lane holds meets rules that know of no lane.
    for (index, base) in BASE.iter().enumerate() {
        sets.push(*base);
        if whole {
            sets.push(WHOLE[index % WHOLE.len()]);
        }
    }
    sets
}

/// What a session that goes through all of them is armed for: one of each verb.
pub(super) fn everything(whole: bool) -> Set {
    if whole {
        set(&["drop 1% tcp", "refuse 1% tcp connect", "delay 1ms 1% tcp", "corrupt 0.1% tcp"])
    } else {
        set(&["drop 1% tcp", "refuse 1% tcp connect"])
    }
}

impl Set {
    /// The rules of it.
    pub(super) fn plan(self, seed: u64) -> anyhow::Result<Plan> {
        let faults = self.faults.iter().map(|text| parse(Layer::Net, text));
        let faults = faults.collect::<Result<Vec<Fault>, _>>()?;
        let except = self.except.iter().map(|text| parse_exception(text));
        let except = except.collect::<Result<Vec<_>, _>>()?;
        Ok(Plan::new(faults, &[], seed, None)?.except(except)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_is_covered_by_what_the_session_is_armed_for() {
        for whole in [false, true] {
            let armed = everything(whole).plan(1).unwrap().needs();
            for set in all(whole) {
                assert!(armed.cover(set.plan(1).unwrap().needs()), "{set:?}");
                assert!(set.faults[0].starts_with("drop") && set.faults[0].ends_with("out udp"), "{set:?}");
            }
        }
    }
}
