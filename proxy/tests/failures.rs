//! Shards that fail, limits that are reached, and the end of the process: what only processes and sockets can show. The rules of
//! the core are in `conversations/`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use servers::{Fake, Server, address, encoded, eventually, unused_port};

mod servers;

#[test]
fn a_host_that_is_not_found_is_named_as_that() {
    let proxy = Server::memstore_over(&[], &["host.invalid:6379:1 gone".to_owned()]);
    let mut client = proxy.connect();
    let reply = client.tell("GET a");
    assert!(reply.starts_with("-ERR shard gone: cannot resolve host"), "{reply}");
    assert_eq!(client.tell("PING"), "+PONG\r\n");
}

#[test]
fn an_ejected_shard_costs_few_errors_and_none_to_come_back() {
    let port = unused_port();
    let live = Server::redis(&[]);
    let lines = [live.line(0), format!("{}:{port}:1 shard-1", address())];
    let settings = ["auto_eject_hosts: true", "server_failure_limit: 2", "server_retry_timeout: 100"];
    let proxy = Server::memstore_over(&settings, &lines);
    let mut client = proxy.connect();
    let errors =
        (0..400).filter(|number| client.tell(&format!("SET key:{number} v")).starts_with('-')).count();
    assert!((2..40).contains(&errors), "{errors} errors until the ejection");
    let errors =
        (0..400).filter(|number| client.tell(&format!("SET key:{number} v")).starts_with('-')).count();
    assert_eq!(errors, 0, "errors while the shard is probed");
    proxy.says("shard ejected");
}

#[test]
fn passwords_and_databases_reach_the_shards() {
    let shards = [Server::redis(&["--requirepass", "secret"])];
    let proxy = Server::memstore(&["redis_auth: secret", "redis_db: 3"], &shards);
    let mut client = proxy.connect();
    assert_eq!(client.tell("GET a"), "-NOAUTH Authentication required.\r\n");
    assert_eq!(client.tell("AUTH secret"), "+OK\r\n");
    assert_eq!(client.tell("SET a 1"), "+OK\r\n");
    let mut direct = shards[0].connect();
    assert_eq!(direct.tell("AUTH secret"), "+OK\r\n");
    assert_eq!(direct.tell("SELECT 3"), "+OK\r\n");
    assert_eq!(direct.tell("GET a"), "$1\r\n1\r\n");

    let wrong = Server::memstore(&["redis_auth: wrong"], &shards);
    let mut client = wrong.connect();
    assert_eq!(client.tell("AUTH wrong"), "+OK\r\n");
    let reply = client.tell("GET a");
    assert!(reply.starts_with("-ERR shard shard-0: handshake refused: WRONGPASS"), "{reply}");
}

#[test]
fn a_client_that_does_not_read_costs_little_and_disturbs_nobody() {
    let shards: Vec<_> = (0..2).map(|_| Server::redis(&[])).collect();
    let proxy = Server::memstore(&[], &shards);
    let mut client = proxy.connect();
    let value = vec![b'v'; 100_000];
    for number in 0..50 {
        assert_eq!(client.ask(&[b"SET", format!("key:{number}").as_bytes(), &value]), b"+OK\r\n");
    }
    let before = proxy.memory();
    let mut greedy = proxy.connect();
    let requests: Vec<u8> =
        (0..5_000).flat_map(|number| encoded(&[b"GET", format!("key:{}", number % 50).as_bytes()])).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| greedy.send(&requests));
        for _ in 0..2_000 {
            assert_eq!(client.tell("GET nothing"), "$-1\r\n");
        }
        let grown = proxy.memory().saturating_sub(before);
        assert!(grown < 128 << 20, "{} MB for a client that does not read", grown >> 20);
        proxy.signal("KILL");
    });
}

#[test]
fn deep_pipelines_are_answered_in_order() {
    const REQUESTS: usize = 100_000;
    let shards: Vec<_> = (0..3).map(|_| Server::redis(&[])).collect();
    let proxy = Server::memstore(&[], &shards);
    let stream: Vec<u8> = (0..REQUESTS)
        .flat_map(|number| match number % 3 {
            0 => encoded(&[b"INCR", b"counter"]),
            _ => encoded(&[b"ECHO", number.to_string().as_bytes()]),
        })
        .collect();
    let expected: String = (0..REQUESTS)
        .map(|number| match number % 3 {
            0 => format!(":{}\r\n", number / 3 + 1),
            _ => format!("${}\r\n{number}\r\n", number.to_string().len()),
        })
        .collect();
    let mut reader = proxy.connect();
    let mut writer = reader.twin();
    let replies = std::thread::scope(|scope| {
        scope.spawn(move || writer.finish_with(&stream));
        reader.until_closed()
    });
    assert!(replies == expected.as_bytes(), "{} bytes instead of {}", replies.len(), expected.len());
}

