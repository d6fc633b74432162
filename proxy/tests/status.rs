//! `/status` of the admin address, over real servers: what it says, to whom, and that it says it quickly.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use servers::{Server, eventually};

mod servers;

/// One request with these header lines; status and body.
fn ask(admin: &str, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(admin).expect("the admin server listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

fn get(admin: &str, path: &str) -> Value {
    let (status, body) = ask(admin, path, "Host: localhost\r\n");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

fn lines(shards: &[Server]) -> Vec<String> {
    shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect()
}

/// All names of fields, with those that hold them; of arrays those of the first element.
fn fields(value: &Value, path: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(below) => {
            for (name, value) in below {
                let path = format!("{path}.{name}");
                into.push(path.clone());
                fields(value, &path, into);
            }
        }
        Value::Array(elements) => elements.iter().take(1).for_each(|value| fields(value, path, into)),
        _ => {}
    }
}

#[test]
fn the_status_tells_what_the_pools_and_their_shards_do() {
    let mut shards = vec![Server::redis(&[]), Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    let mut client = proxy.connect();
    let second = proxy.connect();
    for key in 0..100 {
        client.tell(&format!("SET k{key} value"));
    }
    eventually(|| get(&admin, "/status")["pools"][0]["clients"]["total"].to_string(), "2");
    let status = get(&admin, "/status");
    assert_eq!(status["version"], 1);
    let process = &status["process"];
    assert_eq!((&process["draining"], &process["config"]["generation"]), (&false.into(), &1.into()));
    assert_eq!(process["workers"].as_array().map(Vec::len), Some(2));
    assert!(process["memory"]["max_bytes"].as_u64().is_some_and(|most| most > 1 << 20), "{process}");
    let age = status["time"].as_f64().expect("a time") - process["started"].as_f64().expect("a time");
    let uptime = process["uptime_seconds"].as_f64().expect("a duration");
    assert!((age - uptime).abs() < 1.0 && uptime < 60.0, "{age} {uptime}");

    let pool = &status["pools"][0];
    assert_eq!((&pool["name"], &pool["mode"]), (&"pool".into(), &"ketama".into()));
    assert_eq!((&pool["protocol"], &pool["cluster"]), (&"redis".into(), &Value::Null));
    assert_eq!((&pool["shards_total"], &pool["shards_up"]), (&2.into(), &2.into()));
    assert_eq!(pool["metrics"]["requests"], 100);
    assert_eq!(pool["commands"]["string"], 100);
    assert_eq!(pool["errors"], serde_json::json!({}));
    assert_eq!(pool["latency"]["count"], 100);
    let [p50, p99] =
        ["p50_seconds", "p99_seconds"].map(|name| pool["latency"][name].as_f64().expect("a time"));
    assert!(0.0 < p50 && p50 <= p99 && p99 < 10.0, "{p50} {p99}");
    let address = servers::address().to_string();
    assert_eq!(pool["clients"]["by_address"].as_array().map(Vec::len), Some(1));
    assert!(pool["clients"]["by_address"][0]["address"].is_string(), "{pool} {address}");
    let of_shards = |field: &dyn Fn(&Value) -> f64| -> f64 {
        pool["shards"].as_array().expect("shards").iter().map(field).sum()
    };
    assert!((of_shards(&|shard| shard["share"].as_f64().expect("a share")) - 1.0).abs() < 1e-6);
    assert_eq!(of_shards(&|shard| shard["metrics"]["responses"].as_f64().expect("a number")), 100.0);
    assert_eq!(status["metric_names"]["pool"]["requests"], "memstore_requests_total");
    assert_eq!(status["metric_names"]["shard"]["connections"], "memstore_shard_connections");

    drop(second);
    eventually(|| get(&admin, "/status")["pools"][0]["clients"]["total"].to_string(), "1");

    // One that is away is down, since then, for a reason.
    drop(shards.remove(0));
    for key in 0..20 {
        client.tell(&format!("GET k{key}"));
    }
    let shard = || get(&admin, "/status")["pools"][0]["shards"][0].clone();
    eventually(|| shard()["reason"].to_string(), "\"connection refused\"");
    let down = shard();
    assert_eq!((&down["name"], &down["state"]), (&"shard-0".into(), &"down".into()));
    assert!(
        down["since"].as_f64().is_some_and(|since| since >= status["time"].as_f64().expect("a time") - 1.0)
    );
    assert!(down["errors"]["connect_refused"].as_u64().is_some_and(|count| count > 0), "{down}");
    let pool = get(&admin, "/status")["pools"][0].clone();
    assert!(pool["errors"]["connect_refused"].as_u64().is_some_and(|count| count > 0), "{pool}");
    assert_eq!(pool["shards_up"], 1);
    // Those that do not serve are the last that are left out.
    let one = get(&admin, "/status?pool=pool&shards=1&clients=0");
    assert_eq!(one["pools"][0]["shards"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&one["pools"][0]["shards"][0]["name"], &one["pools"][0]["shards_total"]),
        (&"shard-0".into(), &2.into())
    );
    assert_eq!(one["pools"][0]["clients"]["others"], serde_json::json!({"addresses": 1, "clients": 1}));
    assert_eq!(ask(&admin, "/status?pool=other", "Host: localhost\r\n").0, 404);
    assert_eq!(ask(&admin, "/status?shards=x", "Host: localhost\r\n").0, 400);

    // Whatever it says is on the page about it.
    let page = include_str!("../../docs/admin.md");
    let mut all = Vec::new();
    fields(&get(&admin, "/status"), "", &mut all);
    let is_listed = |path: &str| {
        ["metrics", "metric_names", "disconnects", "commands", "errors"]
            .iter()
            .any(|table| path.contains(&format!(".{table}.")))
    };
    for path in all.iter().filter(|path| !is_listed(path)) {
        let name = path.rsplit('.').next().unwrap_or_default();
        let is_told = [format!("`{name}`"), format!(".{name}`")].iter().any(|word| page.contains(word));
        assert!(is_told, "docs/admin.md does not say what {path} is");
    }
}

#[test]
fn reloads_are_remembered_with_what_they_have_changed() {
    let shards = [Server::redis(&[]), Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards)[..1], &["--log-level", "debug"]);
    assert_eq!(get(&admin, "/status")["reloads"], serde_json::json!([]));
    proxy.rewrite(&[], &lines(&shards));
    proxy.signal("HUP");
    let last = || get(&admin, "/status")["reloads"].as_array().and_then(|reloads| reloads.last().cloned());
    let result = || last().map_or(String::new(), |last| last["result"].to_string());
    eventually(result, "\"applied\"");
    let applied = last().expect("one");
    assert_eq!((&applied["generation"], &applied["changes"][0]["what"]), (&2.into(), &"shard".into()));
    let after = applied["changes"][0]["after"].as_str().expect("what it is");
    assert!(after.starts_with("shard-1 at "), "{after}");
    assert_eq!((&applied["changes"][0]["before"], &applied["error"]), (&Value::Null, &Value::Null));
    proxy.overwrite("nothing");
    proxy.signal("HUP");
    eventually(result, "\"failed\"");
    assert!(last().expect("one")["error"].as_str().is_some_and(|error| error.contains("mapping of pools")));
}

#[test]
fn pages_of_others_do_not_read_it() {
    let (_proxy, admin) = Server::memstore_with_admin(&[], &lines(&[Server::redis(&[])]), &[]);
    let own = format!("Host: {admin}\r\nOrigin: http://{admin}\r\n");
    assert_eq!(ask(&admin, "/status", &own).0, 200);
    for headers in [
        "Host: evil.example\r\n",
        "Host: localhost\r\nOrigin: http://evil.example\r\n",
        "Host: evil.example\r\nOrigin: http://evil.example\r\n",
    ] {
        let (status, body) = ask(&admin, "/status", headers);
        assert_eq!(status, 403, "{headers}{body}");
        // What is for scrapers and probes is for everybody.
        assert_eq!(ask(&admin, "/metrics", headers).0, 200, "{headers}");
    }
}

/// None of which is there. The limit is that of a machine that is busy with other tests.
#[test]
fn ten_thousand_shards_are_told_quickly() {
    let address = |shard: usize| format!("127.1.{}.{}:1:1 shard-{shard}", shard / 250, shard % 250 + 1);
    let lines: Vec<String> = (0..10_000).map(address).collect();
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines, &[]);
    let mut client = proxy.connect();
    (0..50).for_each(|key| drop(client.tell(&format!("GET k{key}"))));
    // The first one finds out who owns what. What is asked for too often is refused for a while.
    get(&admin, "/status?shards=0");
    let begin = Instant::now();
    let (took, body) = loop {
        let asked = Instant::now();
        let (status, body) = ask(&admin, "/status", "Host: localhost\r\n");
        if status == 200 {
            break (asked.elapsed(), body);
        }
        assert!(status == 429 && begin.elapsed() < Duration::from_secs(60), "{status}: {body}");
        std::thread::sleep(Duration::from_millis(100));
    };
    let status: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(status["pools"][0]["shards"].as_array().map(Vec::len), Some(10_000));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn the_settings_in_force_are_told_with_where_each_comes_from() {
    let shards = [Server::redis(&[])];
    let flags = ["--drain-limit", "7s"];
    let (proxy, admin) = Server::memstore_with_admin(&["timeout: 400"], &lines(&shards), &flags);
    let row = |rows: &Value, name: &str| {
        let rows = rows.as_array().expect("rows");
        rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    let config = get(&admin, "/config");
    let pool = |config: &Value| config["pools"][0]["settings"].clone();
    assert_eq!(config["pools"][0]["name"], "pool");
    let timeout = row(&pool(&config), "timeout");
    assert_eq!(timeout, serde_json::json!({"name": "timeout", "value": "400", "from": "file", "line": 4}));
    let hash = row(&pool(&config), "hash");
    assert_eq!(hash, serde_json::json!({"name": "hash", "value": "fnv1a_64", "from": "default"}));
    let limit = row(&config["process"], "drain_limit");
    assert_eq!(limit, serde_json::json!({"name": "drain_limit", "value": "7s", "from": "flag"}));
    assert_eq!(row(&config["process"], "memory_max")["value"], "auto");
    assert!(row(&config["process"], "memory_max")["effective"].is_string());
    assert!(config["file"].as_str().is_some_and(|file| file.ends_with(".yml")), "{}", config["file"]);
    // Another one after a reload, which remembers what it was.
    proxy.rewrite(&["backlog: 100", "timeout: 500"], &lines(&shards));
    proxy.signal("HUP");
    eventually(|| row(&pool(&get(&admin, "/config")), "timeout")["value"].to_string(), "\"500\"");
    let config = get(&admin, "/config");
    assert_eq!(row(&pool(&config), "timeout")["line"], 5);
    let change = serde_json::json!({"pool": "pool", "what": "timeout", "before": "400", "after": "500"});
    let reloads = get(&admin, "/status")["reloads"].clone();
    assert!(reloads[0]["changes"].as_array().is_some_and(|all| all.contains(&change)), "{reloads}");
    // It says what is in force, not what will be after a restart.
    let text = format!(
        "workers: 5\npools:\n  pool:\n    listen: {}:{}\n    redis: true\n    servers:\n     - {}\n",
        servers::address(),
        proxy.port,
        shards[0].line(0)
    );
    proxy.overwrite(&text);
    proxy.signal("HUP");
    eventually(|| row(&pool(&get(&admin, "/config")), "timeout")["from"].to_string(), "\"default\"");
    let workers = row(&get(&admin, "/config")["process"], "workers");
    assert_eq!((&workers["value"], &workers["from"]), (&"2".into(), &"flag".into()));
}

#[test]
fn a_running_proxy_says_who_owns_a_key() {
    let mut shards = vec![Server::redis(&[]), Server::redis(&[])];
    let settings =
        ["auto_eject_hosts: true", "server_failure_limit: 1", "server_retry_timeout: 1h", "hash_tag: \"{}\""];
    let (proxy, admin) = Server::memstore_with_admin(&settings, &lines(&shards), &[]);
    let route = |key: &str| get(&admin, &format!("/route?pool=pool&key={key}"));
    let owner = route("a%7Bb%7Dc");
    assert_eq!(
        (&owner["key"], &owner["hashed"], &owner["by_tag"]),
        (&"a{b}c".into(), &"b".into(), &true.into())
    );
    assert_eq!((&owner["healthy"], &owner["shard"]), (&true.into(), &route("b")["shard"]));
    // As the command says of the same configuration.
    let file = get(&admin, "/config")["file"].as_str().expect("a path").to_owned();
    let memstore = std::process::Command::new(env!("CARGO_BIN_EXE_memstore"))
        .args(["route", "--format", "json", "-c", &file, "a{b}c"])
        .output()
        .expect("it runs");
    let said: Value = serde_json::from_slice(&memstore.stdout).expect("JSON");
    for field in ["pool", "key", "hashed", "by_tag", "hash", "shard", "point", "address"] {
        assert_eq!(said[field], owner[field], "{field}");
    }
    // One that is out of the ring does not own it any more.
    let gone = if owner["shard"] == "shard-0" { 0 } else { 1 };
    drop(shards.remove(gone));
    let mut client = proxy.connect();
    let after = || {
        client.tell("GET {b}");
        route("b")
    };
    let mut after = after;
    eventually(|| after()["ejected"].to_string(), &owner["shard"].to_string());
    assert_ne!(route("b")["shard"], owner["shard"]);
    let refused = |path: &str| ask(&admin, path, "Host: localhost\r\n").0;
    assert_eq!(
        [refused("/route"), refused("/route?key=%f"), refused("/route?pool=x&key=a")],
        [400, 400, 404]
    );
    assert_eq!(refused("/route?key=a"), 200, "there is only one pool");
}
