//! Turns the placeholder calls of the object into what only the loader knows.
//!
//! A placeholder is a call of a helper number that no kernel has (`fault-ebpf/src/kernel.rs` makes them). It
//! becomes either a constant, `mov r0, imm`, so that one object can be loaded several times against the same
//! maps with different constants, or a call of a kernel function by its BTF id, which aya 0.14 cannot express.
//! A load from an offset that no structure has is one, too: its offset becomes the constant.

use aya_obj::generated::bpf_insn;

use super::btf::BtfError;

/// Number of the first placeholder; helper numbers of kernels are below 300.
const FIRST: i32 = 0x7f00;
/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;
/// `BPF_LDX | BPF_MEM`, without its size.
const LOAD: u8 = 0x61;
/// The bits of an instruction's code that say the size of a load.
const SIZE: u8 = 0x18;
/// `BPF_ALU | BPF_MOV | BPF_K`: 32 bits, clears the upper half of the register.
const MOV32_IMMEDIATE: u8 = 0xb4;
/// `BPF_LD | BPF_DW | BPF_IMM`: the only instruction of two slots, the second of which has no meaning alone.
const LOAD_IMMEDIATE_64: u8 = 0x18;
/// `src_reg` of a call of a kernel function (`BPF_PSEUDO_KFUNC_CALL`, Linux 5.13).
const PSEUDO_KFUNC_CALL: u8 = 2;

/// Placeholders that are constants of one copy of a program.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Constant {
    /// Number of the network namespace a copy is attached in, within the session.
    NetnsNumber = 0x10,
    /// Bit of the session in the packet tag, in that namespace.
    SessionBit = 0x11,
    /// Interface index of the lane's entry in that namespace; 0 when there is no lane.
    LaneEntry = 0x12,
    /// Interface index of the cutter's entry in that namespace; 0 when there is no cutter.
    CutterEntry = 0x13,
    /// 1: the cutter marks its packets with a VLAN tag.
    CutterTags = 0x14,
    /// 1: the kernel speaks MPTCP, so a packet's socket may be the kernel's own and stand for one of the target.
    Mptcp = 0x15,
    /// Where `sk_buff.sk` is; of loads, as the next two.
    BufferSocket = 0x16,
    /// Where `sock.sk_bpf_storage` is.
    SocketStorage = 0x17,
    /// Where the byte of `sock.sk_kern_sock` is.
    KernelSocket = 0x18,
    /// Which bit of that byte it is.
    KernelSocketMask = 0x19,
    /// Number of a copy of the parking program: with the CPU it names a page of the parking lot.
    ParkerNumber = 0x20,
    /// 1: no program of anybody else runs after the decider of block I/O, so it may end the chain.
    DeciderMayLeave = 0x21,
}

/// Constants of one copy. What is not named here must not be used by the program.
pub type Constants<'a> = &'a [(Constant, u32)];

/// The kernel function that shows a program the kernel's own structure behind its context (Linux 6.2).
pub const CAST_TO_KERNEL: &str = "bpf_cast_to_kern_ctx";

/// Placeholders that are kernel functions, and what they are called.
const KERNEL_FUNCTIONS: [(u32, &str); 3] =
    [(1, "bpf_task_from_pid"), (2, "bpf_task_release"), (3, CAST_TO_KERNEL)];

/// A placeholder that could not be filled in.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The program uses a constant its loader did not give.
    #[error("it uses the constant {0:?}, which nobody gave")]
    NoConstant(Constant),
    /// The object and this binary are of different builds.
    #[error("it uses placeholder {0:#x}, which this binary does not know")]
    Unknown(i32),
    /// What a load was told is not the offset of a field.
    #[error("it cannot load from offset {1}, which is that of {0:?}")]
    TooFar(Constant, u32),
    /// This kernel has no such function.
    #[error(transparent)]
    NoFunction(#[from] BtfError),
}

