//! Debian's names of what we use, and the program that shows a thing is there already.

use super::Need;

/// A package.
#[derive(Debug)]
pub struct Package {
    /// Debian's name.
    pub name: &'static str,
    /// If this program is on the machine, whatever brought it, the package is not needed.
    pub program: Option<&'static str>,
}

/// A package that is there if its program is.
const fn program(name: &'static str, program: &'static str) -> Package {
    Package { name, program: Some(program) }
}

/// A package only dpkg can tell.
const fn library(name: &'static str) -> Package {
    Package { name, program: None }
}

/// A Rust compiler with its library's source, and the LLVM that bpf-linker is built with.
const EBPF: &[Package] = &[
    library("rustc-web"),
    library("rust-web-src"),
    library("cargo-web"),
    library("llvm-22-dev"),
    library("libpolly-22-dev"),
    library("zlib1g-dev"),
    library("libzstd-dev"),
    library("libxml2-dev"),
    program("g++", "g++"),
];

const KERNEL: &[Package] = &[
    program("make", "make"),
    program("gcc", "gcc"),
    program("bc", "bc"),
    program("bison", "bison"),
    program("flex", "flex"),
    program("perl", "perl"),
    program("xz-utils", "xz"),
    program("dwarves", "pahole"),
    library("libelf-dev"),
    library("libssl-dev"),
];

const STOCK_KERNEL: &[Package] = &[program("kmod", "depmod"), program("xz-utils", "xz")];

const VM: &[Package] = &[
    program("qemu-system-x86", "qemu-system-x86_64"),
    // Static: it is alone in the initramfs.
    library("busybox-static"),
    program("kmod", "modprobe"),
    program("iproute2", "ip"),
];

const TESTS: &[Package] = &[
    program("bpftool", "bpftool"),
    program("containerd", "containerd"),
    program("crun", "crun"),
    program("curl", "curl"),
    // The daemon; it runs in VMs only.
    program("docker.io", "dockerd"),
    program("dmsetup", "dmsetup"),
    program("e2fsprogs", "mkfs.ext4"),
    program("etcd-client", "etcdctl"),
    // The daemon; it runs in VMs only.
    program("etcd-server", "etcd"),
    program("ethtool", "ethtool"),
    program("fio", "fio"),
    program("iperf3", "iperf3"),
    program("iproute2", "tc"),
    program("iputils-ping", "ping"),
    program("netcat-openbsd", "nc"),
    program("nftables", "nft"),
    program("openssh-client", "ssh"),
    program("openssh-server", "sshd"),
    program("openssl", "openssl"),
    program("nginx-light", "nginx"),
    program("podman", "podman"),
    // Debian 12's; the servers of the tests are their own, in VMs.
    library("postgresql-15"),
    program("procps", "ps"),
    program("python3", "python3"),
    // The gallery's payment service and ledger, with Debian's own interpreter.
    library("python3-psycopg2"),
    // The clients of its ensemble, with the same.
    library("python3-kazoo"),
    // The daemon; it runs in VMs only.
    program("redis-server", "redis-server"),
    program("runc", "runc"),
    program("sqlite3", "sqlite3"),
    program("strace", "strace"),
    // `systemd` alone, in a PID namespace; it need not have booted this machine.
    library("systemd"),
    program("systemd-container", "systemd-nspawn"),
    program("tcpdump", "tcpdump"),
    // A terminal for the live view.
    program("tmux", "tmux"),
    program("wireguard-tools", "wg"),
    program("xfsprogs", "mkfs.xfs"),
    // The gallery's ensemble, and what it runs in: Debian 12's.
    library("zookeeper"),
    library("openjdk-17-jre-headless"),
    // What fio's libaio engine and Python's ctypes load.
    library("libaio1"),
];

const BENCH: &[Package] = &[
    program("haproxy", "haproxy"),
    program("mitmproxy", "mitmdump"),
    program("util-linux", "taskset"),
    program("wrk", "wrk"),
];

const DIST: &[Package] = &[program("gcc", "gcc")];

const FUZZ: &[Package] = &[program("g++", "g++")];

/// What `need` needs.
pub fn of(need: Need) -> &'static [Package] {
    match need {
        Need::Ebpf => EBPF,
        Need::Kernel => KERNEL,
        Need::StockKernel => STOCK_KERNEL,
        Need::Vm => VM,
        Need::Tests => TESTS,
        Need::Bench => BENCH,
        Need::Dist => DIST,
        Need::Fuzz => FUZZ,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiling_the_workspace_does_not_bring_a_machine_emulator() {
        assert!(of(Need::Ebpf).iter().all(|package| !package.name.contains("qemu")));
    }
}
