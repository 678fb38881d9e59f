#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| fault_fuzz::properties::spec::holds(text));
