//! The room between the session and the kernel: the object, what this kernel can do, how programs get in.

pub mod btf;
pub mod control;
pub mod load;
pub mod object;
