//! Passwords and tokens are told to nobody: not by the admin server, not in the log, not by commands that read a configuration.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use servers::{Server, eventually};

mod servers;

/// All that is answered.
fn ask(admin: &str, line: &str, headers: &str) -> String {
    let (_, head, body) = servers::ask(admin, line, headers, "");
    format!("{head}\r\n\r\n{body}")
}

/// All of them, none of which is part of another word.
const SECRETS: [&str; 7] = [
    "first-pa55word",
    "second-pa55word",
    "third-pa55word",
    "wrong-pa55word",
    "t0ken-of-admin",
    "query-pa55word",
    "c0llector-token",
];

#[track_caller]
fn check(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{what} tells {secret}: {text}");
    }
}

fn write(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", servers::address()));
    std::fs::write(&path, text).expect("the folder is writable");
    path
}

#[test]
fn no_password_is_told() {
    let shards = [
        Server::redis(&["--requirepass", "first-pa55word"]),
        Server::redis(&["--requirepass", "second-pa55word"]),
    ];
    let file = write("password", "second-pa55word\n");
    let previous = write("previous", "third-pa55word\n");
    let token = write("token", "t0ken-of-admin\n");
    let headers = write("headers", "authorization: Bearer c0llector-token\n");
    let listen = [(); 3].map(|()| format!("{}:{}", servers::address(), servers::unused_port()));
    let config = |first: &str| {
        format!(
            "admin_token_file: {token}\nlog_level: trace\notlp_endpoint: http://127.0.0.1:1\notlp_headers_file: {headers}\npools:\n  a:\n    \
             listen: {}\n    redis: true\n    redis_auth: {first}\n    adopt_wait: none\n    access_log_sample: 1\n    access_log_errors: true\n    \
             slowlog_log_slower_than: 0\n    trace_sample: 1\n    hot_keys_sample: 1\n    monitor: true\n    servers: [\"{}\"]\n  b:\n    listen: {}\n    redis: true\n    redis_user: default\n    \
             redis_auth_file: {file}\n    redis_auth_previous_file: {previous}\n    servers: [\"{}\"]\n",
            listen[0],
            shards[0].line(0),
            listen[1],
            shards[1].line(1),
            token = token.display(),
            headers = headers.display(),
            file = file.display(),
            previous = previous.display(),
        )
    };
    let path = write("secrets.yml", &config("first-pa55word"));
    let proxy = Server::start(env!("CARGO_BIN_EXE_memstore"), "", |_| {
        let admin = listen[2].rsplit_once(':').expect("a port");
        ["serve", "-s", "0", "--workers", "2", "--admin-address", admin.0, "--admin-port", admin.1, "-c"]
            .map(str::to_owned)
            .into_iter()
            .chain([path.display().to_string()])
            .collect()
    });
    let admin = listen[2].as_str();
    let mut client =
        servers::connect(listen[0].rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port"));
    assert!(client.tell("AUTH wrong-pa55word").starts_with('-'));
    assert_eq!(client.tell("AUTH first-pa55word"), "+OK\r\n");
    assert_eq!(client.tell("SET a 1"), "+OK\r\n");
    // Whoever watches, meanwhile.
    let mut monitor = TcpStream::connect(admin).expect("the admin server listens");
    let request = "GET /monitor HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer t0ken-of-admin\r\n\r\n";
    monitor.write_all(request.as_bytes()).expect("it reads");
    let mut watched = String::new();
    while !watched.contains("\"set\" \"seen\"") {
        for told in ["AUTH wrong-pa55word", "HELLO 3 AUTH default wrong-pa55word", "SET seen 1", "ECHO a"] {
            client.tell(told);
        }
        let mut bytes = [0; 65536];
        let count = monitor.read(&mut bytes).expect("it goes on");
        assert!(count > 0, "{watched}");
        watched.push_str(&String::from_utf8_lossy(&bytes[..count]).to_ascii_lowercase());
    }
    check("/monitor", &watched);
    check("SLOWLOG", &client.tell("SLOWLOG GET -1"));
    for path in ["/slow", "/hot"] {
        let answer = ask(admin, &format!("GET {path}"), "Authorization: Bearer t0ken-of-admin\r\n");
        assert!(answer.contains(" 200 ") && answer.contains("seen"), "{answer}");
        check(path, &answer);
    }
    for verb in [&["check"][..], &["ring"], &["check", "--connect"], &["settings"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memstore"));
        command.args(verb);
        if verb[0] != "settings" {
            command.arg("-c").arg(&path);
        }
        let output = command.output().expect("it runs");
        for said in [&output.stdout, &output.stderr] {
            check(&format!("{verb:?}"), &String::from_utf8_lossy(said));
        }
    }
    // A password that the shards do not take, and one that is another one; both in the history of reloads.
    for (first, result) in [("wrong-pa55word", "applied"), ("[broken-", "failed")] {
        std::fs::write(&path, config(first)).expect("it is writable");
        proxy.signal("HUP");
        eventually(
            || ask(admin, "GET /status", "").contains(&format!("\"result\":\"{result}\"")).to_string(),
            "true",
        );
    }
    client.tell("AUTH wrong-pa55word");
    client.tell("SET a 1");
    for path in [
        "/status",
        "/config",
        "/route?pool=a&key=k",
        "/topology",
        "/metrics",
        "/stats",
        "/",
        "/ready",
        "/nothing",
    ] {
        let answer = ask(admin, &format!("GET {path}"), "");
        assert!(!answer.contains(" 403 "), "{answer}");
        check(path, &answer);
    }
    let status = ask(admin, "GET /status", "");
    assert!(status.contains("\"what\":\"password\""), "{status}");
    assert!(ask(admin, "GET /config", "").contains("\"secret\":true"));
    check("POST /reload", &ask(admin, "POST /reload", ""));
    drop(client);
    eventually(|| proxy.printed().contains("configuration reload failed").to_string(), "true");
    check("the log", &proxy.printed());
    for path in [file, previous, token, headers, path] {
        let _ = std::fs::remove_file(path);
    }
}

#[test]
fn mistakes_do_not_tell_passwords() {
    let pool = |lines: &str| {
        format!("p:\n  listen: 127.0.0.1:1\n  redis: true\n{lines}\n  servers: [\"127.0.0.1:2:1\"]\n")
    };
    let without = |lines: &str| format!("p:\n  listen: 127.0.0.1:1\n  redis: true\n{lines}\n");
    for (number, text) in [
        pool("  redis_auth: first-pa55word\n  nonsense: 1"),
        pool("  redis_auth: [first-pa55word]"),
        pool("  redis_auth: first-pa55word\n  redis_auth: second-pa55word"),
        pool("  redis_auth: \"first-pa55word"),
        pool("  redis_auth: first-pa55word\n  redis_auth_env: NO_SUCH_VARIABLE"),
        pool("  redis_auth: first-pa55word: second-pa55word"),
        pool("  redis_auth_env: first-pa55word"),
        without("  servers_url: ftp://user:first-pa55word@127.0.0.1:1/list?key=query-pa55word"),
        without("  servers_url: http://user:first-pa55word@127.0.0.1:1/list?key=query-pa55word"),
        without("  servers_url: http://127.0.0.1:1/list?key=query-pa55word\n  servers_url_refresh: x"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = write(&format!("mistake-{number}.yml"), &text);
        for verb in [
            &["check"][..],
            &["check", "--format", "json"],
            &["serve", "-s", "0", "--admin-port", "0"],
            &["ring"],
        ] {
            let output =
                Command::new(env!("CARGO_BIN_EXE_memstore")).args(verb).arg("-c").arg(&path).output();
            let output = output.expect("it runs");
            assert!(!output.status.success(), "{verb:?} {text}");
            for said in [&output.stdout, &output.stderr] {
                check(&format!("{verb:?} of {text}"), &String::from_utf8_lossy(said));
            }
        }
        let _ = std::fs::remove_file(path);
    }
}
