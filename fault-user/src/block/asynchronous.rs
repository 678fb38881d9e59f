//! Asynchronous I/O under a delay: the submitter goes on, somebody else waits.
//!
//! libaio: who reaps. io_uring: the ring's workers. See `fault-ebpf/src/block/{aio,punt}.rs`.

use std::os::fd::{AsFd, OwnedFd};

use crate::kernel::{
    btf::Btf,
    modify_return::{Copies, CopyError, Kind, attach_to_function},
    patch::Constant,
};

/// System calls that reap, and how many copies of the parking program they get: per CPU as many threads of a
/// target can wait in one at the same time. What is beyond that is counted as overflow.
const REAPERS: [(&str, u32); 2] = [("__x64_sys_io_getevents", 8), ("__x64_sys_io_pgetevents", 2)];

/// Attaches everything, with numbers of parkers from `first` on. A kernel (or architecture) without these system
/// calls has nobody to make wait.
pub(super) fn attach(copies: &Copies, btf: &Btf, first: u32) -> Result<Vec<OwnedFd>, CopyError> {
    let mut links = Vec::new();
    let mut attach = |name, kind, constants: &[(Constant, u32)]| {
        let (Kind::ModifyReturn { function, .. } | Kind::Entry { function } | Kind::Exit { function }) = kind
        else {
            return Ok(());
        };
        let program = copies.load(btf, name, kind, constants)?;
        links.push(attach_to_function(program.as_fd(), function)?);
        Ok::<(), CopyError>(())
    };
    let mut number = first;
    for (function, count) in REAPERS {
        if btf.function_id(function).is_err() {
            continue;
        }
        let plain = Kind::ModifyReturn { function, sleepable: false };
        // As on the block hook: reverse order of attachment.
        attach("tally_bio", plain, &[])?;
        for _ in 0..count {
            let sleepable = Kind::ModifyReturn { function, sleepable: true };
            attach("park_bio", sleepable, &[(Constant::ParkerNumber, number)])?;
            number += 1;
        }
        attach("aio_reaps", plain, &[])?;
        attach("aio_reaped", Kind::Exit { function }, &[])?;
    }
    for (name, kind) in [
        ("aio_submitted", Kind::Exit { function: "__x64_sys_io_submit" }),
        ("aio_destroyed", Kind::Entry { function: "__x64_sys_io_destroy" }),
        ("punt_uring", Kind::ModifyReturn { function: "security_file_permission", sleepable: false }),
    ] {
        match attach(name, kind, &[]) {
            Err(CopyError::NoFunction { .. }) => {}
            attached => attached?,
        }
    }
    Ok(links)
}
