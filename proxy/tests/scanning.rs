//! SCAN over shards that change while they are scanned, through two proxies in turn: a scan that ends without an error has told of
//! every key that was there all the time. Shards here keep keys in tables that grow and shrink as those of servers, and go through
//! them in the same order.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use memstore_proxy::failure::ShardFailure;
use memstore_proxy::pool::{ConnectionId, Limits};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
use servers::dice::Dice;
use servers::encoded;
use shard_discovery::{Address, DistributionKind, HashTag, KeyHash, Shard, Topology};
use world::World;

mod servers;
mod world;

/// A server with its keys.
struct Model {
    keys: BTreeSet<String>,
    bits: u32,
    process: u64,
}

impl Model {
    fn new(process: u64) -> Self {
        Self { keys: BTreeSet::new(), bits: 2, process }
    }

    fn bucket(&self, key: &str) -> u64 {
        let seed = self.process.to_string();
        let hash = seed.bytes().chain(key.bytes()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        (hash ^ (hash >> 29)) & ((1 << self.bits) - 1)
    }

    /// The keys of one place, and the next one: the number is counted up from its highest bit.
    fn scan(&self, cursor: u64) -> (u64, Vec<&str>) {
        let mask = (1 << self.bits) - 1;
        let found = self.keys.iter().filter(|key| self.bucket(key) == cursor & mask);
        let next = ((cursor | !mask).reverse_bits().wrapping_add(1)).reverse_bits();
        (next, found.map(String::as_str).collect())
    }

    /// What it says to a request of a scan, whose last line but those of EXEC is the cursor.
    fn answer(&self, request: &str) -> Vec<u8> {
        let words: Vec<&str> = request.split("\r\n").collect();
        let at = words.iter().position(|&word| word == "SCAN").expect("a scan");
        let (next, keys) = self.scan(words[at + 2].parse().expect("a number"));
        let info = format!("# Server\r\nrun_id:{}\r\n", self.process);
        let mut reply = format!(
            "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n${}\r\n{info}\r\n*2\r\n${}\r\n{next}\r\n*{}\r\n",
            info.len(),
            next.to_string().len(),
            keys.len()
        );
        keys.iter().for_each(|key| reply.push_str(&format!("${}\r\n{key}\r\n", key.len())));
        reply.into_bytes()
    }
}

fn topology(shards: usize) -> Arc<Topology> {
    let shard = |number| {
        Shard::new(Address::Tcp { host: format!("h{number}"), port: 1 }, 1, Some(format!("s{number}")))
    };
    let tag = Some(HashTag::REDIS_CLUSTER);
    let shards = (0..shards).map(shard).collect();
    Arc::new(Topology::new(shards, DistributionKind::Ketama, KeyHash::Fnv1a64, tag).expect("a topology"))
}

/// One proxy, with a client.
struct Proxy {
    world: World<Resp>,
    client: memstore_proxy::pool::ClientId,
}

impl Proxy {
    fn new(topology: Arc<Topology>, seed: u64) -> Self {
        let mut world = World::new(Settings::default(), Limits::default(), topology, seed);
        let client = world.pool.client_connected(world.now);
        world.eager.insert(client, Vec::new());
        Self { world, client }
    }

