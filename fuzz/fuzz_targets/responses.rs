//! `fuzz/targets/responses.rs` for libFuzzer.
#![no_main]

#[path = "../targets/responses.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::run_input(bytes));
