//! `fuzz/targets/commands.rs` for libFuzzer.
#![no_main]

#[path = "../targets/commands.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::run_input(bytes));
