//! From what the kernel answered to what a person can do about it. Pure functions.

use std::path::Path;

use nix::errno::Errno;

use super::{
    super::config::{Config, Setting},
    bpf::Failure,
    capability::Capability,
    environment::Environment,
};

/// Why something does not work, and what to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// One clause.
    pub cause: String,
    /// One clause, in the imperative.
    pub remedy: String,
}

/// What a capability depends on, as far as is known. Explains; never decides.
struct Needs {
    /// Kernel options, the most telling first.
    options: &'static [&'static str],
    /// The module it may be in.
    module: Option<&'static str>,
    /// First upstream version that has it; distributions backport.
    since: (u32, u32),
}

const fn needs(capability: Capability) -> Needs {
    let (options, module, since): (&[&str], Option<&str>, _) = match capability {
        Capability::Permission => (&["CONFIG_BPF_SYSCALL", "CONFIG_NET_NS"], None, (4, 18)),
        Capability::Btf => (&["CONFIG_DEBUG_INFO_BTF"], None, (5, 4)),
        Capability::Jit => (&["CONFIG_BPF_JIT"], None, (4, 18)),
        Capability::RingBuffer => (&["CONFIG_BPF_SYSCALL"], None, (5, 8)),
        Capability::MappableArray => (&["CONFIG_BPF_SYSCALL"], None, (5, 5)),
        Capability::ForkTracepoint => (&["CONFIG_BPF_EVENTS"], None, (4, 17)),
        Capability::Cgroup2 => (&["CONFIG_CGROUPS"], None, (4, 5)),
        Capability::SocketHook => (&["CONFIG_CGROUP_BPF"], None, (5, 7)),
        Capability::SocketStorage => (&["CONFIG_CGROUP_BPF", "CONFIG_NET"], None, (5, 11)),
        Capability::PidfdGetfd => (&[], None, (5, 6)),
        Capability::Tcx => (&[], None, (6, 6)),
        Capability::Clsact => (
            &["CONFIG_NET_SCH_INGRESS", "CONFIG_NET_CLS_BPF", "CONFIG_NET_CLS_ACT"],
            Some("sch_ingress and cls_bpf"),
            (4, 5),
        ),
        Capability::DepartureTime => (&[], None, (5, 18)),
        Capability::Tap => (&["CONFIG_TUN"], Some("tun"), (2, 6)),
        Capability::Macvlan => (&["CONFIG_MACVLAN"], Some("macvlan"), (2, 6)),
        Capability::Vlan => (&["CONFIG_VLAN_8021Q"], Some("8021q"), (2, 6)),
        Capability::SetRetval => (&["CONFIG_CGROUP_BPF"], None, (5, 18)),
        Capability::Fq => (&["CONFIG_NET_SCH_FQ"], Some("sch_fq"), (3, 12)),
        // The first two hold for all tracing programs; the third is what this one is about.
        Capability::FmodRet | Capability::FmodRetSleepable => (
            &["CONFIG_KPROBES", "CONFIG_FUNCTION_ERROR_INJECTION", "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS"],
            None,
            (5, 7),
        ),
        Capability::KprobeOverride => (
            &[
                "CONFIG_KPROBES",
                "CONFIG_FUNCTION_ERROR_INJECTION",
                "CONFIG_BPF_KPROBE_OVERRIDE",
                "CONFIG_KPROBE_EVENTS",
            ],
            None,
            (4, 16),
        ),
        Capability::TaskStorage => (&["CONFIG_BPF_SYSCALL"], None, (5, 11)),
        Capability::TaskFromPid => (&["CONFIG_BPF_EVENTS"], None, (6, 2)),
        Capability::CopyFromUserTask => (&["CONFIG_BPF_EVENTS"], None, (5, 18)),
        Capability::DetachedFuse => (&["CONFIG_FUSE_FS"], Some("fuse"), (5, 2)),
        Capability::SecurityHook => (
            &["CONFIG_SECURITY", "CONFIG_BPF_EVENTS", "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS"],
            None,
            (5, 7),
        ),
        Capability::SyscallHook => (
            &["CONFIG_KPROBES", "CONFIG_FUNCTION_ERROR_INJECTION", "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS"],
            None,
            (5, 7),
        ),
        Capability::SecurityModule => (
            &["CONFIG_BPF_LSM", "CONFIG_BPF_EVENTS", "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS"],
            None,
            (5, 10),
        ),
        Capability::HookCalled => (&["CONFIG_FAIL_MAKE_REQUEST"], None, (4, 16)),
    };
    Needs { options, module, since }
}

const DISTRIBUTIONS: &str = " (docs/kernels.md lists distributions that have it)";

