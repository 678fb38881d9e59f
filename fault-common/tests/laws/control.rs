//! When the session is alive.

use fault_common::{control::Control, limits::HEARTBEAT_TIMEOUT_NS};
use proptest::prelude::*;

fn control(active: u32, heartbeat_ns: u64, deadline_ns: u64) -> Control {
    let control = Control::default();
    control.active.store(active);
    control.heartbeat_ns.store(heartbeat_ns);
    control.deadline_ns.store(deadline_ns);
    control
}

proptest! {
    #[test]
    fn inactive_is_dead(now: u64, heartbeat: u64) {
        prop_assert!(!control(0, heartbeat, u64::MAX).is_live(now));
    }

    #[test]
    fn alive_until_deadline_and_heartbeat(
        now in HEARTBEAT_TIMEOUT_NS..1 << 62,
        age in 0..2 * HEARTBEAT_TIMEOUT_NS,
        deadline in prop_oneof![Just(u64::MAX), 1..u64::MAX],
    ) {
        let age = age.min(now);
        let expected = age < HEARTBEAT_TIMEOUT_NS && now < deadline;
        prop_assert_eq!(control(1, now - age, deadline).is_live(now), expected);
    }

    #[test]
    fn a_beat_from_another_cpu_may_be_newer(now in 0..1u64 << 62, ahead in 0..1_000_000u64) {
        prop_assert!(control(1, now + ahead, u64::MAX).is_live(now));
    }

    #[test]
    fn time_of_the_session_never_underflows(now: u64, started: u64) {
        let control = Control::default();
        control.started_ns.store(started);
        prop_assert_eq!(control.elapsed_ns(now), now.saturating_sub(started));
    }

    #[test]
    fn generations_alternate_between_the_banks(generation: u32) {
        let control = Control::default();
        control.generation.store(generation);
        let first = control.bank();
        control.generation.store(generation.wrapping_add(1));
        prop_assert!(first < 2 && control.bank() == 1 - first);
    }
}

#[test]
fn a_control_block_of_zeros_is_inert() {
    assert!(!Control::default().is_live(0));
    assert!(!Control::default().is_live(u64::MAX));
    // Activated, but the controller has never shown a sign of life.
    assert!(!control(1, 0, u64::MAX).is_live(HEARTBEAT_TIMEOUT_NS));
}
