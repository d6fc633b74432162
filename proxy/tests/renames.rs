//! RENAME, RENAMENX and COPY over several real shards: as one server does them, but for that they are not atomic.

use std::process::Command;

use servers::dice::Dice;
use servers::{Client, Server, redis_program, told};

mod servers;

const SETTING: &str = "rename_across_shards: true";

/// Two keys on different shards, as the shards themselves tell.
fn apart(shards: &[Server], client: &mut Client) -> (String, String) {
    let mut owned: Vec<Option<String>> = vec![None; shards.len()];
    for number in 0.. {
        let key = format!("key:{number}");
        client.tell(&format!("SET {key} x"));
        let at = shards.iter().position(|shard| shard.connect().tell(&format!("EXISTS {key}")) == ":1\r\n");
        owned[at.expect("somebody has it")].get_or_insert(key);
        if let [Some(one), Some(other), ..] = &owned[..] {
            return (one.clone(), other.clone());
        }
    }
    unreachable!("keys do not end")
}

#[test]
fn random_commands_do_what_they_do_on_one_server() {
    let shards: Vec<Server> = (0..3).map(|_| Server::redis(&[])).collect();
    let (ours, lone) = (Server::memstore(&[SETTING], &shards), Server::redis(&[]));
    for seed in 0..12 {
        let mut dice = Dice::new(seed);
        let (mut here, mut there) = (ours.connect(), lone.connect());
        assert_eq!(here.tell("FLUSHALL"), there.tell("FLUSHALL"));
        let mut history = Vec::new();
        for step in 0..300 {
            let mut key = || format!("k{}", dice.below(8));
            let (one, other) = (key(), key());
            let request = match dice.below(18) {
                0 => format!("SET {one} v{step}"),
                1 => format!("RPUSH {one} a{step} b"),
                2 => format!("HSET {one} f{} v{step}", dice.below(4)),
                3 => format!("ZADD {one} {step} m{}", dice.below(4)),
                4 => format!("SADD {one} {step}"),
                5 => format!("XADD {one} {}-1 f v", step + 1),
                6..=9 => format!("RENAME {one} {other}"),
                10 | 11 => format!("RENAMENX {one} {other}"),
                12 | 13 => format!("COPY {one} {other}"),
                14 => format!("COPY {one} {other} REPLACE"),
                15 => format!("EXPIRE {one} {}", 1000 * (1 + dice.below(50))),
                16 => format!("PERSIST {one}"),
                _ => format!("DEL {one}"),
            };
            let (ours, theirs) = (here.tell(&request), there.tell(&request));
            history.push(request);
            assert_eq!(ours, theirs, "seed {seed}: {history:#?}");
        }
        for number in 0..8 {
            let key = format!("k{number}");
            let kind = here.tell(&format!("TYPE {key}"));
            assert_eq!(kind, there.tell(&format!("TYPE {key}")), "seed {seed} {key}: {history:#?}");
            let request = match kind.trim_end() {
                "+string" => format!("GET {key}"),
                "+list" => format!("LRANGE {key} 0 -1"),
                "+hash" => format!("HGETALL {key}"),
                "+zset" => format!("ZRANGE {key} 0 -1 WITHSCORES"),
                "+stream" => format!("XRANGE {key} - +"),
                "+set" => format!("SORT {key} ALPHA"),
                _ => format!("EXISTS {key}"),
            };
            assert_eq!(here.tell(&request), there.tell(&request), "seed {seed} {request}: {history:#?}");
            let mut lifetimes = [&mut here, &mut there].map(|client| {
                let said = client.tell(&format!("TTL {key}"));
                said.trim_start_matches(':').trim_end().parse::<i64>().expect("a number")
            });
            lifetimes.sort_unstable();
            assert!(lifetimes[1] - lifetimes[0] <= 30, "{key}: {lifetimes:?}");
        }
    }
}