/// What to tell a user about `failure`.
pub fn explain(capability: Capability, failure: &Failure, environment: &Environment) -> Reason {
    let needs = needs(capability);
    let mut reason = permission(failure, environment)
        .or_else(|| special(capability, failure, environment))
        .or_else(|| environment.config.as_ref().and_then(|config| options(&needs, config, failure)))
        .or_else(|| words(capability, failure))
        .or_else(|| too_old(&needs, environment))
        .or_else(|| forbidden(failure))
        .unwrap_or_else(|| Reason {
            cause: "the kernel refuses".to_owned(),
            remedy: format!("see `{}` in docs/kernels.md", capability.name()),
        });
    // The evidence, so that nobody has to believe the explanation.
    reason.cause = format!("{} ({failure})", reason.cause);
    reason
}

/// For what is never called although hooks attach to it.
pub fn never_called(device: &Path, environment: &Environment) -> Reason {
    let known = environment.config.as_ref().map(|config| config.setting("CONFIG_FAIL_MAKE_REQUEST"));
    let because = match known {
        Some(Setting::Off) => {
            ": with CONFIG_FAIL_MAKE_REQUEST off, gcc 14, clang 18 and later leave the call out"
        }
        _ => "",
    };
    Reason {
        cause: format!(
            "hooks attach to should_fail_bio, but a real read from {} never came through it{because}",
            device.display()
        ),
        remedy: "boot a kernel built with CONFIG_FAIL_MAKE_REQUEST=y or with an older compiler".to_owned(),
    }
}

/// For programs of a security module that nobody asks although they attach.
pub fn never_asked() -> Reason {
    const MODULES: &str = "/sys/kernel/security/lsm";
    let modules = std::fs::read_to_string(MODULES).ok();
    let modules = modules.map(|modules| modules.trim().to_owned()).filter(|modules| !modules.is_empty());
    let line = modules.as_ref().map_or("lsm=…,bpf".to_owned(), |modules| format!("lsm={modules},bpf"));
    let among = modules.map_or_else(String::new, |modules| format!(": {modules}"));
    Reason {
        cause: format!("bpf is not among the security modules of this boot{among}"),
        remedy: format!("boot with {line} on the kernel command line"),
    }
}

fn permission(failure: &Failure, environment: &Environment) -> Option<Reason> {
    // The verifier says EACCES too, but gives its reason; privileges are checked before there is one.
    if !matches!(failure.errno, Errno::EPERM | Errno::EACCES) || !failure.log.is_empty() {
        return None;
    }
    if environment.in_user_namespace {
        return Some(Reason {
            cause: "root of a user namespace has no power over the kernel".to_owned(),
            remedy: "run as the machine's own root, outside rootless containers".to_owned(),
        });
    }
    if !environment.missing.is_empty() {
        return Some(Reason {
            cause: format!("this process lacks {}", environment.missing.join(", ")),
            remedy: "run as root (sudo); in a container, add --privileged".to_owned(),
        });
    }
    if let Some(mode) = environment.lockdown.as_deref().filter(|mode| *mode != "none") {
        return Some(Reason {
            cause: format!("the kernel is locked down ({mode})"),
            remedy: "boot without lockdown= on the command line, or with Secure Boot off".to_owned(),
        });
    }
    None
}

fn special(capability: Capability, failure: &Failure, environment: &Environment) -> Option<Reason> {
    let reason =
        |cause: &str, remedy: &str| Some(Reason { cause: cause.to_owned(), remedy: remedy.to_owned() });
    match (capability, failure.errno) {
        (Capability::PidfdGetfd, Errno::EPERM) if environment.ptrace_scope == Some(3) => reason(
            "Yama's ptrace_scope 3 forbids looking into other processes, to root as well",
            "boot with kernel.yama.ptrace_scope below 3 (it cannot be lowered later)",
        ),
        (Capability::Cgroup2, Errno::ENOENT) => {
            reason("no cgroup v2 tree is mounted", "mount one: mount -t cgroup2 none /sys/fs/cgroup/unified")
        }
        (Capability::Cgroup2, Errno::EROFS) => reason(
            "the cgroup v2 tree is read-only",
            "remount it for writing; in a container, add --privileged --cgroupns=host",
        ),
        (Capability::SocketHook, Errno::EPERM) => reason(
            "another BPF program claims cgroup/sock_create for itself (attached without `multi`)",
            "find it with `bpftool cgroup tree` and detach it",
        ),
        (Capability::Jit, Errno::ENOTSUP) => {
            reason("BPF programs are interpreted", "set sysctl net.core.bpf_jit_enable=1")
        }
        (Capability::DetachedFuse, Errno::ENOENT) if failure.step.contains("/dev/fuse") => reason(
            "there is no /dev/fuse",
            "load it with modprobe fuse; in a container, add --device /dev/fuse",
        ),
        (Capability::Tap, Errno::ENOENT) if failure.step.contains("/dev/net/tun") => reason(
            "there is no /dev/net/tun",
            "load it with modprobe tun; in a container, add --device /dev/net/tun",
        ),
        _ => None,
    }
}

