//! Copies of programs: what aya 0.14 cannot load, or not several times.
//!
//! aya knows neither `BPF_MODIFY_RETURN` nor calls of kernel functions, and loads each program of an object
//! once. So the object is parsed a second time, relocated against the maps that aya created, and each copy is
//! patched ([`super::patch`]) and loaded from here. In the object such programs lie in `fentry`, `fexit` or
//! `classifier` sections, which aya parses and leaves alone until it is told to load them.

use std::{
    collections::{HashMap, HashSet},
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use aya::Ebpf;
use aya_obj::{
    Object, ParseError,
    generated::{bpf_attach_type, bpf_prog_type},
    relocation::EbpfRelocationError,
};

use super::{
    btf::{Btf, BtfError},
    control::map_data,
    object::{self, ObjectMissing},
    patch::{Constant, Constants, PatchError, patch},
    probe::Environment,
    syscall::{self, FunctionInfo, ProgramType},
};
use crate::exit::Class;

/// What a copy is, and what it attaches to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// `BPF_MODIFY_RETURN` (Linux 5.7): runs before the function and, when it returns anything but 0, instead of
    /// it. Only for functions marked `ALLOW_ERROR_INJECTION` (sleepable where that says so) and `security_*`.
    ModifyReturn {
        /// Name of the kernel function.
        function: &'a str,
        /// May sleep (Linux 5.10).
        sleepable: bool,
    },
    /// `BPF_LSM_MAC` (Linux 5.7), allowed to sleep (Linux 5.10): a security module's answer, asked where bpf is among the
    /// modules of this boot. For functions `bpf_lsm_*`.
    SecurityModule {
        /// Name of the kernel function.
        function: &'a str,
    },
    /// `BPF_TRACE_FENTRY` (Linux 5.5): runs before the function.
    Entry {
        /// Name of the kernel function.
        function: &'a str,
    },
    /// `BPF_TRACE_FEXIT` (Linux 5.5): runs after the function.
    Exit {
        /// Name of the kernel function.
        function: &'a str,
    },
    /// `BPF_PROG_TYPE_SCHED_CLS`: runs on the packets of an interface.
    Classifier,
}

/// Way of the packets a classifier is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketWay {
    /// Into the machine.
    Ingress,
    /// Out of it.
    Egress,
}

