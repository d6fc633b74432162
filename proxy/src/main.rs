//! The `memstore` command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: memstore_proxy::freed::Allocator = memstore_proxy::freed::Allocator;

fn main() -> ExitCode {
    memstore_proxy::cli::run()
}
