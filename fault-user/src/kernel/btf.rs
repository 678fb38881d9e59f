//! Where the fields of the kernel's structures are and what its functions are called in BTF.
//!
//! The programs contain no structure offset: the loader asks here and hands them over as constants.
//! `aya_obj::btf::Btf` keeps members to itself and builds a value per type (about 150 000 of them), so this is
//! a reader of its own: the file is read once, one pass notes where each type begins, and only the types that
//! somebody asks for are looked into.
//!
//! Format: <https://docs.kernel.org/bpf/btf.html>. The kernel's own BTF is at `/sys/kernel/btf/vmlinux` since
//! Linux 5.4 with `CONFIG_DEBUG_INFO_BTF`.

use std::{collections::HashMap, fs, io, ops::Range, path::PathBuf};

/// The running kernel's own types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const MAGIC_OTHER_ENDIAN: u16 = 0x9feb;
/// `struct btf_header` up to `str_len`; later fields are skipped by `hdr_len`.
const HEADER: usize = 24;
/// `struct btf_type`.
const TYPE: usize = 12;
/// `struct btf_member`.
const MEMBER: usize = 12;
/// `typedef` and `const` chains and nested structures are far shorter; BTF that is deeper is broken.
const MAX_DEPTH: usize = 64;

mod kind {
    pub const INT: u32 = 1;
    pub const PTR: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const FWD: u32 = 7;
    pub const TYPEDEF: u32 = 8;
    pub const VOLATILE: u32 = 9;
    pub const CONST: u32 = 10;
    pub const RESTRICT: u32 = 11;
    pub const FUNC: u32 = 12;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const FLOAT: u32 = 16;
    pub const DECL_TAG: u32 = 17;
    pub const TYPE_TAG: u32 = 18;
    pub const ENUM64: u32 = 19;
}

/// Why a kernel type could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// No BTF: the kernel was built without `CONFIG_DEBUG_INFO_BTF`, or sysfs is not mounted.
    #[error("reading the kernel's types from {path} failed")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not BTF this reader understands.
    #[error("the kernel's type information is malformed: {0}")]
    Malformed(&'static str),
    /// This kernel has no such structure.
    #[error("this kernel has no struct {0}")]
    NoStruct(String),
    /// The structure has no such field in this kernel.
    #[error("struct {structure} has no field {path} in this kernel")]
    NoField {
        /// Name without `struct`.
        structure: String,
        /// Field, with dots for what is nested.
        path: String,
    },
    /// A bit field has no byte offset.
    #[error("field {path} of struct {structure} is a bit field")]
    BitField {
        /// Name without `struct`.
        structure: String,
        /// Field, with dots for what is nested.
        path: String,
    },
    /// No function of this name: absent, or always inlined.
    #[error("this kernel has no function {0} to attach to or to call")]
    NoFunction(String),
    /// No enumerator of this name.
    #[error("this kernel has no enumerator {0}")]
    NoEnumerator(String),
    /// No typedef of this name.
    #[error("this kernel has no typedef {0}")]
    NoTypedef(String),
}

/// Where a field lies in its structure. Both in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// From the beginning of the outermost structure.
    pub offset: u32,
    /// Of the whole field: of all elements for an array, 0 for a flexible one.
    pub size: u32,
}

/// Where a bit field of one bit lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bit {
    /// Of its byte, from the beginning of the outermost structure.
    pub offset: u32,
    /// Which bit of that byte it is: `1 << n`, n from 0 to 7.
    pub mask: u32,
}

/// A structure and the path of a field in it: `("bio", "bi_iter.bi_sector")`. Anonymous unions and structures
/// are not named in the path, and pointers are not followed.
pub type FieldPath = (&'static str, &'static str);

/// A parsed BTF file.
pub struct Btf {
    data: Vec<u8>,
    strings: Range<usize>,
    /// Where type `id` begins in `data`; index 0 is `void` and unused.
    types: Vec<u32>,
    /// Types that can be found by name, by kind: what anybody asks for is one of few.
    structures: Vec<Named>,
    functions: Vec<Named>,
    typedefs: Vec<Named>,
    enumerations: Vec<u32>,
}

/// A type and where its name is.
#[derive(Clone, Copy)]
struct Named {
    /// Offset into the strings.
    name: u32,
    id: u32,
}

