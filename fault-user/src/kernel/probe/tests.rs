use super::*;

fn no(cause: &str) -> Verdict {
    Verdict::No { cause: cause.into(), remedy: "change it".into() }
}

/// A kernel that can do everything but `refused`.
fn all_but(refused: &[(Capability, Verdict)]) -> Capabilities {
    let all = Capability::ALL.into_iter().map(|capability| (capability, Verdict::Yes));
    Capabilities::of(all.chain(refused.iter().cloned()))
}

#[test]
fn a_kernel_that_can_do_everything_refuses_nothing() {
    let capabilities = all_but(&[]);
    for feature in Feature::ALL {
        assert_eq!(capabilities.require(feature), Ok(()));
    }
    assert!(capabilities.choices(Feature::DiskError).eq([Capability::FmodRet, Capability::KprobeOverride]));
    assert!(capabilities.choices(Feature::PacketDelay).eq([Capability::Tcx, Capability::Clsact]));
}

#[test]
fn one_of_several_ways_is_enough() {
    let old = all_but(&[(Capability::Tcx, no("too old"))]);
    assert_eq!(old.require(Feature::PacketDrop), Ok(()));
    assert!(old.choices(Feature::PacketDrop).eq([Capability::Clsact]));
    assert!(old.replaced(Capability::Tcx));
    let neither = all_but(&[(Capability::Tcx, no("too old")), (Capability::Clsact, no("left out"))]);
    assert_eq!(neither.require(Feature::PacketDrop).unwrap_err().capability, Capability::Tcx);
    assert!(!neither.replaced(Capability::Tcx));
}

#[test]
fn a_kprobe_fails_disks_but_cannot_delay_them() {
    let kprobe_only =
        all_but(&[(Capability::FmodRet, no("refused")), (Capability::FmodRetSleepable, no("refused"))]);
    assert_eq!(kprobe_only.require(Feature::DiskError), Ok(()));
    assert_eq!(kprobe_only.require(Feature::DiskDelay).unwrap_err().capability, Capability::FmodRet);
    // It is not all the same: something still needs it.
    assert!(!kprobe_only.replaced(Capability::FmodRet));
}

#[test]
fn what_could_not_be_tried_stands_in_nobodys_way_and_is_said() {
    let diskless =
        all_but(&[(Capability::HookCalled, Verdict::Unknown { cause: "there is no block device".into() })]);
    assert_eq!(diskless.require(Feature::DiskError), Ok(()));
    assert!(diskless.untried(Feature::DiskError).eq([(Capability::HookCalled, "there is no block device")]));
}

#[test]
fn a_refusal_is_one_sentence_with_cause_and_remedy() {
    let refusal =
        all_but(&[(Capability::Fq, no("it was left out"))]).require(Feature::PacketDelay).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "packet delay is not possible with this kernel: fq: it was left out; to change that, change it"
    );
    assert_eq!(refusal.class(), Class::Unsupported);
    let refusal = all_but(&[(Capability::Permission, no("no"))]).require(Feature::PacketDrop).unwrap_err();
    assert_eq!(refusal.class(), Class::NotPermitted);
}
