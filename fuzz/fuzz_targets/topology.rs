//! `fuzz/targets/topology.rs` for libFuzzer.
#![no_main]

#[path = "../targets/topology.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::run_input(bytes));
