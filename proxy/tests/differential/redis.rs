//! Requests of every command in the table, in RESP2, RESP3 and inline, with arguments near every limit.

use std::sync::LazyLock;

use memstore_proxy::protocol::resp::command::index::lookup;
use memstore_proxy::protocol::resp::command::table::COMMANDS;
use memstore_proxy::protocol::resp::command::{Command, FAMILIES, Handling, Version, flag};

use super::super::servers::dice::Dice;
use super::super::servers::{Client, Server, encoded, end, shown};
use super::super::{Dialect, Request};

pub struct Redis;

/// What ours answers itself and as the server does; the rest of that kind is tried in `like_redis.rs`.
const ANSWERED_ALIKE: [&str; 13] = [
    "hello",
    "ping",
    "echo",
    "select",
    "reset",
    "quit",
    "client|reply",
    "client|getname",
    "client|setname",
    "multi",
    "exec",
    "discard",
    "unwatch",
];

/// Commands whose replies differ between two servers, and why.
const NOT_COMPARED: [(&str, &str); 22] = [
    ("spop", "takes what it likes"),
    ("srandmember", "takes what it likes"),
    ("hrandfield", "takes what it likes"),
    ("zrandmember", "takes what it likes"),
    ("pttl", "milliseconds pass between the two"),
    ("pexpiretime", "milliseconds pass between the two"),
    ("expiretime", "milliseconds pass between the two"),
    ("expire", "keys would vanish between the two"),
    ("pexpire", "keys would vanish between the two"),
    ("setex", "keys would vanish between the two"),
    ("psetex", "keys would vanish between the two"),
    ("restore", "keys would vanish between the two"),
    ("getex", "keys would vanish between the two"),
    ("dump", "sets are dumped in the order of a hash table"),
    ("object|idletime", "seconds pass between the two"),
    ("object|freq", "counts what the proxy asks as well"),
    ("memory|usage", "depends on what was there before"),
    ("xinfo|consumers", "tells how long they were idle"),
    ("xinfo|stream", "tells how long consumers were idle"),
    ("xinfo|groups", "tells how long consumers were idle"),
    ("lolwut", "answered by our proxy"),
    ("hello", "tried at the beginning of a script"),
];

/// Replies of these come in the order of a hash table.
const UNORDERED: [&str; 14] = [
    "smembers", "sinter", "sunion", "sdiff", "hgetall", "hkeys", "hvals", "hscan", "sscan", "zscan", "sort",
    "sort_ro", "eval", "eval_ro",
];

const ARGUMENTS: [&str; 40] = [
    "0",
    "1",
    "2",
    "-1",
    "10",
    "1.5",
    "x",
    "a",
    "b",
    "",
    "(1",
    "+inf",
    "nan",
    "-",
    "+",
    "[a",
    "LEFT",
    "RIGHT",
    "before",
    "LIMIT",
    "WITHSCORES",
    "COUNT",
    "NX",
    "XX",
    "GET",
    "REPLACE",
    "STORE",
    "GROUP",
    "STREAMS",
    ">",
    "$",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "01",
    "+1",
    " 1",
    "1 ",
    "u8",
    "MATCH",
];

const SCRIPTS: [&str; 14] = [
    "return 1",
    "return KEYS[1]",
    "return {1,'two',{3},false}",
    "return redis.call('GET',KEYS[1])",
    "return redis.call('SET',KEYS[1],ARGV[1])",
    "return redis.error_reply('MOVED 1 127.0.0.1:1')",
    "return redis.error_reply('ASK 1 127.0.0.1:1')",
    "return redis.error_reply('LOADING x')",
    "return redis.error_reply(string.rep('e',70000))",
    "return redis.status_reply(string.rep('s',70000))",
    "return {err='x\\r\\n+OK'}",
    "return string.rep('x',100000)",
    "return redis.call('nosuch')",
    "return (",
];

/// Lengths near limits of the server or of ours.
const LENGTHS: [usize; 12] =
    [0, 1, 128, 1_024, 16_383, 16_384, 16_385, 32_768, 65_535, 65_536, 65_537, 100_000];

impl Dialect for Redis {
    const VARIANTS: &'static [&'static [&'static str]] = &[
        &[],
        &["shard_queue_max: 1", "queue_wait: 60s"],
        &["shard_queue_max: 3", "queue_wait: 60s", "in_flight_max: 2"],
        &["in_flight_max: 1", "server_connections: 2"],
    ];

