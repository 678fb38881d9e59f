//! Asynchronous I/O under a delay: the submitter goes on, somebody else waits.
//!
//! libaio: who reaps. io_uring: the ring's workers. See `fault-ebpf/src/block/{aio,punt}.rs`.

use std::os::fd::{AsFd, OwnedFd};

use crate::kernel::{
    btf::Btf,
    modify_return::{Copies, CopyError, Kind, attach_to_function, modifiers},
    patch::Constant,
};

/// System calls that reap.
const REAPERS: [&str; 2] = ["__x64_sys_io_getevents", "__x64_sys_io_pgetevents"];

/// What has been attached.
pub(super) struct Asynchronous {
    pub links: Vec<OwnedFd>,
    /// Reapers of libaio wait; else its submitters must.
    pub reaps: bool,
}

/// Attaches everything, with numbers of parkers from `number` on. A kernel (or architecture) without these system
/// calls has nobody to make wait.
///
/// Who sleeps must be in the last program of the chain (`fault-ebpf/src/block/park.rs` says why), so nobody else's
/// programs may be on these calls: beside another session that delays, submitters wait.
pub(super) fn attach(copies: &Copies, btf: &Btf, mut number: u32) -> Result<Asynchronous, CopyError> {
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
    let mut reaps = btf.function_id(REAPERS[0]).is_ok();
    for function in REAPERS {
        reaps &= btf.function_id(function).is_err() || modifiers(btf, function)? == 0;
    }
    for function in REAPERS {
        if !reaps || btf.function_id(function).is_err() {
            continue;
        }
        // As on the block hook: reverse order of attachment.
        let sleepable = Kind::ModifyReturn { function, sleepable: true };
        attach("park_reaper", sleepable, &[(Constant::ParkerNumber, number)])?;
        number += 1;
        attach("aio_reaps", Kind::ModifyReturn { function, sleepable: false }, &[])?;
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
    Ok(Asynchronous { links, reaps })
}
