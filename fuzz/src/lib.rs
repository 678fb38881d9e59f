//! What libFuzzer calls. The properties are those that `cargo test` replays the corpus under.

#[path = "../../fault-user/tests/fuzz/properties/mod.rs"]
pub mod properties;
