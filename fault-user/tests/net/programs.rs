//! Tiny tc programs, instruction by instruction: this room is handed programs, it does not make them.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;

/// `TCX_NEXT`, `TC_ACT_UNSPEC`: as if we were not there.
pub const NEXT: i32 = -1;
/// End of the chain: the packet passes, nobody else is asked.
pub const PASS: i32 = 0;
/// End of the chain: the packet is dropped.
pub const DROP: i32 = 2;

/// Offset of `tc_index` in `struct __sk_buff`.
const TC_INDEX: i16 = 44;
/// What a packet that comes back from the lane is known by.
const TAG: i32 = 0x8101;

#[derive(Clone, Copy)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn op(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset, immediate }
}

const fn set(register: u8, value: i32) -> Instruction {
    op(0xb7, register, 0, 0, value)
}

const fn copy(to: u8, from: u8) -> Instruction {
    op(0xbf, to, from, 0, 0)
}

const fn call(helper: i32) -> Instruction {
    op(0x85, 0, 0, 0, helper)
}

const fn exit() -> Instruction {
    op(0x95, 0, 0, 0, 0)
}

/// Always this verdict.
pub fn verdict(verdict: i32) -> OwnedFd {
    load(&[set(0, verdict), exit()])
}

/// Sends a clone of every packet into the lane, to leave it after `delay_ns`, and swallows the original; passes
/// what comes back.
pub fn into_lane(entry: u32, delay_ns: u32) -> OwnedFd {
    load(&[
        copy(6, 1),
        op(0x61, 1, 6, TC_INDEX, 0),        // r1 = skb->tc_index
        op(0x15, 1, 0, 15, TAG),            // if it is ours, go to NEXT
        call(5),                            // r0 = bpf_ktime_get_ns()
        op(0xb4, 2, 0, 0, delay_ns as i32), // w2 = delay
        op(0x0f, 0, 2, 0, 0),               // r0 += r2
        copy(2, 0),
        copy(1, 6),
        set(3, 1), // BPF_SKB_TSTAMP_DELIVERY_MONO
        call(192), // bpf_skb_set_tstamp(skb, r2, 1)
        set(1, TAG),
        op(0x63, 6, 1, TC_INDEX, 0), // skb->tc_index = TAG
        copy(1, 6),
        set(2, entry as i32),
        set(3, 0),
        call(13),             // bpf_clone_redirect(skb, entry, 0)
        set(1, 0x7fff_fff0),  // no such interface: swallowed, the sender sees success
        op(0x05, 0, 0, 2, 0), // go to the redirect
        set(0, NEXT),
        exit(),
        set(2, 0),
        call(23), // return bpf_redirect(r1, 0)
        exit(),
    ])
}

/// Sends everything to the way out of this interface.
pub fn out_to(interface: u32) -> OwnedFd {
    load(&[set(1, interface as i32), set(2, 0), call(23), exit()])
}

fn load(instructions: &[Instruction]) -> OwnedFd {
    #[repr(C)]
    struct Attributes {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
    }
    let mut log = vec![0u8; 1 << 16];
    let attributes = Attributes {
        kind: BPF_PROG_TYPE_SCHED_CLS,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log: log.as_mut_ptr() as u64,
    };
    // SAFETY: the attributes are a valid prefix of `union bpf_attr`, and what they point to outlives the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<Attributes>())
    };
    if fd < 0 {
        let error = io::Error::last_os_error();
        panic!("loading a test program: {error}\n{}", String::from_utf8_lossy(&log).trim_end_matches('\0'));
    }
    // SAFETY: the kernel returned a new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}
