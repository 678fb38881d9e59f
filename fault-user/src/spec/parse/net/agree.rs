//! What does not go together with which verb.

use super::action::Action;
use super::{Keyword, Parser, filter, part, trigger};
use crate::spec::error::SpecError;

/// The first two clauses that contradict each other because of the verb.
pub(super) fn check(
    parser: &Parser,
    (action, verb): (&Action, Keyword),
    filter: &filter::Draft,
    part: &part::Draft,
    trigger: &trigger::Draft,
) -> Result<(), SpecError> {
    let against = |clauses: &[(Option<Keyword>, &'static str)]| match clauses
        .iter()
        .find_map(|(clause, because)| clause.map(|clause| (clause, *because)))
    {
        Some((clause, because)) => Err(parser.contradiction(verb, clause, because)),
        None => Ok(()),
    };
    match action {
        Action::Drop { .. } | Action::Delay(_) | Action::Duplicate | Action::Reorder { .. } => Ok(()),
        Action::Slot { gap, .. } => match gap.correlated() {
            // A delay is correlated within a connection, and slots are those of all.
            Some(correlation) => {
                Err(parser.contradiction(verb, correlation, "slots are shared by all connections"))
            }
            None => Ok(()),
        },
        Action::Rate { per_connection, .. } => match (per_connection.keyword(), trigger.remembers()) {
            // The link of each connection and the trigger's own memory have one place.
            (Some(link), Some(chain)) => {
                let because = "a link of each connection cannot come and go with what was before";
                Err(parser.contradiction(link, chain, because))
            }
            _ => Ok(()),
        },
        Action::Corrupt { fix_checksum, .. } => match fix_checksum.keyword() {
            Some(fix) => payload(parser, fix, filter),
            None => Ok(()),
        },
        Action::Reset => against(&[
            (filter.other_than_tcp(), "only TCP has connections that can be reset"),
            (filter.syn_alone(), "there is no connection yet"),
        ]),
        Action::Hang => against(&[
            (filter.other_than_tcp(), "only TCP has a handshake"),
            (filter.segment(), "it is the data that hangs, and nothing else"),
        ]),
        // The call comes before the packet.
        Action::Fail { calls, .. } => {
            against(&[
                (filter.inwards(), "a call is made by the target, nothing comes in by it"),
                (filter.iface(), "a call is made before the interface is known"),
                (filter.segment(), "a call comes before the packet"),
                (part.after_bytes(), "a call comes before the first byte"),
            ])?;
            if let (Some(bind), Some(peer)) = (calls.bind(), filter.peer()) {
                return Err(parser.contradiction(bind, peer, "who binds has no peer"));
            }
            match (calls.sendmsg_alone(), filter.instead_of_udp()) {
                (Some(sendmsg), Some(other)) => {
                    Err(parser.contradiction(sendmsg, other, "only calls of UDP sockets name their peer"))
                }
                _ => Ok(()),
            }
        }
    }
}

/// `fix-checksum` flips payload, so there must be some.
fn payload(parser: &Parser, fix: Keyword, filter: &filter::Draft) -> Result<(), SpecError> {
    if let Some(segment) = filter.segment_without_data() {
        return Err(parser.contradiction(fix, segment, "only payload is flipped then: add `data`"));
    }
    match filter.without_payload() {
        Some(icmp) => Err(parser.contradiction(fix, icmp, "only payload of TCP and UDP is flipped then")),
        None => Ok(()),
    }
}
