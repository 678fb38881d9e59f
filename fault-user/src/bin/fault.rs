//! The `fault` command.

fn main() {}