#[test]
fn a_million_keys_in_one_mget() {
    const KEYS: usize = 1_000_000;
    let shards: Vec<_> = (0..3).map(|_| Server::redis(&[])).collect();
    let proxy = Server::memstore(&[], &shards);
    let mut client = proxy.connect();
    let names: Vec<String> = (0..KEYS).map(|number| format!("key:{number}")).collect();
    let mut words: Vec<&[u8]> = vec![b"MSET"];
    for name in names.iter().step_by(1000) {
        words.extend([name.as_bytes(), name.as_bytes()]);
    }
    assert_eq!(client.ask(&words), b"+OK\r\n");
    let words: Vec<&[u8]> = std::iter::once(&b"MGET"[..]).chain(names.iter().map(String::as_bytes)).collect();
    let mut writer = client.twin();
    let replies = std::thread::scope(|scope| {
        scope.spawn(|| writer.finish_with(&encoded(&words)));
        client.until_closed()
    });
    let mut expected = format!("*{KEYS}\r\n");
    for (number, name) in names.iter().enumerate() {
        if number % 1000 == 0 {
            expected.push_str(&format!("${}\r\n{name}\r\n", name.len()))
        } else {
            expected.push_str("$-1\r\n")
        }
    }
    assert!(replies == expected.as_bytes());
}

#[test]
fn clients_beyond_the_limit_are_told_so() {
    let shards = [Server::redis(&[])];
    let proxy = Server::memstore(&["client_connections: 2"], &shards);
    let (mut first, mut second) = (proxy.connect(), proxy.connect());
    for client in [&mut first, &mut second] {
        assert_eq!(client.tell("PING"), "+PONG\r\n");
    }
    assert_eq!(proxy.connect().until_closed(), b"-ERR max number of clients reached\r\n");
    assert_eq!(first.tell("PING"), "+PONG\r\n");
}

#[test]
fn idle_and_slow_clients_are_disconnected_where_configured() {
    let shards = [Server::redis(&[])];
    let proxy = Server::memstore(&["client_idle_timeout: 3s", "client_request_timeout: 1s"], &shards);
    let mut idle = proxy.connect();
    assert_eq!(idle.tell("PING"), "+PONG\r\n");
    assert_eq!(idle.until_closed(), b"");
    let mut slow = proxy.connect();
    slow.send(b"*2\r\n$3\r\nGET\r\n$100\r\nunfinished");
    assert_eq!(slow.until_closed(), b"");
    let old = Server::memstore(&["client_age_max: 1s"], &shards);
    assert_eq!(old.connect().until_closed(), b"");
}

#[test]
fn sigterm_answers_what_was_read_and_waits_for_clients() {
    let (asked, is_asked) = std::sync::mpsc::channel();
    let (let_go, is_let_go) = std::sync::mpsc::channel::<()>();
    let is_let_go = std::sync::Mutex::new(is_let_go);
    let fake = Fake::new(move |mut stream, _| {
        let mut room = [0; 65536];
        while let Ok(count @ 1..) = stream.read(&mut room) {
            let requests = String::from_utf8_lossy(&room[..count]).matches("GET").count();
            if requests > 0 {
                let _ = asked.send(());
                let _ = is_let_go.lock().expect("nobody panics with it").recv();
                let _ = stream.write_all("+slow\r\n".repeat(requests).as_bytes());
            }
        }
    });
    let mut proxy = fake.proxy(&[]);
    let mut idle = proxy.connect();
    assert_eq!(idle.tell("PING"), "+PONG\r\n");
    let mut busy = proxy.connect();
    assert_eq!(busy.tell("PING"), "+PONG\r\n");
    busy.send(&encoded(&[b"GET", b"a"]).repeat(3));
    // The shard has it, so the proxy has read it.
    is_asked.recv_timeout(Duration::from_secs(60)).expect("the shard is asked");
    proxy.signal("TERM");
    proxy.says("drain started");
    drop(let_go);
    assert_eq!(busy.until_closed(), b"+slow\r\n".repeat(3));
    assert_eq!(idle.until_closed(), b"");
    assert!(TcpStream::connect(busy.peer()).is_err(), "it still listens");
    drop((idle, busy));
    assert_eq!(proxy.ended(), Some(0));
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let shards = [Server::redis(&[])];
    let mut proxy = Server::memstore(&[], &shards);
    let mut client = proxy.connect();
    assert_eq!(client.tell("PING"), "+PONG\r\n");
    proxy.signal("TERM");
    assert_eq!(client.until_closed(), b"");
    proxy.signal("TERM");
    assert_eq!(proxy.ended(), Some(1));
}

