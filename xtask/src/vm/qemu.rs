//! The command line of QEMU and of the kernel, with the reason for each argument.

use std::ffi::OsString;
use std::path::Path;

/// What kind of machine to start.
#[derive(Debug, Clone)]
pub struct Machine {
    /// `tcg` or `kvm`.
    pub accel: Accel,
    /// What its clocks count.
    pub clock: Clock,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// More for the kernel's command line.
    pub append: String,
}

/// How the guest's instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Accel {
    /// Emulated: works everywhere.
    Tcg,
    /// Hardware: needs a usable /dev/kvm.
    Kvm,
}

/// What the guest's clocks count. A guest that is not emulated has this machine's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Clock {
    /// The time of this machine.
    Host,
    /// Its own instructions, each of which takes a nanosecond: whatever else this machine does, the same work takes the same time.
    /// While the guest waits, time passes as on this machine.
    Instructions,
}

impl Clock {
    /// Frequency of the guest's time stamp counter, kHz; `host_khz` is that of this machine's.
    pub fn tsc_khz(self, host_khz: impl FnOnce() -> u64) -> u64 {
        match self {
            Self::Host => host_khz(),
            // It counts nanoseconds then (`cpu_get_tsc`, QEMU's softmmu/cpu-timers.c).
            Self::Instructions => 1_000_000,
        }
    }
}

/// The files one VM is made of.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// Kernel image.
    pub kernel: &'a Path,
    /// Initramfs.
    pub initramfs: &'a Path,
    /// Raw image behind /dev/vda.
    pub vda: &'a Path,
    /// Raw image behind /dev/vdb.
    pub vdb: &'a Path,
    /// Directory shared read-write as /job.
    pub share: &'a Path,
    /// Gets the kernel's console.
    pub console: &'a Path,
    /// FIFO for the command's standard output.
    pub stdout: &'a Path,
    /// FIFO for the command's standard error.
    pub stderr: &'a Path,
}

/// The kernel's own command line. `tsc_khz` is the frequency of the guest's time stamp counter.
pub fn kernel_args(accel: Accel, tsc_khz: u64) -> String {
    let mut args: Vec<String> = [
        // The console QEMU writes to a file.
        "console=ttyS0",
        // Warnings and worse: `quiet` would hide WARN(), which tests must see.
        "loglevel=5",
        // Reboot at once, which ends QEMU (-no-reboot) instead of leaving a dead VM.
        "panic=-1",
        // After an oops nothing that follows means anything.
        "oops=panic",
        // Emulated, the mitigations cost several times what they cost on hardware.
        "mitigations=off",
        // Addresses in logs that mean the same in every run.
        "nokaslr",
    ]
    .map(str::to_owned)
    .to_vec();
    if accel == Accel::Tcg {
        // An emulated machine on a busy host falls behind its own timers while it boots. The check
        // whether the timer interrupt works then fails, which is a panic,
        args.push("no_timer_check".to_owned());
        // measuring the TSC against those timers gives a clock that is wrong by percents,
        args.push(format!("tsc_early_khz={tsc_khz}"));
        // and later the watchdog discards the TSC, after which every clock reading leaves the
        // emulated CPU.
        args.push("tsc=reliable".to_owned());
    }
    args.join(" ")
}

/// Everything QEMU emulates, but for what was seen to go wrong and what is quick only in hardware. A guest of QEMU 7.2 died of a double fault
/// right behind a `cmpxchg16b`, with flags that nobody computed (EFLAGS 003abb52, so VM and TF among them); its allocator does
/// that all the time, and can do without. `rep movsb` (ERMS) goes byte by byte, and the kernel clears and copies pages with it; AVX2 takes
/// several steps where SSE2 takes two, and the C library prefers it. To arm and heal a session costs a third less without
/// those.
const TCG_CPU: &str = "max,-cx16,-erms,-avx2";

