//! Scripts over real servers: known on every shard once they were shown, and stopped where they run for long.

use servers::{Client, Server, eventually};
use sha1::{Digest as _, Sha1};

mod servers;

const COUNT: &str = "return redis.call('INCR',KEYS[1])";

fn digest(text: &str) -> String {
    Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What EVALSHA of the script says for this key.
fn run(client: &mut Client, script: &str, key: usize) -> String {
    client.tell(&format!("EVALSHA {} 1 key:{key}", digest(script)))
}

#[test]
fn a_script_is_known_on_every_shard_once_it_was_shown() {
    let mut shards: Vec<Server> = (0..3).map(|_| Server::redis(&[])).collect();
    let lines: Vec<String> = shards.iter().enumerate().map(|(at, shard)| shard.line(at)).collect();
    let ours = Server::memstore_over(&[], &lines);
    let mut client = ours.connect();
    assert!(run(&mut client, COUNT, 0).starts_with("-NOSCRIPT"));
    assert_eq!(client.ask(&[b"EVAL", COUNT.as_bytes(), b"1", b"key:0"]), b":1\r\n");
    // Other clients are of other workers.
    let mut others: Vec<Client> = (0..4).map(|_| ours.connect()).collect();
    for (at, other) in others.iter_mut().enumerate() {
        for key in 1..30 {
            assert_eq!(run(other, COUNT, key), format!(":{}\r\n", at + 1));
        }
    }
    // What redis-py does for a pipeline, and for a lock.
    let third = "return redis.call('GET',KEYS[1])";
    assert_eq!(
        client.tell(&format!("SCRIPT EXISTS {} {}", digest(COUNT), digest(third))),
        "*2\r\n:0\r\n:0\r\n"
    );
    let shown = client.ask(&[b"SCRIPT", b"LOAD", third.as_bytes()]);
    assert_eq!(shown, format!("$40\r\n{}\r\n", digest(third)).into_bytes());
    assert_eq!(client.tell(&format!("SCRIPT EXISTS {}", digest(third))), "*1\r\n:1\r\n");
    assert!(client.tell("SCRIPT LOAD no_script_at_all").starts_with("-ERR Error compiling script"));
    for key in 1..30 {
        assert_eq!(run(&mut client, third, key), "$1\r\n4\r\n");
    }
    // In a pipeline, and in a transaction.
    let mut all = String::new();
    for key in 30..60 {
        all.push_str(&format!("EVALSHA {} 1 key:{key}\r\nGET key:{key}\r\n", digest(COUNT)));
    }
    for shard in &shards {
        assert_eq!(shard.connect().tell("SCRIPT FLUSH"), "+OK\r\n");
    }
    let mut late = ours.connect();
    late.send(all.as_bytes());
    for _ in 30..60 {
        // Requests behind it may have been executed by the time in which NOSCRIPT comes.
        let (ran, read) = (late.reply(), late.reply());
        let (ran, read) = (String::from_utf8_lossy(&ran), String::from_utf8_lossy(&read));
        assert!(
            (ran == ":1\r\n" && read == "$1\r\n1\r\n") || (ran.starts_with("-NOSCRIPT") && read == "$-1\r\n"),
            "{ran} {read}"
        );
    }
    for key in 60..90 {
        assert_eq!(run(&mut client, COUNT, key), ":1\r\n");
    }
    // One that is started anew knows nothing.
    let port = shards[2].port;
    drop(shards.pop());
    shards.push(Server::redis_at(port));
    let mut key = 90;
    eventually(
        || {
            key += 1;
            client.tell(&format!("SET key:{key} 0"));
            (0..10).map(|_| client.tell(&format!("GET key:{key}"))).last().expect("ten").to_string()
        },
        "$1\r\n0\r\n",
    );
    for key in 200..260 {
        for request in ["MULTI", &format!("EVALSHA {} 1 key:{key}", digest(COUNT))] {
            client.tell(request);
        }
        assert_eq!(client.tell("EXEC"), "*1\r\n:1\r\n", "{key}");
        assert_eq!(run(&mut client, COUNT, key), ":2\r\n", "{key}");
    }
}

/// How often the shard was sent a script.
fn loads(shard: &Server) -> u64 {
    let info = shard.connect().tell("INFO commandstats");
    let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_script|load:calls="));
    line.map_or(0, |line| line.split(',').next().expect("a number").parse().expect("a number"))
}

#[test]
fn a_script_that_says_that_it_is_not_known_runs_once_and_disturbs_nobody() {
    let shard = Server::redis(&[]);
    let ours = Server::memstore_of(1, &["server_connections: 1"], std::slice::from_ref(&shard));
    let (mut client, mut other) = (ours.connect(), ours.connect());
    other.ask(&[b"EVAL", COUNT.as_bytes(), b"1", b"key:0"]);
    assert_eq!(run(&mut other, COUNT, 0), ":2\r\n");
    for (key, words) in [(1, "NOSCRIPT of my own"), (2, "NOSCRIPT No matching script. Please use EVAL.")] {
        let script = format!("redis.call('INCR',KEYS[1]) return redis.error_reply('{words}')");
        let said = format!("-{words}\r\n");
        let key_name = format!("key:{key}");
        let shown = client.ask(&[b"EVAL", script.as_bytes(), b"1", key_name.as_bytes()]);
        assert_eq!(shown, said.as_bytes());
        assert_eq!(run(&mut client, &script, key), said);
        let before = loads(&shard);
        for count in 3..40 {
            assert_eq!(run(&mut client, &script, key), said);
            assert_eq!(run(&mut other, COUNT, 10 * key + 100), format!(":{}\r\n", count - 2));
            assert_eq!(
                client.tell(&format!("GET {key_name}")),
                format!("${}\r\n{count}\r\n", count.to_string().len())
            );
        }
        let transaction = format!("MULTI\r\nEVALSHA {} 1 {key_name}\r\nEXEC\r\n", digest(&script));
        client.send(transaction.repeat(50).as_bytes());
        (0..150).for_each(|_| drop(client.reply()));
        assert_eq!(client.tell(&format!("GET {key_name}")), "$2\r\n89\r\n");
        assert_eq!(loads(&shard), before, "scripts were sent again");
    }
    // In earnest: once the shard has said so, transactions bring the script with them, also where keys are watched.
    for watch in ["GET", "WATCH"] {
        let transaction = format!("{watch} key:0\r\nMULTI\r\nEVALSHA {} 1 key:5\r\nEXEC\r\n", digest(COUNT));
        let mut execute = || {
            other.send(transaction.as_bytes());
            let replies: Vec<_> = (0..4).map(|_| other.reply()).collect();
            String::from_utf8_lossy(&replies[3])[..5].to_owned()
        };
        eventually(&mut execute, "*1\r\n:");
        assert_eq!(shard.connect().tell("SCRIPT FLUSH"), "+OK\r\n");
        assert_eq!(execute(), "*1\r\n-");
        eventually(&mut execute, "*1\r\n:");
    }
}

#[test]
fn what_runs_for_long_is_stopped_on_connections_of_its_own() {
    let shards: Vec<Server> = (0..3).map(|_| Server::redis(&["--busy-reply-threshold", "50"])).collect();
    let ours = Server::memstore_of(1, &["server_connections: 1"], &shards);
    let [mut one, mut other, mut third] = [(); 3].map(|()| ours.connect());
    for (command, idle) in [
        ("SCRIPT KILL", "-NOTBUSY No scripts in execution right now.\r\n"),
        ("FUNCTION KILL", "-NOTBUSY No scripts in execution right now.\r\n"),
    ] {
        assert_eq!(other.tell(command), idle);
    }
    for key in 0..6 {
        assert_eq!(third.tell(&format!("SET key:{key} 1")), "+OK\r\n");
    }
    one.send(&servers::encoded(&[b"EVAL", b"while true do end", b"1", b"key:0"]));
    eventually(|| other.tell("SCRIPT KILL"), "+OK\r\n");
    let reply = said(&mut one);
    assert!(reply.contains("killed by user"), "{reply}");
    for key in 0..6 {
        assert_eq!(third.tell(&format!("GET key:{key}")), "$1\r\n1\r\n");
    }
    // One that has written is not stopped, and others are not disturbed.
    let wrote = "redis.call('SET',KEYS[1],1) local till=redis.call('TIME')[1]+2 while redis.call('TIME')[1]+0<till do end return 1";
    one.send(&servers::encoded(&[b"EVAL", wrote.as_bytes(), b"1", b"key:0"]));
    eventually(|| other.tell("SCRIPT KILL")[..11].to_owned(), "-UNKILLABLE");
    assert_eq!(said(&mut one), ":1\r\n");
    // A function, which is loaded on the shard itself.
    let library = "#!lua name=l\nredis.register_function('f', function() while true do end end)";
    for shard in &shards {
        shard.connect().ask(&[b"FUNCTION", b"LOAD", library.as_bytes()]);
    }
    one.send(b"FCALL f 1 key:0\r\n");
    eventually(|| other.tell("FUNCTION KILL"), "+OK\r\n");
    let reply = said(&mut one);
    assert!(reply.contains("killed by user"), "{reply}");
    assert_eq!(other.ask(&[b"FUNCTION", b"LOAD", b"REPLACE", library.as_bytes()]), b"$1\r\nl\r\n");
    assert!(other.tell("FUNCTION LIST").contains("library_name"));
    let dump = other.ask(&[b"FUNCTION", b"DUMP"]);
    assert_eq!(other.tell("FUNCTION FLUSH"), "+OK\r\n");
    assert_eq!(other.tell("FUNCTION LIST"), "*0\r\n");
    let payload = dump.splitn(2, |&byte| byte == b'\n').nth(1).expect("a string");
    assert_eq!(other.ask(&[b"FUNCTION", b"RESTORE", &payload[..payload.len() - 2]]), b"+OK\r\n");
    assert_eq!(other.tell("FUNCTION DELETE l"), "+OK\r\n");
    assert!(other.tell("FUNCTION STATS").contains("running_script"));
    // Within a transaction there is nothing to wait for.
    other.tell("MULTI");
    assert!(other.tell("SCRIPT KILL").starts_with("-ERR 'script kill' is refused inside a transaction"));
    assert!(other.tell("EXEC").starts_with("-EXECABORT"));
    // Many at once make few connections.
    let before = connections(&shards[0]);
    let mut many: Vec<Client> = (0..40).map(|_| ours.connect()).collect();
    many.iter_mut().for_each(|client| client.send(&b"SCRIPT KILL\r\n".repeat(5)));
    many.iter_mut().for_each(|client| {
        for _ in 0..5 {
            assert!(said(client).starts_with("-NOTBUSY"));
        }
    });
    let made = connections(&shards[0]) - before;
    assert!(made < 40, "{made} connections for 200 requests");
}

fn said(client: &mut Client) -> String {
    String::from_utf8_lossy(&client.reply()).into_owned()
}

/// How many connections the server has ever accepted.
fn connections(shard: &Server) -> u64 {
    let info = shard.connect().tell("INFO stats");
    let line = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
    line.expect("a line").trim().parse().expect("a number")
}
