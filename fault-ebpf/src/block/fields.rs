//! Where the fields of kernel structures are. The loader finds out (`fault_user::block::fields`) and sets these.
//!
//! Zero means "not in this kernel" for those that say so; none of them is at the beginning of its structure.

use core::ptr;

use aya_ebpf::{
    Global,
    helpers::generated::{bpf_get_current_task_btf, bpf_probe_read_kernel},
};

use crate::globals::fields;

fields! {
    /// `task_struct.flags` (32 bits).
    TASK_FLAGS,
    /// `task_struct.plug`.
    TASK_PLUG,
    /// `task_struct.nvcsw`: voluntary context switches.
    TASK_SWITCHES,
    /// `task_struct.maj_flt`: page faults that waited for I/O.
    TASK_MAJOR_FAULTS,
    /// `task_struct.ioac.syscr`: read system calls. 0 without `CONFIG_TASK_XACCT`.
    TASK_READ_CALLS,
    /// `task_struct.ioac.syscw`: write system calls. 0 without `CONFIG_TASK_XACCT`.
    TASK_WRITE_CALLS,
    /// `blk_plug.rq_count` (16 bits): requests that wait in the plug.
    PLUG_REQUESTS,
    /// `bio.bi_bdev`.
    BIO_DEVICE,
    /// `bio.bi_opf` (32 bits).
    BIO_OPERATION,
    /// `bio.bi_flags` (16 bits).
    BIO_FLAGS,
    /// `bio.bi_iter.bi_sector`.
    BIO_SECTOR,
    /// `bio.bi_iter.bi_size` (32 bits).
    BIO_SIZE,
    /// `bio.bi_iter.bi_idx` (32 bits): which of its pages comes next.
    BIO_INDEX,
    /// `bio.bi_iter.bi_bvec_done` (32 bits): how much of that page is done.
    BIO_BYTES_DONE,
    /// `bio.bi_blkg`. 0 without `CONFIG_BLK_CGROUP`.
    BIO_GROUP,
    /// `block_device.bd_dev` (32 bits).
    DEVICE_NUMBER,
    /// `block_device.bd_disk`.
    DEVICE_DISK,
    /// `gendisk.part0`: the block device that is the whole disk.
    DISK_WHOLE,
    /// `blkcg_gq.blkcg`.
    GROUP_BLKCG,
    /// `blkcg.css.cgroup`.
    BLKCG_CGROUP,
    /// `cgroup.level` (32 bits).
    CGROUP_LEVEL,
    /// `cgroup.kn`.
    CGROUP_NODE,
    /// `cgroup.root`.
    CGROUP_ROOT,
    /// `cgroup.ancestors`, pointers by level (Linux ≥ 6.1). 0 when it is not there.
    CGROUP_ANCESTORS,
    /// `kernfs_node.id`.
    NODE_ID,
    /// `cgroup_root.hierarchy_id` (32 bits).
    ROOT_HIERARCHY,
    /// `bio.bi_private`.
    BIO_PRIVATE,
    /// `pt_regs.orig_ax`: the number of the system call. 0 on other architectures.
    REGS_SYSCALL,
    /// `pt_regs.di`: the first argument of a system call.
    REGS_FIRST,
    /// `pt_regs.si`: the second.
    REGS_SECOND,
    /// `file.f_flags` (32 bits).
    FILE_FLAGS,
    /// `1 << __REQ_PREFLUSH`.
    PREFLUSH,
    /// `1 << __REQ_FUA`.
    FUA,
    /// `1 << __REQ_META`.
    META,
    /// `1 << __REQ_SYNC`.
    SYNC,
    /// The bits of `bio.bi_opf` that hold one of the next.
    OP_MASK,
    /// `REQ_OP_READ`.
    OP_READ,
    /// `REQ_OP_WRITE`.
    OP_WRITE,
    /// `REQ_OP_FLUSH`.
    OP_FLUSH,
    /// `REQ_OP_DISCARD`.
    OP_DISCARD,
    /// `REQ_OP_SECURE_ERASE`.
    OP_SECURE_ERASE,
    /// `REQ_OP_WRITE_ZEROES`.
    OP_WRITE_ZEROES,
    /// `REQ_OP_ZONE_APPEND`.
    OP_ZONE_APPEND,
    /// `1 << BIO_CHAIN`.
    CHAINED,
    /// `1 << BIO_REMAPPED`.
    REMAPPED,
}

/// `block_device.bd_start_sect` may be the first field, so 0 is a place like any other.
#[unsafe(no_mangle)]
pub static DEVICE_START: Global<u32> = Global::new(0);

/// How a kernel structure is read whose address a program was given.
pub trait Look {
    /// Reads a `T` at `field` of the structure at `structure`; zero when that cannot be read.
    fn read<T: Default>(structure: u64, field: &Global<u32>) -> T;
}

/// By the helper, whatever the address is.
pub struct Asked;

/// By a load, which is cheaper than a call: only where the verifier knows what the address points to, which is an argument of a
/// fmod_ret program, the running task, or a pointer read from one of those. Where the pointer may be stale the kernel makes it a
/// load that may fail and then gives zero (`BPF_PROBE_MEM`, `convert_ctx_accesses` in kernel/bpf/verifier.c).
pub struct Typed;

impl Look for Asked {
    #[inline(always)]
    fn read<T: Default>(structure: u64, field: &Global<u32>) -> T {
        read(structure, field)
    }
}

impl Look for Typed {
    #[inline(always)]
    fn read<T: Default>(structure: u64, field: &Global<u32>) -> T {
        // SAFETY: the verifier refuses a load that is not of a field. Volatile: nobody else may tell when these change.
        unsafe { ptr::read_volatile((structure + field.load() as u64) as *const T) }
    }
}

/// A pointer of which the verifier knows what it points to, as a number: what a global function takes. The kernel's own reading of
/// memory gives it, which the verifier does not follow.
#[inline(always)]
pub fn number_of(pointer: u64) -> u64 {
    let place = pointer;
    read_at((&raw const place) as u64)
}

/// Reads a `T` at `field` of the kernel structure at `structure`; zero when that cannot be read.
#[inline(always)]
pub fn read<T: Default>(structure: u64, field: &Global<u32>) -> T {
    read_at(structure + field.load() as u64)
}

/// Reads a `T` at `address` of the kernel; zero when that cannot be read.
#[inline(always)]
pub fn read_at<T: Default>(address: u64) -> T {
    let mut value = T::default();
    // SAFETY: the helper fills all of `value`, with zeroes if it fails; every `T` used is an integer.
    unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, address as *const _) };
    value
}

/// The running task, for [`read`].
#[inline(always)]
pub fn current() -> u64 {
    // SAFETY: a helper without arguments or effects.
    unsafe { bpf_get_current_task_btf() as u64 }
}
