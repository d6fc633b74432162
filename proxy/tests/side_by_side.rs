//! The same requests to nutcracker and to our proxy, each in front of shards of its own: the replies must be the same
//! bytes and the keys must lie on the same shards, or who replaces one by the other loses data.
//!
//! Where ours is better on purpose, `where_ours_differs_on_purpose` says how and why.

use std::collections::{BTreeMap, BTreeSet};

use servers::conversation::CONVERSATION;
use servers::dice::Dice;
use servers::{Client, Server, encoded, shown};

mod servers;

const SHARDS: usize = 3;

/// One proxy and its shards.
struct World {
    proxy: Server,
    shards: Vec<Server>,
}

/// Both proxies, configured alike.
struct Pair {
    ours: World,
    theirs: World,
}

impl Pair {
    fn start() -> Self {
        let shards = || -> Vec<_> {
            // DEBUG DIGEST sums up what a shard holds.
            (0..SHARDS).map(|_| Server::redis(&["--enable-debug-command", "yes"])).collect()
        };
        let (ours, theirs) = (shards(), shards());
        Self {
            ours: World { proxy: Server::memstore(&[], &ours), shards: ours },
            theirs: World { proxy: Server::nutcracker(&[], &theirs), shards: theirs },
        }
    }

    fn clients(&self) -> (Client, Client) {
        (self.ours.proxy.connect(), self.theirs.proxy.connect())
    }

    /// Every shard holds what its twin holds. Returns how many keys each of them has.
    fn compare_shards(&self) -> Vec<String> {
        let contents = |world: &World, question| -> Vec<_> {
            world.shards.iter().map(|shard| shard.connect().say(question)).collect()
        };
        let sizes = contents(&self.ours, "DBSIZE");
        assert_eq!(sizes, contents(&self.theirs, "DBSIZE"), "keys per shard");
        assert_eq!(contents(&self.ours, "DEBUG DIGEST"), contents(&self.theirs, "DEBUG DIGEST"));
        sizes
    }

    /// Keys of nutcracker's first shard.
    fn neighbours(&self, count: usize) -> Vec<String> {
        let (mut proxy, mut shard) = (self.theirs.proxy.connect(), self.theirs.shards[0].connect());
        let candidates = (0..).map(|number| format!("neighbour-{number}"));
        let mut on_the_first = candidates.filter(|key| {
            proxy.say(&format!("SET {key} 1"));
            let found = shard.say(&format!("EXISTS {key}"));
            proxy.say(&format!("DEL {key}"));
            found == r":1\r\n"
        });
        on_the_first.by_ref().take(count).collect()
    }
}

/// Command names by what nutcracker does with them when they have so many arguments.
fn recorded() -> BTreeMap<&'static str, &'static str> {
    let lines = include_str!("vectors/redis_commands.json").lines();
    let pairs = lines.filter_map(|line| {
        let (name, letters) = line.trim_end_matches(',').split_once(": ")?;
        let letters = letters.trim_matches('"');
        let recorded = letters.len() == 8 && letters.bytes().all(|letter| b"FPx".contains(&letter));
        recorded.then_some((name.trim_matches('"'), letters))
    });
    pairs.collect()
}

/// Answered by our proxy itself, and so no matter of forwarding.
const ANSWERED_HERE: [&str; 2] = ["command", "lolwut"];

#[test]
fn every_forwarded_command_is_answered_alike() {
    let pair = Pair::start();
    let neighbours = pair.neighbours(5);
    let (mut ours, mut theirs) = pair.clients();
    let mut seen = BTreeSet::new();
    for line in CONVERSATION.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<_> = line.split(' ').map(|word| word_of(word, &neighbours)).collect();
        let words: Vec<_> = words.iter().map(String::as_bytes).collect();
        let (our, their) = (ours.ask(&words), theirs.ask(&words));
        assert_eq!(shown(&our), shown(&their), "{line}");
        if their[0] != b'-' {
            seen.insert(line.split(' ').next().expect("a name").to_ascii_lowercase());
        }
    }
    // A dump holds bytes that no line above can.
    let dump = theirs.ask(&[b"DUMP", b"hash"]);
    let start = dump.iter().position(|&byte| byte == b'\n').expect("a length stands before it") + 1;
    let restore = [&b"RESTORE"[..], b"restored", b"0", &dump[start..dump.len() - 2]];
    for client in [&mut ours, &mut theirs] {
        assert_eq!(shown(&client.ask(&restore)), r"+OK\r\n");
    }
    seen.insert("restore".to_owned());
    let forwarded = recorded().into_iter().filter(|(_, letters)| letters.contains('F'));
    let missing: Vec<_> = forwarded
        .map(|(name, _)| name)
        .filter(|name| !seen.contains(*name) && !ANSWERED_HERE.contains(name) && !MISROUTED.contains(name))
        .collect();
    assert!(
        missing.is_empty(),
        "nutcracker forwards these, and no line tries them with success: {missing:?}"
    );
    pair.compare_shards();
}

