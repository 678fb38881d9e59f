use super::*;

fn with_config(text: &str) -> Environment {
    Environment {
        release: "6.12.48".into(),
        version: (6, 12),
        config: Some(Config::from_text(text)),
        ..Environment::default()
    }
}

fn refused(errno: Errno, log: &str) -> Failure {
    Failure { step: "trying".into(), errno, log: log.into() }
}

#[test]
fn class_c_kernels_are_told_which_option_is_missing() {
    let debian = with_config(
        "CONFIG_KPROBES=y\nCONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS=y\n# CONFIG_FUNCTION_ERROR_INJECTION is not set\n",
    );
    let reason =
        explain(Capability::FmodRet, &refused(Errno::EINVAL, "should_fail_bio() is not modifiable"), &debian);
    assert!(reason.cause.contains("without CONFIG_FUNCTION_ERROR_INJECTION ("), "{}", reason.cause);
    assert!(reason.cause.contains("should_fail_bio() is not modifiable"), "{}", reason.cause);
    assert!(reason.remedy.contains("CONFIG_FUNCTION_ERROR_INJECTION=y"), "{}", reason.remedy);
}

#[test]
fn only_the_missing_option_is_named() {
    let class_b =
        with_config("CONFIG_KPROBES=y\nCONFIG_FUNCTION_ERROR_INJECTION=y\nCONFIG_KPROBE_EVENTS=y\n");
    let reason = explain(Capability::KprobeOverride, &refused(Errno::EINVAL, ""), &class_b);
    assert!(reason.cause.starts_with("the kernel was built without CONFIG_BPF_KPROBE_OVERRIDE ("));
}

#[test]
fn a_module_is_loaded_and_a_missing_one_installed() {
    let modular = with_config("CONFIG_NET_SCH_FQ=m\n");
    let reason = explain(Capability::Fq, &refused(Errno::ENOENT, ""), &modular);
    assert!(reason.cause.starts_with("the kernel module sch_fq cannot be loaded"), "{}", reason.cause);
    assert!(reason.remedy.contains("modprobe sch_fq"));
    let without = explain(Capability::Fq, &refused(Errno::ENOENT, ""), &with_config("CONFIG_NET=y\n"));
    assert!(without.remedy.contains("CONFIG_NET_SCH_FQ=m"));
}

#[test]
fn an_option_that_is_set_is_not_blamed() {
    let there = with_config("CONFIG_NET_SCH_FQ=y\n");
    let reason = explain(Capability::Fq, &refused(Errno::ENOMEM, ""), &there);
    assert!(!reason.cause.contains("CONFIG"), "{}", reason.cause);
    assert!(reason.cause.contains("ENOMEM"), "{}", reason.cause);
    assert!(reason.remedy.contains("`fq` in docs/kernels.md"));
}

#[test]
fn old_kernels_are_told_from_which_version_on() {
    let old = Environment { release: "6.1.0-40-amd64".into(), version: (6, 1), ..Environment::default() };
    let reason = explain(Capability::Tcx, &refused(Errno::EINVAL, ""), &old);
    assert!(reason.remedy.contains("6.6"), "{}", reason.remedy);
    let reason = explain(Capability::TaskFromPid, &refused(Errno::ENOENT, ""), &old);
    assert!(reason.remedy.contains("6.2"), "{}", reason.remedy);
}

#[test]
fn missing_privilege_goes_before_everything() {
    let user = Environment { missing: vec!["CAP_BPF"], ..with_config("") };
    let reason = explain(Capability::FmodRet, &refused(Errno::EPERM, ""), &user);
    assert!(reason.cause.starts_with("this process lacks CAP_BPF"), "{}", reason.cause);
    let rootless = Environment { in_user_namespace: true, ..Environment::default() };
    let reason = explain(Capability::Permission, &refused(Errno::EPERM, ""), &rootless);
    assert!(reason.cause.starts_with("root of a user namespace"), "{}", reason.cause);
    let locked = Environment { lockdown: Some("confidentiality".into()), ..Environment::default() };
    let reason = explain(Capability::KprobeOverride, &refused(Errno::EPERM, ""), &locked);
    assert!(reason.cause.starts_with("the kernel is locked down (confidentiality)"), "{}", reason.cause);
}

#[test]
fn a_verifier_that_says_eacces_is_no_matter_of_privilege() {
    let user = Environment { missing: vec!["CAP_BPF"], ..with_config("CONFIG_BPF_EVENTS=y\n") };
    let reason = explain(Capability::CopyFromUserTask, &refused(Errno::EACCES, "invalid access"), &user);
    assert!(!reason.cause.contains("CAP_BPF"), "{}", reason.cause);
}

#[test]
fn yama_and_foreign_programs_are_recognised() {
    let strict = Environment { ptrace_scope: Some(3), ..Environment::default() };
    let reason = explain(Capability::PidfdGetfd, &refused(Errno::EPERM, ""), &strict);
    assert!(reason.remedy.contains("ptrace_scope"), "{}", reason.remedy);
    let reason = explain(Capability::SocketHook, &refused(Errno::EPERM, ""), &Environment::default());
    assert!(reason.remedy.contains("bpftool cgroup tree"), "{}", reason.remedy);
}

#[test]
fn a_dropped_call_is_blamed_on_the_compiler_only_when_it_may_be() {
    assert!(never_called(Path::new("/dev/vda"), &with_config("CONFIG_X=y\n")).cause.contains("gcc 14"));
    assert!(
        !never_called(Path::new("/dev/vda"), &with_config("CONFIG_FAIL_MAKE_REQUEST=y\n"))
            .cause
            .contains("gcc")
    );
    assert!(!never_called(Path::new("/dev/vda"), &Environment::default()).cause.contains("gcc"));
}

#[test]
fn without_a_configuration_the_kernels_words_must_do() {
    let nothing = Environment { version: (6, 12), ..Environment::default() };
    for failure in [
        refused(Errno::ENOENT, ""),
        refused(Errno::EINVAL, "should_fail_bio() is not modifiable"),
        refused(Errno::EINVAL, "should_fail_bio is not sleepable"),
    ] {
        for capability in [Capability::FmodRet, Capability::FmodRetSleepable] {
            let reason = explain(capability, &failure, &nothing);
            assert!(reason.remedy.contains("CONFIG_FUNCTION_ERROR_INJECTION=y"), "{reason:?}");
        }
    }
    let refusal = refused(Errno::EINVAL, "unknown func bpf_override_return#58");
    let reason = explain(Capability::KprobeOverride, &refusal, &nothing);
    assert!(reason.remedy.contains("CONFIG_BPF_KPROBE_OVERRIDE=y"), "{reason:?}");
}

#[test]
fn a_refusal_nothing_explains_is_blamed_on_a_policy() {
    let reason = explain(Capability::Permission, &refused(Errno::EPERM, ""), &Environment::default());
    assert!(reason.cause.starts_with("something other than capabilities"), "{reason:?}");
}
