//! Where the kernel keeps what the programs read: structure offsets, resolved from BTF, handed over as
//! read-only globals of the object.

use std::os::unix::fs::MetadataExt as _;

use super::btf::{Btf, BtfError};
use crate::{block, file, session::plan::Needs};

/// Global of `fault-ebpf/src/life`, structure, field.
const LIFE: [(&str, &str, &str); 6] = [
    ("TASK_TGID_OFFSET", "task_struct", "tgid"),
    ("TASK_PID_OFFSET", "task_struct", "pid"),
    ("TASK_COMM_OFFSET", "task_struct", "comm"),
    ("TASK_FLAGS_OFFSET", "task_struct", "flags"),
    ("TASK_SIGNAL_OFFSET", "task_struct", "signal"),
    ("SIGNAL_LIVE_OFFSET", "signal_struct", "live"),
];

/// Everything the programs of a session need to know.
///
/// # Errors
/// When this kernel has no such field.
pub fn resolve(btf: &Btf, needs: Needs) -> Result<Vec<(&'static str, u32)>, BtfError> {
    let mut globals = Vec::new();
    for (global, structure, path) in LIFE {
        globals.push((global, btf.field(structure, path)?.offset));
    }
    globals.push(("CONTROLLER", controller()));
    if needs.bios {
        globals.extend(block::fields::globals(btf)?);
    }
    if needs.files != 0 {
        globals.extend(file::fields::globals(btf)?);
    }
    Ok(globals)
}

/// Our process number as the kernel's programs see it; 0, which no process has, when we live in a PID namespace of our own.
fn controller() -> u32 {
    // `PROC_PID_INIT_INO` (include/linux/proc_ns.h).
    const INITIAL: u64 = 0xEFFF_FFFC;
    let is_initial = std::fs::metadata("/proc/self/ns/pid").is_ok_and(|namespace| namespace.ino() == INITIAL);
    if is_initial { std::process::id() } else { 0 }
}
