//! nutcracker.yml and its superset. Every mistake is told with file, line, column, the value and the way out, all of them
//! at once.
//!
//! A file is either a mapping of pools, as nutcracker reads it, or has the pools under `pools:` with settings of the
//! process beside them. [`shard_discovery::yaml`] reads it into a tree of texts with their places, [`section`] takes the settings of
//! [`settings`] from it.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

pub use auth::{Auth, Reauth};
pub use facade::Facade;
pub use listen::Listen;
pub use listeners::{LISTENERS_MAX, Listener};
pub use mistake::{Mistake, Mistakes, Place};
pub use otlp::Otlp;
pub use pool::{KeylessScripts, Pool, Protocol};
pub use process::{LogFormat, Process, SideListen};
pub use servers::Within;
pub use shard_discovery::source::fixed::address;
use shard_discovery::yaml::{self, Entry, Node, Value};
pub use shown::{Origin, Row, Shown};
pub use tls::{Certificate, ClientTls, ShardTls, servers_tls};

mod auth;
mod by_name;
mod cluster;
mod facade;
pub mod json_schema;
pub mod kind;
mod lenient;
mod listen;
mod listeners;
mod mistake;
pub mod otlp;
mod pool;
pub mod process;
mod section;
mod servers;
pub mod settings;
mod shown;
mod tickets;
mod tls;
mod users;
pub mod value;

/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Settings of the process.
    pub process: Process,
    /// At least one pool, in the order of the file.
    pub pools: Vec<Pool>,
    /// The files it was read from: itself, and those with passwords.
    pub files: Vec<PathBuf>,
    /// The settings as operators are shown them.
    pub shown: Shown,
}

/// What a configuration may refer to besides itself.
pub struct Surroundings<'s> {
    /// Reads a file named in the configuration.
    pub read_file: &'s dyn Fn(&Path) -> io::Result<String>,
    /// Looks up an environment variable.
    pub environment: &'s dyn Fn(&str) -> Option<String>,
}

/// A number that is the same wherever the same settings hold, whatever the file looks like; passwords do not count. Only
/// processes of one version can be compared.
pub fn digest<'p>(process: &Process, pools: impl Iterator<Item = &'p Pool>) -> u64 {
    // In whatever order they were opened.
    let pools = pools.map(|pool| fnv(format!("{pool:?}").as_bytes())).fold(0, u64::wrapping_add);
    fnv(format!("{process:?} {pools}").as_bytes())
}

/// FNV-1a with 64 bits. Source: <https://datatracker.ietf.org/doc/html/rfc9923>.
pub fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Reads a file. Files named in it are relative to its folder.
pub fn load(path: &Path) -> Result<Config, Mistakes> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let files = RefCell::new(vec![path.to_owned()]);
    let around = Surroundings {
        read_file: &|named| {
            let named = folder.join(named);
            files.borrow_mut().push(named.clone());
            std::fs::read_to_string(named)
        },
        environment: &|name| std::env::var(name).ok(),
    };
    let bytes = std::fs::read(path)
        .map_err(|error| single(path, Place::START, format!("cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        single(path, Place { line, column: 1 }, "the file is not UTF-8 from this line on".into())
    })?;
    let config = parse(&text, path, &around)?;
    Ok(Config { files: files.take(), ..config })
}

/// Reads the text of a file. Touches nothing but what `around` gives.
pub fn parse(text: &str, origin: &Path, around: &Surroundings<'_>) -> Result<Config, Mistakes> {
    let root =
        yaml::parse(text).map_err(|mistake| Mistakes { origin: origin.into(), list: vec![mistake] })?;
    let mut mistakes = Vec::new();
    let config = read(&root, around, &mut mistakes);
    match config {
        Some(mut config) if mistakes.is_empty() => {
            config.shown.file = origin.to_owned();
            Ok(config)
        }
        _ => {
            mistakes.sort_by_key(|mistake| mistake.place);
            Err(Mistakes { origin: origin.into(), list: mistakes })
        }
    }
}

fn read(root: &Node, around: &Surroundings<'_>, mistakes: &mut Vec<Mistake>) -> Option<Config> {
    let Value::Map(entries) = &root.value else {
        let text = format!("the file has to be a mapping of pools, not {}", root.value.kind());
        mistakes.push(Mistake { place: root.place, text });
        return None;
    };
    // A pool called "pools" has settings below it, not pools.
    let superset = entries.iter().any(|entry| {
        let is_setting = |entry: &Entry| {
            !matches!(entry.node.value, Value::Map(_))
                && settings::POOL.iter().any(|setting| setting.name == entry.key)
        };
        let holds_pools = |value: &Value| match value {
            Value::Map(below) => !below.iter().any(is_setting),
            _ => true,
        };
        entry.key == "pools" && holds_pools(&entry.node.value)
    });
    let (process, beside, pools) = if superset {
        let process = Process::read(root.place, entries, around, mistakes);
        let pools = entries.iter().find(|entry| entry.key == "pools").expect("just seen");
        match &pools.node.value {
            Value::Map(pools) => (process, &entries[..], &pools[..]),
            other => {
                let text = format!("pools has to be a mapping of pools, not {}", other.kind());
                mistakes.push(Mistake { place: pools.place, text });
                return None;
            }
        }
    } else {
        (Process::of_nutcracker(), &[][..], &entries[..])
    };
    if pools.is_empty() {
        mistakes
            .push(Mistake { place: root.place, text: "no pools defined; at least one is required".into() });
    }
    let read: Vec<_> = pools.iter().filter_map(|entry| Pool::read(entry, around, mistakes)).collect();
    refuse_equals(pools, mistakes);
    Some(Config { process, pools: read, files: Vec::new(), shown: Shown::of(beside, pools) })
}

/// No two pools may have the same name or listen on the same address.
fn refuse_equals(pools: &[Entry], mistakes: &mut Vec<Mistake>) {
    for (index, entry) in pools.iter().enumerate() {
        for earlier in &pools[..index] {
            let line = earlier.place.line;
            if earlier.key == entry.key {
                let text = format!("pool {} is defined twice; first in line {line}", entry.key);
                mistakes.push(Mistake { place: entry.place, text });
            }
            let others = listens_of(earlier);
            for (mine, place) in listens_of(entry) {
                if !others.iter().any(|(other, _)| *other == mine) {
                    continue;
                }
                let text = format!(
                    "pool {}: listen: {mine:?} is already used by pool {} in line {line}",
                    entry.key, earlier.key
                );
                mistakes.push(Mistake { place, text });
            }
        }
    }
}

/// The addresses that a pool listens on, as they are written.
fn listens_of(pool: &Entry) -> Vec<(&str, Place)> {
    let Some(listen) = below(&pool.node, "listen") else { return Vec::new() };
    let nodes =
        if let Value::List(nodes) = &listen.value { &nodes[..] } else { std::slice::from_ref(listen) };
    let mut found = Vec::new();
    for node in nodes.iter().map(|node| below(node, "address").unwrap_or(node)) {
        if let Value::Text(text) = &node.value {
            found.push((text.as_str(), node.place));
        }
    }
    found
}

/// The value of a key of a mapping.
fn below<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == name).map(|entry| &entry.node)
}

fn single(path: &Path, place: Place, text: String) -> Mistakes {
    Mistakes { origin: path.into(), list: vec![Mistake { place, text }] }
}
