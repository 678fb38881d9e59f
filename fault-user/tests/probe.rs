//! Probing the real kernel leaves nothing behind, and what it finds agrees with what others know.
//!
//! One test in a process of its own: descriptors, children and threads are counted.

use std::{collections::BTreeSet, fs, time::Duration};

use fault_user::kernel::probe::{Capabilities, Capability, Feature, Verdict};
use nix::{errno::Errno, sys::wait::waitpid, unistd::Pid};

#[test]
fn probing_leaves_nothing_behind_and_tells_the_truth() {
    let before = Picture::take();
    let capabilities = Capabilities::probe();
    let after = Picture::take();
    assert_eq!(before, after);
    assert_eq!(waitpid(None::<Pid>, None), Err(Errno::ECHILD), "a child was left behind");
    for (capability, verdict) in capabilities.iter() {
        println!("{:<20} {verdict:?}", capability.name());
    }
    assert_eq!(capabilities.iter().count(), Capability::ALL.len(), "every capability has a verdict");

    let permitted = nix::unistd::geteuid().is_root() && capabilities.environment().missing.is_empty();
    if !capabilities.has(Capability::Permission) {
        assert!(!permitted, "root was refused: {:?}", capabilities.require(Feature::PacketDrop));
        return;
    }
    no_program_of_ours();
    agrees_with_the_configuration(&capabilities);
    agrees_with_other_interfaces(&capabilities);
}

/// What a process can leave behind in itself and in the machine without asking the kernel's BPF lists.
#[derive(Debug, PartialEq, Eq)]
struct Picture {
    descriptors: BTreeSet<String>,
    threads: usize,
    mounts: String,
    devices: BTreeSet<String>,
    network_namespace: String,
    cgroup: String,
}

impl Picture {
    fn take() -> Self {
        let names = |path: &str| {
            fs::read_dir(path)
                .expect(path)
                .map(|entry| entry.expect(path).file_name().to_string_lossy().into_owned())
                .collect()
        };
        Self {
            descriptors: names("/proc/self/fd"),
            threads: fs::read_dir("/proc/self/task").expect("proc is mounted").count(),
            mounts: fs::read_to_string("/proc/self/mountinfo").expect("proc is mounted"),
            devices: names("/sys/class/net"),
            network_namespace: fs::read_link("/proc/thread-self/ns/net")
                .expect("proc is mounted")
                .display()
                .to_string(),
            cgroup: fs::read_to_string("/proc/self/cgroup").expect("proc is mounted"),
        }
    }
}

/// Programs and maps of the probes carry a name. The kernel may take a moment to free what lost its owner.
fn no_program_of_ours() {
    let ours = || {
        let programs = aya::programs::loaded_programs()
            .filter_map(Result::ok)
            .filter(|program| program.name_as_str() == Some("fault_probe"))
            .count();
        let maps = aya::maps::loaded_maps()
            .filter_map(Result::ok)
            .filter(|map| map.name_as_str() == Some("fault_probe"))
            .count();
        (programs, maps)
    };
    for _ in 0..100 {
        if ours() == (0, 0) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("programs and maps left behind: {:?}", ours());
}

/// What an option makes impossible must have been found to be impossible, and the option must be named.
fn agrees_with_the_configuration(capabilities: &Capabilities) {
    let Ok(config) = procfs::kernel_config() else { return };
    for (option, capability) in [
        ("CONFIG_NET_SCH_FQ", Capability::Fq),
        ("CONFIG_TUN", Capability::Tap),
        ("CONFIG_MACVLAN", Capability::Macvlan),
        ("CONFIG_VLAN_8021Q", Capability::Vlan),
        ("CONFIG_FUSE_FS", Capability::DetachedFuse),
        ("CONFIG_FUNCTION_ERROR_INJECTION", Capability::FmodRet),
        ("CONFIG_FUNCTION_ERROR_INJECTION", Capability::FmodRetSleepable),
        ("CONFIG_BPF_KPROBE_OVERRIDE", Capability::KprobeOverride),
        ("CONFIG_DEBUG_INFO_BTF", Capability::Btf),
    ] {
        if config.contains_key(option) {
            continue;
        }
        let verdict = capabilities.iter().find(|(found, _)| *found == capability).map(|(_, verdict)| verdict);
        match verdict {
            Some(Verdict::No { cause, .. }) => assert!(cause.contains(option), "{cause}"),
            other => panic!("{} without {option}: {other:?}", capability.name()),
        }
    }
}

/// Facts that other interfaces of the kernel show.
fn agrees_with_other_interfaces(capabilities: &Capabilities) {
    let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").is_ok_and(|mode| mode.trim() != "0");
    assert_eq!(capabilities.has(Capability::Jit), jit);
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("proc is mounted");
    let unified = mounts.contains(" - cgroup2 ");
    assert!(unified || !capabilities.has(Capability::Cgroup2));
    assert_eq!(capabilities.has(Capability::Btf), fs::exists("/sys/kernel/btf/vmlinux").expect("sysfs"));
}
