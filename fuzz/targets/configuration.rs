//! Configurations: any text is accepted or refused with words, never a panic.

use std::path::Path;

use memstore_proxy::config::{Surroundings, parse};

/// One input.
pub fn run_input(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let around =
        Surroundings { read_file: &|_| Err(std::io::ErrorKind::NotFound.into()), environment: &|_| None };
    if let Err(mistakes) = parse(text, Path::new("f"), &around) {
        assert!(!mistakes.list.is_empty());
    }
}