#[test]
fn clients_get_resp3_only_where_every_shard_speaks_it() {
    // What a server before Redis 6 says.
    let fake = Fake::new(|mut stream, _| {
        let mut room = [0; 65536];
        while let Ok(count @ 1..) = stream.read(&mut room) {
            let text = String::from_utf8_lossy(&room[..count]).into_owned();
            let reply = if text.contains("HELLO") { "-ERR unknown command `HELLO`\r\n" } else { "+OK\r\n" };
            let _ = stream.write_all(reply.as_bytes());
        }
    });
    let redis = Server::redis(&[]);
    let proxy = Server::memstore_over(&[], &[fake.line.clone(), redis.line(1)]);
    let mut client = proxy.connect();
    eventually(|| client.tell("HELLO 3"), "-ERR unknown command 'HELLO', with args beginning with: '3' \r\n");
    assert!(client.tell("HELLO 2").starts_with("*14\r\n"));
    let modern = Server::memstore_over(&[], &[redis.line(0)]);
    assert!(modern.connect().tell("HELLO 3").starts_with("%7\r\n"));
    let forbidden = Server::memstore_over(&["resp3: false"], &[redis.line(0)]);
    assert!(forbidden.connect().tell("HELLO 3").starts_with("-ERR unknown command"));
}

#[test]
fn a_password_that_shards_do_not_want_is_asked_of_clients_all_the_same() {
    let shards = [Server::redis(&[])];
    let proxy = Server::memstore(&["redis_auth: secret"], &shards);
    let mut client = proxy.connect();
    assert!(client.tell("GET x").starts_with("-NOAUTH"));
    assert_eq!(client.tell("AUTH secret"), "+OK\r\n");
    assert_eq!(client.tell("SET x 1"), "+OK\r\n");
    assert_eq!(client.tell("GET x"), "$1\r\n1\r\n");
}

#[test]
fn signals_of_twemproxys_operators_stop_nothing() {
    let shards = [Server::redis(&[])];
    let proxy = Server::memstore(&[], &shards);
    for signal in ["TTIN", "TTOU", "USR1", "USR2", "HUP"] {
        proxy.signal(signal);
        assert_eq!(proxy.connect().tell("SET a 1"), "+OK\r\n", "after SIG{signal}");
    }
}

/// As behind a Service with two replicas: whoever is told to go finds the other one.
#[test]
fn a_drain_under_load_shows_no_client_an_error() {
    let shards = [Server::redis(&[]), Server::redis(&[])];
    let settings = ["reuseport: true", "timeout: 20000"];
    let mut leaving = Server::memstore(&settings, &shards);
    let staying = leaving.beside(&settings, &shards);
    let done = std::sync::atomic::AtomicBool::new(false);
    let reconnects = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..200)
            .map(|number| {
                let (staying, done, reconnects) = (&staying, &done, &reconnects);
                std::thread::Builder::new()
                    .stack_size(128 * 1024)
                    .spawn_scoped(scope, move || {
                        let mut client = staying.connect();
                        let mut count = 0u64;
                        while !done.load(Ordering::Relaxed) {
                            client.send(&encoded(&[b"INCR", format!("counter:{number}").as_bytes()]));
                            let mut reply = client.reply();
                            if reply.is_empty() {
                                // Closed before the request was read: it goes to whoever listens now.
                                reconnects.fetch_add(1, Ordering::Relaxed);
                                client = staying.connect();
                                reply = client.ask(&[b"INCR", format!("counter:{number}").as_bytes()]);
                            }
                            count += 1;
                            assert_eq!(String::from_utf8_lossy(&reply), format!(":{count}\r\n"));
                        }
                    })
                    .expect("a thread")
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        leaving.signal("TERM");
        assert_eq!(leaving.ended(), Some(0));
        std::thread::sleep(Duration::from_millis(100));
        done.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("a client saw no error");
        }
    });
    assert!(reconnects.load(Ordering::Relaxed) > 0, "nobody was served by the one that left");
}

