//! The lifetime of one controller and its rules: planned → armed → active → healed.

pub mod compile;
pub mod keeper;
pub mod plan;
pub mod residue;
