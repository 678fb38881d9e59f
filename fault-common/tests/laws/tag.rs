//! What a packet carries of decisions about it.

use std::collections::BTreeSet;

use fault_common::{
    limits::{MAX_INTERFACES_PER_NETNS, MAX_SESSIONS_PER_NETNS},
    rule::net::Direction::{self, In, Out},
    tag::Tag,
};
use proptest::prelude::*;

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Out), Just(In)]
}

fn session() -> impl Strategy<Value = u32> {
    0..MAX_SESSIONS_PER_NETNS
}

fn slot() -> impl Strategy<Value = u32> {
    0..MAX_INTERFACES_PER_NETNS
}

/// What the 16 bits mean: the direction last decided, and who decided it.
#[derive(Default)]
struct Model {
    decided: Option<(Direction, BTreeSet<u32>)>,
}

impl Model {
    fn decide(&mut self, at: Direction, session: u32) {
        match &mut self.decided {
            Some((direction, sessions)) if *direction == at => {
                sessions.insert(session);
            }
            other => *other = Some((at, BTreeSet::from([session]))),
        }
    }

    fn is_decided(&self, at: Direction, session: u32) -> bool {
        self.decided.as_ref().is_some_and(|(direction, sessions)| {
            sessions.contains(&session) && (at == Out || *direction == In)
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn bits_are_the_model(
        foreign in 0..0x8000u16,
        steps in prop::collection::vec((direction(), session(), slot()), 0..12),
    ) {
        let (mut tag, mut model) = (Tag(foreign), Model::default());
        for (at, session, slot) in steps {
            tag = tag.decided(at, session, slot);
            model.decide(at, session);
            prop_assert_eq!((tag.direction(), tag.slot()), (at, slot));
            prop_assert!(tag.is_from(session));
            for other in 0..MAX_SESSIONS_PER_NETNS {
                for way in [Out, In] {
                    prop_assert_eq!(tag.is_decided(way, other), model.is_decided(way, other));
                }
            }
        }
    }

    #[test]
    fn never_decided_twice(
        before: u16,
        at in direction(),
        mine in session(),
        others in prop::collection::vec((session(), slot()), 0..12),
    ) {
        // However many sessions decide after us in this direction.
        let mut tag = Tag(before).decided(at, mine, 0);
        for (other, slot) in others {
            tag = tag.decided(at, other, slot);
            prop_assert!(tag.is_decided(at, mine));
        }
    }

    #[test]
    fn sessions_do_not_see_each_other(at in direction(), a in session(), b in session(), slot in slot()) {
        prop_assume!(a != b);
        let tag = Tag(0).decided(at, a, slot);
        prop_assert!(!tag.is_decided(at, b));
        let both = tag.decided(at, b, slot);
        prop_assert!(both.is_decided(at, a) && both.is_decided(at, b));
    }

    #[test]
    fn on_its_way_in_a_packet_is_fresh_again(session in session(), slot in slot()) {
        let sent = Tag(0).decided(Out, session, slot);
        prop_assert!(!sent.is_decided(In, session));
        let received = sent.decided(In, session, slot);
        prop_assert!(received.is_decided(In, session));
        // Handed back to an outgoing hook (loopback, forwarding): nothing to decide.
        prop_assert!(received.is_decided(Out, session));
    }

    #[test]
    fn a_session_out_of_range_harms_nobody(at in direction(), session in MAX_SESSIONS_PER_NETNS..) {
        let tag = Tag(0).decided(at, session, 3);
        prop_assert_eq!((tag.direction(), tag.slot()), (at, 3));
        // 6 and 7 have no bit; larger numbers share one, but never touch direction or slot.
        prop_assert_eq!(tag.is_from(session), session & 7 < MAX_SESSIONS_PER_NETNS);
    }
}

#[test]
fn other_users_of_the_field_are_never_taken_for_us() {
    for value in 0..0x8000 {
        for session in 0..MAX_SESSIONS_PER_NETNS {
            assert!(
                !Tag(value).is_decided(Out, session) && !Tag(value).is_decided(In, session),
                "{value:#x}"
            );
            assert!(!Tag(value).is_from(session), "{value:#x}");
        }
    }
}

#[test]
fn the_bits_are_where_the_page_says() {
    assert_eq!(Tag(0).decided(Out, 0, 0x5a).0, 0b1000_0001_0101_1010);
    assert_eq!(Tag(0).decided(In, 5, 0xff).0, 0b1110_0000_1111_1111);
}