    fn server(&self) -> Server {
        Server::redis(&[])
    }

    /// One key of each type.
    fn beginning(&self, prefix: &str) -> Vec<u8> {
        let requests = [
            "SET @0 text",
            "SET @1 12",
            "HSET @2 1 a x b",
            "RPUSH @3 1 x 2",
            "SADD @4 1 2 3",
            "ZADD @5 1 a 2 x 3 1",
            "XADD @6 1-1 a b",
            "XGROUP CREATE @6 a 0",
        ];
        let request = |text: &str| {
            let text = text.replace('@', prefix);
            encoded(&text.split(' ').map(str::as_bytes).collect::<Vec<_>>())
        };
        requests.into_iter().flat_map(request).collect()
    }

    fn barrier(&self, prefix: &str, number: usize) -> (Vec<u8>, Vec<u8>) {
        let text = format!("barrier:{prefix}{number}");
        (encoded(&[b"ECHO", text.as_bytes()]), format!("${}\r\n{text}\r\n", text.len()).into_bytes())
    }

    fn reply_end(&self, bytes: &[u8]) -> Option<usize> {
        end(bytes, 0)
    }

    fn by_design(&self, request: &[u8], reply: &[u8]) -> bool {
        if request.starts_with(b"ECHO 'a'b") && *INSTALLED >= (true, Version([9, 1, 0])) {
            // Valkey takes quotes that end within a word.
            return true;
        }
        let words = words(request);
        let Some(row) = words.first().and_then(|name| lookup(name)) else { return false };
        let is_one = self.reply_end(reply) == Some(reply.len());
        let is_refusal = is_one && reply.starts_with(b"-");
        let row = match row.handling {
            Handling::Container => match words.get(1).and_then(|word| row.subcommand(word)) {
                Some(row) => row,
                // The server does not know the container.
                None => return is_newer(row) && is_refusal && !reply.starts_with(b"-ERR unknown command"),
            },
            _ => row,
        };
        match row.handling {
            Handling::Answer(_) => is_one && !ANSWERED_ALIKE.contains(&row.name),
            Handling::Later(_) | Handling::Refuse(_) => is_refusal,
            // Where it goes depends on the number of keys; the server looks for the function first.
            _ if ["fcall", "evalsha"].iter().any(|name| row.name.starts_with(name)) => {
                is_refusal && !reply.starts_with(b"-NOSCRIPT") && !reply.ends_with(b"Function not found\r\n")
            }
            // The server does not know it yet.
            _ if is_newer(row) => is_refusal && !reply.starts_with(b"-ERR unknown command"),
            // Of the two families that have it, each has words of its own.
            _ if row.name == "msetex" => is_refusal && reply.starts_with(b"-ERR invalid numkeys value\r\n"),
            // Keys that the server makes from a pattern may lie anywhere.
            _ => is_refusal && shown(reply).contains("is refused with the pattern"),
        }
    }

    fn normal(&self, request: &[u8], reply: &[u8]) -> Vec<u8> {
        let words = words(request);
        let name =
            words.first().map(|name| String::from_utf8_lossy(name).to_ascii_lowercase()).unwrap_or_default();
        if name == "hello" {
            return b"as it is".to_vec();
        }
        // Later versions do not speak of arguments where there are none.
        let without_arguments = reply.strip_suffix(b", with args beginning with: \r\n");
        if let Some(beginning) = without_arguments.filter(|_| reply.starts_with(b"-ERR unknown command")) {
            return [beginning, b"\r\n"].concat();
        }
        // The names of modules' commands are in capitals.
        let in_small = |line: &[u8]| match line.starts_with(b"-ERR wrong number of arguments for '") {
            true => line.to_ascii_lowercase(),
            false => line.to_vec(),
        };
        let mut lines: Vec<_> = reply.split(|&byte| byte == b'\n').map(in_small).collect();
        if UNORDERED.contains(&name.as_str()) {
            lines.sort_unstable();
        }
        lines.join(&b'\n')
    }

