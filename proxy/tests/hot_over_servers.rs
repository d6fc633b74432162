//! `/hot` and `memstore hot` of a proxy in front of real servers.

use std::process::Command;

use serde_json::Value;
use servers::{Server, eventually};

mod servers;

fn get(admin: &str, path: &str, headers: &str) -> (u16, String) {
    let (status, _, body) = servers::ask(admin, &format!("GET {path}"), headers, "");
    (status, body)
}

fn hot(admin: &str) -> Value {
    let (status, body) = get(admin, "/hot?pool=pool", "");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).expect("JSON")["pools"]["pool"].clone()
}

fn lines(shards: &[Server]) -> Vec<String> {
    shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect()
}

#[test]
fn the_hot_key_and_what_is_large_are_found_with_their_shards() {
    let shards = [Server::redis(&[]), Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&["hot_keys_sample: 1"], &lines(&shards), &[]);
    let mut clients = [proxy.connect(), proxy.connect(), proxy.connect()];
    let large = "x".repeat(100_000);
    assert_eq!(clients[0].tell(&format!("SET big {large}")), "+OK\r\n");
    for turn in 0..100 {
        for client in &mut clients {
            client.tell("GET hot");
            client.tell(&format!("SET cold:{turn} value"));
        }
    }
    clients[1].tell("GET big");
    let report = hot(&admin);
    let first = &report["keys"][0];
    assert_eq!((first["key"].as_str(), first["reads"].as_f64()), (Some("hot"), Some(1.0)), "{report:#}");
    let share = first["share"].as_f64().expect("a number");
    assert!((0.48..0.51).contains(&share), "{share}");
    // As the proxy routes it.
    let owner = shards
        .iter()
        .position(|shard| shard.connect().tell("EXISTS cold:1") == ":1\r\n")
        .expect("one has it");
    let cold = report["keys"].as_array().expect("keys").iter().find(|key| key["key"] == "cold:1");
    if let Some(cold) = cold {
        assert_eq!(cold["shard"], format!("shard-{owner}"));
    }
    let request = &report["large_requests"][0];
    assert_eq!(
        (request["command"].as_str(), request["key"].as_str()),
        (Some("set"), Some("big")),
        "{report:#}"
    );
    let reply = &report["large_replies"][0];
    assert_eq!((reply["command"].as_str(), reply["key"].as_str()), (Some("get"), Some("big")), "{report:#}");
    assert_eq!(reply["bytes"], large.len() + "$100000\r\n\r\n".len());
    let (_, page) = get(&admin, "/metrics", "");
    let told = page.lines().find_map(|line| line.strip_prefix("memstore_hottest_key_share{pool=\"pool\"} "));
    assert!(
        told.is_some_and(|told| (told.parse::<f64>().expect("a number") - share).abs() < 0.01),
        "{told:?}"
    );
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_memstore"))
            .args(["hot", "--admin", &admin])
            .args(arguments)
            .output();
        let output = output.expect("it is built");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, text, _) = run(&[]);
    assert!(
        code == Some(0)
            && text.starts_with("pool pool: ")
            && text.contains(" hot\n")
            && text.contains("largest replies\n"),
        "{text}"
    );
    let (code, text, _) = run(&["--count", "1", "--format", "json"]);
    let told: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((code, told["pools"]["pool"]["keys"].as_array().map(Vec::len)), (Some(0), Some(1)));
    let (code, _, error) = run(&["--pool", "none such"]);
    assert!(code == Some(1) && error.contains("unknown pool"), "{error}");
}

#[test]
fn keys_of_memcached_are_found_and_can_be_hidden() {
    let shards = [Server::memcached(&[]), Server::memcached(&[])];
    let settings = ["redis: false", "hot_keys_sample: 1", "privacy: hash_keys"];
    let (proxy, admin) = Server::memstore_with_admin(&settings, &lines(&shards), &[]);
    let mut client = proxy.connect();
    for turn in 0..50 {
        assert!(client.text(format!("get secret cold{turn}\r\n").as_bytes()).starts_with("END"));
    }
    let report = hot(&admin);
    assert_eq!(report["sampled_accesses"], 100, "{report:#}");
    let first = &report["keys"][0];
    assert_eq!(first["share"], 0.5);
    assert!(first["key"].as_str().is_some_and(|key| key.starts_with('#') && key.len() == 17), "{first}");
    assert!(!report.to_string().contains("secret") && !report.to_string().contains("cold"), "{report:#}");
}

/// Names of keys are data.
#[test]
fn who_may_not_change_the_process_is_told_of_no_key() {
    let shards = [Server::redis(&[])];
    let file = std::env::temp_dir().join(format!("memstore-hot-{}.token", std::process::id()));
    std::fs::write(&file, "s3cret\n").expect("a file");
    let file = file.to_str().expect("UTF-8");
    let (_proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &["--admin-token-file", file]);
    let status = |headers: &str| get(&admin, "/hot", headers).0;
    assert_eq!((status(""), status("Authorization: Bearer wrong\r\n")), (403, 403));
    assert_eq!(status("Authorization: Bearer s3cret\r\n"), 200);
    let (_open, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    assert_eq!(get(&admin, "/hot", "Origin: http://evil.example\r\n").0, 403);
    assert_eq!(get(&admin, "/hot?count=0", "").0, 400);
    assert_eq!(get(&admin, "/hot?pool=other", "").0, 404);
    std::fs::remove_file(file).expect("it is ours");
}

#[test]
fn a_reload_turns_it_on_and_off() {
    let shards = [Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&["hot_keys: false"], &lines(&shards), &[]);
    let mut client = proxy.connect();
    (0..10).for_each(|_| drop(client.tell("GET a")));
    let report = hot(&admin);
    assert_eq!((report["sample"].as_u64(), report["keys"].as_array().map(Vec::len)), (Some(0), Some(0)));
    proxy.rewrite(&["hot_keys: true", "hot_keys_sample: 1"], &lines(&shards));
    eventually(|| hot(&admin)["sample"].to_string(), "1");
    client.tell("GET a");
    assert_eq!(hot(&admin)["keys"][0]["key"], "a");
}
