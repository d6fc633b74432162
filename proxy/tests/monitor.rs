//! MONITOR and `/monitor` of a proxy in front of real servers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use servers::{Server, eventually, metrics};

mod servers;

fn lines(shards: &[Server]) -> Vec<String> {
    shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect()
}

/// What follows the time and the address of the lines of a monitor: the words.
fn words(line: &str) -> String {
    line.trim_end().split_once("] ").map_or(line, |(_, words)| words).to_owned()
}

/// Somebody who watches over the admin address; the first line of the answer, and what follows.
fn watch(admin: &str, query: &str, headers: &str) -> (String, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(admin).expect("the admin server listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    write!(stream, "GET /monitor{query} HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n").expect("it reads");
    let mut reader = BufReader::new(stream);
    let mut status = String::new();
    reader.read_line(&mut status).expect("it answers");
    let mut line = String::new();
    while reader.read_line(&mut line).expect("it answers") > 2 {
        line.clear();
    }
    (status.trim_end().to_owned(), reader)
}

fn next(reader: &mut impl std::io::BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line");
    words(&line)
}

/// What is shown is what a server shows.
#[test]
fn the_lines_are_those_of_redis() {
    let shards = [Server::redis(&["--requirepass", "secret"]), Server::redis(&["--requirepass", "secret"])];
    let proxy = Server::memstore(&["monitor: true", "redis_auth: secret"], &shards);
    let beside = Server::redis(&["--requirepass", "secret"]);
    let shown = |server: &Server| {
        let mut monitor = server.connect();
        monitor.tell("AUTH secret");
        assert_eq!(monitor.tell("MONITOR"), "+OK\r\n");
        let mut client = server.connect();
        for line in [
            "GET denied",
            "AUTH secret",
            "SELECT 2",
            "SET key a\"b\\c",
            "HELLO 3 AUTH default secret",
            "NOSUCH secret",
            "GET",
            "MGET key other",
            "CONFIG GET maxmemory",
            "CLIENT SETNAME me",
            "EVAL return{KEYS[1]} 1 key",
            "PING last",
        ] {
            client.tell(line);
        }
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &String| !line.contains("last")) {
            let line = String::from_utf8_lossy(&monitor.reply()).into_owned();
            assert!(line.starts_with('+') && line.contains(&format!("{}]", client.local())), "{line}");
            let database =
                line.split_once('[').and_then(|(_, rest)| rest.split_once(' ')).map(|(db, _)| db.to_owned());
            lines.push(format!("{} {}", database.unwrap_or_default(), words(&line)));
        }
        assert_eq!(monitor.tell("RESET"), "+RESET\r\n");
        client.tell("PING unseen");
        monitor.tell("AUTH secret");
        assert_eq!(monitor.tell("PING"), "+PONG\r\n", "it is shown nothing any more");
        lines
    };
    assert_eq!(shown(&proxy), shown(&beside));
}

#[test]
fn it_is_off_unless_it_is_allowed_and_ends_where_it_is_not_any_more() {
    let shards = [Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&["monitor: true"], &lines(&shards), &[]);
    let mut monitor = proxy.connect();
    assert_eq!(monitor.tell("MONITOR"), "+OK\r\n");
    eventually(|| metrics(&admin).contains("memstore_monitors{pool=\"pool\"} 1").to_string(), "true");
    proxy.rewrite(&["monitor: false"], &lines(&shards));
    monitor.until_closed();
    let mut client = proxy.connect();
    assert!(client.tell("MONITOR").starts_with("-ERR MONITOR is refused: it needs monitor: true"));
    eventually(|| metrics(&admin).contains("memstore_monitors{pool=\"pool\"} 0").to_string(), "true");
}

