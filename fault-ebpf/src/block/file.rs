//! Which file a bio is about: `file GLOB` of block I/O.
//!
//! A page of the page cache belongs to an inode, whoever submits it. The pages of direct I/O are the program's own; the
//! kernel's common way of doing that (`iomap_dio`, fs/iomap/direct-io.c) leaves in the bio what it is part of.
//!
//! An inode may have several names. Those are compared that the kernel knows at the moment (the list of its directory
//! entries), as they are now: after a rename, the new one.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_loop, bpf_task_storage_get};
use fault_common::{control::Bank, counters::Counter, who::FileState};

use super::fields::{BIO_INDEX, BIO_PRIVATE, read, read_at};
use crate::{
    emit,
    file::{
        fields::{FILE_INODE, INODE_MODE, SYSTEM_DEVICE},
        path,
    },
    globals::fields,
    maps::{BIO_FILES, CONTROL},
};

fields! {
    /// `bio.bi_io_vec`.
    BIO_VECTOR,
    /// `bio.bi_end_io`.
    BIO_END,
    /// `bio_vec.bv_page`.
    VECTOR_PAGE,
    /// The size of `bio_vec`.
    VECTOR_SIZE,
    /// `page.mapping`.
    PAGE_MAPPING,
    /// `page.compound_head`. 0 when it is not there.
    PAGE_HEAD,
    /// `address_space.host`.
    MAPPING_HOST,
    /// `inode.i_sb`.
    INODE_SYSTEM,
    /// `inode.i_dentry`: its directory entries.
    INODE_ENTRIES,
    /// `dentry.d_u.d_alias`: the next one.
    ENTRY_ALIAS,
    /// The lower half of the address of `iomap_dio_bio_end_io`. 0 when this kernel has none.
    DIRECT_END,
    /// `iomap_dio.iocb`.
    DIRECT_REQUEST,
    /// `kiocb.ki_filp`.
    REQUEST_FILE,
}

/// `S_IFMT`, `S_IFREG`, include/uapi/linux/stat.h.
const KIND: u16 = 0o170000;
const REGULAR: u16 = 0o100000;
/// `PAGE_MAPPING_FLAGS`, include/linux/page-flags.h: such a page is no file's.
const NO_FILE: u64 = 3;
/// Names of one file that are compared.
const MAX_NAMES: u32 = 32;
/// `BPF_LOCAL_STORAGE_GET_F_CREATE`.
const CREATE: u64 = 1;

/// What [`compare`] is handed.
struct Names {
    state: *mut FileState,
    /// `hlist_node` of the next directory entry.
    next: u64,
    slots: u64,
    bank: *const Bank,
    index: u32,
    device: u32,
}

/// Slots of the rules of bank `index` a pattern of which matches a name of the file that `bio` is about.
#[inline(always)]
pub fn matching(bio: u64, index: u32) -> u64 {
    match inode(bio) {
        0 => 0,
        inode => slots_of_inode(inode, index),
    }
}

/// A global function: the verifier looks at it once and by itself. Such a function takes numbers, which a bio is not to the
/// verifier.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn slots_of_inode(inode: u64, index: u32) -> u64 {
    let Some(control) = CONTROL.get(0) else { return 0 };
    let kind = read_at::<u16>(inode + INODE_MODE.load() as u64) & KIND;
    if kind != REGULAR {
        return 0;
    }
    // SAFETY: as in `state`: zeroed when it is created, and only its own thread touches it.
    let state = unsafe {
        bpf_task_storage_get(BIO_FILES.as_ptr(), bpf_get_current_task_btf(), ptr::null_mut(), CREATE)
            .cast::<FileState>()
    };
    if state.is_null() {
        return 0;
    }
    let system: u64 = read(inode, &INODE_SYSTEM);
    let mut names = Names {
        state,
        next: read(inode, &INODE_ENTRIES),
        slots: 0,
        bank: &raw const control.banks[index as usize & 1],
        index: index & 1,
        device: read(system, &SYSTEM_DEVICE),
    };
    let callback: unsafe extern "C" fn(u64, *mut Names) -> u64 = compare;
    // SAFETY: the helper calls `compare` with the address of `names`, which lives until it returns.
    unsafe { bpf_loop(MAX_NAMES, callback as *mut c_void, (&raw mut names).cast(), 0) };
    names.slots
}

/// One name: 1 ends the loop.
unsafe extern "C" fn compare(_number: u64, names: *mut Names) -> u64 {
    // SAFETY: `slots_of_inode` hands the address of its `Names`, whose parts are map values.
    let (names, state, bank) = unsafe { (&mut *names, &mut *(*names).state, &*(*names).bank) };
    if names.next == 0 {
        return 1;
    }
    let entry = names.next.wrapping_sub(ENTRY_ALIAS.load() as u64);
    if path::write(state, entry) {
        names.slots |= path::matching(state, bank, names.index, names.device);
    } else {
        emit::count(Counter::PathUnknown);
    }
    // `hlist_node.next` is its first field.
    names.next = read_at(names.next);
    0
}

/// The inode of the file that `bio` is about; 0 if it is about none, or one that cannot be told.
#[inline(always)]
fn inode(bio: u64) -> u64 {
    if DIRECT_END.load() != 0 && read::<u32>(bio, &BIO_END) == DIRECT_END.load() {
        let operation: u64 = read(bio, &BIO_PRIVATE);
        let request: u64 = read(operation, &DIRECT_REQUEST);
        let file: u64 = read(request, &REQUEST_FILE);
        return read(file, &FILE_INODE);
    }
    let vector: u64 = read(bio, &BIO_VECTOR);
    if vector == 0 {
        return 0;
    }
    let index: u32 = read(bio, &BIO_INDEX);
    let mut page: u64 = read(vector + index as u64 * VECTOR_SIZE.load() as u64, &VECTOR_PAGE);
    if PAGE_HEAD.load() != 0 {
        let head: u64 = read(page, &PAGE_HEAD);
        // The tail of a large page, include/linux/page-flags.h.
        if head & 1 != 0 {
            page = head - 1;
        }
    }
    let mapping: u64 = read(page, &PAGE_MAPPING);
    if mapping == 0 {
        return 0;
    }
    if mapping & NO_FILE != 0 {
        emit::count(Counter::BioFileUnknown);
        return 0;
    }
    read(mapping, &MAPPING_HOST)
}