/// Clients that ask and wait, as most do, and that look whether they were hung up on before they ask.
///
/// When each of them left, since the process was told to end, and when that had said so.
fn leave(grace: Duration) -> (Vec<Duration>, Duration) {
    let shards = [Server::redis(&[])];
    let grace = format!("{}ms", grace.as_millis());
    let lines = [shards[0].line(0)];
    let (mut proxy, _) = Server::memstore_with_admin(&["timeout: 20000"], &lines, &["--drain-grace", &grace]);
    let told = std::sync::OnceLock::new();
    let mut left = Vec::new();
    let mut heard = Duration::ZERO;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..100usize)
            .map(|number| {
                let (mut client, told) = (proxy.connect(), &told);
                let work = move || {
                    let pipeline = 1 + number % 3;
                    let key = format!("counter:{number}");
                    loop {
                        if client.is_over() {
                            return told.get().map(Instant::elapsed);
                        }
                        client.send(&encoded(&[b"INCR", key.as_bytes()]).repeat(pipeline));
                        for _ in 0..pipeline {
                            if client.reply().is_empty() {
                                return None;
                            }
                        }
                        // Not all at the same moment.
                        std::thread::sleep(Duration::from_millis(number as u64 % 7));
                    }
                };
                std::thread::Builder::new()
                    .stack_size(128 * 1024)
                    .spawn_scoped(scope, work)
                    .expect("a thread")
            })
            .collect();
        told.set(Instant::now()).expect("once");
        proxy.signal("TERM");
        proxy.says("drain started");
        heard = told.get().expect("just set").elapsed();
        left.extend(clients.into_iter().map(|client| client.join().expect("no panic")));
    });
    assert_eq!(proxy.ended(), Some(0));
    let unanswered = left.iter().filter(|left| left.is_none()).count();
    assert_eq!(
        unanswered,
        0,
        "{unanswered} of {} clients got the end of the connection for a reply",
        left.len()
    );
    let mut left: Vec<Duration> = left.into_iter().flatten().collect();
    left.sort();
    (left, heard)
}

#[test]
fn clients_leave_during_the_grace_one_after_the_other_and_none_unanswered() {
    const GRACE: Duration = Duration::from_secs(5);
    let (left, heard) = leave(GRACE);
    let (first, last) = (left[10], left[80]);
    assert!(last - first > GRACE / 5, "from {first:?} to {last:?}");
    // Counted from when the process heard of it.
    assert!(last - heard < GRACE, "{last:?}");
}

/// Many go at the same moment then.
#[test]
fn a_short_grace_leaves_no_client_unanswered_either() {
    assert_eq!(leave(Duration::from_millis(500)).0.len(), 100);
}

/// The kernel's word on the timers of a connection: 2 where it looks whether an idle peer is still there.
fn timer(proxy: &Server, client: &mut servers::Client) -> String {
    assert_eq!(client.tell("PING"), "+PONG\r\n");
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", proxy.id())).expect("it runs");
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next().expect("a port"), 16);
    let of = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ends = [words[1], words[2]].map(|address| port(address).unwrap_or(0));
        ends == [client.peer().port(), client.local().port()]
    };
    let line = table.lines().skip(1).find(of).expect("the proxy's end");
    line.split_whitespace().nth(5).and_then(|timer| timer.split(':').next()).expect("a timer").to_owned()
}

#[test]
fn it_is_noticed_that_a_client_has_vanished_unless_that_is_not_wanted() {
    let shards = [Server::redis(&[])];
    for (settings, wanted) in [(&[][..], "02"), (&["tcpkeepalive: false"], "00")] {
        let proxy = Server::memstore(settings, &shards);
        let mut client = proxy.connect();
        eventually(|| timer(&proxy, &mut client), wanted);
    }
}