/// `@a` to `@e` stand for keys of one shard.
fn word_of(word: &str, neighbours: &[String]) -> String {
    match word.strip_prefix('@').and_then(|letter| letter.bytes().next()) {
        Some(letter) => neighbours[usize::from(letter - b'a')].clone(),
        None => word.to_owned(),
    }
}

/// nutcracker takes the number of keys for the first key and asks the wrong shard.
const MISROUTED: [&str; 3] = ["zdiff", "zinter", "zunion"];

#[test]
fn random_arguments_are_answered_alike() {
    let pair = Pair::start();
    let neighbours = pair.neighbours(6);
    let keys: Vec<&str> = neighbours.iter().map(String::as_str).collect();
    let mut dice = thrown();
    let (mut ours, mut theirs) = pair.clients();
    let mut counted = BTreeMap::<&str, usize>::new();
    for _ in 0..8 {
        for (index, value) in [
            "SET 0 text",
            "SET 1 12",
            "HSET 2 1 a x b",
            "RPUSH 3 1 x 2",
            "SADD 4 1 2 3",
            "ZADD 5 1 a 2 x 3 1",
        ]
        .iter()
        .enumerate()
        {
            for client in [&mut ours, &mut theirs] {
                client.say(&format!("DEL {}", keys[index]));
                client.say(&value.replacen(&format!(" {index} "), &format!(" {} ", keys[index]), 1));
            }
        }
        for (name, letters) in recorded() {
            if NOT_FOR_DICE.iter().any(|(excluded, _)| *excluded == name) {
                continue;
            }
            let counts = letters.bytes().enumerate().filter(|(_, letter)| *letter == b'F');
            for (count, _) in counts {
                for _ in 0..6 {
                    let mut words = vec![name, dice.choose(&keys)];
                    words.extend((1..count).map(|_| match dice.below(3) {
                        0 => dice.choose(&keys),
                        _ => dice.choose(&ARGUMENTS),
                    }));
                    let words: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
                    let our = ours.ask(&words);
                    let what = match refusal(&our) {
                        // Not executed, so the other one shall not do it either.
                        Some(why) => why,
                        None => {
                            let their = theirs.ask(&words);
                            assert_eq!(shown(&our), shown(&their), "{}", shown(&words.join(&b" "[..])));
                            if our[0] == b'-' { "errors" } else { "values" }
                        }
                    };
                    *counted.entry(what).or_default() += 1;
                }
            }
        }
        pair.compare_shards();
    }
    assert!(counted["values"] > 3_000 && counted["errors"] > 3_000, "{counted:?}");
    assert!(counted["keys of two shards"] < counted["values"], "{counted:?}");
}

const ARGUMENTS: [&str; 24] = [
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
    "GET",
    "REPLACE",
];

/// Why our proxy kept the request from the shards, if the reply says so.
fn refusal(reply: &[u8]) -> Option<&'static str> {
    let reply = String::from_utf8_lossy(reply);
    if reply.starts_with("-CROSSSLOT") {
        Some("keys of two shards")
    } else if reply.contains("is refused with the pattern") {
        Some("patterns")
    } else {
        None
    }
}

/// Commands whose replies say nothing with random arguments, and why.
const NOT_FOR_DICE: [(&str, &str); 19] = [
    ("command", "answered by our proxy"),
    ("lolwut", "answered by our proxy"),
    ("eval", "nutcracker closes the connection for a number of keys that is none"),
    ("evalsha", "as eval"),
    ("exists", "ours asks all shards, nutcracker the first key's"),
    ("mset", "an odd number of arguments closes nutcracker's connection"),
    ("zdiff", "misrouted by nutcracker"),
    ("zinter", "misrouted by nutcracker"),
    ("zunion", "misrouted by nutcracker"),
    ("spop", "takes what it likes"),
    ("srandmember", "takes what it likes"),
    ("hrandfield", "takes what it likes"),
    ("zrandmember", "takes what it likes"),
    ("pttl", "milliseconds pass between the two"),
    ("expire", "keys would vanish between the two"),
    ("pexpire", "keys would vanish between the two"),
    ("setex", "keys would vanish between the two"),
    ("psetex", "keys would vanish between the two"),
    ("restore", "keys would vanish between the two"),
];