    fn witness(&self, client: &mut Client, round: usize) -> Result<(), String> {
        let key = format!("witness:{}", round % 5);
        let other = format!("witness:other:{}", round % 3);
        let (value, number) = (format!("{key} round {round}"), round.to_string());
        let mut bytes = encoded(&[b"SET", key.as_bytes(), value.as_bytes()]);
        bytes.extend(encoded(&[
            b"MSET",
            key.as_bytes(),
            value.as_bytes(),
            other.as_bytes(),
            number.as_bytes(),
        ]));
        bytes.extend(encoded(&[b"GET", key.as_bytes()]));
        bytes.extend(encoded(&[b"MGET", other.as_bytes(), key.as_bytes()]));
        client.send(&bytes);
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let wanted = format!("+OK\r\n+OK\r\n{}*2\r\n{}{}", bulk(&value), bulk(&number), bulk(&value));
        let got: Vec<u8> = (0..4).flat_map(|_| client.reply()).collect();
        if got == wanted.as_bytes() {
            return Ok(());
        }
        Err(format!("  the witness wanted {}\n  and got {}", shown(wanted.as_bytes()), shown(&got)))
    }

    fn clean(&self, server: &Server) {
        server.connect().say("FLUSHALL");
    }

    fn script(&self, dice: &mut Dice, prefix: &str, client: usize) -> Vec<Request> {
        let count = 10 + dice.below(80);
        let mut script = Vec::new();
        // Arguments by chance may be keys that clients share, so that only one of them may have those.
        if client > 0 || dice.one_in(6) {
            return quiet_script(dice, prefix, count);
        }
        if dice.one_in(3) {
            script.push(Request::new(encoded(&[b"HELLO", b"3"])));
        }
        let barriers_seldom = dice.one_in(3);
        while script.len() < count {
            if dice.one_in(10) {
                script.push(Request::new(transaction(dice, prefix)));
                continue;
            }
            let words = match dice.below(20) {
                0 => vec![b"PING".to_vec(), argument(dice, prefix)],
                1 => vec![b"SELECT".to_vec(), dice.choose(&["0", "1", "0", "15", "16", "x"]).into()],
                2 if dice.one_in(4) => vec![b"RESET".to_vec()],
                2 | 3 => {
                    let script = dice.choose(&SCRIPTS).into();
                    let keys = dice.choose(&["0", "1", "1", "2", "-1", "x"]).into();
                    vec![b"EVAL".to_vec(), script, keys, key(dice, prefix), key(dice, prefix)]
                }
                4 => {
                    let mut words = vec![text(dice)];
                    words.extend((0..dice.below(5)).map(|_| text(dice)));
                    words
                }
                5 => vec![b"XPENDING".to_vec(), format!("{prefix}6").into(), argument(dice, prefix)],
                6 => ["XREADGROUP", "GROUP", "a", "b", "COUNT", "1", "STREAMS"]
                    .map(|word| word.as_bytes().to_vec())
                    .into_iter()
                    .chain([format!("{prefix}6").into(), argument(dice, prefix)])
                    .collect(),
                _ => any_command(dice, prefix),
            };
            let is_forwarded = row_of(&words).is_some_and(|row| {
                matches!(row.handling, Handling::Forward | Handling::Split(_)) && !may_be_refused(row)
            });
            let bytes = if dice.one_in(10) && words.iter().all(|word| is_plain(word)) {
                [words.join(&b' '), dice.choose(&["\r\n", "\n"]).into()].concat()
            } else {
                encoded(&words.iter().map(Vec::as_slice).collect::<Vec<_>>())
            };
            script.push(Request { bytes, barrier: !(is_forwarded && barriers_seldom && dice.below(4) > 0) });
        }
        if dice.one_in(6) {
            script.push(Request::new(malformed(dice)));
        }
        // Barriers that are left out leave groups of several requests, none of which may be refused on purpose.
        for at in 1..script.len() {
            let is_alone = script[at].barrier
                && row_of(&words(&script[at].bytes)).is_none_or(|row| {
                    !matches!(row.handling, Handling::Forward | Handling::Split(_)) || may_be_refused(row)
                });
            script[at - 1].barrier |= is_alone;
        }
        script
    }

