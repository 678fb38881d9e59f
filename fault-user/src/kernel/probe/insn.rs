//! Hand-written BPF: the probes' programs are a few instructions each, and must not depend on the eBPF object,
//! whose absence is one of the things worth diagnosing.
//!
//! Encoding: <https://docs.kernel.org/bpf/standardization/instruction-set.html>.

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insn {
    code: u8,
    /// Source in the high nibble, destination in the low one (little endian; the build refuses others).
    registers: u8,
    offset: i16,
    immediate: i32,
}

#[cfg(not(target_endian = "little"))]
compile_error!("struct bpf_insn orders its registers by byte order; only little endian is written down here");

const PSEUDO_KFUNC_CALL: u8 = 2;
const PSEUDO_MAP_FD: u8 = 1;
const PSEUDO_MAP_VALUE: u8 = 2;

/// Helper numbers of `enum bpf_func_id`.
pub mod helper {
    pub const GET_CURRENT_COMM: i32 = 16;
    pub const REDIRECT: i32 = 23;
    pub const OVERRIDE_RETURN: i32 = 58;
    pub const SK_STORAGE_GET: i32 = 107;
    pub const GET_CURRENT_TASK_BTF: i32 = 158;
    pub const COPY_FROM_USER_TASK: i32 = 191;
    pub const SKB_SET_TSTAMP: i32 = 192;
    pub const SET_RETVAL: i32 = 187;
}

const fn insn(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers: src << 4 | dst, offset, immediate }
}

/// `dst = immediate`, sign extended.
pub const fn set(dst: u8, immediate: i32) -> Insn {
    insn(0xb7, dst, 0, 0, immediate)
}

/// `dst = src`.
pub const fn copy(dst: u8, src: u8) -> Insn {
    insn(0xbf, dst, src, 0, 0)
}

/// `dst += immediate`.
pub const fn add(dst: u8, immediate: i32) -> Insn {
    insn(0x07, dst, 0, 0, immediate)
}

/// `dst = *(u64 *)(src + offset)`.
pub const fn load64(dst: u8, src: u8, offset: i16) -> Insn {
    insn(0x79, dst, src, offset, 0)
}

/// `*(u64 *)(dst + offset) = immediate`.
pub const fn store64(dst: u8, offset: i16, immediate: i32) -> Insn {
    insn(0x7a, dst, 0, offset, immediate)
}

/// `lock *(u64 *)(dst + offset) += src`.
pub const fn atomic_add64(dst: u8, offset: i16, src: u8) -> Insn {
    insn(0xdb, dst, src, offset, 0)
}

/// Skip `count` instructions when `dst == immediate`.
pub const fn skip_if_is(dst: u8, immediate: i32, count: i16) -> Insn {
    insn(0x15, dst, 0, count, immediate)
}

/// Skip `count` instructions when `dst != src`.
pub const fn skip_if_differ(dst: u8, src: u8, count: i16) -> Insn {
    insn(0x5d, dst, src, count, 0)
}

/// `r0 = helper(r1 … r5)`.
pub const fn call(helper: i32) -> Insn {
    insn(0x85, 0, 0, 0, helper)
}

/// `r0 = kernel function(r1 … r5)`, by BTF id.
pub const fn call_kernel(btf_id: u32) -> Insn {
    insn(0x85, 0, PSEUDO_KFUNC_CALL, 0, btf_id as i32)
}

/// `return r0`.
pub const fn exit() -> Insn {
    insn(0x95, 0, 0, 0, 0)
}

/// `dst = map`. Two slots.
pub const fn map(dst: u8, fd: i32) -> [Insn; 2] {
    [insn(0x18, dst, PSEUDO_MAP_FD, 0, fd), insn(0, 0, 0, 0, 0)]
}

/// `dst = address of element 0 of an array map`. Two slots. Linux 5.2.
pub const fn map_value(dst: u8, fd: i32) -> [Insn; 2] {
    [insn(0x18, dst, PSEUDO_MAP_VALUE, 0, fd), insn(0, 0, 0, 0, 0)]
}

/// `dst = value`. Two slots.
pub const fn set64(dst: u8, value: u64) -> [Insn; 2] {
    [insn(0x18, dst, 0, 0, value as i32), insn(0, 0, 0, 0, (value >> 32) as i32)]
}

/// `return value`.
pub fn return_only(value: i32) -> Vec<Insn> {
    vec![set(0, value), exit()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(insn: Insn) -> [u8; 8] {
        // SAFETY: `Insn` is `repr(C)`, eight bytes without padding.
        unsafe { core::mem::transmute(insn) }
    }

    #[test]
    fn encodings_are_those_of_the_instruction_set() {
        // As llvm-objdump shows them.
        assert_eq!(bytes(set(0, -1)), [0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(bytes(copy(6, 1)), [0xbf, 0x16, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes(load64(3, 10, -16)), [0x79, 0xa3, 0xf0, 0xff, 0, 0, 0, 0]);
        assert_eq!(bytes(atomic_add64(1, 8, 2)), [0xdb, 0x21, 8, 0, 0, 0, 0, 0]);
        assert_eq!(bytes(call_kernel(0x1234)), [0x85, 0x20, 0, 0, 0x34, 0x12, 0, 0]);
        assert_eq!(bytes(map_value(1, 5)[0]), [0x18, 0x21, 0, 0, 5, 0, 0, 0]);
        assert_eq!(bytes(set64(2, 0x1_0000_0002)[1]), [0, 0, 0, 0, 1, 0, 0, 0]);
    }
}