#[test]
fn pipelines_cut_anywhere_are_answered_alike_and_fill_the_same_shards() {
    let pair = Pair::start();
    let mut dice = thrown();
    let mut requests = 0;
    for round in 0..60 {
        let mut bytes = Vec::new();
        let count = 1 + dice.below(300);
        for _ in 0..count {
            bytes.extend(encoded(&request(&mut dice).iter().map(Vec::as_slice).collect::<Vec<_>>()));
        }
        requests += count;
        let (mut ours, mut theirs) = pair.clients();
        let mut replies = Vec::new();
        for client in [&mut ours, &mut theirs] {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let piece = match dice.below(4) {
                    0 => 1,
                    1 => 1 + dice.below(30),
                    _ => 1 + dice.below(5_000),
                };
                let (now, later) = rest.split_at(piece.min(rest.len()));
                client.send(now);
                rest = later;
            }
            replies.push((0..count).map(|_| client.reply()).collect::<Vec<_>>());
        }
        for (place, (our, their)) in replies[0].iter().zip(&replies[1]).enumerate() {
            assert_eq!(shown(our), shown(their), "round {round}, reply {place} of {count}");
        }
    }
    let sizes = pair.compare_shards();
    assert!(
        requests > 5_000 && sizes.iter().all(|size| size.len() > r":99\r\n".len()),
        "{requests} {sizes:?}"
    );
}

/// A request whose reply depends on nothing but what this client did before.
fn request(dice: &mut Dice) -> Vec<Vec<u8>> {
    let name = |name: &str| name.as_bytes().to_vec();
    match dice.below(14) {
        0 => vec![name("PING")],
        1 => vec![name("GET"), key(dice)],
        2 | 3 => vec![name("set"), key(dice), value(dice)],
        4 => vec![name("INCR"), key(dice)],
        5 => vec![name("APPEND"), key(dice), value(dice)],
        6 => vec![name("rpush"), key(dice), value(dice), value(dice)],
        7 => vec![name("HSET"), key(dice), value(dice), value(dice)],
        8 => vec![name("STRLEN"), key(dice)],
        9 | 10 => many(dice, "MGET", 1),
        11 => many(dice, "MSET", 2),
        12 => many(dice, "DEL", 1),
        _ => many(dice, "TOUCH", 1),
    }
}

fn many(dice: &mut Dice, name: &str, words_each: usize) -> Vec<Vec<u8>> {
    let mut words = vec![name.as_bytes().to_vec()];
    for _ in 0..1 + dice.below(20) {
        words.push(key(dice));
        if words_each == 2 {
            words.push(value(dice));
        }
        if dice.below(6) == 0 {
            let again = words.len() - words_each;
            words.extend_from_within(again..);
        }
    }
    words
}

/// Few enough that keys meet again; some are empty, binary or long.
fn key(dice: &mut Dice) -> Vec<u8> {
    match dice.below(40) {
        0 => Vec::new(),
        1 => vec![dice.below(256) as u8],
        2..8 => {
            let seed = dice.below(400) as u64 + 1;
            let mut bytes = Dice::new(seed);
            (0..1 + bytes.below(30)).map(|_| bytes.below(256) as u8).collect()
        }
        8 => vec![b'k'; 1 + dice.below(3) * 4_000],
        _ => format!("key:{}", dice.below(900)).into_bytes(),
    }
}

fn value(dice: &mut Dice) -> Vec<u8> {
    match dice.below(30) {
        0 => vec![0xff; dice.below(40_000)],
        1 => b"\r\n$5\r\n+OK\r\n".to_vec(),
        2..10 => dice.below(100).to_string().into_bytes(),
        _ => (0..dice.below(20)).map(|_| dice.below(256) as u8).collect(),
    }
}

