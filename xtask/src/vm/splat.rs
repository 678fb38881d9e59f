//! What in a kernel's log means that something went wrong in the kernel itself.

/// What the kernel's own complaints contain.
const SIGNS: [&str; 14] = [
    "BUG:",
    "WARNING:",
    "INFO: task ", // … blocked for more than N seconds
    "rcu: INFO:",
    "watchdog: BUG",
    "Oops",
    "Kernel panic",
    "general protection fault",
    "unable to handle",
    "Call Trace:",
    "UBSAN:",
    "KASAN:",
    "unregister_netdevice: waiting for",
    "fault-vm:", // our own init's complaints
];

/// Lines of `log` that show a kernel splat; empty when all is well.
pub fn lines(log: &str) -> Vec<&str> {
    log.lines().filter(|line| SIGNS.iter().any(|sign| line.contains(sign))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_found_and_chatter_is_not() {
        let log = "[    0.1] x86/fpu: supports XSAVE\n\
                   [    1.2] WARNING: CPU: 0 PID: 1 at kernel/bpf/x.c:1 f+0x1/0x2\n\
                   [    1.3] EXT4-fs (vda): mounted filesystem\n\
                   [    9.9] INFO: task dd:77 blocked for more than 120 seconds.\n";
        assert_eq!(lines(log).len(), 2);
        assert!(lines("[    0.1] Debug mode\n").is_empty());
    }
}
