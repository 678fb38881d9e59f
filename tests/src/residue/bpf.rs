//! BPF objects of the whole machine, and who holds them.

use std::{collections::BTreeSet, fs};

use anyhow::bail;

use crate::offspring;

/// One kind of BPF object.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    name: &'static str,
    /// `BPF_*_GET_NEXT_ID` of linux/bpf.h.
    command: libc::c_int,
    /// In `/proc/PID/fdinfo/FD`.
    fdinfo: &'static str,
}

/// All kinds.
pub(super) const KINDS: [Kind; 3] = [
    Kind { name: "BPF program", command: 11, fdinfo: "prog_id:" },
    Kind { name: "BPF map", command: 12, fdinfo: "map_id:" },
    Kind { name: "BPF link", command: 31, fdinfo: "link_id:" },
];

impl Kind {
    /// How a picture calls one.
    pub(super) fn thing(self, id: u32) -> String {
        format!("{} {id}", self.name)
    }
}

/// Whether a thing of a picture is a BPF object.
pub(super) fn is_one(thing: &str) -> bool {
    KINDS.iter().any(|kind| thing.starts_with(kind.name))
}

/// Whether it is a program or a map, which do nothing without a link.
pub(super) fn is_memory(thing: &str) -> bool {
    KINDS[..2].iter().any(|kind| thing.starts_with(kind.name))
}

/// All ids the kernel has for one kind of BPF object.
pub(super) fn ids(kind: Kind) -> anyhow::Result<Vec<u32>> {
    let mut ids = Vec::new();
    // union bpf_attr: start_id, next_id, open_flags.
    let mut attribute = [0u32; 32];
    loop {
        // SAFETY: the kernel reads and writes the first twelve bytes of the attribute.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, kind.command, attribute.as_mut_ptr(), size_of_val(&attribute))
        };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::ENOENT) {
                return Ok(ids);
            }
            bail!("listing BPF objects ({}): {error}", kind.name);
        }
        ids.push(attribute[1]);
        attribute[0] = attribute[1];
    }
}

/// The objects that processes hold which have nothing to do with this test.
pub(super) fn held_by_others() -> anyhow::Result<BTreeSet<String>> {
    let mut held = BTreeSet::new();
    for (pid, _) in super::processes()? {
        // Only who has such a descriptor is asked for its environment.
        let mut holds: Vec<String> = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            for kind in KINDS {
                let id = text.lines().find_map(|line| line.strip_prefix(kind.fdinfo)?.trim().parse().ok());
                holds.extend(id.map(|id| kind.thing(id)));
            }
        }
        if !holds.is_empty() && !offspring::is(pid) {
            held.extend(holds);
        }
    }
    Ok(held)
}