impl Btf {
    /// The running kernel's types. Reads about 5 MB; keep it for as long as there are questions.
    ///
    /// # Errors
    /// [`BtfError::Read`] on kernels without BTF.
    pub fn vmlinux() -> Result<Self, BtfError> {
        let data = fs::read(VMLINUX).map_err(|source| BtfError::Read { path: VMLINUX.into(), source })?;
        Self::parse(data)
    }

    /// Notes where each type begins.
    ///
    /// # Errors
    /// [`BtfError::Malformed`].
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        match data.get(..2).map(|magic| u16::from_ne_bytes([magic[0], magic[1]])) {
            Some(MAGIC) => {}
            Some(MAGIC_OTHER_ENDIAN) => return Err(BtfError::Malformed("it is for the other byte order")),
            _ => return Err(BtfError::Malformed("it does not begin with BTF's magic number")),
        }
        let header = |at: usize| read_u32(&data, at).map(|value| value as usize);
        let header_len = header(4)?;
        if header_len < HEADER {
            return Err(BtfError::Malformed("its header is too short"));
        }
        let section = |offset: usize, len: usize| {
            let start = header_len + offset;
            let end = start + len;
            if end <= data.len() { Ok(start..end) } else { Err(BtfError::Malformed("it is cut short")) }
        };
        let type_section = section(header(8)?, header(12)?)?;
        let strings = section(header(16)?, header(20)?)?;
        if data[strings.clone()].last() != Some(&0) {
            return Err(BtfError::Malformed("its strings do not end"));
        }

