//! What to look at when a rule did nothing: nothing disappoints more than a fault that silently is none.

use std::time::Duration;

use super::number;
use crate::{
    session::heal::RuleTotals,
    spec::{DiskOp, Fault, NetFault, NetVerb, Trigger},
};

/// For a rule that hit nothing in a session that was active for `lasted`.
pub(super) fn hint(fault: &Fault, totals: &RuleTotals, lasted: Duration) -> Option<String> {
    if totals.injected > 0 {
        return None;
    }
    if totals.matched > 0 {
        return Some(format!("hit none of {}: {}", totals.matched, spared(fault.trigger(), totals.matched)));
    }
    Some(format!("matched nothing: {}", unmatched(fault, lasted)))
}

/// Why operations matched and none was hit.
fn spared(trigger: &Trigger, matched: u64) -> String {
    let late = [("nth", trigger.nth), ("every", trigger.every)]
        .into_iter()
        .find_map(|(word, number)| number.filter(|number| *number > matched).map(|number| (word, number)));
    if let Some((word, number)) = late {
        return format!("`{word} {number}` takes {number} operations");
    }
    if let Some(model) = trigger.gilbert {
        return format!("every flow stayed in its good state, which ends with a chance of {}", model.to_bad);
    }
    if let Some(model) = trigger.markov {
        return format!(
            "every flow stayed in the gap before its first burst, which ends with a chance of {}",
            model.to_burst
        );
    }
    if let Some(gap) = trigger.gap.filter(|gap| u64::from(*gap) > matched) {
        return format!("`gap {gap}` takes {gap} operations of one flow");
    }
    match trigger.probability.map(|probability| (probability, u64::from(probability.parts_per_billion()))) {
        Some((_, 0)) => "at 0% none ever is".to_owned(),
        Some((share, ppb @ 1..1_000_000_000)) => {
            format!("at {share} one in {} is hit on average", (1_000_000_000 + ppb / 2) / ppb)
        }
        _ => "its trigger let none through".to_owned(),
    }
}

/// Why nothing passed the filter.
fn unmatched(fault: &Fault, lasted: Duration) -> String {
    if let Some(after) = fault.trigger().after
        && after >= lasted
    {
        let [after, lasted] = [after, lasted]
            .map(|duration| number::nanoseconds(duration.as_nanos().try_into().unwrap_or(u64::MAX)));
        return format!("it was to begin after {after}, and the session ended after {lasted}");
    }
    match fault {
        Fault::Net(fault) => unmatched_net(fault),
        Fault::Proc(_) => "the session ended before it was its time".to_owned(),
        Fault::File(fault) => match fault.filter.to_string().trim() {
            "" => "the target did nothing with any file".to_owned(),
            filter => format!("the target did nothing with a file that is `{filter}`"),
        },
        Fault::Disk(fault) => {
            let mut text = match fault.filter.to_string().trim() {
                "" => "no I/O of the target reached a disk".to_owned(),
                filter => format!("no I/O of the target that is `{filter}` reached a disk"),
            };
            let ops = &fault.filter.ops;
            if ops.is_empty() || ops.contains(&DiskOp::Read) {
                text += "; what is read from the page cache does not";
            } else if ops.contains(&DiskOp::Write) || ops.contains(&DiskOp::Flush) {
                text += "; what is written reaches it at fsync or when the kernel writes it back";
            }
            text
        }
    }
}

/// Why nothing passed the filter of a net fault.
fn unmatched_net(fault: &NetFault) -> String {
    let asked = format!("{}{}", fault.filter, fault.part);
    let asked = asked.trim();
    let what = match &fault.verb {
        NetVerb::Fail { calls, .. } => {
            let calls: Vec<_> = calls.iter().map(|call| call.word()).collect();
            let calls = calls.join(" or ");
            return match asked {
                "" => format!("the target did not call {calls}"),
                asked => format!("the target had no call of {calls} that is `{asked}`"),
            };
        }
        NetVerb::Reset => "packet of an established TCP connection",
        NetVerb::Hang => "TCP packet with data",
        NetVerb::Corrupt { fix_checksum: true, .. } => "packet with data",
        NetVerb::Drop { .. }
        | NetVerb::Delay(_)
        | NetVerb::Slot { .. }
        | NetVerb::Rate { .. }
        | NetVerb::Duplicate
        | NetVerb::Reorder { .. }
        | NetVerb::Corrupt { .. } => "packet",
    };
    match asked {
        "" => format!("the target sent and received no {what}"),
        asked => format!("the target had no {what} that is `{asked}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Layer, parse};

    #[test]
    fn what_matched_nothing_says_what_it_looked_for() {
        let lasted = Duration::from_secs(60);
        let hint = |text| hint(&parse(Layer::Net, text).unwrap(), &RuleTotals::default(), lasted).unwrap();
        for (text, expected) in [
            ("drop", "the target sent and received no packet"),
            ("drop data connection 3", "the target had no packet that is `data connection 3`"),
            ("refuse", "the target did not call connect or sendmsg"),
            ("refuse bind local-port 80", "the target had no call of bind that is `local-port 80`"),
            ("reset", "the target sent and received no packet of an established TCP connection"),
            ("hang after 64KiB", "the target had no TCP packet with data that is `after 64KiB`"),
            ("corrupt fix-checksum udp", "the target had no packet with data that is `udp`"),
        ] {
            assert_eq!(hint(text), format!("matched nothing: {expected}"), "{text}");
        }
    }
}
