//! Why a session could not be armed, kept or healed.

use std::io;

use aya::{maps::MapError, programs::ProgramError};

use super::{
    keeper::KeeperError, pause::PauseError, plan::PlanError, residue::UndoError, tables::TableError,
};
use crate::{
    block::{hooks::BlockError, parking::ParkingError},
    exit::Class,
    file::FileError,
    kernel::{btf::BtfError, load::LoadError, modify_return::CopyError},
    net::error::NetError,
    report::output::OutputError,
    target::TargetError,
};

/// Why a session could not be armed, kept or healed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The faults do not make a session.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The object.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel's type information.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// A copy of a program.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// Packets.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The keeper.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// Block I/O.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The parking lot.
    #[error(transparent)]
    Parking(#[from] ParkingError),
    /// Operations on files.
    #[error(transparent)]
    File(#[from] FileError),
    /// A distribution.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Pauses.
    #[error(transparent)]
    Pause(#[from] PauseError),
    /// Something could not be put back.
    #[error(transparent)]
    Undo(#[from] UndoError),
    /// The events.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The ring buffer of events.
    #[error("watching the ring buffer of events failed")]
    Ring(#[source] io::Error),
    /// The ring buffer by which programs ask for others.
    #[error("watching the ring buffer by which the eBPF programs ask for others failed")]
    Bell(#[source] io::Error),
    /// The object has no such program: it and this binary are of different builds.
    #[error("the eBPF object has no program {0}")]
    NoProgram(&'static str),
    /// The object has no such map: as above.
    #[error("the eBPF object has no map {0}")]
    NoMap(&'static str),
    /// New rules need hooks, a lane or a parking lot that the session did not set up.
    #[error("the new faults need more of the kernel than this session was armed for")]
    NotArmedFor,
    /// A thread.
    #[error("starting a thread failed")]
    Thread(#[source] io::Error),
    /// A program was refused.
    #[error("loading or attaching the eBPF program {name} failed")]
    Program {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map was refused.
    #[error("writing the eBPF map {name} failed")]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<MapError>,
    },
    /// A file or directory.
    #[error("opening {path} failed")]
    Open {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl SessionError {
    pub(super) fn program(name: &'static str) -> impl FnOnce(ProgramError) -> Self {
        move |source| Self::Program { name, source: Box::new(source) }
    }

    pub(super) fn map(name: &'static str) -> impl FnOnce(MapError) -> Self {
        move |source| Self::Map { name, source: Box::new(source) }
    }

    /// What became of taking an entry out of a map: one that is not there is as good as taken out. aya has an error for that,
    /// but hands on the kernel's.
    pub(super) fn removed(name: &'static str, removed: Result<(), MapError>) -> Result<(), Self> {
        match removed {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(())
            }
            Err(error) => Err(Self::map(name)(error)),
        }
    }

    /// Whether a network device went away while something was being done to it.
    pub(super) fn is_vanished_device(&self) -> bool {
        matches!(self, Self::Net(error) if error.errno() == Some(libc::ENODEV))
    }

    /// The kind of failure.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Plan(_) | Self::NotArmedFor | Self::Table(_) => Class::Usage,
            Self::Target(error) => error.class(),
            Self::Load(error) => error.class(),
            Self::Copy(error) => error.class(),
            Self::Net(error) => error.class(),
            Self::Block(error) => error.class(),
            Self::Parking(_) => Class::Other,
            Self::File(error) => error.class(),
            Self::Pause(error) => error.class(),
            Self::Output(error) => error.class(),
            Self::Ring(_) | Self::Bell(_) | Self::Thread(_) | Self::Undo(_) => Class::Other,
            Self::Btf(_) | Self::Program { .. } => Class::Unsupported,
            Self::Keeper(_) | Self::NoProgram(_) | Self::NoMap(_) | Self::Map { .. } | Self::Open { .. } => {
                Class::Other
            }
        }
    }
}
