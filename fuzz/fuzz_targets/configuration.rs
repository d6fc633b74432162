//! Configurations: any text is accepted or refused with words, never a panic.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use memstore_proxy::config::{Surroundings, parse};

fuzz_target!(|text: &str| {
    let around = Surroundings {
        read_file: &|_| Err(std::io::ErrorKind::NotFound.into()),
        environment: &|_| None,
    };
    if let Err(mistakes) = parse(text, Path::new("f"), &around) {
        assert!(!mistakes.list.is_empty());
    }
});
