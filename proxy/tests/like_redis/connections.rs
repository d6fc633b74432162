//! What concerns the connections of clients: passwords, listings, lines, and what is no request.

use crate::Pair;
use crate::servers::Client;

#[test]
fn passwords() {
    let pair = Pair::start(&["redis_auth: secret"], &["--requirepass", "secret"]);
    pair.check(
        "
        PING
        GET k
        MGET a b
        NOSUCH
        NOSUCH secret
        GET
        CLIENT
        CLIENT nosuch
        CLIENT ID
        CLIENT SETNAME me
        COMMAND COUNT
        COMMAND GETKEYS
        COMMAND GETKEYS get k
        COMMAND nosuch
        CONFIG GET save
        INFO
        ECHO x
        SELECT 1
        MULTI
        SHUTDOWN
        QUIT
        RESET
        AUTH
        AUTH wrong
        AUTH wrong ; GET k
        AUTH secre
        AUTH secrets
        AUTH secret ; GET k
        AUTH secret ; AUTH wrong ; GET k
        AUTH secret ; RESET ; GET k
        AUTH secret ; MSET a 1 b 2 ; MGET a b ; DEL a b
        AUTH default secret ; GET k
        AUTH DEFAULT secret
        AUTH default wrong
        AUTH nosuch secret
        AUTH a b c
        HELLO
        HELLO 2
        HELLO 3
        HELLO 4
        HELLO x
        HELLO 3 SETNAME me
        HELLO 3 nosuch
        HELLO 3 AUTH default wrong
        HELLO 3 AUTH nosuch secret
        HELLO 3 AUTH default
        HELLO 3 AUTH default wrong ; GET k
        HELLO 3 AUTH default secret ; GET nosuch ; HGETALL nosuch
        HELLO 2 AUTH default secret SETNAME me ; CLIENT GETNAME ; GET nosuch
        AUTH secret ; HELLO 3 ; GET nosuch
        AUTH secret ; HELLO 3 AUTH default wrong ; GET nosuch
        AUTH secret ; SELECT 5 ; SET k v ; GET k ; SELECT 0 ; EXISTS k
        ",
    );
    // Who has not said the password is not listened to for long.
    let long = [&b"*2\r\n$4\r\nECHO\r\n$16385\r\n"[..], &[b'x'; 16385], b"\r\n"].concat();
    pair.check_bytes(&[
        b"*11\r\n$3\r\nDEL\r\n",
        b"*10\r\n$3\r\nDEL\r\n",
        &long,
        b"*2\r\n$4\r\nECHO\r\n$16384\r\n",
        b"PING\r\nAUTH secret\r\nPING\r\n",
        b"AUTH secret\r\n*11\r\n$3\r\nDEL\r\n",
    ]);
}

/// An empty request is the one that is skipped.
#[test]
fn time_has_the_servers_shape() {
    let pair = Pair::start(&[], &[]);
    let (mut ours, mut theirs) = pair.clients();
    let clocks = [ours.say("TIME"), theirs.say("TIME")].map(|reply| {
        let parts: Vec<_> = reply.split(r"\r\n").map(str::to_owned).collect();
        assert_eq!((parts.len(), &*parts[0]), (6, "*2"), "{reply}");
        assert_eq!(parts[1], format!("${}", parts[2].len()), "{reply}");
        assert!(parts[4].parse::<u32>().is_ok_and(|micros| micros < 1_000_000), "{reply}");
        parts[2].parse::<u64>().expect("seconds")
    });
    assert!(clocks[0].abs_diff(clocks[1]) <= 2, "{clocks:?}");
}

/// CLIENT LIST and INFO hold the fields of Redis 7.0 in its order, and none that Redis does not have.
#[test]
fn lines_of_client_list_are_made_of_the_servers_fields() {
    let pair = Pair::start(&[], &[]);
    let (mut ours, mut theirs) = pair.clients();
    wait_until_alone(&mut ours);
    wait_until_alone(&mut theirs);
    for request in ["CLIENT INFO", "CLIENT LIST"] {
        let lines = [ours.say(request), theirs.say(request)];
        let command = format!(" cmd={} ", request.to_ascii_lowercase().replace(' ', "|"));
        assert!(lines.iter().all(|line| line.contains(&command)), "{lines:?}");
        let [our, their] = lines.map(|reply| {
            let (head, line) = reply.split_once(r"\r\n").expect("a bulk string").to_owned();
            let line = line.strip_suffix(r"\n\r\n").expect("it ends in a newline").to_owned();
            assert_eq!(head, format!("${}", line.len() + 1), "{reply}");
            line.split(' ')
                .map(|field| field.split_once('=').expect("name=value").0.to_owned())
                .collect::<Vec<_>>()
        });
        // The first two came with Redis 7.2, the other with 7.4.
        let newer = ["lib-", "watch"];
        let foreign: Vec<_> = our
            .iter()
            .filter(|field| !their.contains(field) && !newer.iter().any(|name| field.starts_with(name)))
            .collect();
        assert!(foreign.is_empty(), "{request}: {foreign:?}");
        let common = |one: &[String], other: &[String]| -> Vec<_> {
            one.iter().filter(|field| other.contains(field)).cloned().collect()
        };
        assert_eq!(common(&our, &their), common(&their, &our), "{request}");
        let fields = "id addr laddr fd name age idle flags db sub psub ssub multi qbuf qbuf-free argv-mem multi-mem rbs rbp obl oll \
                      omem tot-mem events cmd user redir resp";
        let missing: Vec<_> =
            fields.split(' ').filter(|field| !our.iter().any(|known| known == field)).collect();
        assert!(missing.is_empty(), "{request}: {missing:?}");
    }
}

