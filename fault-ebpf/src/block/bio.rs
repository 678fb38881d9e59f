//! What a bio is about.

use fault_common::rule::block::{BioFacts, manner, op};

use super::fields::{
    BIO_BYTES_DONE, BIO_DEVICE, BIO_FLAGS, BIO_INDEX, BIO_OPERATION, BIO_SECTOR, BIO_SIZE, CHAINED,
    DEVICE_DISK, DEVICE_NUMBER, DEVICE_START, DISK_WHOLE, FUA, Look, META, OP_DISCARD, OP_FLUSH, OP_MASK,
    OP_READ, OP_SECURE_ERASE, OP_WRITE, OP_WRITE_ZEROES, OP_ZONE_APPEND, PREFLUSH, REMAPPED, SYNC,
};

const SECTOR_SHIFT: u32 = 9;

/// What `bio` does: mask of [`op`] and [`manner`]. A flush without data is written as an empty write with `REQ_PREFLUSH`.
#[inline(always)]
pub fn ops<L: Look>(bio: u64) -> u32 {
    let operation: u32 = L::read(bio, &BIO_OPERATION);
    // Nearly every read: it says nothing else.
    if operation == OP_READ.load() {
        return op::READ;
    }
    bio_ops(operation, bytes::<L>(bio))
}

/// [`ops`] of a bio of so many `bytes` whose `bi_opf` is `operation`.
///
/// A global function: to the verifier what it returns is one number, and not one for each way through it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn bio_ops(operation: u32, bytes: u32) -> u32 {
    let preflush = operation & PREFLUSH.load() != 0;
    let number = operation & OP_MASK.load();
    let mut ops = if number == OP_READ.load() {
        op::READ
    } else if number == OP_WRITE.load() {
        if preflush && bytes == 0 { op::FLUSH } else { op::WRITE }
    } else if number == OP_FLUSH.load() {
        op::FLUSH
    } else if number == OP_DISCARD.load() || number == OP_SECURE_ERASE.load() {
        op::DISCARD
    } else if number == OP_WRITE_ZEROES.load() || number == OP_ZONE_APPEND.load() {
        op::WRITE
    } else {
        op::OTHER
    };
    if preflush {
        ops |= op::FLUSH;
    }
    if operation & FUA.load() != 0 {
        ops |= manner::FUA;
    }
    if operation & META.load() != 0 {
        ops |= manner::META;
    }
    if operation & SYNC.load() != 0 {
        ops |= manner::SYNC;
    }
    ops
}

/// How much is left of `bio` to do, in bytes.
#[inline(always)]
pub fn bytes<L: Look>(bio: u64) -> u32 {
    L::read(bio, &BIO_SIZE)
}

/// All facts about `bio` that filters look at.
#[inline(always)]
pub fn facts<L: Look>(bio: u64) -> BioFacts {
    // First: what was read before a call is kept on the stack.
    let ops = ops::<L>(bio);
    let flags: u16 = L::read(bio, &BIO_FLAGS);
    let mut sector: u64 = L::read(bio, &BIO_SECTOR);
    let device: u64 = L::read(bio, &BIO_DEVICE);
    let disk: u64 = L::read(device, &DEVICE_DISK);
    let whole: u64 = L::read(disk, &DISK_WHOLE);
    let start: u64 = L::read(device, &DEVICE_START);
    // The rest of a bio that was split comes by again, already in sectors of the disk.
    if flags as u32 & REMAPPED.load() != 0 {
        sector = sector.wrapping_sub(start);
    }
    BioFacts {
        device: L::read(device, &DEVICE_NUMBER),
        disk: L::read(whole, &DEVICE_NUMBER),
        sector,
        device_start: start,
        ops,
        sectors: bytes::<L>(bio) >> SECTOR_SHIFT,
    }
}

/// Whether `bio` is what is left of one that has come by before: the kernel cuts off what a device can take at once, ties
/// that to the rest (`bio_chain`), and submits the rest again (`bio_split_to_limits`, block/blk-merge.c).
#[inline(always)]
pub fn is_rest<L: Look>(bio: u64) -> bool {
    let flags: u16 = L::read(bio, &BIO_FLAGS);
    flags as u32 & CHAINED.load() != 0
        && (L::read::<u32>(bio, &BIO_INDEX) != 0 || L::read::<u32>(bio, &BIO_BYTES_DONE) != 0)
}
