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
        Fault::Net(NetFault { verb: NetVerb::Fail(_), filter, .. }) => match filter.to_string().trim() {
            "" => "the target did not call connect or sendmsg".to_owned(),
            filter => format!("the target had no call of connect or sendmsg that is `{filter}`"),
        },
        Fault::Net(fault) => match fault.filter.to_string().trim() {
            "" => "the target sent and received no packet".to_owned(),
            filter => format!("the target had no packet that is `{filter}`"),
        },
        Fault::Disk(fault) => {
            let mut text = match fault.filter.to_string().trim() {
                "" => "no I/O of the target reached a disk".to_owned(),
                filter => format!("no I/O of the target that is `{filter}` reached a disk"),
            };
            let ops = &fault.filter.ops;
            if ops.is_empty() || ops.contains(&DiskOp::Read) {
                text += "; what is read from the page cache does not";
            } else {
                text += "; what is written reaches it at fsync or when the kernel writes it back";
            }
            text
        }
    }
}
