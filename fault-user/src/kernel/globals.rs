//! Where the kernel keeps what the programs read: structure offsets, resolved from BTF, handed over as
//! read-only globals of the object, or as constants of a program.

use std::os::unix::fs::MetadataExt as _;

use super::{
    btf::{Btf, BtfError},
    patch::Constant,
};
use crate::{block, file, session::plan::Needs};

/// Global of the object, structure, field.
pub type Field = (&'static str, &'static str, &'static str);

/// Those of `fault-ebpf/src/life`.
const LIFE: &[Field] = &[
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
    let mut globals = offsets(btf, LIFE, &[])?;
    globals.push(("CONTROLLER", controller()));
    if needs.bios {
        globals.extend(block::fields::globals(btf)?);
        if needs.globs {
            globals.extend(block::files::globals(btf)?);
        }
    }
    if needs.files != 0 || needs.globs {
        globals.extend(file::fields::globals(btf)?);
    }
    Ok(globals)
}

/// What the programs that see packets need to know to tell a bystander's without a call (`fault-ebpf/src/net/fields.rs`); nothing where
/// the kernel has no such fields.
///
/// # Errors
/// When this kernel has no `sk_buff`.
pub fn packets(btf: &Btf) -> Result<Option<[(Constant, u32); 4]>, BtfError> {
    let storage = btf.optional_field("sock", "sk_bpf_storage")?;
    let (Some(storage), Some(kernels)) = (storage, btf.bit("sock", "sk_kern_sock")?) else { return Ok(None) };
    Ok(Some([
        (Constant::BufferSocket, btf.field("sk_buff", "sk")?.offset),
        (Constant::SocketStorage, storage.offset),
        (Constant::KernelSocket, kernels.offset),
        (Constant::KernelSocketMask, kernels.mask),
    ]))
}

/// Where the fields are; 0 for an optional one that this kernel has not.
///
/// # Errors
/// When it has not a required one.
pub fn offsets(
    btf: &Btf,
    required: &[Field],
    optional: &[Field],
) -> Result<Vec<(&'static str, u32)>, BtfError> {
    let mut globals = Vec::with_capacity(required.len() + optional.len());
    for &(global, structure, path) in required {
        globals.push((global, btf.field(structure, path)?.offset));
    }
    for &(global, structure, path) in optional {
        globals.push((global, btf.optional_field(structure, path)?.map_or(0, |field| field.offset)));
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