    /// Every command that is forwarded, with one long argument in every place.
    fn sweeps(&self, prefix: &str) -> Vec<Vec<Request>> {
        let mut scripts = Vec::new();
        for length in [16_385, 70_000, 1_000_000] {
            let mut script = Vec::new();
            // Errors of streams repeat what they were given; one that long comes in several reads.
            let rows = forwarded().filter(|row| length < 100_000 || FAMILIES[row.family] == "stream");
            for row in rows {
                let least = usize::from(row.arity.unsigned_abs());
                for place in name_words(row)..=least {
                    let mut words: Vec<Vec<u8>> = row.name.split('|').map(|word| word.into()).collect();
                    while words.len() < least.max(place + 1) {
                        words.push(if words.len() == place {
                            vec![b'l'; length]
                        } else if words.len() == name_words(row) {
                            format!("{prefix}6").into()
                        } else {
                            "1".into()
                        });
                    }
                    let bytes = encoded(&words.iter().map(Vec::as_slice).collect::<Vec<_>>());
                    script.push(Request { bytes, barrier: may_be_refused(row) });
                    if may_be_refused(row) && script.len() > 1 {
                        let before = script.len() - 2;
                        script[before].barrier = true;
                    }
                }
                if script.len() > 60 {
                    scripts.push(std::mem::take(&mut script));
                }
            }
            scripts.push(script);
        }
        scripts
    }
}

/// Rows whose replies are compared.
fn forwarded() -> impl Iterator<Item = &'static Command<'static>> {
    let all = COMMANDS.iter().flat_map(|row| std::iter::once(row).chain(row.subcommands));
    all.filter(|row| matches!(row.handling, Handling::Forward | Handling::Split(_)))
        .filter(|row| NOT_COMPARED.iter().all(|(name, _)| *name != row.name))
}

/// Only other servers know it, newer ones or those of another family.
fn is_newer(row: &Command) -> bool {
    let (is_valkey, installed) = *INSTALLED;
    let since = if is_valkey { row.since.valkey } else { row.since.redis };
    since.is_none_or(|since| since > installed)
}

/// Whether the server is a Valkey, and its version: `Redis server v=7.0.15 sha=...`
static INSTALLED: LazyLock<(bool, Version)> = LazyLock::new(|| {
    let said = Server::redis_program_said("--version");
    let version = said.split_whitespace().find_map(|word| Version::parse(word.strip_prefix("v=")?));
    (said.starts_with("Valkey"), version.unwrap_or_else(|| panic!("no version in {said}")))
});

/// Valkey refuses EXEC where MULTI or WATCH was said within the transaction; ours does what Redis does.
fn is_lost_by_nesting() -> bool {
    INSTALLED.0
}

/// Although it is forwarded, ours may refuse it.
fn may_be_refused(row: &Command) -> bool {
    ["sort", "fcall", "evalsha", "msetex"].iter().any(|name| row.name.starts_with(name)) || is_newer(row)
}

fn name_words(row: &Command) -> usize {
    row.name.split('|').count()
}

fn row_of(words: &[Vec<u8>]) -> Option<&'static Command<'static>> {
    let row = lookup(words.first()?)?;
    match row.handling {
        Handling::Container => row.subcommand(words.get(1)?),
        _ => Some(row),
    }
}

/// The words of a request that is whole.
fn words(request: &[u8]) -> Vec<Vec<u8>> {
    if request.first() != Some(&b'*') {
        let line = request.trim_ascii();
        return line.split(|byte| byte.is_ascii_whitespace()).map(<[u8]>::to_vec).collect();
    }
    let mut words = Vec::new();
    let Some(newline) = request.iter().position(|&byte| byte == b'\n') else { return words };
    let mut rest = &request[newline + 1..];
    while let [b'$', digits @ ..] = rest {
        let Some(newline) = digits.iter().position(|&byte| byte == b'\n') else { break };
        let length = std::str::from_utf8(&digits[..newline]).ok().and_then(|text| text.trim().parse().ok());
        let Some(word) = length.and_then(|length: usize| digits.get(newline + 1..newline + 1 + length))
        else {
            break;
        };
        words.push(word.to_vec());
        rest = digits.get(newline + 1 + word.len() + 2..).unwrap_or_default();
    }
    words
}

fn is_plain(word: &[u8]) -> bool {
    !word.is_empty()
        && word.len() < 1_000
        && word.iter().all(|&byte| byte.is_ascii_alphanumeric() || b".:-|".contains(&byte))
}

fn key(dice: &mut Dice, prefix: &str) -> Vec<u8> {
    format!("{prefix}{}", dice.below(8)).into_bytes()
}

