//! The command line: arguments in, exit status out.

pub mod args;
