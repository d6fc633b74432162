//! What others say about who owns what: topology documents, and what the nodes of a Redis Cluster say of each other. It is
//! used or refused with words, and every key then has an owner that exists.

use std::collections::HashMap;

use shard_discovery::document::Document;
use shard_discovery::source::cluster::{Map, View, view};
use shard_discovery::{Address, DistributionKind, KeyHash, Placement, Topology};

/// Shards beyond this only cost time.
const SHARDS_MAX: usize = 64;

fn check(topology: &Topology) {
    for key in [&b""[..], b"a", b"{a}b", b"user:{1}:x", &[0xff; 300]] {
        if let Some(shard) = topology.shard_for(key) {
            assert!(shard < topology.shards().len());
        }
    }
}

/// One input.
pub fn run_input(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(document) = Document::parse(text) {
        for (name, pool) in &document.pools {
            if pool.shards.len() <= SHARDS_MAX
                && let Ok(topology) = document.topology(name)
            {
                check(&topology);
            }
        }
    }
    // Several nodes say something, parted by empty lines.
    let views: Vec<View> = text
        .split("\n\n")
        .take(4)
        .enumerate()
        .filter_map(|(number, said)| {
            let asked = Address::Tcp { host: format!("node-{number}"), port: 6379 };
            let nodes = view::nodes(said).ok()?;
            Some(View { asked, is_well: number % 3 != 2, nodes, endpoints: HashMap::new() })
        })
        .collect();
    let map = Map::of(&views);
    let listing = map.listing();
    let shards = listing.servers.len();
    assert!(map.owners.iter().flatten().all(|&owner| owner < shards));
    if shards <= SHARDS_MAX
        && let Ok(topology) = listing.topology(&Placement::new(DistributionKind::Slots, KeyHash::Crc16, None))
    {
        check(&topology);
    }
}
