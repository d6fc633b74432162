//! The borders of ARCHITECTURE.md, as far as they can be kept mechanically.

use std::path::{Path, PathBuf};

/// All Rust files below a folder of the package, with what they contain before their unit tests.
fn files(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder of this package") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut paths);
    assert!(!paths.is_empty(), "{folder} is empty");
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a source file");
        // A file may have nothing else: `#![cfg(test)]`.
        let code = text.split("[cfg(test)]").next().unwrap_or_default().to_owned();
        (path, code)
    };
    paths.into_iter().map(read).collect()
}

/// Lines of code, without comments, that contain one of the words.
fn offences(folder: &str, words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, code) in files(folder) {
        if allowed.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            let line = line.trim_start();
            if !line.starts_with("//") && words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    found
}

fn check(rule: &str, offences: Vec<String>) {
    assert!(offences.is_empty(), "{rule}:\n{}", offences.join("\n"));
}

#[test]
fn the_core_does_no_io_and_knows_no_clock() {
    let words = [
        "tokio",
        "std::net",
        "std::fs",
        "std::thread",
        "std::io::Read",
        "Instant",
        "SystemTime",
        "rand::",
        "RandomState",
        "env::var",
        "rustix",
        "socket2",
        "RefCell",
    ];
    for folder in ["src/protocol", "src/pool"] {
        check("protocol/ and pool/ do no I/O; take it as an argument", offences(folder, &words, &[]));
    }
}

#[test]
fn only_one_match_knows_the_protocols() {
    for folder in ["src/pool", "src/worker", "src/control"] {
        // The probe is a client of the shards itself.
        let allowed = ["worker/mod.rs", "control/probe.rs"];
        check(
            "nobody outside protocol/ asks which protocol it is",
            offences(folder, &["resp::", "Resp>", "memcache::", "Memcache>"], &allowed),
        );
    }
}

#[test]
fn a_command_is_its_row() {
    let commands = [
        "\"get\"",
        "\"mget\"",
        "\"del\"",
        "\"exists\"",
        "\"MGET\"",
        "b\"get\"",
        "b\"mget\"",
        "b\"eval\"",
        "\"eval\"",
    ];
    let allowed = ["command_table.rs", "commands.rs"];
    check("no other file names a command", offences("src", &commands, &allowed));
}

#[test]
fn protocols_know_no_shards_and_no_configuration() {
    check(
        "protocol/ knows no shard, ring or configuration",
        offences("src/protocol", &["shard_discovery", "crate::config"], &[]),
    );
}

#[test]
fn files_hold_one_noun() {
    let long: Vec<_> = files("src")
        .into_iter()
        .filter(|(path, _)| !path.ends_with("command_table.rs"))
        .filter(|(_, code)| code.lines().count() > 600)
        .map(|(path, _)| path.display().to_string())
        .collect();
    check("a file over 600 lines has a second noun in it", long);
}
