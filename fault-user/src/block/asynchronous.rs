//! Asynchronous I/O under a delay: the submitter goes on, somebody else waits.
//!
//! libaio: who reaps. io_uring: the ring's workers. See `fault-ebpf/src/block/{aio,punt}.rs`. Those programs run for everybody's
//! libaio calls, reads and writes, so they come when the target needs them, and stay: see `fault-ebpf/src/block/begin.rs`.

use std::os::fd::{AsFd, OwnedFd};

use fault_common::control::asynchronous;

use crate::kernel::{
    btf::Btf,
    load::Loaded,
    modify_return::{Copies, CopyError, Kind, attach_to_function, modifiers},
    patch::Constant,
};

/// System calls that reap.
const REAPERS: [&str; 2] = ["__x64_sys_io_getevents", "__x64_sys_io_pgetevents"];

/// System calls that begin: the function, who asks there, and who waits.
const BEGINNINGS: [(&str, &str, &str); 2] = [
    ("__x64_sys_io_setup", "aio_begins", "aio_awaited"),
    ("__x64_sys_io_uring_setup", "uring_begins", "uring_awaited"),
];

/// What is attached because of it.
#[derive(Debug)]
pub(super) struct Asynchronous {
    links: Vec<OwnedFd>,
    /// Number of the first parker that is not on the block hook.
    number: u32,
}

impl Asynchronous {
    /// Attaches what notices that the target begins to need more, with numbers of parkers from `number` on. A kernel (or
    /// architecture) without these system calls has nobody to make wait.
    pub(super) fn watch(copies: &Copies, btf: &Btf, number: u32) -> Result<Self, CopyError> {
        let mut watching = Self { links: Vec::new(), number };
        for ((function, asks, waits), number) in BEGINNINGS.into_iter().zip(number..) {
            if btf.function_id(function).is_err() {
                continue;
            }
            // Beside another session's, who begins does not wait for us: see `serve`.
            if modifiers(btf, function)? == 0 {
                let sleepable = Kind::ModifyReturn { function, sleepable: true };
                watching.attach(copies, btf, (waits, sleepable), &[(Constant::ParkerNumber, number)])?;
            }
            // As on the block hook: reverse order of attachment.
            watching.attach(copies, btf, (asks, Kind::ModifyReturn { function, sleepable: false }), &[])?;
        }
        Ok(watching)
    }

    /// Attaches what `interfaces` need, a mask of [`asynchronous`], unless it is there, and lets those go that wait for it.
    pub(super) fn serve(
        &mut self,
        loaded: &Loaded,
        copies: &Copies,
        btf: &Btf,
        interfaces: u64,
    ) -> Result<(), CopyError> {
        let new = interfaces & !loaded.control.served.load();
        if new & asynchronous::LIBAIO != 0 && self.reap(copies, btf)? {
            // From here on submissions of libaio are let through.
            loaded.control.reap.store(1);
        }
        if new & asynchronous::URING != 0 {
            let function = "security_file_permission";
            self.attach_if_there(
                copies,
                btf,
                ("punt_uring", Kind::ModifyReturn { function, sleepable: false }),
            )?;
        }
        // Also what could not be done: it is not asked for again.
        loaded.control.asked.set_bits(new);
        loaded.control.served.set_bits(new);
        Ok(())
    }

    /// Attaches the programs of libaio. Whether reapers wait now; else its submitters go on to do so.
    ///
    /// Who sleeps must be in the last program of the chain (`fault-ebpf/src/block/park.rs` says why), so nobody else's
    /// programs may be on these calls: beside another session that delays, submitters wait.
    fn reap(&mut self, copies: &Copies, btf: &Btf) -> Result<bool, CopyError> {
        let mut reaps = btf.function_id(REAPERS[0]).is_ok();
        for function in REAPERS {
            reaps &= btf.function_id(function).is_err() || modifiers(btf, function)? == 0;
        }
        if !reaps {
            return Ok(false);
        }
        let first = self.number + BEGINNINGS.len() as u32;
        for (function, number) in REAPERS.into_iter().zip(first..) {
            if btf.function_id(function).is_err() {
                continue;
            }
            // As on the block hook: reverse order of attachment.
            let sleepable = Kind::ModifyReturn { function, sleepable: true };
            self.attach(copies, btf, ("park_reaper", sleepable), &[(Constant::ParkerNumber, number)])?;
            let decides = Kind::ModifyReturn { function, sleepable: false };
            self.attach(copies, btf, ("aio_reaps", decides), &[])?;
            self.attach(copies, btf, ("aio_reaped", Kind::Exit { function }), &[])?;
        }
        self.attach_if_there(copies, btf, ("aio_submitted", Kind::Exit { function: "__x64_sys_io_submit" }))?;
        self.attach_if_there(
            copies,
            btf,
            ("aio_destroyed", Kind::Entry { function: "__x64_sys_io_destroy" }),
        )?;
        Ok(true)
    }

    fn attach_if_there(
        &mut self,
        copies: &Copies,
        btf: &Btf,
        program: (&str, Kind<'_>),
    ) -> Result<(), CopyError> {
        match self.attach(copies, btf, program, &[]) {
            Err(CopyError::NoFunction { .. }) => Ok(()),
            attached => attached,
        }
    }

    fn attach(
        &mut self,
        copies: &Copies,
        btf: &Btf,
        (name, kind): (&str, Kind<'_>),
        constants: &[(Constant, u32)],
    ) -> Result<(), CopyError> {
        let (Kind::ModifyReturn { function, .. } | Kind::Entry { function } | Kind::Exit { function }) = kind
        else {
            return Ok(());
        };
        let program = copies.load(btf, name, kind, constants)?;
        self.links.push(attach_to_function(program.as_fd(), function)?);
        Ok(())
    }
}
