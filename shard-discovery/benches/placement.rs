//! What it costs to find the owner of a key, and to build a ring: `cargo bench -p shard-discovery`.

use divan::{Bencher, black_box, counter::ItemsCount};
use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};

/// Keys per measured pass: enough that neither the branch predictor nor the first cache level knows them.
const KEYS: usize = 4096;

fn main() {
    divan::main();
}

fn pool(shards: usize, kind: DistributionKind, key_hash: KeyHash) -> Topology {
    let shard = |index| {
        let address = Address::Tcp { host: "127.0.0.1".into(), port: 6379 };
        Shard::new(address, 1, Some(format!("shard-{index}")))
    };
    Topology::new((0..shards).map(shard).collect(), kind, key_hash, Some("{}".parse().expect("two bytes")))
        .expect("a valid pool")
}

/// Keys of 8 bytes, as short as they come, and of 24, a usual length.
fn keys(length: usize) -> Vec<Vec<u8>> {
    let key = |number: usize| format!("{:0length$}", number.wrapping_mul(7_919) % 10_000_000).into_bytes();
    (0..KEYS).map(key).collect()
}

fn place(bencher: Bencher, topology: &Topology, keys: &[Vec<u8>]) {
    bencher.counter(ItemsCount::new(KEYS)).bench(|| {
        for key in keys {
            black_box(topology.shard_for(black_box(key)));
        }
    });
}

#[divan::bench(args = [3, 10, 100, 1000])]
fn ketama(bencher: Bencher, shards: usize) {
    place(bencher, &pool(shards, DistributionKind::Ketama, KeyHash::Fnv1a64), &keys(24));
}

#[divan::bench(args = [3, 10, 100, 1000])]
fn ketama_short_keys(bencher: Bencher, shards: usize) {
    place(bencher, &pool(shards, DistributionKind::Ketama, KeyHash::Fnv1a64), &keys(8));
}

#[divan::bench(args = DistributionKind::ALL)]
fn distribution(bencher: Bencher, kind: DistributionKind) {
    let shards = if kind == DistributionKind::Single { 1 } else { 10 };
    place(bencher, &pool(shards, kind, KeyHash::Fnv1a64), &keys(24));
}

#[divan::bench(args = KeyHash::ALL)]
fn hash(bencher: Bencher, hash: KeyHash) {
    let keys = keys(24);
    bencher.counter(ItemsCount::new(KEYS)).bench(|| {
        for key in &keys {
            black_box(hash.hash(black_box(key)));
        }
    });
}

#[divan::bench(args = [3, 10, 100, 1000])]
fn rebuild_ketama(bencher: Bencher, shards: usize) {
    let topology = pool(shards, DistributionKind::Ketama, KeyHash::Fnv1a64);
    bencher.bench(|| topology.without(&[0]));
}
