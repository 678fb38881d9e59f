//! What only the loader knows: constants per copy of a program, kernel functions by BTF id, and offsets.
//!
//! A *placeholder* is a call of a helper number no kernel has. `fault-user/src/kernel/patch.rs` turns it into
//! a constant (`mov r0, imm`), so that one object can be loaded several times against the same maps with
//! different constants, or into a kfunc call, which aya 0.14 cannot express. A load from an offset no structure has is a placeholder,
//! too: of the same load from where the field is.

use core::ffi::c_void;

use aya_ebpf::bindings::__sk_buff;

/// First placeholder number; `fault_user::kernel::patch` knows the same list.
const PLACEHOLDER: usize = 0x7f00;

macro_rules! placeholder {
    ($(#[$doc:meta])* fn $name:ident() -> u32 = $number:literal) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name() -> u32 {
            // SAFETY: never called as such: the loader replaces the call before the kernel sees it.
            let call: extern "C" fn() -> u64 = unsafe { core::mem::transmute(PLACEHOLDER + $number) };
            call() as u32
        }
    };
}

placeholder!(
    /// Number of the network namespace this copy is attached in, within the session.
    fn netns_number() -> u32 = 0x10
);
placeholder!(
    /// Bit of this session in the packet tag, in this namespace.
    fn session_bit() -> u32 = 0x11
);
placeholder!(
    /// Interface index of the lane's entry in this namespace; 0 when there is no lane.
    fn lane_entry() -> u32 = 0x12
);
placeholder!(
    /// Interface index of the cutter's entry in this namespace; 0 when there is no cutter.
    fn cutter_entry() -> u32 = 0x13
);
placeholder!(
    /// 1: the cutter marks its packets with a VLAN tag.
    fn cutter_tags() -> u32 = 0x14
);
placeholder!(
    /// 1: this kernel speaks MPTCP.
    fn mptcp() -> u32 = 0x15
);
placeholder!(
    /// Which bit of its byte `sock.sk_kern_sock` is.
    fn kernel_socket_mask() -> u32 = 0x19
);
placeholder!(
    /// Number of this copy of the parking program, below `PARKING_PLACES_PER_CPU`.
    fn parker_number() -> u32 = 0x20
);
placeholder!(
    /// 1: no program of anybody else runs after the decider of block I/O.
    fn decider_may_leave() -> u32 = 0x21
);

/// Fields that the loader knows the place of.
pub mod field {
    /// `sk_buff.sk`.
    pub const BUFFER_SOCKET: usize = 0x16;
    /// `sock.sk_bpf_storage`.
    pub const SOCKET_STORAGE: usize = 0x17;
    /// The byte with `sock.sk_kern_sock`.
    pub const KERNEL_SOCKET: usize = 0x18;
}

/// The field `FIELD` (see [`field`]) of the kernel's structure at `structure`, by one load: the verifier knows what it points to.
///
/// # Safety
/// It must be a `T` of that structure. The verifier refuses a load that is not of a field.
#[inline(always)]
pub unsafe fn load<T, const FIELD: usize>(structure: u64) -> T {
    // SAFETY: the caller's promise. Volatile: nobody else may tell when these change, and two loads must not become one.
    unsafe { core::ptr::read_volatile((structure + (PLACEHOLDER + FIELD) as u64) as *const T) }
}

/// kfunc `bpf_task_from_pid` (Linux 6.2): a referenced task of the initial PID namespace, or null.
#[inline(always)]
pub fn task_from_pid(pid: i32) -> *mut c_void {
    // SAFETY: the loader replaces the call by a kfunc call with this signature.
    let call: unsafe extern "C" fn(i32) -> *mut c_void = unsafe { core::mem::transmute(PLACEHOLDER + 1) };
    // SAFETY: the kfunc accepts any number.
    unsafe { call(pid) }
}

/// kfunc `bpf_cast_to_kern_ctx` (Linux 6.2): the `struct sk_buff` behind the context of a classifier. The kernel makes no call of
/// it.
#[inline(always)]
pub fn buffer(context: *mut __sk_buff) -> u64 {
    // SAFETY: the loader replaces the call by a kfunc call with this signature.
    let call: unsafe extern "C" fn(*mut __sk_buff) -> u64 = unsafe { core::mem::transmute(PLACEHOLDER + 3) };
    // SAFETY: `context` is the context (the verifier checks it).
    unsafe { call(context) }
}

/// kfunc `bpf_task_release` (Linux 6.2).
#[inline(always)]
pub fn task_release(task: *mut c_void) {
    // SAFETY: the loader replaces the call by a kfunc call with this signature.
    let call: unsafe extern "C" fn(*mut c_void) = unsafe { core::mem::transmute(PLACEHOLDER + 2) };
    // SAFETY: `task` comes from `task_from_pid` (the verifier checks it).
    unsafe { call(task) }
}