#[test]
fn a_value_keeps_its_time_to_live_and_any_size_that_is_allowed() {
    let shards: Vec<Server> = (0..2).map(|_| Server::redis(&[])).collect();
    let lines: Vec<String> = shards.iter().enumerate().map(|(at, shard)| shard.line(at)).collect();
    let (ours, admin) = Server::memstore_with_admin(&[SETTING, "request_bytes_max: 8MiB"], &lines, &[]);
    let mut client = ours.connect();
    let (one, other) = apart(&shards, &mut client);
    // Bytes that do not compress, so that DUMP has as many.
    let mut dice = Dice::new(7);
    let bytes: Vec<u8> = (0..3 << 20).map(|_| dice.below(256) as u8).collect();
    assert_eq!(client.ask(&[b"SET", one.as_bytes(), &bytes, b"PX", b"100000"]), b"+OK\r\n");
    assert_eq!(client.tell(&format!("RENAME {one} {other}")), "+OK\r\n");
    assert_eq!(client.tell(&format!("EXISTS {one}")), ":0\r\n");
    let said = client.ask(&[b"GET", other.as_bytes()]);
    assert!(said.len() > bytes.len() && said[said.len() - bytes.len() - 2..].starts_with(&bytes));
    let left: i64 = client.tell(&format!("PTTL {other}"))[1..].trim_end().parse().expect("a number");
    assert!((1..=100_000).contains(&left), "{left}");
    // Too large for a request: refused, and it stays where it is. What comes behind it is answered.
    let mut shard = shards.iter().map(Server::connect).collect::<Vec<_>>();
    let owner = shard.iter_mut().position(|shard| shard.tell(&format!("EXISTS {other}")) == ":1\r\n");
    let owner = owner.expect("somebody has it");
    let bytes: Vec<u8> = (0..12 << 20).map(|_| dice.below(256) as u8).collect();
    shard[owner].ask(&[b"SET", other.as_bytes(), &bytes]);
    client.begin(&format!("RENAME {other} {one}"));
    client.begin(&format!("STRLEN {other}"));
    let refused = String::from_utf8(client.reply()).expect("text");
    assert!(
        refused.contains(
            "it has more than 8388608 bytes (request_bytes_max, client_output_max, half of memory_max)"
        ),
        "{refused}"
    );
    assert_eq!(client.reply(), format!(":{}\r\n", bytes.len()).into_bytes());
    assert_eq!(client.tell(&format!("EXISTS {one}")), ":0\r\n");
    let metrics = told(&admin, "/metrics");
    assert!(metrics.contains("memstore_cross_shard_renames_total{pool=\"pool\"} 1"), "{metrics}");
    assert!(metrics.contains("memstore_cross_shard_renames_failed_total{pool=\"pool\"} 1"), "{metrics}");
}

/// The destination is the server that is installed, where TEST_REDIS names a later one for the others.
#[test]
fn a_server_that_does_not_understand_the_value_leaves_it_where_it_is() {
    let newer = Server::redis(&[]);
    let version = |program: &str| {
        let output = Command::new(program).arg("--version").output().expect("it is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    if version("redis-server") == version(&redis_program()) {
        // A payload of the same version is understood: what another one would say is in the conversations.
        return;
    }
    let address = servers::address().to_string();
    let older = Server::start("redis-server", "redis-server", |port| {
        ["--save", "", "--bind", &address, "--port", &port.to_string()].map(str::to_owned).to_vec()
    });
    let shards = [newer, older];
    let ours = Server::memstore(&[SETTING], &shards);
    let mut client = ours.connect();
    let (new, old) = apart(&shards, &mut client);
    let said = client.tell(&format!("RENAME {new} {old}"));
    assert!(
        said.contains("DUMP payload version or checksum are wrong, which may run an older version"),
        "{said}"
    );
    assert_eq!(client.tell(&format!("GET {new}")), "$1\r\nx\r\n");
    // The other way round it is.
    let said = client.tell(&format!("RENAME {old} {new}"));
    assert!(said == "+OK\r\n" || said.contains("nothing was changed"), "{said}");
}

#[test]
fn sort_reads_keys_by_patterns_where_they_are_on_its_shard() {
    let shards: Vec<Server> = (0..3).map(|_| Server::redis(&[])).collect();
    let (ours, lone) = (Server::memstore(&["hash_tag: \"{}\""], &shards), Server::redis(&[]));
    let (mut here, mut there) = (ours.connect(), lone.connect());
    for client in [&mut here, &mut there] {
        client.tell("RPUSH {u}ids 3 1 2");
        for id in 1..4 {
            client.tell(&format!("SET {{u}}weight_{id} {}", 10 - id));
            client.tell(&format!("HSET o:{{u}}:{id} name n{id}"));
        }
    }
    for request in [
        "SORT {u}ids BY {u}weight_* GET # GET o:{u}:*->name",
        "SORT {u}ids BY {u}weight_* DESC LIMIT 0 2",
        "SORT_RO {u}ids GET {u}weight_*",
        "SORT {u}ids BY nosort GET #",
        "SORT {u}ids BY {u}weight_* STORE {u}sorted",
        "LRANGE {u}sorted 0 -1",
    ] {
        assert_eq!(here.tell(request), there.tell(request), "{request}");
    }
    assert!(here.tell("SORT {u}ids BY weight_*").contains("give the pattern the hash tag of the key"));
}
