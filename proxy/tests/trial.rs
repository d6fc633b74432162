//! What a chart's tests and hooks ask: `memstore try` and `memstore await-ring`.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use servers::{Server, eventually};

mod servers;

fn memstore(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_memstore")).args(words).output().expect("the program is built")
}

/// What it says, and whether it succeeded.
fn said(words: &[&str]) -> (bool, String) {
    let output = memstore(words);
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn folder(name: &str) -> PathBuf {
    let folder =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", servers::unused_port()));
    fs::create_dir_all(&folder).expect("the folder for temporary files is writable");
    folder
}

fn place(server: &Server) -> String {
    format!("{}:{}", servers::address(), server.port)
}

#[test]
fn a_store_is_tried_through_each_address() {
    let folder = folder("try");
    let password = folder.join("password");
    fs::write(&password, "s3cret\n").expect("a file");
    let file = password.display().to_string();
    let shards = [Server::redis(&["--requirepass", "s3cret"]), Server::redis(&["--requirepass", "s3cret"])];
    let proxy = Server::memstore(&["redis_auth: s3cret"], &shards);
    let (worked, text) = said(&["try", &place(&proxy), &place(&shards[0]), "--auth-file", &file]);
    assert!(worked && text.matches("written and read").count() == 2, "{text}");
    let mut shard = shards[0].connect();
    shard.tell("AUTH s3cret");
    assert_eq!(shard.tell("DBSIZE"), ":0\r\n");
    fs::write(&password, "other\n").expect("a file");
    let (worked, text) = said(&["try", &place(&proxy), "--auth-file", &file, "--limit", "0"]);
    assert!(!worked && text.contains(&place(&proxy)) && text.contains("WRONGPASS"), "{text}");
    let (worked, text) =
        said(&["try", &format!("{}:{}", servers::address(), servers::unused_port()), "--limit", "0"]);
    assert!(!worked && text.contains("refused"), "{text}");

    let shards = [Server::memcached(&[])];
    let proxy = Server::memstore(&["redis: false"], &shards);
    let (worked, text) = said(&["try", "--memcached", &place(&proxy), &place(&shards[0])]);
    assert!(worked && text.matches("written and read").count() == 2, "{text}");
    // Each protocol as the other one.
    let (worked, text) = said(&["try", &place(&proxy), "--limit", "0"]);
    assert!(!worked, "{text}");
    let _ = fs::remove_dir_all(folder);
}

#[test]
fn a_proxy_that_says_nothing_is_not_waited_for() {
    let silent = servers::Fake::answering(b"x", false);
    let address = silent.line.split(":1 ").next().expect("an address").to_owned();
    let begin = std::time::Instant::now();
    let (worked, text) = said(&["alive", "--admin", &address, "--format", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&text).expect("one JSON object");
    assert!(!worked && answer["ok"] == false && text.contains("no answer within 5s"), "{text}");
    let folder = folder("silent");
    let list = folder.join("servers.yml");
    fs::write(&list, "- 127.0.0.1:1:1 a\n").expect("a file");
    let file = list.display().to_string();
    let words = ["await-ring", "--proxies", &address, "--pool", "p", "--servers", &file, "--limit", "1s"];
    let (worked, text) = said(&words);
    assert!(!worked && text.contains("the ring is not in use yet"), "{text}");
    // Many times the limits.
    assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
    let _ = fs::remove_dir_all(folder);
}

/// Ends with the test.
struct Waiting(Child);

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_ring_is_awaited_until_nobody_uses_the_shards_that_go() {
    let folder = folder("await");
    let list = folder.join("servers.yml");
    let shards = [Server::redis(&[]), Server::redis(&[]), Server::redis(&[])];
    let lines: Vec<String> = shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect();
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines, &[]);
    let write = |lines: &[String]| {
        let text: String = lines.iter().map(|line| format!("- \"{line}\"\n")).collect();
        fs::write(&list, text).expect("a file");
    };
    let file = list.display().to_string();
    let words =
        |limit| ["await-ring", "--proxies", &admin, "--pool", "pool", "--servers", &file, "--limit", limit];
    // More shards than the proxy knows are none that go.
    write(&[&lines[..], &["10.0.0.1:6379:1 another".to_owned()]].concat());
    let (worked, text) = said(&words("0"));
    assert!(worked && text.contains("none of 1 proxies"), "{text}");
    write(&lines[..2]);
    let (worked, text) = said(&words("0"));
    assert!(!worked && text.contains("still sends requests to"), "{text}");
    let waiting = Command::new(env!("CARGO_BIN_EXE_memstore"))
        .args(words("60s"))
        .stdout(Stdio::null())
        .spawn()
        .expect("the program is built");
    let mut waiting = Waiting(waiting);
    proxy.rewrite(&[], &lines[..2]);
    proxy.signal("HUP");
    eventually(
        || format!("{:?}", waiting.0.try_wait().expect("a child").map(|status| status.success())),
        "Some(true)",
    );
    // Where nobody runs there is nothing to wait for.
    let nobody = [
        "await-ring",
        "--proxies",
        "nobody.invalid.:1",
        "--pool",
        "pool",
        "--servers",
        &file,
        "--limit",
        "0",
    ];
    let (worked, text) = said(&nobody);
    assert!(worked && text.contains("no proxy runs"), "{text}");
    let _ = fs::remove_dir_all(folder);
}
