//! The `memstore` command.

fn main() {}
