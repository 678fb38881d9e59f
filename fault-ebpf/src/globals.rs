//! What the loader finds out about the kernel: numbers that it writes into the object before the programs are loaded
//! (`fault_user::kernel::globals`).

/// Globals of 32 bits, 0 until the loader sets them.
macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $($(#[$doc])* #[unsafe(no_mangle)] pub static $name: ::aya_ebpf::Global<u32> = ::aya_ebpf::Global::new(0);)*
    };
}

pub(crate) use fields;
