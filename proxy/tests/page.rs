//! The page of the admin address, as far as that needs no browser (proxy/tests/page has the rest), and what it asks for.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use servers::{Server, ask, eventually};

mod servers;

fn json(admin: &str, path: &str) -> Value {
    let (status, _, body) = ask(admin, &format!("GET {path}"), "", "");
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).expect("it is JSON")
}

fn lines(shards: &[Server]) -> Vec<String> {
    shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect()
}

/// What stands between the two.
fn between<'t>(text: &'t str, begin: &str, end: &str) -> &'t str {
    text.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).map(|(found, _)| found).expect(begin)
}

/// Values of an attribute, or what stands behind a call.
fn all<'t>(text: &'t str, begin: &str) -> Vec<&'t str> {
    text.split(begin).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn browsers_get_a_document_that_is_whole_and_curl_the_list() {
    let shards = [Server::redis(&[])];
    let (_proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    let (_, head, list) = ask(&admin, "GET /", "Accept: */*\r\n", "");
    assert!(head.contains("text/plain") && list.contains("GET  /history"), "{head}\n{list}");
    let browser = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
    let (status, head, page) = ask(&admin, "GET /", browser, "");
    assert_eq!(status, 200);
    let nonce = between(&head, "script-src 'nonce-", "'");
    assert!(
        page.contains(&format!("<script nonce=\"{nonce}\">"))
            && page.contains(&format!("<style nonce=\"{nonce}\">"))
    );
    let (_, other, _) = ask(&admin, "GET /", browser, "");
    assert_ne!(between(&other, "script-src 'nonce-", "'"), nonce);
    for header in ["frame-ancestors 'none'", "nosniff", "no-store", "no-referrer"] {
        assert!(head.contains(header), "{header} is not in\n{head}");
    }

    let ids = all(&page, " id=\"");
    let once: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids.len(), once.len(), "an id comes twice");
    let script = between(&page, &format!("<script nonce=\"{nonce}\">"), "</script>");
    // Some it makes itself.
    let is_made = |id: &&str| id.starts_with("cluster-") || id.starts_with("process-");
    for id in all(script, "$(\"").into_iter().filter(|id| !is_made(id)) {
        assert!(once.contains(id), "the script looks for {id}");
    }
    let file = std::env::temp_dir().join(format!("memstore-page-{}.js", std::process::id()));
    std::fs::write(&file, script).expect("a file");
    let judged = Command::new("node").arg("--check").arg(&file).output();
    let _ = std::fs::remove_file(&file);
    let judged = judged.unwrap_or_else(|error| panic!("node: {error}; apt-get install nodejs"));
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
}

#[test]
fn figures_are_kept_and_told_from_a_sample_on() {
    let shards = [Server::redis(&[]), Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    let mut client = proxy.connect();
    let requests = |history: &Value| -> f64 {
        // The first sample may be older than the pool.
        let series = history["pools"]["pool"]["series"]["requests"].as_array();
        series.into_iter().flatten().filter_map(Value::as_f64).sum()
    };
    eventually(
        || {
            client.tell("SET a 1");
            (requests(&json(&admin, "/history")) > 0.0).to_string()
        },
        "true",
    );
    let whole = json(&admin, "/history?pool=pool");
    let shards = &whole["pools"]["pool"]["of_shards"];
    assert_eq!(shards.as_object().map(serde_json::Map::len), Some(2), "{shards}");
    let to = whole["to"].as_u64().expect("a number");
    let rest = json(&admin, &format!("/history?since={to}"));
    assert!(rest["from"] == to && rest["pools"]["pool"].get("of_shards").is_none(), "{rest}");
    // What is no number is as if it were not there.
    assert_eq!(json(&admin, "/history?since=x&pool=nobody")["from"], 0);
    assert_eq!(ask(&admin, "GET /history?pool=%zz", "", "").0, 400);
}

#[test]
fn clients_are_told_and_ended() {
    let shards = [Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    let mut clients: Vec<_> = (0..3).map(|_| proxy.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.tell(&format!("CLIENT SETNAME c{number}"));
    }
    let listing = json(&admin, "/clients?pool=pool&sort=id&limit=2");
    assert_eq!((&listing["count"], &listing["addresses"]), (&3.into(), &1.into()), "{listing}");
    assert_eq!(listing["clients"].as_array().map(Vec::len), Some(2));
    assert_eq!(listing["by_address"][0]["clients"], 3);
    assert_eq!(json(&admin, "/clients?pool=pool&address=10.1.1.1")["matching"], 0);
    assert_eq!(ask(&admin, "GET /clients?pool=nobody", "", "").0, 404);
    assert_eq!(ask(&admin, "GET /clients", "", "").0, 400);

    let kill = |body: &str| ask(&admin, "POST /clients/kill", "", body).0;
    assert_eq!(ask(&admin, "GET /clients/kill", "", "").0, 405);
    assert_eq!(ask(&admin, "POST /clients/kill", "Origin: http://evil\r\n", "").0, 403);
    assert_eq!(kill("everybody"), 400);
    assert_eq!(kill(r#"{"pool": "pool"}"#), 400);
    assert_eq!(kill(r#"{"pool": "pool", "id": 99999999}"#), 404);
    let first = &listing["clients"][0];
    assert_eq!(kill(&format!(r#"{{"pool": "pool", "id": {}}}"#, first["id"])), 200);
    assert_eq!(clients[0].until_closed(), b"");
    let second = &listing["clients"][1]["address"];
    assert_eq!(kill(&format!(r#"{{"pool": "pool", "address": {second}}}"#)), 200);
    assert_eq!(clients[1].until_closed(), b"");
    assert_eq!(json(&admin, "/clients?pool=pool")["count"], 1);
    assert_eq!(clients[2].tell("PING"), "+PONG\r\n");
}

#[test]
fn clients_of_memcached_pools_are_told_as_well() {
    let shards = [Server::memcached(&["-t", "1"])];
    let (proxy, admin) = Server::memstore_with_admin(&["redis: false"], &lines(&shards), &[]);
    let mut client = proxy.connect();
    client.send(b"set a 0 0 1\r\n1\r\n");
    eventually(|| json(&admin, "/clients?pool=pool")["clients"][0]["id"].is_u64().to_string(), "true");
    let listing = json(&admin, "/clients?pool=pool");
    assert_eq!(listing["count"], 1);
    assert!(listing["clients"][0]["address"].as_str().is_some_and(|at| at.starts_with("127.")), "{listing}");
}

#[test]
fn a_token_is_tried_without_changing_anything() {
    let shards = [Server::redis(&[])];
    let (_proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    assert_eq!(ask(&admin, "POST /token", "", "").0, 200);
    assert_eq!(ask(&admin, "POST /token", "Origin: http://localhost\r\n", "").0, 403);
    assert_eq!(ask(&admin, "GET /token", "", "").0, 405);
}