#[test]
fn where_ours_differs_on_purpose() {
    let mut pair = Pair::start();
    let (mut ours, mut theirs) = pair.clients();
    for client in [&mut ours, &mut theirs] {
        for number in 0..30 {
            client.say(&format!("SADD s{number} x"));
        }
    }
    let all: String = (0..30).map(|number| format!(" s{number}")).collect();

    // EXISTS is put to all shards; nutcracker puts it to the one of the first key.
    assert_eq!(ours.say(&format!("EXISTS{all}")), r":30\r\n");
    assert_ne!(theirs.say(&format!("EXISTS{all}")), r":30\r\n");

    // Members of sets on other shards are not silently left out.
    assert!(ours.say(&format!("SUNION{all}")).starts_with("-CROSSSLOT "));
    assert_eq!(theirs.say(&format!("SUNION{all}")), r"*1\r\n$1\r\nx\r\n");

    // ZUNION and its like go where their keys are, not where the number of keys would be.
    let mut numbers = 0;
    for number in 0..30 {
        ours.say(&format!("ZADD z{number} 1 x"));
        assert_eq!(ours.say(&format!("ZUNION 1 z{number}")), r"*1\r\n$1\r\nx\r\n");
        theirs.say(&format!("ZADD z{number} 1 x"));
        numbers += usize::from(theirs.say(&format!("ZUNION 1 z{number}")) == r"*1\r\n$1\r\nx\r\n");
    }
    assert!(numbers < 30, "nutcracker found all of them");

    // What nutcracker answers by closing the connection, together with replies that were on their way.
    for (request, reply) in [
        ("PING hello", r"$5\r\nhello\r\n"),
        ("NOSUCH", r"-ERR unknown command \'NOSUCH\', with args beginning with: \r\n"),
        ("GET", r"-ERR wrong number of arguments for \'get\' command\r\n"),
        ("MSET a 1 b", r"-ERR wrong number of arguments for \'mset\' command\r\n"),
        ("SELECT 0", r"+OK\r\n"),
        ("CLIENT SETINFO LIB-NAME x", r"+OK\r\n"),
        ("ECHO x", r"$1\r\nx\r\n"),
        ("EXPIRE s1 100 NX", r":1\r\n"),
        ("AUTH default x", r"+OK\r\n"),
    ] {
        let (mut ours, mut theirs) = pair.clients();
        assert_eq!((ours.say(request), theirs.say(request)), (reply.to_owned(), String::new()), "{request}");
        assert_eq!(ours.say("PING"), r"+PONG\r\n", "{request}");
    }
    let (mut ours, mut theirs) = pair.clients();
    for client in [&mut ours, &mut theirs] {
        client.send(b"PING\r\n");
    }
    assert_eq!((ours.reply(), theirs.until_closed()), (b"+PONG\r\n".to_vec(), Vec::new()), "inline commands");
    let long = vec![b'k'; 20_000];
    let (mut ours, mut theirs) = pair.clients();
    assert_eq!(shown(&ours.ask(&[b"SET", &long, b"v"])), r"+OK\r\n", "keys longer than nutcracker's buffer");
    assert_eq!(theirs.ask(&[b"SET", &long, b"v"]), b"");

    // QUIT is answered as Redis does.
    let (mut ours, mut theirs) = pair.clients();
    for client in [&mut ours, &mut theirs] {
        client.send(&[encoded(&[b"PING"]), encoded(&[b"QUIT"]), encoded(&[b"PING"])].concat());
    }
    assert_eq!(shown(&ours.until_closed()), r"+PONG\r\n+OK\r\n");
    assert_eq!(shown(&theirs.until_closed()), r"+PONG\r\n");

    // AUTH without a password to say has the words of Redis.
    let (mut ours, mut theirs) = pair.clients();
    assert!(ours.say("AUTH x").starts_with("-ERR AUTH <password> called without any password configured"));
    assert_eq!(theirs.say("AUTH x"), r"-ERR Client sent AUTH, but no password is set\r\n");

    // A shard that is away is named, and a client that asked for several keys may stay.
    let down = (0..30)
        .map(|number| format!("s{number}"))
        .find(|key| pair.ours.shards[2].connect().say(&format!("EXISTS {key}")) == r":1\r\n");
    let down = down.expect("some key is on the third shard");
    for world in [&mut pair.ours, &mut pair.theirs] {
        world.shards.truncate(2);
    }
    // The first request may still meet the connection that has just ended.
    for client in [&mut ours, &mut theirs] {
        client.say(&format!("TYPE {down}"));
    }
    assert_eq!(ours.say(&format!("TYPE {down}")), r"-ERR shard shard-2: connection refused\r\n");
    assert_eq!(theirs.say(&format!("TYPE {down}")), r"-ERR Connection refused\r\n");
    assert_eq!(ours.say(&format!("MGET{all}")), r"-ERR shard shard-2: connection refused\r\n");
    assert_eq!(theirs.say(&format!("MGET{all}")), r"-ERR Connection refused\r\n");
    assert_eq!((ours.say("PING"), theirs.say("PING")), (r"+PONG\r\n".into(), String::new()));
}

/// Other numbers with another SIDE_BY_SIDE_SEED, for whoever searches longer.
fn thrown() -> Dice {
    Dice::new(std::env::var("SIDE_BY_SIDE_SEED").map_or(0x5EED, |seed| seed.parse().expect("a number")))
}