/// A copy could not be loaded or attached.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// No object.
    #[error(transparent)]
    Missing(#[from] ObjectMissing),
    /// The object could not be parsed.
    #[error("parsing the eBPF object a second time failed")]
    Parse(#[from] ParseError),
    /// Its references to maps or functions could not be resolved.
    #[error("relocating the eBPF object a second time failed")]
    Relocate(#[from] EbpfRelocationError),
    /// Its type information could not be prepared.
    #[error("preparing the types of the eBPF object failed")]
    Types(#[from] aya_obj::btf::BtfError),
    /// The kernel refused its type information.
    #[error("this kernel refused the types of the eBPF object")]
    LoadTypes(#[source] io::Error),
    /// A map's descriptor could not be duplicated.
    #[error("duplicating the descriptor of the eBPF map {name} failed")]
    Map {
        /// Name of the map.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The object and this binary are of different builds.
    #[error("the eBPF object has no program {0}")]
    NoProgram(String),
    /// The kernel has no such function to attach to.
    #[error("the eBPF program {program} cannot be attached")]
    NoFunction {
        /// Name of the program.
        program: String,
        /// Which function.
        source: BtfError,
    },
    /// A placeholder could not be filled in.
    #[error("the eBPF program {program} cannot be loaded")]
    Patch {
        /// Name of the program.
        program: String,
        /// Which placeholder.
        source: PatchError,
    },
    /// The kernel refused the program.
    #[error("this kernel refused the eBPF program {program}{}", after_colon(.log))]
    Load {
        /// Name of the program.
        program: String,
        /// Why.
        source: io::Error,
        /// The end of the verifier's log.
        log: String,
    },
    /// The programs attached by others could not be listed.
    #[error("listing the attached eBPF programs failed")]
    List(#[source] io::Error),
    /// The kernel refused to attach the program.
    #[error("attaching the eBPF program to {target} failed")]
    Attach {
        /// What to.
        target: String,
        /// Why.
        source: io::Error,
    },
}

fn after_colon(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(": {log}\n") }
}

impl CopyError {
    /// The kind of failure.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Load { source, .. } | Self::Attach { source, .. } | Self::LoadTypes(source)
                if source.raw_os_error() == Some(libc::EPERM) && Environment::here().lacks_privilege() =>
            {
                Class::NotPermitted
            }
            Self::Missing(_) | Self::NoFunction { .. } | Self::Load { .. } | Self::Attach { .. } => {
                Class::Unsupported
            }
            Self::Patch { source: PatchError::NoFunction(_), .. } => Class::Unsupported,
            _ => Class::Other,
        }
    }
}

/// The object, relocated and ready to be loaded from any number of times.
pub struct Copies {
    object: Object,
    license: CString,
    types: Option<OwnedFd>,
    /// BTF ids of kernel functions asked for so far: finding one is a walk through all functions of the kernel.
    functions: Mutex<HashMap<String, u32>>,
    /// What every copy is told.
    common: Vec<(Constant, u32)>,
    /// Referred to by number in the instructions.
    _maps: Vec<OwnedFd>,
}

impl Copies {
    /// Parses the object again and relocates it against the maps of `ebpf`.
    ///
    /// Read-only globals need no second care: they are in a map too.
    ///
    /// # Errors
    /// See [`CopyError`].
    pub fn new(ebpf: &Ebpf) -> Result<Self, CopyError> {
        let mut object = Object::parse(object::object()?)?;
        let types = match aya::features().btf() {
            Some(features) => match object.fixup_and_sanitize_btf(features)? {
                Some(types) => Some(syscall::load_btf(&types.to_bytes()).map_err(CopyError::LoadTypes)?),
                None => None,
            },
            None => None,
        };
        let mut maps = Vec::new();
        let mut numbers = Vec::new();
        for (name, map) in ebpf.maps() {
            let fd = map_data(map)
                .fd()
                .as_fd()
                .try_clone_to_owned()
                .map_err(|source| CopyError::Map { name: name.to_owned(), source })?;
            numbers.push((name, fd.as_raw_fd()));
            maps.push(fd);
        }
        let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        let definitions = object.maps.clone();
        let known =
            numbers.iter().filter_map(|(name, fd)| definitions.get(*name).map(|map| (*name, *fd, map)));
        object.relocate_maps(known, &text.iter().copied().collect())?;
        object.relocate_calls(&text.into_iter().collect())?;
        object.sanitize_functions(aya::features());
        let license = object.license.clone();
        Ok(Self { object, license, types, functions: Mutex::default(), common: Vec::new(), _maps: maps })
    }

    /// Gives every copy that is loaded from now on this constant.
    pub fn tell(&mut self, constant: Constant, value: u32) {
        self.common.push((constant, value));
    }

    /// Whether every copy is given this constant.
    #[must_use]
    pub fn are_told(&self, constant: Constant) -> bool {
        self.common.iter().any(|(told, _)| *told == constant)
    }

    /// Whether the kernel has a function of this name for programs to call.
    ///
    /// # Errors
    /// When the kernel's types cannot be read.
    pub fn find(&self, btf: &Btf, name: &str) -> Result<bool, BtfError> {
        match self.function_id(btf, name) {
            Ok(_) => Ok(true),
            Err(BtfError::NoFunction(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Loads one copy of the program `name` with these constants. It is not attached to anything yet.
    ///
    /// # Errors
    /// See [`CopyError`].
    pub fn load(
        &self,
        btf: &Btf,
        name: &str,
        kind: Kind<'_>,
        constants: Constants<'_>,
    ) -> Result<OwnedFd, CopyError> {
        let code = self
            .object
            .programs
            .get(name)
            .and_then(|program| self.object.functions.get(&program.function_key()))
            .ok_or_else(|| CopyError::NoProgram(name.to_owned()))?;
        let mut instructions = code.instructions.clone();
        let constants: Vec<_> = self.common.iter().chain(constants).copied().collect();
        patch(&mut instructions, &constants, |function| self.function_id(btf, function))
            .map_err(|source| CopyError::Patch { program: name.to_owned(), source })?;
        let program = program_type(kind, |function| self.function_id(btf, function))
            .map_err(|source| CopyError::NoFunction { program: name.to_owned(), source })?;
        let records = code.func_info.func_info_bytes();
        let functions = self.types.as_ref().map(|types| FunctionInfo {
            btf: types.as_fd(),
            record_size: code.func_info_rec_size,
            count: code.func_info.len(),
            records: &records,
        });
        syscall::load(name, program, &instructions, functions, &self.license).map_err(|refusal| {
            CopyError::Load { program: name.to_owned(), source: refusal.error, log: refusal.log }
        })
    }

    fn function_id(&self, btf: &Btf, name: &str) -> Result<u32, BtfError> {
        let mut known = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = known.get(name) {
            return Ok(*id);
        }
        let id = btf.function_id(name)?;
        known.insert(name.to_owned(), id);
        Ok(id)
    }
}

fn program_type(
    kind: Kind<'_>,
    function_id: impl Fn(&str) -> Result<u32, BtfError>,
) -> Result<ProgramType, BtfError> {
    let on = |kind, function: &str, attach, sleepable| {
        Ok(ProgramType { kind, attach: Some(attach), function: function_id(function)?, sleepable })
    };
    let tracing = |function: &str, attach, sleepable| {
        on(bpf_prog_type::BPF_PROG_TYPE_TRACING, function, attach, sleepable)
    };
    match kind {
        Kind::ModifyReturn { function, sleepable } => {
            tracing(function, bpf_attach_type::BPF_MODIFY_RETURN, sleepable)
        }
        Kind::SecurityModule { function } => {
            on(bpf_prog_type::BPF_PROG_TYPE_LSM, function, bpf_attach_type::BPF_LSM_MAC, true)
        }
        Kind::Entry { function } => tracing(function, bpf_attach_type::BPF_TRACE_FENTRY, false),
        Kind::Exit { function } => tracing(function, bpf_attach_type::BPF_TRACE_FEXIT, false),
        Kind::Classifier => Ok(ProgramType {
            kind: bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS,
            attach: None,
            function: 0,
            sleepable: false,
        }),
    }
}

/// Attaches a program to the kernel function it was loaded for. Dropping the link detaches it.
///
/// # Errors
/// [`CopyError::Attach`].
pub fn attach_to_function(program: BorrowedFd<'_>, function: &str) -> Result<OwnedFd, CopyError> {
    syscall::attach_tracing(program)
        .map_err(|source| CopyError::Attach { target: format!("the kernel function {function}"), source })
}

/// How many programs modify the return value of `function`, of whichever session or tool.
///
/// # Errors
/// [`CopyError::List`].
pub fn modifiers(btf: &Btf, function: &str) -> Result<usize, CopyError> {
    let id = btf
        .function_id(function)
        .map_err(|source| CopyError::NoFunction { program: "decider".to_owned(), source })?;
    syscall::links_modifying(id).map(|links| links.len()).map_err(CopyError::List)
}

/// Attaches a classifier to an interface of the current network namespace, before all others (tcx, Linux 6.6).
/// Dropping the link detaches it.
///
/// # Errors
/// [`CopyError::Attach`]; EINVAL below Linux 6.6.
pub fn attach_to_interface(
    program: BorrowedFd<'_>,
    ifindex: u32,
    way: PacketWay,
) -> Result<OwnedFd, CopyError> {
    let attach = match way {
        PacketWay::Ingress => bpf_attach_type::BPF_TCX_INGRESS,
        PacketWay::Egress => bpf_attach_type::BPF_TCX_EGRESS,
    };
    syscall::attach_tcx(program, ifindex, attach)
        .map_err(|source| CopyError::Attach { target: format!("interface {ifindex} ({way:?})"), source })
}
