//! The `memstore` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    memstore_proxy::cli::run()
}
