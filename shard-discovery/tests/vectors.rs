//! Every answer recorded from a running nutcracker, see `tests/vectors/README.md`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};

#[derive(Deserialize)]
struct Keys {
    keys: Vec<String>,
}

#[derive(Deserialize)]
struct Hashes {
    hashes: std::collections::HashMap<String, String>,
}

#[derive(Deserialize)]
struct Recording {
    alphabet: String,
    servers: Vec<Server>,
    ejected: Vec<usize>,
    pools: Vec<Pool>,
}

#[derive(Deserialize)]
struct Server {
    addr: Option<String>,
    port: Option<u16>,
    sock: Option<PathBuf>,
    name: Option<String>,
    weight: u32,
    ring_name: String,
}

#[derive(Deserialize)]
struct Pool {
    hash: String,
    distribution: String,
    hash_tag: Option<String>,
    /// One character per key: the server that received it by its place in the alphabet, '.' where the key
    /// was not sent.
    map: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn read<T: DeserializeOwned>(path: &Path) -> T {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn keys() -> Vec<Vec<u8>> {
    let Keys { keys } = read(&folder().join("keys.json"));
    keys.iter().map(|key| hex::decode(key).unwrap()).collect()
}

impl Server {
    fn shard(&self) -> Shard {
        let address = match (&self.addr, self.port, &self.sock) {
            (Some(host), Some(port), None) => Address::Tcp { host: host.clone(), port },
            (None, None, Some(path)) => Address::Unix(path.clone()),
            (None, None, None) => Address::Tcp { host: "unknown".into(), port: 1 },
            _ => panic!("server {} has half an address", self.ring_name),
        };
        Shard::new(address, self.weight, self.name.clone())
    }
}

/// Returns how many placements were compared.
fn check_recording(path: &Path, keys: &[Vec<u8>]) -> usize {
    let recording: Recording = read(path);
    let file = path.file_name().unwrap().display();
    let shards: Vec<Shard> = recording.servers.iter().map(Server::shard).collect();
    for (server, shard) in recording.servers.iter().zip(&shards) {
        assert_eq!(shard.name, server.ring_name, "{file}");
    }
    let mut compared = 0;
    for pool in &recording.pools {
        let topology = Topology::new(
            shards.clone(),
            pool.distribution.parse().unwrap(),
            pool.hash.parse().unwrap(),
            pool.hash_tag.as_ref().map(|tag| tag.parse().unwrap()),
        )
        .unwrap();
        let index_of = |server: usize| {
            topology.shards().iter().position(|shard| shard.name == shards[server].name).unwrap()
        };
        let ejected: Vec<usize> = recording.ejected.iter().map(|&server| index_of(server)).collect();
        let topology = topology.without(&ejected);
        assert_eq!(pool.map.len(), keys.len(), "{file}");
        for (letter, key) in pool.map.chars().zip(keys) {
            if letter == '.' {
                continue;
            }
            let server = recording.alphabet.find(letter).expect("a letter of the alphabet");
            let context = || {
                let (hash, distribution, tag) = (&pool.hash, &pool.distribution, &pool.hash_tag);
                format!("{file} {hash} {distribution} {tag:?} key \"{}\"", key.escape_ascii())
            };
            if topology.kind() == DistributionKind::Random {
                assert!(!recording.ejected.contains(&server), "{}", context());
            } else {
                assert_eq!(topology.shard_for(key), Some(index_of(server)), "{}", context());
                assert_eq!(topology.explain(key).shard, Some(index_of(server)), "{}", context());
            }
            compared += 1;
        }
    }
    assert!(compared > 0, "{file} compares nothing");
    compared
}

#[test]
fn every_key_is_where_nutcracker_put_it() {
    let keys = keys();
    assert_eq!(keys.len(), 2000);
    let mut files = 0;
    let mut compared = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.ends_with(".json") && !["keys.json", "hashes.json"].contains(&name) {
            compared += check_recording(&path, &keys);
            files += 1;
        }
    }
    assert!(files >= 11 && compared > 100_000, "only {compared} placements in {files} files");
}

#[test]
fn every_hash_is_nutcrackers() {
    let keys = keys();
    let Hashes { hashes } = read(&folder().join("hashes.json"));
    assert_eq!(hashes.len(), KeyHash::ALL.len());
    for (name, digits) in &hashes {
        let hash: KeyHash = name.parse().unwrap();
        assert_eq!(digits.len(), 8 * keys.len(), "{name}");
        for (number, key) in keys.iter().enumerate() {
            let recorded = u32::from_str_radix(&digits[8 * number..8 * number + 8], 16).unwrap();
            assert_eq!(hash.hash(key), recorded, "{name} of \"{}\"", key.escape_ascii());
        }
    }
}
