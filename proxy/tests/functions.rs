//! Functions over real servers: a shard that comes back without any is given those of another one.

use servers::{Client, Server, address, connect, eventually, free_port, told};

mod servers;

const LIBRARY: &str = "#!lua name=lib\nredis.register_function('twice', function(keys) return redis.call('INCRBY', keys[1], 2) end)";
const OTHER: &str = "#!lua name=other\nredis.register_function('one', function(keys) return 1 end)";
const SETTINGS: [&str; 1] = ["info_refresh: 20ms"];

/// What all keys say, so that each shard is asked.
fn run(client: &mut Client, function: &str) -> String {
    let said: Vec<String> =
        (0..20).map(|key| client.tell(&format!("FCALL {function} 1 new:{key}"))).collect();
    let odd = said.iter().find(|said| !said.starts_with(':'));
    odd.cloned().unwrap_or_else(|| "all".into())
}

fn libraries(shard: &Server) -> Vec<String> {
    let said = shard.connect().tell("FUNCTION LIST");
    let names = said.lines().collect::<Vec<_>>();
    let name = |at: usize| names.get(at + 2).map(|name| (*name).to_owned());
    let mut names: Vec<String> =
        (0..names.len()).filter(|&at| names[at] == "library_name").filter_map(name).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_shard_that_comes_back_empty_is_given_the_functions() {
    let mut shards: Vec<Server> = (0..3).map(|_| Server::redis(&[])).collect();
    let lines: Vec<String> = shards.iter().enumerate().map(|(at, shard)| shard.line(at)).collect();
    let (ours, admin) = Server::memstore_with_admin(&SETTINGS, &lines, &[]);
    let mut client = ours.connect();
    for library in [LIBRARY, OTHER] {
        assert!(client.ask(&[b"FUNCTION", b"LOAD", library.as_bytes()]).starts_with(b"$"));
    }
    assert_eq!(run(&mut client, "twice"), "all");
    let metric = |line: &str| told(&admin, "/metrics").contains(line).to_string();
    eventually(|| metric("memstore_function_differences{pool=\"pool\"} 0"), "true");
    // Both are there again, by their code; what was deleted before is not.
    assert_eq!(client.tell("FUNCTION DELETE other"), "+OK\r\n");
    // One that missed that has it still.
    shards[1].connect().ask(&[b"FUNCTION", b"LOAD", OTHER.as_bytes()]);
    // To load something under its name that is refused makes no difference.
    let refused = client.ask(&[b"FUNCTION", b"LOAD", b"REPLACE", b"#!lua name=other\nreturn ("]);
    assert!(refused.starts_with(b"-"), "{}", String::from_utf8_lossy(&refused));
    assert!(client.ask(&[b"FUNCTION", b"LOAD", b"no name"]).starts_with(b"-"));
    ours.says("shards differ in their libraries of functions");
    let port = shards[2].port;
    drop(shards.pop());
    shards.push(Server::redis_at(port));
    eventually(|| run(&mut client, "twice"), "all");
    eventually(|| libraries(&shards[2]).join(" "), "lib");
    ours.says("libraries of functions brought to a shard that had none");
    assert_eq!(metric("memstore_function_libraries_restored_total{pool=\"pool\"} 1"), "true");
    assert_eq!(libraries(&shards[1]), ["lib", "other"]);
    // Flushed by somebody in the same run: that is meant.
    assert_eq!(shards[2].connect().tell("FUNCTION FLUSH"), "+OK\r\n");
    eventually(|| metric("memstore_function_differences{pool=\"pool\"} 2"), "true");
    assert!(libraries(&shards[2]).is_empty());
    // All are deleted: nothing comes back to whoever is empty.
    eventually(|| client.tell("FUNCTION FLUSH"), "+OK\r\n");
    shards[0].connect().ask(&[b"FUNCTION", b"LOAD", LIBRARY.as_bytes()]);
    let port = shards[2].port;
    drop(shards.pop());
    shards.push(Server::redis_at(port));
    eventually(|| metric("memstore_function_differences{pool=\"pool\"} 1"), "true");
    assert!(libraries(&shards[2]).is_empty());
    // What is loaded again is there on all of them, and comes back.
    eventually(|| client.tell("FUNCTION FLUSH"), "+OK\r\n");
    assert!(client.ask(&[b"FUNCTION", b"LOAD", LIBRARY.as_bytes()]).starts_with(b"$"));
    drop(shards.pop());
    shards.push(Server::redis_at(port));
    eventually(|| libraries(&shards[2]).join(" "), "lib");
}

#[test]
fn a_shard_that_joins_is_given_the_functions() {
    let shards: Vec<Server> = (0..3).map(|_| Server::redis(&[])).collect();
    let lines: Vec<String> = shards.iter().enumerate().map(|(at, shard)| shard.line(at)).collect();
    let ours = Server::memstore_over(&SETTINGS, &lines[..2]);
    let mut client = ours.connect();
    assert!(client.ask(&[b"FUNCTION", b"LOAD", LIBRARY.as_bytes()]).starts_with(b"$"));
    assert!(libraries(&shards[2]).is_empty());
    ours.rewrite(&SETTINGS, &lines);
    servers::reload(&ours);
    eventually(|| libraries(&shards[2]).join(" "), "lib");
    assert_eq!(run(&mut client, "twice"), "all");
}

/// What was deleted through one pool is not brought back by another one that has the same shards.
#[test]
fn pools_over_the_same_shards_know_what_was_deleted() {
    let mut shards: Vec<Server> = (0..3).map(|_| Server::redis(&[])).collect();
    let lines: Vec<String> = shards.iter().enumerate().map(|(at, shard)| shard.line(at)).collect();
    let ours = Server::memstore_over(&SETTINGS, &lines);
    let second = free_port();
    let pool = |name: &str, port: u16| {
        let servers: String = lines.iter().map(|line| format!("   - {line}\n")).collect();
        let listen = format!("{}:{port}", address());
        format!("{name}:\n  listen: {listen}\n  redis: true\n  {}\n  servers:\n{servers}", SETTINGS[0])
    };
    ours.overwrite(&(pool("pool", ours.port) + &pool("second", second)));
    servers::reload(&ours);
    let (mut one, mut other) = (ours.connect(), connect(second));
    for library in [LIBRARY, OTHER] {
        assert!(other.ask(&[b"FUNCTION", b"LOAD", library.as_bytes()]).starts_with(b"$"));
    }
    assert_eq!(one.tell("FUNCTION DELETE other"), "+OK\r\n");
    shards[1].connect().ask(&[b"FUNCTION", b"LOAD", OTHER.as_bytes()]);
    let port = shards[2].port;
    drop(shards.pop());
    shards.push(Server::redis_at(port));
    eventually(|| run(&mut other, "twice"), "all");
    eventually(|| run(&mut one, "twice"), "all");
    eventually(|| libraries(&shards[2]).join(" "), "lib");
}
