//! The room between the session and the kernel: the object, what this kernel can do, how programs get in.

pub mod btf;
mod config;
pub mod control;
pub mod doctor;
pub mod globals;
pub mod load;
#[cfg(feature = "log")]
pub mod log;
pub mod modify_return;
pub mod object;
pub mod patch;
pub mod plain;
pub mod probe;
pub mod symbols;
mod syscall;