/// It ends with the pool, not with the next one that is opened, nor with the process.
#[test]
fn who_watches_a_pool_that_is_removed_is_not_kept_waiting() {
    let shards = [Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    let (status, mut shown) = watch(&admin, "?pool=pool", "");
    assert!(status.contains(" 200 "), "{status}");
    let listen = format!("{}:{}", servers::address(), servers::unused_port());
    let line = shards[0].line(0);
    proxy.overwrite(&format!("other:\n  listen: {listen}\n  redis: true\n  servers:\n   - {line}\n"));
    servers::reload(&proxy);
    let mut rest = String::new();
    shown.read_to_string(&mut rest).expect("its end comes");
}

#[test]
fn filters_of_the_admin_address_show_what_they_mean() {
    let shards = [Server::redis(&[]), Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    let (status, mut of_keys) = watch(&admin, "?pool=pool&pattern=user:*", "");
    assert_eq!(status, "HTTP/1.0 200 OK");
    let mut client = proxy.connect();
    let address = client.local();
    let (_, mut of_client) = watch(&admin, &format!("?client={address}"), "");
    let (_, mut of_shard) = watch(&admin, "?shard=shard-1", "");
    let (_, mut tenth) = watch(&admin, "?sample=10", "");
    let mut other = proxy.connect();
    other.tell("SET user:1 x");
    client.tell("SET item:1 x");
    client.tell("SET user:2 x");
    assert_eq!(next(&mut of_keys), "\"SET\" \"user:1\" \"x\"");
    assert_eq!(next(&mut of_keys), "\"SET\" \"user:2\" \"x\"");
    assert_eq!(next(&mut of_client), "\"SET\" \"item:1\" \"x\"");
    let on_second = ["user:1", "item:1", "user:2"].into_iter();
    let on_second: Vec<_> =
        on_second.filter(|key| shards[1].connect().tell(&format!("EXISTS {key}")) == ":1\r\n").collect();
    for key in on_second {
        assert_eq!(next(&mut of_shard), format!("\"SET\" \"{key}\" \"x\""));
    }
    (0..1000).for_each(|_| drop(client.tell("PING")));
    next(&mut tenth);
    for (query, status) in [
        ("?pool=other", "HTTP/1.0 404 Not Found"),
        ("?shard=other", "HTTP/1.0 404 Not Found"),
        ("?sample=0", "HTTP/1.0 400 Bad Request"),
        ("?client=me", "HTTP/1.0 400 Bad Request"),
        ("?what=1", "HTTP/1.0 400 Bad Request"),
    ] {
        assert_eq!(watch(&admin, query, "").0, status, "{query}");
    }
    assert_eq!(watch(&admin, "", "Origin: http://evil.example\r\n").0, "HTTP/1.0 403 Forbidden");
    // Who goes is not waited for.
    drop((of_keys, of_client, of_shard, tenth));
    eventually(
        || {
            client.tell("PING");
            metrics(&admin).contains("memstore_monitors{pool=\"pool\"} 0").to_string()
        },
        "true",
    );
}

#[test]
fn keys_of_memcached_are_shown_and_can_be_hidden() {
    let shards = [Server::memcached(&[])];
    let settings = ["redis: false", "privacy: hash_keys"];
    let (proxy, admin) = Server::memstore_with_admin(&settings, &lines(&shards), &[]);
    let (_, mut lines) = watch(&admin, "", "");
    let mut client = proxy.connect();
    client.text(b"get secret\r\n");
    let line = next(&mut lines);
    assert!(line.starts_with("\"get\" \"#") && !line.contains("secret"), "{line}");
}

/// One that does not read loses lines; clients wait for nothing.
#[test]
fn who_watches_and_does_not_read_slows_nobody_down() {
    let shards = [Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&["monitor: true"], &lines(&shards), &[]);
    let mut silent = proxy.connect();
    silent.tell("MONITOR");
    let (_, mut unread) = watch(&admin, "", "");
    let mut client = proxy.connect();
    let value = "x".repeat(100);
    let batch = format!("SET key {value}\r\n").repeat(1000);
    let dropped = || {
        let page = metrics(&admin);
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix("memstore_monitor_lines_dropped_total{pool=\"pool\"} "));
        line.and_then(|count| count.parse::<u64>().ok()).expect("a number")
    };
    let mut rounds = 0;
    while dropped() == 0 {
        client.send(batch.as_bytes());
        client.bytes(5 * 1000);
        rounds += 1;
        assert!(rounds < 1000, "nothing is dropped");
    }
    client.send(batch.as_bytes());
    client.bytes(5 * 1000);
    // Once it reads on it is told how many are missing.
    let mut line = String::new();
    while !line.contains("\"lines dropped\"") {
        line.clear();
        assert!(unread.read_line(&mut line).expect("there is more") > 0);
    }
    assert!(proxy.memory() < 200 << 20, "{} bytes", proxy.memory());
}

#[test]
fn the_command_prints_what_is_served() {
    let shards = [Server::redis(&[])];
    let (proxy, admin) = Server::memstore_with_admin(&[], &lines(&shards), &[]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_memstore"))
        .args(["monitor", "--admin", &admin, "--pattern", "a*"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it is built");
    let mut client = proxy.connect();
    eventually(|| metrics(&admin).contains("memstore_monitors{pool=\"pool\"} 1").to_string(), "true");
    client.tell("GET b");
    client.tell("GET a1");
    let mut printed = BufReader::new(command.stdout.take().expect("piped"));
    assert_eq!(next(&mut printed), "\"GET\" \"a1\"");
    // The proxy ends, and so does it.
    drop(proxy);
    let mut rest = String::new();
    printed.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "");
    command.wait().expect("it ends");
}