/// A word that may stand in an error.
fn text(dice: &mut Dice) -> Vec<u8> {
    match dice.below(12) {
        0 => vec![b'n'; LENGTHS[dice.below(LENGTHS.len())]],
        1 => b"a\r\nb".to_vec(),
        _ => dice.choose(&["nosuch", "NoSuch", "getx", "x", "", "a b", "subscriber"]).into(),
    }
}

fn argument(dice: &mut Dice, prefix: &str) -> Vec<u8> {
    match dice.below(30) {
        0 => vec![b'l'; LENGTHS[dice.below(LENGTHS.len())]],
        1..12 => key(dice, prefix),
        12 => b"\r\n$3\r\n+OK\r\n".to_vec(),
        _ => dice.choose(&ARGUMENTS).into(),
    }
}

fn any_command(dice: &mut Dice, prefix: &str) -> Vec<Vec<u8>> {
    let rows: Vec<_> = COMMANDS
        .iter()
        .flat_map(|row| std::iter::once(row).chain(row.subcommands))
        .filter(|row| NOT_COMPARED.iter().all(|(name, _)| *name != row.name))
        // They close the connection, or bring it into a state that only ours has.
        .filter(|row| !row.name.starts_with("quit") && row.name != "multi" && row.name != "client|reply")
        // Who listens is refused the barrier as well, so that what differs by design could not be told from the rest: see
        // the conversations of clients that listen.
        .filter(|row| !["subscribe", "psubscribe", "ssubscribe"].contains(&row.name))
        // Nothing else is refused while keys are watched: see `transaction`.
        .filter(|row| row.name != "watch")
        // A pool of one shard may serve what is about all keys: those of the witness, too.
        .filter(|row| !matches!(row.handling, Handling::ToAll(..) | Handling::Scan))
        .filter(|row| !matches!(row.handling, Handling::Later(feature) if feature.is_served_by_one_shard()))
        .filter(|row| row.name != "client|kill" && row.name != "auth" && row.name != "shutdown")
        .collect();
    of_row(rows[dice.below(rows.len())], dice, prefix)
}

fn of_row(row: &Command, dice: &mut Dice, prefix: &str) -> Vec<Vec<u8>> {
    let mut words: Vec<Vec<u8>> = row
        .name
        .split('|')
        .map(|word| if dice.one_in(2) { word.to_ascii_uppercase().into() } else { word.into() })
        .collect();
    let least = usize::from(row.arity.unsigned_abs());
    let count = match dice.below(8) {
        0 => least.saturating_sub(1),
        1..4 if row.arity < 0 => least + 1 + dice.below(4),
        4 => least + 1,
        _ => least,
    };
    // XPENDING tells times in its long form.
    let count = if row.name == "xpending" { count.min(3) } else { count };
    while words.len() < count {
        let is_first = words.len() == name_words(row);
        words.push(if is_first { key(dice, prefix) } else { argument(dice, prefix) });
    }
    // A server that is silent for long is taken for one that waits for more of a request.
    let is_long = |word: &[u8]| {
        let seconds = std::str::from_utf8(word).ok().and_then(|text| text.parse::<f64>().ok());
        seconds.is_some_and(|seconds| (0.1..100.0).contains(&seconds))
    };
    if matches!(row.handling, Handling::Block(_)) && words.last().is_some_and(|word| is_long(word)) {
        words.pop();
        words.push(b"0.01".to_vec());
    }
    words
}

