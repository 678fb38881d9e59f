//! Where the fields are by which the block programs find the file that a bio is about: `fault-ebpf/src/block/file.rs`.

use crate::kernel::{
    btf::{Btf, BtfError},
    globals::{Field, offsets},
    symbols,
};

/// Global, structure, path.
const REQUIRED: &[Field] = &[
    ("BIO_VECTOR", "bio", "bi_io_vec"),
    ("BIO_END", "bio", "bi_end_io"),
    ("VECTOR_PAGE", "bio_vec", "bv_page"),
    ("PAGE_MAPPING", "page", "mapping"),
    ("MAPPING_HOST", "address_space", "host"),
    ("INODE_SYSTEM", "inode", "i_sb"),
    ("INODE_ENTRIES", "inode", "i_dentry"),
    ("ENTRY_ALIAS", "dentry", "d_u.d_alias"),
    ("REQUEST_FILE", "kiocb", "ki_filp"),
];

/// Fields that some configurations or versions lack; their global is then 0.
const OPTIONAL: &[Field] = &[("PAGE_HEAD", "page", "compound_head"), ("DIRECT_REQUEST", "iomap_dio", "iocb")];

/// Ends a bio of direct I/O as most file systems do it, fs/iomap/direct-io.c.
const DIRECT_END: &str = "iomap_dio_bio_end_io";

/// Those globals for the running kernel, for [`crate::kernel::load::load`].
///
/// # Errors
/// When the kernel's structures are not what the programs know.
pub fn globals(btf: &Btf) -> Result<Vec<(&'static str, u32)>, BtfError> {
    let mut globals = offsets(btf, REQUIRED, OPTIONAL)?;
    let last = btf.field("bio_vec", "bv_offset")?;
    globals.push(("VECTOR_SIZE", (last.offset + last.size).next_multiple_of(size_of::<usize>() as u32)));
    let has_structure = btf.optional_field("iomap_dio", "iocb")?.is_some();
    // Without the table of symbols such bios are counted as what they then are: of a file that cannot be told.
    let end = symbols::address(DIRECT_END).ok().flatten().filter(|_| has_structure);
    // Functions of the kernel itself are within 2 GiB, so half of the address tells them apart.
    globals.push(("DIRECT_END", end.map_or(0, |address| address as u32)));
    Ok(globals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_what_the_programs_read() {
        let btf = Btf::vmlinux().expect("the kernel's BTF");
        let globals = globals(&btf).expect("all required fields");
        let value = |name: &str| globals.iter().find(|(global, _)| *global == name).map(|(_, value)| *value);
        assert_eq!(value("VECTOR_SIZE"), Some(16));
        assert_ne!(value("BIO_VECTOR"), value("BIO_END"));
        assert_ne!(value("PAGE_MAPPING"), Some(0));
    }
}
