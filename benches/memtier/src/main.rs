//! Drives memstore and its peers with the same load and compares them.

fn main() {}