/// The arguments of `qemu-system-x86_64`.
pub fn qemu_args(machine: &Machine, tsc_khz: u64, files: Files<'_>) -> Vec<OsString> {
    let mut args = Args(Vec::new());
    // No default devices, no user configuration: this list is all there is.
    args.flag("-nodefaults").flag("-no-user-config");
    args.flag("-no-reboot");
    args.pair("-display", "none");
    // For whoever wants to know what a guest is at that says nothing any more.
    args.pair("-monitor", "stdio");
    match machine.accel {
        // thread=single: with one thread per CPU, QEMU 7.2 crashes guests that patch their own text,
        // which attaching BPF does all the time.
        Accel::Tcg => args.pair("-accel", "tcg,thread=single").pair("-cpu", TCG_CPU),
        Accel::Kvm => args.pair("-accel", "kvm").pair("-cpu", "host"),
    };
    if (machine.accel, machine.clock) == (Accel::Tcg, Clock::Instructions) {
        // sleep=on: disks are served in the time of this machine, and must not seem slow to a guest that waits for them.
        args.pair("-icount", "shift=0,sleep=on,align=off");
    }
    args.pair("-smp", machine.cpus.to_string());
    args.pair("-m", machine.memory_mib.to_string());
    args.pair("-kernel", files.kernel);
    args.pair("-initrd", files.initramfs);
    let kernel = format!("{} {}", kernel_args(machine.accel, tsc_khz), machine.append);
    args.pair("-append", kernel.trim_end());

    // Kernel messages, apart from the command's output.
    args.joined("-chardev", "file,id=console,path=", files.console);
    args.pair("-serial", "chardev:console");
    args.pair("-device", "virtio-serial-pci");
    for (id, path) in [("stdout", files.stdout), ("stderr", files.stderr)] {
        args.joined("-chardev", &format!("file,id={id},path="), path);
        args.pair("-device", format!("virtserialport,chardev={id},name=fault.{id}"));
    }

    // The host's root, read-only; remap: it spans file systems whose inode numbers may collide.
    args.pair("-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap");
    args.pair("-device", "virtio-9p-pci,fsdev=root,mount_tag=hostroot");
    args.joined("-fsdev", "local,id=job,security_model=none,path=", files.share);
    args.pair("-device", "virtio-9p-pci,fsdev=job,mount_tag=job");

    // unsafe: a scratch disk need not survive the host's power failure, so flushes stay cheap.
    for disk in [files.vda, files.vdb] {
        args.joined("-drive", "format=raw,if=virtio,cache=unsafe,discard=unmap,file=", disk);
    }
    // Without it, programs that want random numbers wait for the emulated machine to gather them.
    args.pair("-device", "virtio-rng-pci");
    // No network card: the tests make their own networks, and none of them is the host's.
    args.pair("-nic", "none");
    args.0
}

struct Args(Vec<OsString>);

impl Args {
    fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.into());
        self
    }

    fn pair(&mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> &mut Self {
        self.0.push(name.into());
        self.0.push(value.as_ref().to_owned());
        self
    }

    /// An option whose value ends with a path; QEMU wants commas in values doubled.
    fn joined(&mut self, name: &str, before: &str, path: &Path) -> &mut Self {
        let path = path.to_string_lossy().replace(',', ",,");
        self.pair(name, format!("{before}{path}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(accel: Accel) -> String {
        args_by(accel, Clock::Host)
    }

    fn args_by(accel: Accel, clock: Clock) -> String {
        let machine = Machine { accel, clock, cpus: 2, memory_mib: 4096, append: String::new() };
        let files = Files {
            kernel: Path::new("/k/bzImage"),
            initramfs: Path::new("/j/initramfs"),
            vda: Path::new("/j/vda.img"),
            vdb: Path::new("/j/vdb.img"),
            share: Path::new("/j/a,b"),
            console: Path::new("/j/console"),
            stdout: Path::new("/j/stdout"),
            stderr: Path::new("/j/stderr"),
        };
        qemu_args(&machine, 2_000_000, files)
            .iter()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn emulation_is_single_threaded_and_hardware_is_not_emulated() {
        assert!(
            args(Accel::Tcg).contains("-accel tcg,thread=single -cpu max,-cx16,-erms,-avx2 -smp 2 -m 4096")
        );
        assert!(args(Accel::Kvm).contains("-accel kvm -cpu host"));
    }

    #[test]
    fn only_an_emulated_guest_counts_its_instructions() {
        assert!(args_by(Accel::Tcg, Clock::Instructions).contains("-icount shift=0,"));
        assert!(!args_by(Accel::Kvm, Clock::Instructions).contains("-icount"));
        assert!(!args(Accel::Tcg).contains("-icount"));
        assert_eq!(Clock::Instructions.tsc_khz(|| 2_400_000), 1_000_000);
        assert_eq!(Clock::Host.tsc_khz(|| 2_400_000), 2_400_000);
    }

    #[test]
    fn the_hosts_root_is_never_writable() {
        assert!(args(Accel::Tcg).contains("path=/,security_model=none,readonly=on"));
    }

    #[test]
    fn vda_comes_first() {
        let args = args(Accel::Tcg);
        assert!(args.find("vda.img") < args.find("vdb.img"));
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        assert!(args(Accel::Tcg).contains("path=/j/a,,b"));
    }

    #[test]
    fn warnings_reach_the_console() {
        let args = kernel_args(Accel::Kvm, 0);
        assert!(args.split(' ').any(|arg| arg == "loglevel=5"));
        assert!(!args.contains("quiet"));
    }

    #[test]
    fn only_an_emulated_clock_needs_help() {
        assert!(kernel_args(Accel::Tcg, 2_400_000).contains("tsc_early_khz=2400000"));
        assert!(!kernel_args(Accel::Kvm, 2_400_000).contains("tsc"));
    }
}