        let mut types = Vec::with_capacity(type_section.len() / 20);
        types.push(0);
        let (mut structures, mut functions, mut typedefs) = (Vec::new(), Vec::new(), Vec::new());
        let mut enumerations = Vec::new();
        let mut at = type_section.start;
        while at < type_section.end {
            let id = types.len() as u32;
            types.push(at as u32);
            let info = read_u32(&data, at + 4)?;
            let count = (info & 0xffff) as usize;
            let named = Named { name: read_u32(&data, at)?, id };
            at += TYPE
                + match info >> 24 & 0x1f {
                    kind::STRUCT | kind::UNION => {
                        structures.push(named);
                        count * MEMBER
                    }
                    kind::FUNC => {
                        functions.push(named);
                        0
                    }
                    kind::TYPEDEF => {
                        typedefs.push(named);
                        0
                    }
                    kind::PTR
                    | kind::FWD
                    | kind::VOLATILE
                    | kind::CONST
                    | kind::RESTRICT
                    | kind::FLOAT
                    | kind::TYPE_TAG => 0,
                    kind::INT | kind::VAR | kind::DECL_TAG => 4,
                    kind::ARRAY => 12,
                    kind::ENUM => {
                        enumerations.push(id);
                        count * 8
                    }
                    kind::FUNC_PROTO => count * 8,
                    kind::DATASEC | kind::ENUM64 => count * 12,
                    _ => return Err(BtfError::Malformed("it has a kind of type this version does not know")),
                };
        }
        if at != type_section.end {
            return Err(BtfError::Malformed("its last type is cut short"));
        }
        Ok(Self { data, strings, types, structures, functions, typedefs, enumerations })
    }

    /// Where `path` lies in `structure` (a union will do). When the kernel has several structures of that
    /// name, the first that has the field is meant.
    ///
    /// # Errors
    /// [`BtfError::NoStruct`], [`BtfError::NoField`], [`BtfError::BitField`].
    pub fn field(&self, structure: &str, path: &str) -> Result<Field, BtfError> {
        let mut found = false;
        for Named { id, .. } in self.named(&self.structures, structure) {
            found = true;
            match self.walk(id, path)? {
                Walk::Field(field) => return Ok(field),
                Walk::BitField(_) => {
                    return Err(BtfError::BitField { structure: structure.into(), path: path.into() });
                }
                Walk::Absent => {}
            }
        }
        if found {
            Err(BtfError::NoField { structure: structure.into(), path: path.into() })
        } else {
            Err(BtfError::NoStruct(structure.into()))
        }
    }

    /// [`Self::field`], where a kernel that lacks the field or the structure is no error.
    ///
    /// # Errors
    /// [`BtfError::BitField`], [`BtfError::Malformed`].
    pub fn optional_field(&self, structure: &str, path: &str) -> Result<Option<Field>, BtfError> {
        match self.field(structure, path) {
            Ok(field) => Ok(Some(field)),
            Err(BtfError::NoStruct(_) | BtfError::NoField { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where the bit field `path`, of one bit, lies in `structure`; `None` where there is no such field, or no bit field of that
    /// name. Bits are counted as on little-endian machines, from the lowest.
    ///
    /// # Errors
    /// [`BtfError::Malformed`].
    pub fn bit(&self, structure: &str, path: &str) -> Result<Option<Bit>, BtfError> {
        for Named { id, .. } in self.named(&self.structures, structure) {
            if let Walk::BitField(bits) = self.walk(id, path)? {
                return Ok(Some(Bit { offset: bits / 8, mask: 1 << (bits % 8) }));
            }
        }
        Ok(None)
    }

    /// BTF id of a kernel function: what `attach_btf_id` and calls of kernel functions want.
    ///
    /// # Errors
    /// [`BtfError::NoFunction`].
    pub fn function_id(&self, name: &str) -> Result<u32, BtfError> {
        self.find(&self.functions, name).ok_or_else(|| BtfError::NoFunction(name.into()))
    }

    /// How many arguments the kernel function `name` takes.
    ///
    /// # Errors
    /// [`BtfError::NoFunction`].
    pub fn arguments(&self, name: &str) -> Result<u32, BtfError> {
        let prototype = self.u32(self.start(self.function_id(name)?)? + 8)?;
        Ok(self.u32(self.start(prototype)? + 4)? & 0xffff)
    }

    /// BTF id of a typedef. Those named `btf_trace_…` stand for tracepoints.
    ///
    /// # Errors
    /// [`BtfError::NoTypedef`].
    pub fn typedef_id(&self, name: &str) -> Result<u32, BtfError> {
        self.find(&self.typedefs, name).ok_or_else(|| BtfError::NoTypedef(name.into()))
    }

    /// Value of an enumerator, whichever enumeration it belongs to: bit numbers that the kernel keeps in them.
    ///
    /// # Errors
    /// [`BtfError::NoEnumerator`].
    pub fn enumerator(&self, name: &str) -> Result<u32, BtfError> {
        for &id in &self.enumerations {
            let at = self.start(id)?;
            for index in 0..(self.u32(at + 4)? & 0xffff) as usize {
                let entry = at + TYPE + index * 8;
                if self.string_is(self.u32(entry)?, name) {
                    return self.u32(entry + 4);
                }
            }
        }
        Err(BtfError::NoEnumerator(name.into()))
    }

    fn find(&self, types: &[Named], name: &str) -> Option<u32> {
        self.named(types, name).next().map(|named| named.id)
    }

    fn named(&self, types: &[Named], name: &str) -> impl Iterator<Item = Named> {
        types.iter().copied().filter(move |named| self.string_is(named.name, name))
    }

    fn walk(&self, structure: u32, path: &str) -> Result<Walk, BtfError> {
        let mut at = structure;
        let mut bits = 0;
        let mut last = Member { type_id: structure, bits: 0, is_bit_field: false };
        for name in path.split('.') {
            let Some(container) = self.structure_behind(at)? else { return Ok(Walk::Absent) };
            match self.member(container, name, 0)? {
                Some(member) => last = member,
                None => return Ok(Walk::Absent),
            }
            bits += last.bits;
            at = last.type_id;
        }
        if last.is_bit_field || !bits.is_multiple_of(8) {
            return Ok(Walk::BitField(bits));
        }
        Ok(Walk::Field(Field { offset: bits / 8, size: self.size(at)? }))
    }

    /// The member `name` of a structure or of the anonymous ones in it; its offset counts from `structure`.
    fn member(&self, structure: u32, name: &str, depth: usize) -> Result<Option<Member>, BtfError> {
        if depth > MAX_DEPTH {
            return Err(BtfError::Malformed("its structures contain themselves"));
        }
        let at = self.start(structure)?;
        let info = self.u32(at + 4)?;
        let bit_fields = info >> 31 == 1;
        for index in 0..(info & 0xffff) as usize {
            let entry = at + TYPE + index * MEMBER;
            let (name_offset, type_id, offset) =
                (self.u32(entry)?, self.u32(entry + 4)?, self.u32(entry + 8)?);
            let (bits, width) = if bit_fields { (offset & 0xff_ffff, offset >> 24) } else { (offset, 0) };
            if name_offset == 0 {
                if let Some(inner) = self.structure_behind(type_id)?
                    && let Some(member) = self.member(inner, name, depth + 1)?
                {
                    return Ok(Some(Member { bits: bits + member.bits, ..member }));
                }
            } else if self.string_is(name_offset, name) {
                return Ok(Some(Member { type_id, bits, is_bit_field: width != 0 }));
            }
        }
        Ok(None)
    }

    /// The structure or union that `id` is, through typedefs and qualifiers.
    fn structure_behind(&self, id: u32) -> Result<Option<u32>, BtfError> {
        let id = self.unqualified(id)?;
        Ok((id != 0 && matches!(self.kind(id)?, kind::STRUCT | kind::UNION)).then_some(id))
    }

    fn unqualified(&self, mut id: u32) -> Result<u32, BtfError> {
        for _ in 0..MAX_DEPTH {
            if id == 0 {
                return Ok(0);
            }
            match self.kind(id)? {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = self.u32(self.start(id)? + 8)?;
                }
                _ => return Ok(id),
            }
        }
        Err(BtfError::Malformed("a chain of its types does not end"))
    }

    fn size(&self, id: u32) -> Result<u32, BtfError> {
        let mut id = self.unqualified(id)?;
        let mut elements = 1u32;
        while id != 0 && self.kind(id)? == kind::ARRAY {
            let at = self.start(id)?;
            elements = elements.saturating_mul(self.u32(at + TYPE + 8)?);
            id = self.unqualified(self.u32(at + TYPE)?)?;
        }
        let element = if id == 0 {
            0
        } else {
            match self.kind(id)? {
                kind::PTR => size_of::<usize>() as u32,
                kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 | kind::FLOAT => {
                    self.u32(self.start(id)? + 8)?
                }
                _ => 0,
            }
        };
        Ok(element.saturating_mul(elements))
    }

    fn start(&self, id: u32) -> Result<usize, BtfError> {
        match self.types.get(id as usize) {
            Some(&at) if id != 0 => Ok(at as usize),
            _ => Err(BtfError::Malformed("it refers to a type it does not have")),
        }
    }

    fn kind(&self, id: u32) -> Result<u32, BtfError> {
        Ok(self.u32(self.start(id)? + 4)? >> 24 & 0x1f)
    }

    fn u32(&self, at: usize) -> Result<u32, BtfError> {
        read_u32(&self.data, at)
    }

    fn string_is(&self, offset: u32, name: &str) -> bool {
        let start = self.strings.start + offset as usize;
        let end = start + name.len();
        // The first byte tells most names apart, which counts when there are tens of thousands.
        self.data.get(start) == name.as_bytes().first()
            && end < self.strings.end
            && self.data[end] == 0
            && self.data[start..end] == *name.as_bytes()
    }
}

impl std::fmt::Debug for Btf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Btf").field("types", &(self.types.len() - 1)).finish_non_exhaustive()
    }
}