    /// Sends the request, lets shards answer, and returns the reply. One connection in `breaks` is lost instead.
    fn ask(&mut self, request: &[&[u8]], models: &[Model], dice: &mut Dice, breaks: usize) -> Vec<u8> {
        let world = &mut self.world;
        world.client_sends(self.client, &encoded(request));
        world.settle();
        for _ in 0..8 {
            for id in std::mem::take(&mut world.wanted) {
                world.shard_connects(id);
            }
            world.settle();
            for id in world.up.clone() {
                let bytes = world.shard_takes(id, |length| length);
                if bytes.is_empty() {
                    continue;
                }
                if breaks > 0 && dice.one_in(breaks) {
                    world.shard_closes(id, &ShardFailure::Reset);
                } else {
                    let shard = shard_of(world, id);
                    world
                        .shard_sends(id, &models[shard].answer(&String::from_utf8_lossy(&bytes)))
                        .expect("a good response");
                }
                world.settle();
            }
            let heard = world.eager.get_mut(&self.client).expect("a client");
            if !heard.is_empty() {
                return std::mem::take(heard);
            }
        }
        panic!("no reply to {request:?}");
    }
}

fn shard_of(world: &World<Resp>, id: ConnectionId) -> usize {
    world.pool.shard_of(id).expect("it is there").name[1..].parse().expect("a number")
}

/// What a page says: the next cursor and keys, or an error.
fn page(reply: &[u8]) -> Result<(u64, Vec<String>), String> {
    let text = String::from_utf8_lossy(reply);
    if let Some(error) = text.strip_prefix('-') {
        return Err(error.to_owned());
    }
    let lines: Vec<&str> = text.split("\r\n").collect();
    let cursor = lines[2].parse().expect("a number");
    Ok((cursor, lines[4..].iter().skip(1).step_by(2).map(|&key| key.to_owned()).collect()))
}

fn play(seed: u64) -> (usize, usize) {
    let mut dice = Dice::new(seed);
    let mut count = 2 + dice.below(3);
    let mut models: Vec<Model> = (0..6).map(|number| Model::new(seed * 100 + number)).collect();
    let mut shards = topology(count);
    let add = |models: &mut Vec<Model>, shards: &Topology, key: String| {
        models[shards.shard_for(key.as_bytes()).expect("an owner")].keys.insert(key);
    };
    let lasting: Vec<String> = (0..dice.below(60)).map(|number| format!("lasting-{number}")).collect();
    lasting.iter().for_each(|key| add(&mut models, &shards, key.clone()));
    let tagged: Vec<String> = (0..dice.below(20)).map(|number| format!("{{t}}-{number}")).collect();
    tagged.iter().for_each(|key| add(&mut models, &shards, key.clone()));
    let mut proxies = [Proxy::new(shards.clone(), seed), Proxy::new(shards.clone(), seed + 1)];
    let breaks = if dice.one_in(2) { 0 } else { 20 };
    let (mut complete, mut refused, mut extra) = (0, 0, 0);
    for _ in 0..12 {
        let pattern = dice.one_in(4);
        let (mut cursor, mut seen, mut pages) = (0, HashSet::new(), 0);
        // The list that it has begun with, and the processes that it has been within.
        let begun = count;
        loop {
            let number = cursor.to_string();
            let mut request: Vec<&[u8]> = vec![b"SCAN", number.as_bytes()];
            if pattern {
                request.extend([&b"MATCH"[..], b"{t}*"]);
            }
            let proxy = dice.below(2);
            match page(&proxies[proxy].ask(&request, &models, &mut dice, breaks)) {
                Ok((next, keys)) => {
                    seen.extend(keys);
                    cursor = next;
                    assert!(cursor < 1 << 53);
                }
                Err(error) if error.contains("connection reset") => continue,
                Err(error) => {
                    assert!(error.contains("start again with 0"), "{error}");
                    refused += 1;
                    break;
                }
            }
            pages += 1;
            assert!(pages < 10_000, "a scan without an end");
            if cursor == 0 {
                complete += 1;
                let missing: Vec<&String> = if pattern { &tagged } else { &lasting }
                    .iter()
                    .filter(|key| !seen.contains(*key))
                    .collect();
                assert!(missing.is_empty(), "seed {seed}: {missing:?}");
                assert_eq!(begun, count, "another list of shards is noticed");
                break;
            }
            // What others do meanwhile.
            let victim = dice.below(count);
            match dice.below(40) {
                0..6 => {
                    extra += 1;
                    add(&mut models, &shards, format!("extra-{extra}"));
                }
                6..9 => {
                    models[victim].keys.pop_first().into_iter().for_each(|key| {
                        if !key.starts_with("extra") {
                            models[victim].keys.insert(key);
                        }
                    });
                }
                9..12 => models[victim].bits = 1 + dice.below(7) as u32,
                12 => models[victim].process += 1_000,
                13 if dice.one_in(4) && count < 5 => {
                    // Keys move to where they belong.
                    count += 1;
                    shards = topology(count);
                    let all: Vec<String> =
                        models.iter_mut().flat_map(|model| std::mem::take(&mut model.keys)).collect();
                    all.into_iter().for_each(|key| add(&mut models, &shards, key));
                    let kept: Vec<Option<usize>> =
                        (0..count).map(|shard| (shard + 1 < count).then_some(shard)).collect();
                    for proxy in &mut proxies {
                        proxy.world.reconfigure(
                            Settings::default(),
                            Limits::default(),
                            shards.clone(),
                            &kept,
                        );
                        proxy.world.settle();
                    }
                }
                _ => {}
            }
        }
    }
    (complete, refused)
}

#[test]
fn a_scan_that_ends_has_told_of_every_key_that_was_there_all_the_time() {
    let seeds = std::env::var("SIMULATION_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(300);
    let (mut complete, mut refused) = (0, 0);
    for seed in 1..=seeds {
        let (of_seed, refused_of_seed) = play(seed);
        complete += of_seed;
        refused += refused_of_seed;
    }
    assert!(complete > refused && refused > 0, "{complete} scans were complete, {refused} refused");
}
