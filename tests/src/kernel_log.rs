//! The kernel's own opinion of what was done to it.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
};

use anyhow::{Context as _, bail};

/// What the kernel prints when something is badly wrong.
const SPLATS: &[&str] = &[
    "BUG:",
    "WARNING:",
    "Oops",
    "general protection fault",
    "Call Trace:",
    "blocked for more than",
    "soft lockup",
    "rcu_sched",
    "rcu_preempt",
    "unregister_netdevice: waiting",
    "refcount_t:",
    "Dead loop on virtual device",
    "asks to queue packet",
];

/// `/dev/kmsg` from now on.
pub struct KernelLog(File);

impl KernelLog {
    /// Everything printed after this call counts.
    ///
    /// # Errors
    /// When `/dev/kmsg` cannot be read.
    pub fn from_now() -> anyhow::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("opening /dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self(file))
    }

    /// Reads what was printed since.
    ///
    /// # Errors
    /// With the lines, when one of them is a splat.
    pub fn must_be_clean(&mut self) -> anyhow::Result<()> {
        let mut bad = Vec::new();
        let mut record = [0u8; 8192];
        // One record per read; EPIPE is "overwritten before it was read", the next read goes on behind the gap.
        loop {
            match self.0.read(&mut record) {
                Ok(0) => break,
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]).into_owned();
                    if SPLATS.iter().any(|splat| text.contains(splat)) {
                        bad.push(text);
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("reading /dev/kmsg"),
            }
        }
        if bad.is_empty() { Ok(()) } else { bail!("the kernel complained:\n{}", bad.join("")) }
    }
}
