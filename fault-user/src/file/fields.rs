//! Where the fields are that the file programs read: from the kernel's BTF to the object's globals.

use crate::kernel::{
    btf::{Btf, BtfError},
    globals::{Field, offsets},
};

/// Global, structure, path.
const REQUIRED: &[Field] = &[
    ("FILE_ENTRY", "file", "f_path.dentry"),
    ("FILE_INODE", "file", "f_inode"),
    ("FILE_MODE", "file", "f_mode"),
    ("FILE_OPEN_FLAGS", "file", "f_flags"),
    ("INODE_MODE", "inode", "i_mode"),
    ("ENTRY_PARENT", "dentry", "d_parent"),
    ("ENTRY_NAME", "dentry", "d_name.name"),
    ("ENTRY_HASH", "dentry", "d_name.hash_len"),
    ("ENTRY_SYSTEM", "dentry", "d_sb"),
    ("ENTRY_INODE", "dentry", "d_inode"),
    ("ENTRY_HASHED", "dentry", "d_hash.pprev"),
    ("SYSTEM_DEVICE", "super_block", "s_dev"),
    ("CHANGE_WHAT", "iattr", "ia_valid"),
    ("TASK_CREDENTIALS", "task_struct", "cred"),
    ("TASK_OWN_CREDENTIALS", "task_struct", "real_cred"),
    ("FILE_TASK_FLAGS", "task_struct", "flags"),
    ("TASK_FILES", "task_struct", "files"),
    ("FILES_TABLE", "files_struct", "fdt"),
    ("TABLE_SIZE", "fdtable", "max_fds"),
    ("TABLE_FILES", "fdtable", "fd"),
];

/// As above, of x86-64.
const OPTIONAL: &[Field] = &[("CALL_FIRST", "pt_regs", "di"), ("CALL_NUMBER", "pt_regs", "orig_ax")];

/// The globals of the file programs for the running kernel, for [`crate::kernel::load::load`].
///
/// # Errors
/// When the kernel's structures are not what the programs know.
pub fn globals(btf: &Btf) -> Result<Vec<(&'static str, u32)>, BtfError> {
    offsets(btf, REQUIRED, OPTIONAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_what_the_programs_read() {
        let btf = Btf::vmlinux().expect("the kernel's BTF");
        let globals = globals(&btf).expect("all required fields");
        let value = |name: &str| globals.iter().find(|(global, _)| *global == name).map(|(_, value)| *value);
        assert_ne!(value("ENTRY_NAME"), value("ENTRY_PARENT"));
        assert!(value("ENTRY_NAME").is_some_and(|offset| offset > 0));
    }
}
