//! The object in the kernel: maps created, control block mapped, no program attached yet.

use aya::{Ebpf, EbpfError, EbpfLoader, maps::MapData};

use super::{
    control::{ControlBlock, CounterBlock, MapIntoMemoryError, map_data, monotonic_ns},
    object::{self, ObjectMissing},
    probe::Environment,
};
use crate::exit::Class;

/// Bytes of the ring buffer of a session without `--events`: some hundred packets, some dozen paths, for whoever looks on.
const AUDIENCE_RING: u32 = 1 << 16;

/// The object could not be brought into the kernel.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nothing to load.
    #[error(transparent)]
    Missing(#[from] ObjectMissing),
    /// Parsing, relocating or creating maps failed.
    #[error("loading the eBPF object failed")]
    Object(#[source] Box<EbpfError>),
    /// The object has no such map: it and this binary are of different builds.
    #[error("the eBPF object has no map {0}")]
    NoMap(&'static str),
    /// A map could not be mapped.
    #[error(transparent)]
    Memory(#[from] MapIntoMemoryError),
}

impl LoadError {
    /// The kind of failure.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Missing(_) => Class::Unsupported,
            Self::Object(error) if not_permitted(error.as_ref()) && Environment::here().lacks_privilege() => {
                Class::NotPermitted
            }
            Self::Object(_) => Class::Unsupported,
            Self::NoMap(_) | Self::Memory(_) => Class::Other,
        }
    }
}

/// Whether somewhere down the chain the kernel said EPERM or EACCES.
fn not_permitted(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::PermissionDenied
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// The maps of one session. Dropping it frees everything the kernel holds for them.
pub struct Loaded {
    /// For the rooms that fill maps and load programs.
    pub ebpf: Ebpf,
    /// The control block; inactive until the session says so.
    pub control: ControlBlock,
    /// The rule counters.
    pub counters: CounterBlock,
}

/// Read-only globals of the object: name → value (structure offsets, mostly).
pub type Globals = [(&'static str, u32)];

/// What only some sessions need; the others keep these maps tiny.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// The parking lot's deadlines: 1 KiB for each CPU.
    pub parking: bool,
    /// The ring buffer of `--events`: 4 MiB.
    pub events: bool,
    /// Patterns of paths: 1 MiB.
    pub globs: bool,
    /// Distributions of delays that are read from files: 2 MiB.
    pub tables: bool,
}

/// Creates all maps, with `globals` set, and beats once.
///
/// # Errors
/// See [`LoadError`].
pub fn load(globals: &Globals, sizes: Sizes) -> Result<Loaded, LoadError> {
    let mut loader = EbpfLoader::new();
    // Task storage is a map type aya 0.14 creates but has no wrapper for.
    loader.allow_unsupported_maps();
    let parking = match sizes.parking {
        true => {
            fault_common::limits::PARKING_PLACES_PER_CPU * aya::util::nr_cpus().map_or(1, |cpus| cpus as u32)
        }
        false => 1,
    };
    loader.map_max_entries("PARKING", parking);
    if !sizes.parking {
        loader.map_max_entries("AIO_QUEUES", 1);
    }
    if !sizes.globs {
        loader.map_max_entries("GLOBS", 1);
    }
    if !sizes.tables {
        loader.map_max_entries("TABLES", 1);
    }
    if !sizes.events {
        loader.map_max_entries("EVENTS", AUDIENCE_RING);
    }
    for (name, value) in globals {
        loader.override_global(name, value, true);
    }
    let ebpf = loader.load(object::object()?).map_err(|error| LoadError::Object(Box::new(error)))?;
    let control = ControlBlock::new(find(&ebpf, "CONTROL")?)?;
    let counters = CounterBlock::new(find(&ebpf, "RULE_COUNTERS")?)?;
    control.deadline_ns.store(u64::MAX);
    control.in_force.store(u64::MAX);
    control.heartbeat_ns.store(monotonic_ns());
    control.controller_tgid.store(std::process::id());
    Ok(Loaded { ebpf, control, counters })
}

/// The map `name` of the object.
///
/// # Errors
/// When the object has no such map.
pub fn find<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a MapData, LoadError> {
    ebpf.map(name).map(map_data).ok_or(LoadError::NoMap(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_created_and_mapped() {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root");
        let loaded = match load(&[], Sizes::default()) {
            Ok(loaded) => loaded,
            Err(error) => panic!(
                "{}",
                anyhow::Error::from(error).chain().map(|e| e.to_string()).collect::<Vec<_>>().join(": ")
            ),
        };
        assert!(!loaded.control.is_live(monotonic_ns()), "inactive until told otherwise");
        loaded.control.active.store(1);
        assert!(loaded.control.is_live(monotonic_ns()));
        assert!(!loaded.control.is_live(monotonic_ns() + 6_000_000_000), "a stale heartbeat is death");
        assert_eq!(loaded.counters.rule(1, 63).matched.load(), 0);
    }
}
