//! The fuzz targets of `fuzz/targets` over the kept inputs of `fuzz/corpus`, and over mutations of them, with any compiler.
//! `fuzz/run` searches with the guidance of coverage; what it finds is kept there and tried here from then on.
//!
//! `FUZZ_SECONDS=60` mutates for so long per target, `SEED=7` in another order.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[path = "../../fuzz/targets/commands.rs"]
mod commands;
#[path = "../../fuzz/targets/configuration.rs"]
mod configuration;
#[path = "servers/dice.rs"]
#[allow(dead_code)]
mod dice;
#[path = "../../fuzz/targets/pool.rs"]
mod pool;
#[path = "../../fuzz/targets/requests.rs"]
mod requests;
#[path = "../../fuzz/targets/responses.rs"]
mod responses;
#[path = "../../fuzz/targets/topology.rs"]
mod topology;

use dice::Dice;

/// Mutations of each target when no time is given.
const MUTATIONS: usize = 2_000;
/// Longest input that is made here.
const LENGTH_MAX: usize = 8_192;
/// Bytes that mean something to some decoder.
const SPECIAL: &[u8] = b" \r\n\0*$-:{}0129";
/// All of `fuzz/corpus`, so that a clone stays quick.
const CORPUS_BYTES_MAX: u64 = 1 << 20;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the repository").to_owned()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn try_target(name: &str, target: fn(&[u8]), others: &[&str]) {
    let folders =
        std::iter::once(format!("fuzz/corpus/{name}")).chain(others.iter().map(|&name| name.to_owned()));
    let inputs: Vec<(PathBuf, Vec<u8>)> = folders
        .flat_map(|folder| files(&repository().join(folder)))
        .map(|path| (path.clone(), fs::read(&path).expect("a file")))
        .collect();
    assert!(inputs.len() > 5, "the corpus of {name} is gone");
    for (path, bytes) in &inputs {
        let held = catch_unwind(AssertUnwindSafe(|| target(bytes)));
        assert!(held.is_ok(), "{} breaks {name}", path.display());
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let mut dice = Dice::new(number("SEED").unwrap_or(1));
    let limit = number("FUZZ_SECONDS").map(Duration::from_secs);
    let (begin, mut tried) = (Instant::now(), 0);
    while limit.map_or(tried < MUTATIONS, |limit| begin.elapsed() < limit) {
        let bytes = mutated(&mut dice, &inputs);
        if catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_err() {
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{tried}"));
            fs::write(&kept, &bytes).expect("the folder for temporary files is writable");
            panic!("{} breaks {name}: {}", kept.display(), bytes.escape_ascii());
        }
        tried += 1;
    }
}

/// One of the inputs with some changes, among them pieces of others.
fn mutated(dice: &mut Dice, inputs: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = inputs[dice.below(inputs.len())].1.clone();
    for _ in 0..1 + dice.below(6) {
        let at = dice.below(bytes.len() + 1);
        let end = (at + dice.below(20)).min(bytes.len());
        match dice.below(8) {
            0 if at < bytes.len() => bytes[at] = dice.below(256) as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            2 => bytes.insert(at, SPECIAL[dice.below(SPECIAL.len())]),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            5 => bytes.truncate(at),
            _ => {
                let other = &inputs[dice.below(inputs.len())].1;
                let start = dice.below(other.len() + 1);
                let stop = (start + dice.below(200)).min(other.len());
                bytes.splice(at..end, other[start..stop].iter().copied());
            }
        }
    }
    bytes.truncate(LENGTH_MAX);
    bytes
}

#[test]
fn requests_of_both_protocols() {
    try_target("requests", requests::run_input, &[]);
}

#[test]
fn responses_of_both_protocols() {
    try_target("responses", responses::run_input, &[]);
}

#[test]
fn events_of_the_pool() {
    try_target("pool", pool::run_input, &[]);
}

#[test]
fn configurations() {
    try_target(
        "configuration",
        configuration::run_input,
        &["proxy/tests/config/good", "proxy/tests/config/bad"],
    );
}

#[test]
fn topologies() {
    try_target("topology", topology::run_input, &[]);
}

#[test]
fn commands_of_shards() {
    try_target("commands", commands::run_input, &[]);
}

#[test]
fn the_corpus_is_small_and_every_target_has_one() {
    let mut bytes = 0;
    for target in files(&repository().join("fuzz/targets")) {
        let name = target.file_stem().expect("a name").to_str().expect("text").to_owned();
        let sizes = files(&repository().join("fuzz/corpus").join(&name));
        bytes += sizes.iter().map(|path| path.metadata().expect("a file").len()).sum::<u64>();
        let run = include_str!("../../fuzz/run");
        assert!(run.contains(&name), "fuzz/run does not run {name}");
    }
    assert!(bytes < CORPUS_BYTES_MAX, "fuzz/corpus has {bytes} bytes; merge it with fuzz/run merge");
}