/// MULTI, some commands, and what ends it, all at once; often behind WATCH, with something in between that may change what is
/// watched.
fn transaction(dice: &mut Dice, prefix: &str) -> Vec<u8> {
    let ends: [&[&str]; 12] = [
        &["EXEC"],
        &["EXEC"],
        &["EXEC"],
        &["EXEC"],
        &["EXEC"],
        &["EXEC"],
        &["EXEC"],
        &["exec", "x"],
        &["DISCARD"],
        &["DISCARD", "x"],
        &["RESET"],
        &["EXEC"],
    ];
    let rows: Vec<_> = forwarded()
        .filter(|row| !may_be_refused(row) && !UNORDERED.contains(&row.name))
        // Servers disagree on the number of arguments: ours leaves it to the shard.
        .filter(|row| !["zrank", "zrevrank"].contains(&row.name))
        // Commands of modules judge it when they run, up to Redis 8.2.
        .filter(|row| !row.flags.has(flag::MODULE))
        // Whether it leaves its database is judged here.
        .filter(|row| !["copy", "move"].contains(&row.name))
        .collect();
    let mut requests = Vec::new();
    for _ in 0..dice.below(3) {
        let mut watch = vec![b"WATCH".to_vec()];
        for _ in 0..1 + dice.below(3) {
            watch.push(key(dice, prefix));
        }
        requests.push(watch);
        for _ in 0..dice.below(3) {
            requests.push(of_row(rows[dice.below(rows.len())], dice, prefix));
        }
        if dice.one_in(8) {
            requests.push(vec![b"UNWATCH".to_vec()]);
        }
    }
    requests.push(vec![b"MULTI".to_vec()]);
    for _ in 0..dice.below(8) {
        requests.push(match dice.below(24) {
            0 => vec![b"PING".to_vec(), argument(dice, prefix)],
            1 => vec![b"ECHO".to_vec(), argument(dice, prefix)],
            2 if dice.one_in(2) && !is_lost_by_nesting() => vec![b"MULTI".to_vec()],
            3 if dice.one_in(2) && !is_lost_by_nesting() => vec![b"WATCH".to_vec(), key(dice, prefix)],
            4 => vec![b"UNWATCH".to_vec()],
            5 if dice.one_in(3) => vec![text(dice), text(dice)],
            6 => vec![b"BLPOP".to_vec(), key(dice, prefix), b"0".to_vec()],
            // Not CLIENT GETNAME: names that ours gave are not asked of theirs.
            7 => vec![b"PING".to_vec()],
            _ => {
                let row = rows[dice.below(rows.len())];
                of_row(row, dice, prefix)
            }
        });
    }
    let end = ends[dice.below(ends.len())];
    requests.push(end.iter().map(|word| word.as_bytes().to_vec()).collect());
    if end[0] == "DISCARD" && end.len() > 1 {
        requests.push(vec![b"EXEC".to_vec()]);
    }
    let encode = |words: &Vec<Vec<u8>>| encoded(&words.iter().map(Vec::as_slice).collect::<Vec<_>>());
    requests.iter().flat_map(encode).collect()
}

/// A client that does not want to hear all replies. Whether it hears one must not depend on how full a queue is.
fn quiet_script(dice: &mut Dice, prefix: &str, count: usize) -> Vec<Request> {
    let mut script = Vec::new();
    for _ in 0..count {
        let words: Vec<Vec<u8>> = match dice.below(12) {
            0..=2 => vec![b"CLIENT".to_vec(), b"REPLY".to_vec(), b"SKIP".to_vec()],
            3 => vec![b"CLIENT".to_vec(), b"REPLY".to_vec(), b"OFF".to_vec()],
            4 | 5 => vec![b"CLIENT".to_vec(), b"REPLY".to_vec(), b"ON".to_vec()],
            6 => vec![b"MGET".to_vec(), key(dice, prefix), key(dice, prefix)],
            7 => vec![b"PING".to_vec()],
            8 => vec![b"APPEND".to_vec(), format!("{prefix}0").into(), b"x".to_vec()],
            9 => vec![b"INCR".to_vec(), key(dice, prefix)],
            _ => vec![b"STRLEN".to_vec(), key(dice, prefix)],
        };
        let bytes = encoded(&words.iter().map(Vec::as_slice).collect::<Vec<_>>());
        script.push(Request { bytes, barrier: dice.one_in(10) });
    }
    script.push(Request { bytes: encoded(&[b"CLIENT", b"REPLY", b"ON"]), barrier: true });
    script
}

/// After it the server closes the connection.
fn malformed(dice: &mut Dice) -> Vec<u8> {
    const BYTES: [&str; 14] = [
        "*x\r\n",
        "*1x\r\n",
        "*+1\r\n",
        "*2147483648\r\n",
        "*1\r\nPING\r\n",
        "*1\r\n:4\r\n",
        "*1\r\n$x\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n$536870913\r\n",
        "*1\r\n$4x\r\nPING\r\n",
        "*01\r\n$4\r\nPING\r\n",
        "ECHO \"a\r\n",
        "ECHO 'a'b\r\n",
        "*1\r\n\r\n",
    ];
    dice.choose(&BYTES).into()
}