struct Member {
    type_id: u32,
    bits: u32,
    is_bit_field: bool,
}

enum Walk {
    Field(Field),
    /// How many bits from the beginning.
    BitField(u32),
    Absent,
}

fn read_u32(data: &[u8], at: usize) -> Result<u32, BtfError> {
    data.get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_ne_bytes)
        .ok_or(BtfError::Malformed("it is cut short"))
}

/// Resolved fields, for whoever fills in the constants of the programs.
#[derive(Debug, Clone, Default)]
pub struct Offsets(HashMap<FieldPath, Field>);

impl Offsets {
    /// Resolves `required` (all must be there) and `optional` (moved or absent in some supported kernels).
    ///
    /// # Errors
    /// The first required field this kernel does not have.
    pub fn resolve(btf: &Btf, required: &[FieldPath], optional: &[FieldPath]) -> Result<Self, BtfError> {
        let mut fields = HashMap::with_capacity(required.len() + optional.len());
        for &(structure, path) in required {
            fields.insert((structure, path), btf.field(structure, path)?);
        }
        for &(structure, path) in optional {
            if let Some(field) = btf.optional_field(structure, path)? {
                fields.insert((structure, path), field);
            }
        }
        Ok(Self(fields))
    }

    /// `None` when the field was not asked for, or is optional and not in this kernel.
    pub fn get(&self, structure: &'static str, path: &'static str) -> Option<Field> {
        self.0.get(&(structure, path)).copied()
    }

    /// As [`Self::get`], for a field that was in `required`.
    ///
    /// # Errors
    /// [`BtfError::NoField`] when it was not.
    pub fn require(&self, structure: &'static str, path: &'static str) -> Result<Field, BtfError> {
        self.get(structure, path)
            .ok_or_else(|| BtfError::NoField { structure: structure.into(), path: path.into() })
    }
}

#[cfg(test)]
mod tests;
