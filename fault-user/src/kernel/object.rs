//! The compiled eBPF object, embedded at build time.

/// `include_bytes!` with the alignment an ELF parser wants.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("FAULT_EBPF_OBJECT")));

/// The object was not built; the field says what was missing.
#[derive(Debug, thiserror::Error)]
#[error("this binary was built without its eBPF programs: {0}")]
pub struct ObjectMissing(pub &'static str);

/// The eBPF object for [`aya`] and for [`aya_obj`].
///
/// # Errors
/// When the build had no eBPF toolchain.
pub fn object() -> Result<&'static [u8], ObjectMissing> {
    if OBJECT.0.is_empty() { Err(ObjectMissing(env!("FAULT_EBPF_MISSING"))) } else { Ok(&OBJECT.0) }
}