fn options(needs: &Needs, config: &Config, failure: &Failure) -> Option<Reason> {
    let off: Vec<&str> =
        needs.options.iter().copied().filter(|option| config.setting(option) == Setting::Off).collect();
    if !off.is_empty() {
        let hint = match off.contains(&"CONFIG_FUNCTION_ERROR_INJECTION") {
            true => DISTRIBUTIONS,
            false => "",
        };
        let value = if needs.module.is_some() { "=m" } else { "=y" };
        return Some(Reason {
            cause: format!("the kernel was built without {}", off.join(", ")),
            remedy: format!(
                "boot a kernel built with {}{hint}",
                off.iter().map(|option| format!("{option}{value}")).collect::<Vec<_>>().join(", ")
            ),
        });
    }
    let module = needs.module?;
    let in_module = needs.options.iter().any(|option| config.setting(option) == Setting::Module);
    let absent = matches!(failure.errno, Errno::ENOENT | Errno::ENODEV | Errno::EOPNOTSUPP);
    (in_module && absent).then(|| Reason {
        cause: format!("the kernel module {module} cannot be loaded"),
        remedy: format!(
            "modprobe {module}; if it is not found, install it (Ubuntu: linux-modules-extra-$(uname -r), \
             Fedora and RHEL: kernel-modules-extra)",
            module = module.replace(" and ", " ")
        ),
    })
}

/// What the kernel's own words give away, when its configuration is not to be found.
fn words(capability: Capability, failure: &Failure) -> Option<Reason> {
    let (cause, option) = match capability {
        Capability::FmodRet | Capability::FmodRetSleepable if failure.errno == Errno::ENOENT => (
            "this kernel has no should_fail_bio: where CONFIG_FUNCTION_ERROR_INJECTION is off, nothing keeps \
             the compiler from removing it",
            "CONFIG_FUNCTION_ERROR_INJECTION",
        ),
        Capability::FmodRet | Capability::FmodRetSleepable
            if failure.log.ends_with("is not modifiable") || failure.log.ends_with("is not sleepable") =>
        {
            ("should_fail_bio is not open to error injection", "CONFIG_FUNCTION_ERROR_INJECTION")
        }
        Capability::SyscallHook if failure.log.ends_with("is not modifiable") => {
            ("system calls are not open to error injection", "CONFIG_FUNCTION_ERROR_INJECTION")
        }
        Capability::SecurityHook if failure.errno == Errno::ENOENT => {
            ("this kernel has no security_file_open", "CONFIG_SECURITY")
        }
        Capability::SecurityModule if failure.errno == Errno::ENOENT => {
            ("this kernel has no bpf_lsm_file_open", "CONFIG_BPF_LSM")
        }
        Capability::KprobeOverride if failure.log.contains("bpf_override_return") => {
            ("kprobes may not override return values", "CONFIG_BPF_KPROBE_OVERRIDE")
        }
        Capability::KprobeOverride if failure.errno == Errno::ENOENT => {
            ("there are no kprobes, or there is no should_fail_bio", "CONFIG_KPROBE_EVENTS")
        }
        Capability::KprobeOverride if failure.errno == Errno::EINVAL => {
            ("should_fail_bio is not open to error injection", "CONFIG_FUNCTION_ERROR_INJECTION")
        }
        _ => return None,
    };
    Some(Reason {
        cause: cause.to_owned(),
        remedy: format!("boot a kernel built with {option}=y{DISTRIBUTIONS}"),
    })
}

/// EPERM that neither privileges nor the kernel's configuration explain.
fn forbidden(failure: &Failure) -> Option<Reason> {
    (failure.errno == Errno::EPERM && failure.log.is_empty()).then(|| Reason {
        cause: "something other than capabilities forbids it: seccomp, or a security module".to_owned(),
        remedy: "in a container, add --privileged; else look into the log of the security module".to_owned(),
    })
}

fn too_old(needs: &Needs, environment: &Environment) -> Option<Reason> {
    let (major, minor) = needs.since;
    (environment.version != (0, 0) && environment.version < needs.since).then(|| Reason {
        cause: format!("Linux {} does not have it", environment.release),
        remedy: format!("boot Linux {major}.{minor} or later, or a distribution's kernel with a backport"),
    })
}

#[cfg(test)]
mod tests;
