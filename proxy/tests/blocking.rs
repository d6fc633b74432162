//! Commands that wait for data, over real servers: answered as by the server itself. That every element arrives once: arrivals.rs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use servers::blocking::{blocked, play};
use servers::dice::Dice;
use servers::{Client, Server, eventually};

mod servers;

#[test]
fn what_waits_is_answered_as_the_server_answers() {
    let shards = [Server::redis(&[])];
    let ours = Server::memstore(&["blocked_max: 100"], &shards);
    let theirs = Server::redis(&[]);
    let mut differences = Vec::new();
    for script in "
        a: BLPOP k 0.01
        a: BLMOVE k l LEFT RIGHT 0.01
        a: BRPOPLPUSH k l 0.01
        a: BZPOPMIN k 0.01
        a: BLMPOP 0.01 1 k LEFT
        a: BZMPOP 0.01 2 k l MAX COUNT 2
        a: XREAD BLOCK 10 STREAMS k $
        a: HELLO 3 ; a: BLPOP k 0.01 ; a: BZPOPMAX k 0.01 ; a: XREAD BLOCK 10 STREAMS k 0
        a: BLPOP k -1
        a: BLPOP k x
        a: BLPOP k inf ; a: BLPOP k -inf ; a: BLPOP k +Infinity ; a: BLPOP k infin ; a: BLPOP k nan ; a: BLPOP k nan(1)
        a: BLPOP k 1e18 ; a: BLPOP k -1e18 ; a: BLPOP k 1e400 ; a: BLPOP k 1e5000 ; a: BLPOP k 1e-400 ; a: BLPOP k 1e-5000
        a: BLPOP k 0x ; a: BLPOP k 0x. ; a: BLPOP k 0x1p ; a: BLPOP k 0x1p-6 ; a: BLPOP k 0x.02 ; a: BLPOP k -0x1 ; a: BLPOP k 0x1g
        a: BLPOP k 0x1p16384 ; a: BLPOP k 0x1p-20000 ; a: BLPOP k 0x8000000000000000 ; a: BLPOP k 9223372036854776 ; a: BLPOP k 0b1
        a: BLPOP k . ; a: BLPOP k 1e ; a: BLPOP k ++1 ; a: BLPOP k 1_0 ; a: BLMPOP inf 1 k LEFT ; a: BLMPOP 0xz 1 k LEFT
        a: BLPOP k -0.00001 x
        a: BLMOVE k l UP DOWN x
        a: BLMPOP x 0 k LEFT
        a: BLMPOP 1 0 k LEFT
        a: BLMPOP 1 1 k UP
        a: XREAD BLOCK x STREAMS k 0
        a: XREAD BLOCK -1 STREAMS k 0
        a: SET k v ; a: BLPOP k 0 ; a: BZPOPMIN k 0
        a: RPUSH k 1 2 3 ; a: BLPOP k 0 ; a: BRPOP k 0 ; a: BLMPOP 0 1 k LEFT COUNT 5 ; a: BLPOP k 0.01
        a: RPUSH l 1 ; a: BLPOP k l 0
        a> BLPOP k 0 ; 1 wait ; b: RPUSH k x y ; a< ; b: LRANGE k 0 -1
        a> BLPOP k l 0 ; 1 wait ; b: SET k v ; b: RPUSH l x ; a<
        a> BLPOP k 0 ; 1 wait ; b> BLPOP k 0 ; 2 wait ; c: RPUSH k 1 2 ; a< ; b<
        a> BLPOP k 0 ; a> GET k ; 1 wait ; b: RPUSH k x ; a< ; a<
        a> BLMOVE k l LEFT LEFT 0 ; 1 wait ; b: RPUSH k x ; a< ; b: LRANGE l 0 -1
        a> BZPOPMIN k 0 ; 1 wait ; b: ZADD k 1 x 2 y ; a< ; b: ZCARD k
        a> XREAD BLOCK 0 STREAMS k $ ; 1 wait ; b: XADD k 1-1 f v ; a<
        a: XGROUP CREATE k g $ MKSTREAM ; a> XREADGROUP GROUP g c BLOCK 0 STREAMS k > ; 1 wait ; b: XADD k 1-1 f v ; a< ; b: XPENDING k g
        a: XGROUP CREATE k g $ MKSTREAM ; a> XREADGROUP GROUP g c BLOCK 0 STREAMS k > ; 1 wait ; b: DEL k ; a<
        a> BLPOP k 0 ; 1 wait ; b: MSET x 1 ; b: RENAME x y ; b: RPUSH z e ; b: RENAME z k ; a<
        a> BLPOP k 0 ; 1 wait ; b: EVAL redis.call('RPUSH',KEYS[1],'x')redis.call('DEL',KEYS[1]) 1 k ; b: RPUSH k y ; a<
        a: CLIENT UNBLOCK 99999999 ; a: CLIENT UNBLOCK x ; a: CLIENT UNBLOCK 1 NEVER ; a: CLIENT UNBLOCK
        a: SELECT 3 ; a> BLPOP k 0 ; 1 wait ; b: RPUSH k x ; b: SELECT 3 ; b: RPUSH k y ; a<
        a: CLIENT REPLY SKIP ; a> BLPOP k 0.01 ; a: PING x
    "
    .lines()
    .map(str::trim)
    .filter(|line| !line.is_empty())
    {
        // The reply to SKIP is none.
        let script = script.replace("a: CLIENT REPLY SKIP", "a> CLIENT REPLY SKIP");
        // The numbers of clients are their own.
        let without = |heard: String| heard.split(" $2 id ").map(|part| part.trim_start_matches(|sign: char| ":0123456789".contains(sign)).to_owned()).collect::<String>();
        let [our, their] =
            [play(&script, "FLUSHALL", &ours, &shards[0]), play(&script, "FLUSHALL", &theirs, &theirs)].map(without);
        if our != their {
            differences.push(format!("{script}\n  ours   {our}\n  theirs {their}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Who may not ask for the number of a connection, or not end a wait, ends it with the connection.
#[test]
fn waits_end_also_at_a_server_that_must_not_be_asked_to_end_them() {
    let shards = [Server::redis(&[])];
    let mut plain = shards[0].connect();
    for denied in ["-client|unblock", "-client|id"] {
        assert_eq!(plain.tell(&format!("ACL SETUSER default {denied}")), "+OK\r\n");
        let proxy = Server::memstore(&[], &shards);
        let (mut client, mut other) = (proxy.connect(), proxy.connect());
        let number = client.tell("CLIENT ID").trim_start_matches(':').trim_end().to_owned();
        for (how, reply) in
            [("TIMEOUT", "*-1\r\n"), ("ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n")]
        {
            client.begin("BLPOP k 0");
            blocked(&shards[0], 1);
            assert_eq!(other.tell(&format!("CLIENT UNBLOCK {number} {how}")), ":1\r\n");
            assert_eq!(String::from_utf8_lossy(&client.reply()), reply, "{denied} {how}");
            blocked(&shards[0], 0);
            assert_eq!(other.tell("RPUSH k x"), ":1\r\n", "nobody waits");
            assert_eq!(client.tell("BLPOP k 0"), "*2\r\n$1\r\nk\r\n$1\r\nx\r\n");
        }
    }
}

/// Its end stands behind more than fits into the buffers of the kernel.
#[test]
fn a_client_that_goes_behind_all_that_it_has_sent_takes_nothing() {
    let shards = [Server::redis(&[])];
    let proxy = Server::memstore(&[], &shards);
    let mut client = proxy.connect();
    client.begin("BLPOP k 0");
    blocked(&shards[0], 1);
    client.finish_with(&b"PING\r\n".repeat(4_000_000));
    blocked(&shards[0], 0);
    let mut other = proxy.connect();
    assert_eq!(other.tell("RPUSH k x"), ":1\r\n");
    assert_eq!(other.tell("LLEN k"), ":1\r\n", "nobody has taken it");
}

/// By our numbers, also where the other client is another worker's.
#[test]
fn clients_of_all_workers_are_unblocked_and_disconnected() {
    let shards = [Server::redis(&[])];
    let proxy = Server::memstore_of(2, &[], &shards);
    let mut other = proxy.connect();
    for _ in 0..6 {
        let mut client = proxy.connect();
        let number = client.tell("CLIENT ID").trim_start_matches(':').trim_end().to_owned();
        client.begin("BLPOP k 0");
        blocked(&shards[0], 1);
        assert!(other.tell("CLIENT LIST").lines().any(|line| line.contains(&format!("id={number} "))
            && line.contains("flags=b")
            && line.contains(" cmd=blpop ")));
        assert_eq!(other.tell(&format!("CLIENT UNBLOCK {number} ERROR")), ":1\r\n");
        let reply = String::from_utf8_lossy(&client.reply()).into_owned();
        assert_eq!(reply, "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n");
        assert_eq!(other.tell(&format!("CLIENT UNBLOCK {number}")), ":0\r\n");
        client.begin("BLPOP k 0");
        blocked(&shards[0], 1);
        assert_eq!(other.tell(&format!("CLIENT KILL ID {number}")), ":1\r\n");
        blocked(&shards[0], 0);
        assert!(client.until_closed().is_empty());
    }
    other.tell("RPUSH k x");
    assert_eq!(other.tell("LLEN k"), ":1\r\n", "nobody has taken it");
}

/// It is not taken for them.
#[test]
fn an_element_stays_where_who_waited_for_it_has_gone() {
    let shards = [Server::redis(&[])];
    let proxy = Server::memstore(&[], &shards);
    let mut other = proxy.connect();
    let ways: [fn(Client); 4] = [
        drop,
        |mut client| {
            // Its side alone.
            client.finish_with(b"");
            assert!(client.until_closed().is_empty());
        },
        |mut client| {
            client.finish_with(b"PING\r\n");
            assert!(client.until_closed().is_empty());
        },
        |mut client| {
            client.send(&vec![b'x'; 100_000]);
            drop(client);
        },
    ];
    for (number, leave) in ways.into_iter().enumerate() {
        let mut client = proxy.connect();
        client.begin(&format!("BLPOP list{number} 0"));
        blocked(&shards[0], 1);
        leave(client);
        blocked(&shards[0], 0);
        assert_eq!(other.tell(&format!("RPUSH list{number} x")), ":1\r\n");
    }
    // One that says so in the same breath.
    let mut client = proxy.connect();
    client.finish_with(b"BLPOP k 0\r\n");
    assert!(client.until_closed().is_empty());
    blocked(&shards[0], 0);
    assert_eq!(other.tell("RPUSH k x"), ":1\r\n");
}

#[test]
fn a_proxy_that_ends_answers_who_waits() {
    let shards = [Server::redis(&[])];
    let mut proxy = Server::memstore(&[], &shards);
    let mut clients: Vec<Client> = (0..8).map(|_| proxy.connect()).collect();
    clients.iter_mut().for_each(|client| client.begin("BLPOP k 0"));
    blocked(&shards[0], 8);
    proxy.signal("TERM");
    for client in &mut clients {
        assert_eq!(String::from_utf8_lossy(&client.until_closed()), "*-1\r\n");
    }
    blocked(&shards[0], 0);
    // It waits for clients that have not closed, up to drain_limit.
    drop(clients);
    let begin = Instant::now();
    assert_eq!(proxy.ended(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

/// However fast they come and go: nothing of them is left, and the shard is well.
#[test]
fn clients_that_wait_and_vanish_leave_nothing() {
    let shards = [Server::redis(&[])];
    let proxy = Arc::new(Server::memstore_of(
        2,
        &["blocked_max: 20", "auto_eject_hosts: true", "server_failure_limit: 1"],
        &shards,
    ));
    let loops: Vec<_> = (0..8)
        .map(|number| {
            let proxy = proxy.clone();
            std::thread::spawn(move || {
                let mut dice = Dice::new(number);
                for _ in 0..400 {
                    let mut client = proxy.connect();
                    client.begin(&format!("SELECT {}", dice.below(3)));
                    client.begin("BLPOP k 0");
                    if dice.one_in(2) {
                        client.reply();
                    }
                }
            })
        })
        .collect();
    loops.into_iter().for_each(|thread| thread.join().expect("it ends"));
    // A client that is gone may still be waiting for its turn, and would wait for data then for as long as it takes to notice.
    let mut other = proxy.connect();
    eventually(|| other.tell("CLIENT LIST").matches("id=").count().to_string(), "1");
    blocked(&shards[0], 0);
    assert_eq!(other.tell("RPUSH k x"), ":1\r\n");
    assert_eq!(other.tell("BLPOP k 0"), "*2\r\n$1\r\nk\r\n$1\r\nx\r\n");
    // Those that are kept for the next ones, of both workers, and the shared ones.
    let connections =
        shards[0].connect().tell("CLIENT LIST").lines().filter(|line| line.starts_with("id=")).count();
    assert!(connections <= 2 * 20 + 2 * 4 + 4, "{connections} connections");
    // They are not kept for long.
    eventually(
        || {
            let list = shards[0].connect().tell("CLIENT LIST");
            (list.lines().filter(|line| line.starts_with("id=")).count() <= 2 * 4 + 4).to_string()
        },
        "true",
    );
}

/// What clients that wait cost while nothing comes: `BLOCKED=10000 cargo test --release --test blocking -- --ignored --nocapture`.
#[test]
#[ignore = "measures for a minute"]
fn the_price_of_clients_that_wait() {
    let count: usize = std::env::var("BLOCKED").map_or(2000, |text| text.parse().expect("a number"));
    let shards = [Server::redis(&["--maxclients", "30000"])];
    let proxy = Server::memstore(&["blocked_max: 20000"], &shards);
    let before = proxy.memory();
    let mut clients: Vec<Client> = (0..count).map(|_| proxy.connect()).collect();
    let connected = proxy.memory();
    clients.iter_mut().for_each(|client| client.begin("BLPOP list 0"));
    blocked(&shards[0], count);
    let waiting = proxy.memory();
    let busy = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.id())).expect("it runs");
        let after = stat.rsplit(')').next().expect("fields");
        let ticks = |field: usize| {
            after.split_whitespace().nth(field).expect("a field").parse::<u64>().expect("ticks")
        };
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    };
    let begun = busy();
    std::thread::sleep(Duration::from_secs(60));
    println!(
        "{count} clients: {} bytes each connected, {} more waiting; {:?} of CPU in an idle minute",
        connected.saturating_sub(before) / count as u64,
        waiting.saturating_sub(connected) / count as u64,
        busy() - begun,
    );
}
