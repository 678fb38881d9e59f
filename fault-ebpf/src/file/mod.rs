//! Operations on files: programs on the hooks of security modules (`security_*`) and on system calls that have none.
//!
//! All are fmod_ret: what is not 0 takes the place of the function, so the operation fails before it has done anything.
//!
//! | module | what |
//! |---|---|
//! | [`hooks`] | a program for each hook |
//! | [`judge`] | who, which files, `fault_common::decide`, what is told |
//! | [`path`] | the path of a file within its file system, and the patterns of rules |
//! | [`fields`] | where the kernel keeps what these read |

pub mod fields;
mod hooks;
mod judge;
pub mod path;
