//! The room between the session and the kernel: the object, what this kernel can do, how programs get in.

pub mod btf;
pub mod control;
pub mod globals;
pub mod load;
pub mod modify_return;
pub mod object;
pub mod patch;
pub mod plain;
mod syscall;
