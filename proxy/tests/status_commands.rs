//! `memstore status`, `top` and `check --connect` beside real servers: what they print, and how they end.

use std::path::PathBuf;
use std::process::{Command, Output};

use authority::Authority;
use serde_json::Value;
use servers::{Server, address, eventually};

#[allow(dead_code)]
#[path = "tls/authority.rs"]
mod authority;
mod servers;

fn run(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memstore"));
    command.args(words).env_remove("MEMSTORE_ADMIN").env_remove("MEMSTORE_ADMIN_TOKEN_FILE");
    command.output().expect("it runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn lines(shards: &[Server]) -> Vec<String> {
    shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect()
}

fn file(name: &str, text: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", address()));
    std::fs::write(&path, text).expect("the folder is writable");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn status_says_what_does_not_serve_and_ends_so() {
    let mut shards = vec![Server::redis(&[]), Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    let mut client = proxy.connect();
    (0..20).for_each(|key| drop(client.tell(&format!("SET k{key} v"))));
    let well = run(&["status", "--admin", &admin]);
    let text = said(&well);
    assert_eq!(well.status.code(), Some(0), "{text}");
    assert!(text.contains("2 of 2 shards up") && text.contains("shard-1  up"), "{text}");
    assert!(text.contains("20 requests") && !text.contains('\u{1b}'), "{text}");
    drop(shards.remove(0));
    (0..20).for_each(|key| drop(client.tell(&format!("GET k{key}"))));
    eventually(
        || said(&run(&["status", "--admin", &admin])).contains("connection refused").to_string(),
        "true",
    );
    let down = run(&["status", "--admin", &admin, "--down"]);
    let text = said(&down);
    assert_eq!(down.status.code(), Some(1), "{text}");
    assert!(text.contains("1 of 2 shards up") && text.contains("shard-0  down"), "{text}");
    assert!(!text.contains("shard-1"), "{text}");
    let json = run(&["status", "--admin", &admin, "--format", "json", "--pool", "pool"]);
    let document: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((json.status.code(), &document["version"]), (Some(1), &1.into()));
    assert_eq!(document["pools"][0]["shards_up"], 1);
    // Nobody there, and no such pool.
    let nobody = format!("{}:{}", address(), servers::unused_port());
    for words in [&["status", "--admin", &nobody][..], &["status", "--admin", &admin, "--pool", "a b"]] {
        let output = run(words);
        assert_eq!((output.status.code(), said(&output).as_str()), (Some(5), ""), "{words:?}");
        assert!(!output.stderr.is_empty());
    }
    // What is live needs a terminal, and says so before it has changed anything.
    let top = run(&["top", "--admin", &admin]);
    let error = String::from_utf8_lossy(&top.stderr);
    assert!(top.status.code() == Some(1) && error.contains("terminal"), "{error}");
}

#[test]
fn status_is_asked_over_a_unix_socket() {
    let shards = [Server::redis(&[])];
    let socket = format!("{}/{}-admin.sock", std::env::temp_dir().display(), address());
    let proxy = Server::memstore_with_flags(&lines(&shards), &["-s", "0", "--admin-address", &socket]);
    eventually(|| run(&["status", "--admin", &socket]).status.code().unwrap_or(-1).to_string(), "0");
    drop(proxy);
    assert_eq!(run(&["status", "--admin", &socket]).status.code(), Some(5));
    let _ = std::fs::remove_file(socket);
}

/// `memstore top` in a terminal that `script` makes, and what is behind it in the shell: whether the terminal is as it was.
struct Terminal {
    script: std::process::Child,
    keys: std::process::ChildStdin,
    heard: std::sync::mpsc::Receiver<String>,
    all: String,
}

impl Terminal {
    fn top(admin: &str) -> Self {
        let command = format!(
            "stty cols 120 rows 20; sh -c 'echo number $$ of it; exec {} top --admin {admin} --interval 200ms'; echo ended $?; stty -a | grep -o -e ' echo ' -e ' icanon '; echo all is over",
            env!("CARGO_BIN_EXE_memstore")
        );
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).env("TERM", "xterm");
        script.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut script =
            script.spawn().unwrap_or_else(|error| panic!("script: {error}; apt-get install bsdutils"));
        let keys = script.stdin.take().expect("piped");
        let mut screen = script.stdout.take().expect("piped");
        let (tell, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = std::io::Read::read(&mut screen, &mut bytes) {
                let _ = tell.send(String::from_utf8_lossy(&bytes[..count]).into_owned());
            }
        });
        Self { script, keys, heard, all: String::new() }
    }

    /// What is shown until this is.
    fn until(&mut self, wanted: &str, mut meanwhile: impl FnMut()) -> String {
        let begin = std::time::Instant::now();
        while !self.all.contains(wanted) {
            assert!(begin.elapsed().as_secs() < 60, "no {wanted:?} in {}", self.all);
            meanwhile();
            if let Ok(more) = self.heard.recv_timeout(std::time::Duration::from_millis(20)) {
                self.all.push_str(&more);
            }
        }
        std::mem::take(&mut self.all)
    }

    fn press(&mut self, keys: &str) {
        std::io::Write::write_all(&mut self.keys, keys.as_bytes()).expect("it reads");
    }

    /// It is over with this exit code, and all is as it was.
    fn ends(mut self, code: i32) {
        let end = self.until("all is over", || ());
        let ended = format!("ended {code}");
        for restored in ["\u{1b}[?1049l", "\u{1b}[?25h", &ended, " echo ", " icanon "] {
            assert!(end.contains(restored), "{restored:?} in {end:?}");
        }
        assert!(self.script.wait().expect("it ends").success());
    }
}

#[test]
fn top_is_live_until_q_is_pressed() {
    let shards = [Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    let mut top = Terminal::top(&admin);
    let mut client = proxy.connect();
    top.until("REQ/S*", || ());
    // Requests are there once two answers differ.
    top.until("shard-0", || drop(client.tell("SET a 1")));
    top.press(">");
    top.until("ERR/S*", || ());
    top.press("q");
    top.ends(0);
}

#[test]
fn a_signal_that_ends_top_leaves_the_terminal_as_it_was() {
    let shards = [Server::redis(&[])];
    let (_proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    for (name, number) in [("HUP", 1), ("INT", 2), ("QUIT", 3), ("TERM", 15)] {
        let mut top = Terminal::top(&admin);
        let shown = top.until("REQ/S*", || ());
        let process =
            shown.split_once("number ").and_then(|(_, rest)| rest.split(' ').next()).expect("a number");
        let sent = Command::new("kill").args([&format!("-{name}"), process]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name} {process}");
        top.ends(128 + number);
    }
}

#[test]
fn check_connects_to_each_shard_and_says_what_to_do() {
    let authority = Authority::new("check");
    let name = address().to_string();
    let pair = authority.sign("server", &[&name]);
    let shown = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let secured = Server::start(&servers::redis_program(), "redis-server", |port| {
        let (address, port) = (address().to_string(), port.to_string());
        ["--save", "", "--bind", &address, "--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"]
            .into_iter()
            .map(str::to_owned)
            .chain([
                "--tls-cert-file".into(),
                shown(&pair.certificate),
                "--tls-key-file".into(),
                shown(&pair.key),
            ])
            .chain(["--tls-ca-cert-file".into(), shown(&authority.file())])
            .collect()
    });
    let plain = Server::redis(&["--databases", "4"]);
    let locked = Server::redis(&["--requirepass", "s3cret"]);
    let cached = Server::memcached(&[]);
    let nobody = servers::unused_port();
    let pool = |name: &str, settings: &str, shard: &str| {
        format!(
            "{name}:\n  listen: {}:{}\n  {settings}\n  servers: [\"{shard}\"]\n",
            address(),
            servers::unused_port()
        )
    };
    let ca = format!("redis: true\n  databases: 1\n  servers_tls: {{ca: {}}}", shown(&authority.file()));
    // A pool, whether it is well, and what is said of it.
    let cases = [
        ("plain", "redis: true\n  databases: 4".to_owned(), plain.line(0), true, "ok, redis "),
        ("few", "redis: true".to_owned(), plain.line(0), true, "set databases: 4, or raise it on the server"),
        ("cached", "timeout: 400".to_owned(), cached.line(0), true, "ok, memcached 1."),
        ("secured", ca.clone(), secured.line(0), true, "ok, redis "),
        (
            "gone",
            "redis: true".to_owned(),
            format!("{}:{nobody}:1 shard-0", address()),
            false,
            "start the server",
        ),
        ("open", "redis: true".to_owned(), locked.line(0), false, "set redis_auth_file"),
        (
            "wrong",
            "redis: true\n  redis_auth: other".to_owned(),
            locked.line(0),
            false,
            "correct the password",
        ),
        ("right", "redis: true\n  redis_auth: s3cret".to_owned(), locked.line(0), true, "ok, redis "),
        (
            "unsecured",
            "redis: true\n  databases: 1".to_owned(),
            secured.line(0),
            false,
            "then set servers_tls",
        ),
        ("not_tls", ca, plain.line(0), false, "a server without TLS on that port"),
        ("mistaken", "redis: true".to_owned(), cached.line(0), false, "redis: true for Redis"),
        ("reversed", "timeout: 400".to_owned(), plain.line(0), false, "redis: true"),
    ];
    for (name, settings, shard, is_well, words) in cases {
        let path = file(&format!("{name}.yml"), &pool(name, &settings, &shard));
        let output = run(&["check", "--connect", "-c", &path]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(i32::from(!is_well)), "{name}: {text}{output:?}");
        assert!(text.contains(words), "{name}: {text}");
        assert!(!text.contains("s3cret") && !text.contains("other"), "{text}");
        let output = run(&["check", "--connect", "--format", "json", "-c", &path]);
        let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let found = &json["pools"][0]["connected"][0];
        assert_eq!((&json["ok"], &found["ok"]), (&is_well.into(), &is_well.into()), "{name}: {json}");
        assert_eq!(found["advice"].is_string(), !is_well, "{json}");
        assert_eq!(
            run(&["check", "-c", &path]).status.code(),
            Some(0),
            "nothing is asked unless it is wished"
        );
        let _ = std::fs::remove_file(path);
    }
}