/// Fills in every placeholder of a program; `function_id` gives the BTF id of a kernel function.
///
/// # Errors
/// See [`PatchError`].
pub fn patch(
    program: &mut [bpf_insn],
    constants: Constants<'_>,
    mut function_id: impl FnMut(&'static str) -> Result<u32, BtfError>,
) -> Result<(), PatchError> {
    let mut skip = false;
    for instruction in program {
        if std::mem::take(&mut skip) {
            continue;
        }
        skip = instruction.code == LOAD_IMMEDIATE_64;
        if instruction.code & !SIZE == LOAD && i32::from(instruction.off) >= FIRST {
            let (constant, offset) = value_of(instruction.off.into(), constants)?;
            instruction.off = i16::try_from(offset).map_err(|_| PatchError::TooFar(constant, offset))?;
            continue;
        }
        if instruction.code != CALL || instruction.src_reg() != 0 || instruction.imm < FIRST {
            continue;
        }
        let number = instruction.imm.abs_diff(FIRST);
        if let Some((_, name)) = KERNEL_FUNCTIONS.iter().find(|(function, _)| *function == number) {
            // BTF ids are far below 2^31: vmlinux has about 150 000 types.
            instruction.imm = function_id(name)?.cast_signed();
            instruction.set_src_reg(PSEUDO_KFUNC_CALL);
            instruction.off = 0;
        } else {
            let (_, value) = value_of(instruction.imm, constants)?;
            give(instruction, value);
        }
    }
    Ok(())
}

/// Makes a call one that gives this.
fn give(instruction: &mut bpf_insn, value: u32) {
    instruction.code = MOV32_IMMEDIATE;
    instruction.set_dst_reg(0);
    instruction.set_src_reg(0);
    instruction.off = 0;
    instruction.imm = value.cast_signed();
}

/// The constant with this placeholder, and what was given for it.
fn value_of(placeholder: i32, constants: Constants<'_>) -> Result<(Constant, u32), PatchError> {
    let all = [
        Constant::NetnsNumber,
        Constant::SessionBit,
        Constant::LaneEntry,
        Constant::CutterEntry,
        Constant::CutterTags,
        Constant::Mptcp,
        Constant::BufferSocket,
        Constant::SocketStorage,
        Constant::KernelSocket,
        Constant::KernelSocketMask,
        Constant::ParkerNumber,
        Constant::DeciderMayLeave,
    ];
    let number = placeholder.abs_diff(FIRST);
    let constant = all.into_iter().find(|constant| *constant as u32 == number);
    let constant = constant.ok_or(PatchError::Unknown(placeholder))?;
    constants.iter().copied().find(|(name, _)| *name == constant).ok_or(PatchError::NoConstant(constant))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u8, src: u8, imm: i32) -> bpf_insn {
        let mut instruction =
            bpf_insn { code, _bitfield_align_1: [], _bitfield_1: Default::default(), off: 0, imm };
        instruction.set_src_reg(src);
        instruction
    }

    fn no_function(name: &'static str) -> Result<u32, BtfError> {
        Err(BtfError::NoFunction(name.into()))
    }

    #[test]
    fn a_constant_becomes_a_move_that_clears_the_upper_half() {
        let mut program = [instruction(CALL, 0, FIRST + 0x11), instruction(0x95, 0, 0)];
        patch(&mut program, &[(Constant::LaneEntry, 7), (Constant::SessionBit, 0xffff_fff0)], no_function)
            .expect("both constants are given");
        let moved = &program[0];
        assert_eq!((moved.code, moved.dst_reg(), moved.src_reg(), moved.off), (MOV32_IMMEDIATE, 0, 0, 0));
        assert_eq!(moved.imm, -16, "32 bits as they are");
        assert_eq!(program[1].code, 0x95, "exit stays");
    }

    #[test]
    fn a_kernel_function_is_called_by_its_id() {
        let mut program = [instruction(CALL, 0, FIRST + 1), instruction(CALL, 0, FIRST + 2)];
        let mut asked = Vec::new();
        patch(&mut program, &[], |name| {
            asked.push(name);
            Ok(1000 + asked.len() as u32)
        })
        .expect("both functions exist");
        assert_eq!(asked, ["bpf_task_from_pid", "bpf_task_release"]);
        assert_eq!((program[0].src_reg(), program[0].imm), (PSEUDO_KFUNC_CALL, 1001));
        assert_eq!((program[1].src_reg(), program[1].imm), (PSEUDO_KFUNC_CALL, 1002));
    }

    /// A load of `code` from `off`.
    fn load(code: u8, off: i16) -> bpf_insn {
        bpf_insn { off, ..instruction(code, 1, 0) }
    }

    #[test]
    fn a_load_of_any_size_gets_its_offset() {
        // BPF_W, BPF_H, BPF_B, BPF_DW.
        for code in [0x61, 0x69, 0x71, 0x79] {
            let mut program = [load(code, 0x7f17), load(code, 736)];
            patch(&mut program, &[(Constant::SocketStorage, 744)], no_function).expect("it is given");
            assert_eq!(
                program.map(|load| (load.code, load.src_reg(), load.off)),
                [(code, 1, 744), (code, 1, 736)]
            );
        }
        // BPF_STX.
        let mut store = [load(0x7b, 0x7f17)];
        patch(&mut store, &[(Constant::SocketStorage, 744)], no_function).expect("nothing to do");
        assert_eq!(store[0].off, 0x7f17);
    }

    #[test]
    fn a_load_from_nowhere_is_an_error() {
        let error = |off, value| {
            patch(&mut [load(0x79, off)], &[(Constant::SocketStorage, value)], no_function)
                .expect_err("it is not an offset")
                .to_string()
        };
        assert!(error(0x7f17, 40_000).contains("40000"), "{}", error(0x7f17, 40_000));
        assert!(error(0x7f16, 8).contains("BufferSocket"), "{}", error(0x7f16, 8));
        assert!(error(0x7fff, 8).contains("0x7fff"), "{}", error(0x7fff, 8));
    }

    #[test]
    fn everything_else_stays() {
        let before = [
            instruction(CALL, 0, 14),                    // a helper
            instruction(CALL, 1, FIRST + 1),             // a function of the program
            instruction(LOAD_IMMEDIATE_64, 0, FIRST),    // a 64-bit constant whose upper half …
            instruction(CALL, 0, FIRST + 1),             // … looks like a placeholder
            instruction(MOV32_IMMEDIATE, 0, FIRST + 16), // a number
        ];
        let mut after = before;
        patch(&mut after, &[], no_function).expect("nothing to do");
        for (before, after) in before.iter().zip(&after) {
            assert_eq!((before.code, before.src_reg(), before.imm), (after.code, after.src_reg(), after.imm));
        }
    }

    #[test]
    fn what_cannot_be_filled_in_is_an_error() {
        let error = |number| {
            let mut program = [instruction(CALL, 0, FIRST + number)];
            patch(&mut program, &[], no_function).expect_err("nothing is given").to_string()
        };
        assert!(error(0x10).contains("NetnsNumber"), "{}", error(0x10));
        assert!(error(0xff).contains("0x7fff"), "{}", error(0xff));
        assert!(error(1).contains("bpf_task_from_pid"), "{}", error(1));
    }
}