#[test]
fn client_kill_reaches_the_one_it_names() {
    let pair = Pair::start(&[], &[]);
    for server in [&pair.ours, &pair.theirs] {
        let mut killer = server.connect();
        wait_until_alone(&mut killer);
        let mut victim = server.connect();
        let id = victim.say("CLIENT ID");
        let id = id.strip_prefix(':').and_then(|id| id.strip_suffix(r"\r\n")).expect("a number");
        assert_eq!(killer.say(&format!("CLIENT KILL ID {id}")), r":1\r\n");
        assert_eq!(victim.until_closed(), b"");
        assert_eq!(killer.say(&format!("CLIENT KILL ID {id}")), r":0\r\n");

        let mut victim = server.connect();
        let own = victim.say("CLIENT INFO");
        let address = own.split(' ').find_map(|field| field.strip_prefix("addr=")).expect("an address");
        assert_eq!(killer.say(&format!("CLIENT KILL {address}")), r"+OK\r\n");
        assert_eq!(victim.until_closed(), b"");
        assert_eq!(killer.say(&format!("CLIENT KILL {address}")), r"-ERR No such client\r\n");

        wait_until_alone(&mut killer);
        let mut victim = server.connect();
        victim.say("PING");
        assert_eq!(killer.say("CLIENT KILL TYPE normal"), r":1\r\n");
        assert_eq!(victim.until_closed(), b"");

        // Its own reply comes before the end.
        wait_until_alone(&mut killer);
        assert_eq!(killer.say("CLIENT KILL TYPE normal SKIPME no"), r":1\r\n");
        assert_eq!(killer.until_closed(), b"");
    }
}

/// The server may see late that those before have closed their connections.
fn wait_until_alone(client: &mut Client) {
    while client.say("CLIENT LIST").matches(r"\n").count() > 3 {}
}

#[test]
fn inline_commands() {
    Pair::start(&[], &[]).check_bytes(&[
        b"PING\r\n",
        b"PING\n",
        b"\r\n",
        b"\n\r\n   \r\nPING\r\n",
        b"  PING   x  \r\n",
        b"\tPING\tx\r\n",
        b"ECHO \"a b\"\r\n",
        b"ECHO \"\\x41\\n\\r\\t\\a\\b\\\\\\\"\\q\\xzz\\x4\"\r\n",
        b"ECHO 'a b'\r\n",
        b"ECHO 'it\\'s \\n'\r\n",
        b"ECHO ''\r\n",
        b"ECHO \"\"\r\n",
        b"ECHO a\"b\"\r\n",
        b"ECHO a'b c'\r\n",
        b"PING\r\nECHO \"a\r\nPING\r\n",
        b"ECHO 'a\r\n",
        b"ECHO \"a\"b\r\n",
        b"ECHO 'a'b\r\n",
        b"SET k v\r\nGET k\r\nDEL k\r\n",
        b"MSET a 1 b 2\r\nMGET a b\r\nDEL a b\r\n",
        b"*0\r\nPING\r\n",
        b"*-1\r\nPING\r\n",
        b"PING\r\n*1\r\n$4\r\nPING\r\nPING\r\n",
        b"ECHO \x01\xff\r\n",
        b"ECHO a\rb\r\n",
        b"GET\r\n",
        b"nosuch a b\r\n",
        b"\"PING\" \"x\"\r\n",
        b"PING\x0bx\r\n",
        b"PING\x0cx\r\n",
        b"SET k \"\"\r\nGET k\r\nDEL k\r\n",
        b"QUIT\r\nPING\r\n",
    ]);
}

#[test]
fn protocol_errors_come_after_the_replies_before_them() {
    let long_line = [b"ECHO ", &[b'x'; 70_000][..]].concat();
    Pair::start(&[], &[]).check_bytes(&[
        b"*x\r\n",
        b"*1x\r\n",
        b"*+1\r\n$4\r\nPING\r\n",
        b"* 1\r\n",
        b"*\r\n",
        b"*2147483648\r\n",
        b"*99999999999999999999\r\n",
        b"*1\r\nPING\r\n",
        b"*1\r\n:4\r\n",
        b"*1\r\n\r\n",
        b"*1\r\n$x\r\n",
        b"*1\r\n$\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$-5\r\n",
        b"*1\r\n$536870913\r\n",
        b"*1\r\n$99999999999999999999\r\n",
        b"*1\r\n$4x\r\nPING\r\n",
        b"*01\r\n$4\r\nPING\r\n",
        b"*1\r\n$04\r\nPING\r\n",
        b"*1\r\n$4\r\nPING\r\n*x\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*x\r\nPING\r\n",
        b"*3\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\nb\r\n*1\r\n!\r\nPING\r\n",
        b"*2\r\n$4\r\nECHO\r\n$1",
        b"*2\r\n$4\r\nECHO\r\n$10\r\nhalf",
        b"*2\r\n$4\r\nECHO\r\n~\r\n",
        &long_line,
    ]);
}
