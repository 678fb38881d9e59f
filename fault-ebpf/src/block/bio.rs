//! What a bio is about.

use fault_common::rule::block::{BioFacts, op};

use super::fields::{
    BIO_DEVICE, BIO_FLAGS, BIO_OPERATION, BIO_SECTOR, BIO_SIZE, DEVICE_DISK, DEVICE_NUMBER, DEVICE_START,
    DISK_WHOLE, PREFLUSH, REMAPPED, read,
};

/// `REQ_OP_…` lie in the lowest byte of `bi_opf` and keep their numbers (`include/linux/blk_types.h`).
const OPERATION_MASK: u32 = 0xff;
const REQ_OP_READ: u32 = 0;
const REQ_OP_WRITE: u32 = 1;
const REQ_OP_FLUSH: u32 = 2;
const REQ_OP_WRITE_ZEROES: u32 = 9;
const SECTOR_SHIFT: u32 = 9;

/// The facts about `bio` that filters look at.
#[inline(always)]
pub fn facts(bio: u64) -> BioFacts {
    let operation: u32 = read(bio, &BIO_OPERATION);
    let flags: u16 = read(bio, &BIO_FLAGS);
    let size: u32 = read(bio, &BIO_SIZE);
    let mut sector: u64 = read(bio, &BIO_SECTOR);
    let device: u64 = read(bio, &BIO_DEVICE);
    let disk: u64 = read(device, &DEVICE_DISK);
    let whole: u64 = read(disk, &DISK_WHOLE);
    let start: u64 = read(device, &DEVICE_START);
    // The rest of a bio that was split comes by again, already in sectors of the disk.
    if flags as u32 & REMAPPED.load() != 0 {
        sector = sector.wrapping_sub(start);
    }
    BioFacts {
        ops: ops(operation, size),
        device: read(device, &DEVICE_NUMBER),
        disk: read(whole, &DEVICE_NUMBER),
        sectors: size >> SECTOR_SHIFT,
        sector,
        device_start: start,
    }
}

/// Mask of [`op`]. A flush without data is written as an empty write with `REQ_PREFLUSH`.
#[inline(always)]
fn ops(operation: u32, size: u32) -> u32 {
    let preflush = operation & PREFLUSH.load() != 0;
    let kind = match operation & OPERATION_MASK {
        REQ_OP_READ => op::READ,
        REQ_OP_WRITE if preflush && size == 0 => op::FLUSH,
        REQ_OP_WRITE | REQ_OP_WRITE_ZEROES => op::WRITE,
        REQ_OP_FLUSH => op::FLUSH,
        _ => op::OTHER,
    };
    if preflush { kind | op::FLUSH } else { kind }
}
