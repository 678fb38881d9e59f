//! Where the fields of kernel structures are. The loader finds out (`fault_user::file::fields`) and sets these.

use crate::globals::fields;

fields! {
    /// `file.f_path.dentry`.
    FILE_ENTRY,
    /// `file.f_inode`.
    FILE_INODE,
    /// `file.f_mode` (32 bits).
    FILE_MODE,
    /// `file.f_flags` (32 bits).
    FILE_OPEN_FLAGS,
    /// `inode.i_mode` (16 bits); at the beginning of the structure in the kernels there are.
    INODE_MODE,
    /// `dentry.d_parent`.
    ENTRY_PARENT,
    /// `dentry.d_name.name`.
    ENTRY_NAME,
    /// `dentry.d_name.hash_len`.
    ENTRY_HASH,
    /// `dentry.d_sb`.
    ENTRY_SYSTEM,
    /// `dentry.d_inode`.
    ENTRY_INODE,
    /// `dentry.d_hash.pprev`: 0 while the entry is not to be found under its name.
    ENTRY_HASHED,
    /// `super_block.s_dev` (32 bits).
    SYSTEM_DEVICE,
    /// `iattr.ia_valid` (32 bits).
    CHANGE_WHAT,
    /// `task_struct.cred`.
    TASK_CREDENTIALS,
    /// `task_struct.real_cred`.
    TASK_OWN_CREDENTIALS,
    /// `task_struct.flags` (32 bits).
    FILE_TASK_FLAGS,
    /// `task_struct.files`.
    TASK_FILES,
    /// `files_struct.fdt`.
    FILES_TABLE,
    /// `fdtable.max_fds` (32 bits).
    TABLE_SIZE,
    /// `fdtable.fd`.
    TABLE_FILES,
    /// `pt_regs.di`: the first argument of a system call. 0 on other architectures.
    CALL_FIRST,
    /// `pt_regs.orig_ax`: the number of the system call. 0 on other architectures.
    CALL_NUMBER,
}
