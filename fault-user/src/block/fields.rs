//! Where the fields are that the block programs read: from the kernel's BTF to the object's globals.

use crate::kernel::{
    btf::{Btf, BtfError},
    globals::{Field, offsets},
};

/// Fields that every kernel with a block hook has: global, structure, path.
const REQUIRED: &[Field] = &[
    ("TASK_FLAGS", "task_struct", "flags"),
    ("TASK_PLUG", "task_struct", "plug"),
    ("TASK_SWITCHES", "task_struct", "nvcsw"),
    ("TASK_MAJOR_FAULTS", "task_struct", "maj_flt"),
    ("BIO_DEVICE", "bio", "bi_bdev"),
    ("BIO_OPERATION", "bio", "bi_opf"),
    ("BIO_FLAGS", "bio", "bi_flags"),
    ("BIO_SECTOR", "bio", "bi_iter.bi_sector"),
    ("BIO_SIZE", "bio", "bi_iter.bi_size"),
    ("BIO_INDEX", "bio", "bi_iter.bi_idx"),
    ("BIO_BYTES_DONE", "bio", "bi_iter.bi_bvec_done"),
    ("DEVICE_NUMBER", "block_device", "bd_dev"),
    ("DEVICE_DISK", "block_device", "bd_disk"),
    ("DEVICE_START", "block_device", "bd_start_sect"),
    ("DISK_WHOLE", "gendisk", "part0"),
    ("CGROUP_LEVEL", "cgroup", "level"),
    ("CGROUP_NODE", "cgroup", "kn"),
    ("CGROUP_ROOT", "cgroup", "root"),
    ("NODE_ID", "kernfs_node", "id"),
    ("ROOT_HIERARCHY", "cgroup_root", "hierarchy_id"),
];

/// Fields that some configurations or versions lack; their global is then 0.
const OPTIONAL: &[Field] = &[
    // CONFIG_TASK_XACCT
    ("TASK_READ_CALLS", "task_struct", "ioac.syscr"),
    ("TASK_WRITE_CALLS", "task_struct", "ioac.syscw"),
    ("PLUG_REQUESTS", "blk_plug", "rq_count"),
    // CONFIG_BLK_CGROUP
    ("BIO_GROUP", "bio", "bi_blkg"),
    ("GROUP_BLKCG", "blkcg_gq", "blkcg"),
    ("BLKCG_CGROUP", "blkcg", "css.cgroup"),
    ("BIO_PRIVATE", "bio", "bi_private"),
    ("FILE_FLAGS", "file", "f_flags"),
    // x86-64
    ("REGS_SYSCALL", "pt_regs", "orig_ax"),
    ("REGS_FIRST", "pt_regs", "di"),
    ("REGS_SECOND", "pt_regs", "si"),
    // Linux 6.1
    ("CGROUP_ANCESTORS", "cgroup", "ancestors"),
];

/// Bit numbers: global, enumerator.
const BITS: &[(&str, &str)] = &[
    ("PREFLUSH", "__REQ_PREFLUSH"),
    ("FUA", "__REQ_FUA"),
    ("META", "__REQ_META"),
    ("SYNC", "__REQ_SYNC"),
    ("REMAPPED", "BIO_REMAPPED"),
    ("CHAINED", "BIO_CHAIN"),
];

/// What the lowest bits of `bio.bi_opf` may say: global, enumerator. Not all have kept their numbers (zone append).
const OPERATIONS: &[(&str, &str)] = &[
    ("OP_READ", "REQ_OP_READ"),
    ("OP_WRITE", "REQ_OP_WRITE"),
    ("OP_FLUSH", "REQ_OP_FLUSH"),
    ("OP_DISCARD", "REQ_OP_DISCARD"),
    ("OP_SECURE_ERASE", "REQ_OP_SECURE_ERASE"),
    ("OP_WRITE_ZEROES", "REQ_OP_WRITE_ZEROES"),
    ("OP_ZONE_APPEND", "REQ_OP_ZONE_APPEND"),
];

/// The first bit of `bio.bi_opf` that is not part of the operation: `REQ_OP_BITS` (`include/linux/blk_types.h`).
const FIRST_FLAG: (&str, &str) = ("OP_MASK", "__REQ_FAILFAST_DEV");

/// The globals of the block programs for the running kernel, for [`crate::kernel::load::load`].
///
/// # Errors
/// When the kernel's structures are not what the programs know (Linux below 5.12 has no `bio.bi_bdev`).
pub fn globals(btf: &Btf) -> Result<Vec<(&'static str, u32)>, BtfError> {
    let mut globals = offsets(btf, REQUIRED, OPTIONAL)?;
    for &(global, enumerator) in BITS {
        let bit = btf.enumerator(enumerator)?;
        globals.push((global, 1u32.checked_shl(bit).unwrap_or(0)));
    }
    for &(global, enumerator) in OPERATIONS {
        globals.push((global, btf.enumerator(enumerator)?));
    }
    let (global, enumerator) = FIRST_FLAG;
    let bits = btf.enumerator(enumerator)?;
    globals.push((global, 1u32.checked_shl(bits).map_or(u32::MAX, |bit| bit - 1)));
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
        assert_ne!(value("BIO_SECTOR"), Some(0));
        let mask = value("OP_MASK").expect("a mask");
        for bit in ["PREFLUSH", "FUA", "META", "SYNC"] {
            assert!(value(bit).is_some_and(|bit| bit.is_power_of_two() && bit & mask == 0), "{bit}");
        }
        let mut operations: Vec<_> = OPERATIONS.iter().map(|(global, _)| value(global)).collect();
        assert!(
            operations.iter().all(|number| number.is_some_and(|number| number <= mask)),
            "{operations:?}"
        );
        operations.sort_unstable();
        operations.dedup();
        assert_eq!(operations.len(), OPERATIONS.len());
        assert!(value("REMAPPED").is_some_and(|bit| bit.is_power_of_two() && bit < 1 << 16));
    }
}
