//! memcached pools: compared with a memcached server, beside nutcracker, with hostile clients, and with shards that fail.

use std::sync::atomic::{AtomicBool, Ordering};

use servers::{Client, Server, eventually, shown};

mod servers;

const MEMCACHE: &str = "redis: false";

/// So many memcached servers.
fn shards(count: usize) -> Vec<Server> {
    (0..count).map(|_| Server::memcached(&["-t", "1", "-m", "64"])).collect()
}

/// Everything that comes back, with what differs between servers made the same.
fn answer(server: &Server, bytes: &[u8]) -> String {
    let mut client = server.connect();
    client.send(bytes);
    let replies = shown(&client.rest());
    // The unique number of an item counts the changes of its server.
    let without_unique = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["VALUE", key, flags, length, _] => format!("VALUE {key} {flags} {length} unique"),
            _ => words
                .into_iter()
                .map(|word| if is_unique(word) { "unique" } else { word })
                .collect::<Vec<_>>()
                .join(" "),
        }
    };
    replies.split("\\r\\n").map(without_unique).collect::<Vec<_>>().join("\n")
}

fn is_unique(word: &str) -> bool {
    word.strip_prefix('c')
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

#[test]
fn requests_are_answered_as_memcached_answers_them() {
    let shards = shards(3);
    let (ours, theirs) = (Server::memstore(&[MEMCACHE], &shards), Server::memcached(&[]));
    let large = "V".repeat(2_000_000);
    let long = "k".repeat(250);
    let too_long = "k".repeat(251);
    let many = (0..500).map(|key| format!(" key:{key}")).collect::<String>();
    let conversations: Vec<String> = [
        "\r\n \r\nx\r\nget\r\nget \r\nGET a\r\nset\r\nmz\r\nm\r\nmisbehave\r\n",
        "get a\n",
        "set k 0 0 1\r\nV\r\n  set   k  0 0  1  \r\nV\r\nget  k \r\ngets k k\r\n",
        "set k 0 0 2\r\nVVV\r\nset k 0 0 2 noreply\r\nVVV\r\nset k 0 0 5\r\nVVV\r\n12345\r\nget k\r\n",
        "set k -1 0 1\r\nV\r\nset k 0 -1 1\r\nV\r\nset k 0 0 -1\r\nV\r\nset k 0 0 2147483647\r\nV\r\n",
        "set k 0 0 99999999999999999999\r\nV\r\nset k 0 0 +1\r\nV\r\nset k +0 +0 01\r\nV\r\n",
        "set k 0x 0 1\r\nV\r\nset k 0 0 1x\r\nV\r\nset k 4294967295 0 1\r\nV\r\nget k\r\n",
        "set k 0 4294967296 1\r\nV\r\nset k 0 2147483648 1\r\nV\r\nget k\r\n",
        "set k 0 0 1 foo\r\nV\r\nset k 0 0 1 noreply foo\r\nV\r\nset k 0 0\r\nV\r\n",
        "add k 0 0 1\r\nV\r\nadd new 5 0 1\r\nV\r\nreplace none 0 0 1\r\nV\r\nreplace new 0 0 1\r\nW\r\nget new\r\n",
        "set a 0 0 1\r\n1\r\nappend a 9 9 1\r\n2\r\nprepend a 0 0 1\r\n0\r\nappend none 0 0 1\r\nx\r\nget a\r\n",
        "cas k 0 0 1 5\r\nV\r\ncas k 0 0 1 x\r\nV\r\ncas k 0 0 1\r\nV\r\ncas none 0 0 1 5\r\nV\r\n",
        "cas k 0 0 1 5 noreply\r\nV\r\ncas k 0 0 1 -5\r\nV\r\ncas k 0 0 1 18446744073709551616\r\nV\r\n",
        "set n 0 0 1\r\n5\r\nincr n 1\r\nincr n x\r\nincr n -1\r\nincr n 18446744073709551616\r\nincr n\r\n",
        "incr n 1 noreply\r\nincr n 1 foo\r\nincr n 1 2 3\r\nincr n noreply\r\ndecr n 100\r\nincr none 1\r\n",
        "set t 0 0 1\r\nx\r\nincr t 1\r\nset n 0 0 20\r\n18446744073709551615\r\nincr n 1\r\n",
        "set k 0 0 1\r\nx\r\ndelete k\r\ndelete k 0\r\ndelete k 1\r\ndelete k noreply\r\ndelete k 0 noreply\r\n",
        "delete k 0 foo\r\ndelete k 1 2 3\r\ndelete\r\n",
        "touch k 0\r\ntouch n 0\r\ntouch n x\r\ntouch n\r\ntouch n 0 noreply\r\ntouch n 1 2 3\r\ntouch n -1\r\nget n\r\n",
        "set k 3 0 1\r\nx\r\ngat 0 k n k\r\ngats 0 n k\r\ngat x n\r\ngat 0\r\ngat\r\ngat -1 zz\r\n",
        "verbosity\r\nverbosity 0\r\nverbosity 0 noreply\r\nverbosity x\r\nverbosity 0 1 2\r\n",
        "flush_all x\r\nflush_all 1 2 3\r\nversion\r\nversion x\r\nversion noreply\r\nmn\r\n",
        "set k 0 0 1\r\nx\r\nflush_all\r\nget k\r\nflush_all 0\r\nflush_all noreply\r\nflush_all 0 noreply\r\nmn\r\n",
        "set noreply 0 0 1\r\nx\r\ndelete noreply\r\ndelete noreply\r\nmn\r\n",
        "set k 0 0 1\r\nx\r\ndelete k noreply noreply\r\nget k\r\nincr k noreply noreply\r\nmn\r\n",
        "touch k noreply noreply\r\nverbosity 0 noreply noreply\r\nflush_all noreply noreply\r\nmn\r\n",
        "cas k 0 0 1 noreply\r\nmn\r\nset k 0 0 noreply\r\nmn\r\n",
        "quit\r\nget k\r\n",
        "quit foo\r\nget k\r\n",
        "get \x01\x02\t\u{7f}\r\nset \x01\t 0 0 1\r\nx\r\nget \x01\t\r\n",
        "mn\r\nmn foo\r\nmg\r\nmg k\r\nms k 1\r\nV\r\n",
        "set k 0 0 1\r\nV\r\nmg k\r\nmg k v\r\nmg k v f t k s c O123 q\r\nmg zz q\r\nmg zz\r\nmg zz k O1\r\nmn\r\n",
        "ms k 1 q\r\nV\r\nmn\r\nms k S1\r\nV\r\nms k 2 q\r\nVVV\r\nms k 1 Z\r\nV\r\nms k 1 Z q\r\nV\r\nmn\r\n",
        "ms k 1 T0 T0\r\nV\r\nms k 1 Tx\r\nV\r\nms k x\r\nV\r\nms k -1\r\nV\r\nms k\r\nV\r\nms\r\nV\r\nms k 1 MX\r\nV\r\n",
        "ms k 1 C5\r\nV\r\nms k 1 C5 q\r\nV\r\nms none 1 C5 q\r\nV\r\nms k 1 ME q\r\nV\r\nms k 1 ME\r\nV\r\n",
        "ms Zm9v 1 b\r\nV\r\nmg foo k v\r\nmg Zm9v b k v\r\nmg Zm9 b k\r\nmg !!!! b k\r\nms !!!! 1 b\r\nV\r\n",
        "set foo 0 0 3\r\nbar\r\nmg Zm9v b k v\r\nmd Zm9v b q\r\nget foo\r\n",
        "md zz\r\nmd zz q\r\nms k 1\r\nV\r\nmd k q\r\nms k 1\r\nV\r\nmd k C5 q\r\nmd k\r\nmd\r\nmd k Z\r\nmn\r\n",
        "ma zz\r\nma zz q\r\nms n 1\r\n5\r\nma n\r\nma n q\r\nma n v q\r\nma n v\r\nma n D5 MD v\r\nma n Dx\r\nmn\r\n",
        "ms t 1\r\nx\r\nma t\r\nma t q\r\nma nn N0 J5 v\r\nma nn q v\r\nmn\r\n",
        "me zz\r\nme\r\nmg k O1111111111111111111111111111111111111111\r\n",
        "ms k 1 Fx\r\nV\r\nms k 1 F1 I c k O9 s\r\nV\r\nms k 1 E5 c\r\nV\r\nmg  k   v \r\nmg k q v \r\nmg n q v s\r\n",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([
        format!("get {long}\r\nset {long} 0 0 1\r\nV\r\nget {long}\r\n"),
        format!("get k {too_long} k\r\n"),
        format!("get {too_long}\r\nset {too_long} 0 0 1\r\nV\r\nms {too_long} 1\r\nV\r\n"),
        format!("set {too_long} 0 0 1 noreply\r\nV\r\nincr {too_long} 1\r\ndelete {too_long}\r\nmg {too_long} v\r\n"),
        format!("ms k 2000000\r\n{large}\r\nmn\r\nms k 2000000 q\r\n{large}\r\nmn\r\n"),
        format!("set k 0 0 2000000\r\n{large}\r\nmn\r\nset k 0 0 2000000 noreply\r\n{large}\r\nmn\r\n"),
        format!("set k 0 0 1000000\r\n{}\r\nget k\r\n", &large[..1_000_000]),
        format!("set k 0 0 1 {}\r\nV\r\nmg k {}\r\n", "k ".repeat(30), "v ".repeat(30)),
        format!("set key:3 0 0 1\r\nx\r\nset key:300 0 0 1\r\ny\r\nget{many}\r\ngets{many}{many}\r\n"),
    ])
    .collect();
    let mut differences = Vec::new();
    for conversation in conversations {
        let [our, their] = [&ours, &theirs].map(|server| answer(server, conversation.as_bytes()));
        if our != their {
            let shown = shown(&conversation.as_bytes()[..conversation.len().min(300)]);
            differences.push(format!("{shown}\n--- ours\n{our:.2000}\n--- theirs\n{their:.2000}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

/// A client reads a refusal as it reads every reply: text in the place of a header is a length of a gigabyte to it.
#[test]
fn a_refusal_is_framed_as_its_reader_frames() {
    let shards = shards(1);
    let redis = [Server::redis(&[])];
    for (pool, own) in [
        (Server::memstore(&[MEMCACHE], &shards), "memcached's text protocol"),
        (Server::memstore(&[], &redis), "the protocol of Redis"),
    ] {
        let sentence = &*format!("this is memcached's binary protocol, but this address speaks {own}");
        // GET of "key", and NOOP behind it: the first one is answered, in two reads or one.
        let mut request = vec![0x80, 0x00, 0, 3, 0, 0, 0, 0, 0, 0, 0, 3, 0xde, 0xad, 0xbe, 0xef];
        request.extend([0; 8]);
        request.extend(b"key");
        request.extend([0x80, 0x0a]);
        request.extend([0; 22]);
        let mut expected = vec![0x81, 0x00, 0, 0, 0, 0, 0x00, 0x81, 0, 0, 0, sentence.len() as u8];
        expected.extend([0xde, 0xad, 0xbe, 0xef]);
        expected.extend([0; 8]);
        expected.extend(sentence.as_bytes());
        for cut in [1, 12, 24, request.len()] {
            let mut client = pool.connect();
            let mut twin = client.twin();
            client.send(&request[..cut]);
            // What was sent has arrived once another client of a process with one worker is answered.
            pool.connect().text(b"version\r\n");
            client.send(&request[cut..]);
            assert_eq!(twin.until_closed(), expected, "{cut}");
        }
        eventually(|| pool.printed().contains(sentence).to_string(), "true");
        let mut browser = pool.connect();
        browser.send(b"GET / HTTP/1.1\r\nHost: cache\r\n\r\n");
        let page = String::from_utf8_lossy(&browser.until_closed()).into_owned();
        let (head, body) = page.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{page}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{page}");
        assert!(body.starts_with("this is HTTP, not "), "{page}");
    }
}

/// memcached refuses some lines without reading the value behind them, and runs it as commands: one response too many, and
/// every later one reaches the wrong client.
#[test]
fn no_value_is_run_as_a_command_and_no_client_reads_anothers_session() {
    let shards = [Server::memcached(&["-t", "1", "-m", "64"])];
    let proxy = Server::memstore(&[MEMCACHE], &shards);
    let mut alice = proxy.connect();
    let (mut mallory, mut other) = (proxy.connect(), proxy.connect());
    assert_eq!(alice.text(b"set session:alice 0 0 6\r\nsecret\r\n"), "STORED\\r\\n");
    let flags = |count: usize| (0..count).map(|number| format!(" P{number}")).collect::<String>();
    let opaque = "o".repeat(40);
    let long = "k".repeat(251);
    for line in [
        format!("ms atk 7{}", flags(17)),
        format!("ms atk 7{}", flags(20)),
        format!("ms atk 7{}", flags(25)),
        "ms atk 7 Z".into(),
        "ms atk 7 T00000000000000000001".into(),
        "ms atk 0000000000000000007 T0".into(),
        format!("ms atk 7 O{opaque}"),
        "ms atk 7 MX".into(),
        format!("ms {long} 7"),
        format!("set {long} 0 0 7"),
        "set atk 4294967296 0 7".into(),
        "set atk 0 0 000000000000007".into(),
        "cas atk 0 0 7 x".into(),
    ] {
        mallory.send(format!("{line}\r\nget atk\r\n").as_bytes());
        for _ in 0..3 {
            assert_eq!(
                other.text(b"get session:alice\r\n"),
                "VALUE session:alice 0 6\\r\\nsecret\\r\\nEND\\r\\n",
                "{line}"
            );
            assert_eq!(other.text(b"get nothing\r\n"), "END\\r\\n", "{line}");
        }
    }
    let heard = shown(&mallory.rest());
    assert!(!heard.contains("secret"), "{heard}");
    // The limit that a value would have set.
    mallory = proxy.connect();
    mallory.send(format!("ms atk 16{}\r\ncache_memlimit 8\r\n", flags(17)).as_bytes());
    mallory.rest();
    assert!(shards[0].connect().text(b"stats settings\r\n").contains("maxbytes 67108864"));
}

#[test]
fn statistics_are_the_proxys_own_or_those_of_every_shard() {
    let shards = shards(2);
    let proxy = Server::memstore(&[MEMCACHE], &shards);
    let mut client = proxy.connect();
    client.text(b"get a\r\n");
    let own = client.text(b"stats\r\n");
    assert!(own.contains("STAT curr_connections 1\\r\\n") && own.ends_with("END\\r\\n"), "{own}");
    // What it does not count itself is that of all servers.
    for line in ["STAT cmd_get 1\\r\\n", "STAT get_misses 1\\r\\n", "STAT limit_maxbytes 134217728\\r\\n"] {
        assert!(own.contains(line), "{line}: {own}");
    }
    assert_eq!(own.matches("STAT pid ").count(), 1, "{own}");
    let all = client.text(b"stats shards\r\n");
    for shard in ["shard-0", "shard-1"] {
        assert!(all.contains(&format!("STAT {shard}:pid ")), "{all}");
    }
    let settings = client.text(b"stats shards settings\r\n");
    assert!(settings.contains("STAT shard-1:maxbytes 67108864\\r\\n"), "{settings}");
    // Those of all as one, in lines as a server has them.
    for number in 0..40 {
        assert_eq!(client.text(format!("set k{number} 0 0 1\r\nx\r\n").as_bytes()), "STORED\\r\\n");
    }
    for (what, line) in [
        ("items", "STAT items:1:number 40\\r\\n"),
        ("slabs", "STAT 1:used_chunks 40\\r\\n"),
        ("slabs", "STAT 1:chunk_size 96\\r\\n"),
        ("slabs", "STAT active_slabs 1\\r\\n"),
        ("sizes", "STAT sizes_status disabled\\r\\n"),
        ("settings", "STAT maxbytes 67108864\\r\\n"),
    ] {
        let ours = client.text(format!("stats {what}\r\n").as_bytes());
        let theirs = shards[0].connect().text(format!("stats {what}\r\n").as_bytes());
        assert!(ours.contains(line), "{what}: {ours}");
        if what != "settings" {
            let names = |text: &str| -> Vec<String> {
                text.split("\\r\\n").filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
            };
            assert_eq!(names(&ours), names(&theirs), "{what}");
        }
    }
    let malformed = |client: &mut Client| client.text(b"stats\r\n").contains("STAT malformed 1\\r\\n");
    assert!(!malformed(&mut client));
    let mut binary = proxy.connect();
    binary.send(&[0x80; 24]);
    binary.until_closed();
    assert!(malformed(&mut client));
}

#[test]
fn ours_and_nutcracker_find_each_others_keys_and_answer_alike() {
    for settings in [
        [MEMCACHE, "hash: fnv1a_64", "distribution: ketama"],
        [MEMCACHE, "hash: murmur", "distribution: modula"],
        [MEMCACHE, "hash: md5", "hash_tag: \"{}\""],
    ] {
        let shards = shards(3);
        let (ours, theirs) = (Server::memstore(&settings, &shards), Server::nutcracker(&settings, &shards));
        let (mut our, mut their) = (ours.connect(), theirs.connect());
        let keys: Vec<String> = (0..200).map(|key| format!("user:{{{}}}:{key}", key % 50)).collect();
        for (number, key) in keys.iter().enumerate() {
            let writer = if number % 2 == 0 { &mut our } else { &mut their };
            assert_eq!(writer.text(format!("set {key} {number} 0 3\r\nabc\r\n").as_bytes()), "STORED\\r\\n");
        }
        let requests = [
            format!("get {} none {}\r\n", keys.join(" "), keys[0]),
            format!("get {}\r\n", keys[7]),
            "get none\r\n".into(),
            "get none nothing\r\n".into(),
            format!("incr {} 1\r\n", keys[3]),
            format!("touch {} 0\r\n", keys[3]),
            format!("add {} 0 0 1\r\nx\r\n", keys[3]),
            format!("append {} 0 0 1\r\nd\r\n", keys[4]),
            format!("delete {}\r\n", keys[5]),
            format!("delete {}\r\n", keys[5]),
            format!("get {} {} {}\r\n", keys[4], keys[3], keys[5]),
        ];
        for (number, request) in requests.iter().enumerate() {
            // What changes something is asked of one and seen through the other.
            let replies = if (4..10).contains(&number) {
                let before = our.text(request.as_bytes());
                assert!(!before.contains("ERROR") || number == 4, "{request}: {before}");
                continue;
            } else {
                [our.text(request.as_bytes()), their.text(request.as_bytes())]
            };
            assert_eq!(replies[0], replies[1], "{request}");
        }
    }
}

/// Clients that write and read keys of their own, and would notice another's value, beside one that tries everything to
/// shift replies.
#[test]
fn nobody_ever_receives_another_keys_value() {
    let shards = shards(2);
    let proxy = Server::memstore(&[MEMCACHE, "timeout: 5000"], &shards);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let honest: Vec<_> = (0..3)
            .map(|number| {
                let (mut client, done) = (proxy.connect(), &done);
                scope.spawn(move || {
                    let mut rounds = 0;
                    while !done.load(Ordering::Relaxed) {
                        let key = format!("honest:{number}:{}", rounds % 20);
                        let value = format!("value of {key} {rounds}");
                        let request =
                            format!("set {key} 7 0 {}\r\n{value}\r\nget {key} other:{key}\r\n", value.len());
                        assert_eq!(client.text(request.as_bytes()), "STORED\\r\\n");
                        let expected = format!("VALUE {key} 7 {}\\r\\n{value}\\r\\nEND\\r\\n", value.len());
                        assert_eq!(client.text_reply(), expected);
                        rounds += 1;
                    }
                    rounds
                })
            })
            .collect();
        for attack in attacks() {
            let mut hostile = proxy.connect();
            // In one piece, and cut in two anywhere near the start.
            hostile.send(&attack);
            hostile.rest();
            for cut in 1..attack.len().min(24) {
                let mut hostile = proxy.connect();
                hostile.send(&attack[..cut]);
                hostile.send(&attack[cut..]);
                hostile.rest();
            }
        }
        done.store(true, Ordering::Relaxed);
        for client in honest {
            assert!(client.join().expect("an honest client saw nothing odd") > 20);
        }
    });
}

fn attacks() -> Vec<Vec<u8>> {
    const INJECTED: &[u8] = b"set hostile:1 0 0 6\r\nSECRET\r\nget honest:1:1\r\nget hostile:1\r\n";
    let lines: [&[u8]; 30] = [
        b"delete noreply\r\n",
        b"delete k noreply noreply\r\n",
        b"incr k noreply noreply\r\n",
        b"touch k noreply noreply\r\n",
        b"verbosity 0 noreply noreply\r\n",
        b"verbosity noreply noreply\r\n",
        b"get x\nget honest:1:2\r\n",
        b"get x\0y\r\n",
        b"set k\0z 0 0 1\r\nV\r\n",
        b"set k\nz 0 0 1\r\nV\r\n",
        b"set k\r 0 0 1\r\nV\r\n",
        b"set x 99999999999999999999 0 1\r\nV\r\n",
        b"set x 0 99999999999999999999 1\r\nV\r\n",
        b"set x 0 0 4294967297\r\nV\r\n",
        b"set x 0 0 -1\r\nV\r\n",
        b"set x 0 0 18446744073709551615\r\nV\r\n",
        b"set x 0 0 2147483648\r\nV\r\n",
        b"set x 0 0 5\r\nV\r\n\r\nV\r\n",
        b"set x 0 0 1\r\nVVVVVVVVVVVVVVV\r\n",
        b"set x 0 0 1 noreply\r\nVVVV\r\n",
        b"set x 0 0 0\r\n\n\n",
        b"ms x 1 q q b b\r\nV\r\n",
        b"ms x 5 b\r\nV\r\n",
        b"ms x 99999999999 q\r\nV\r\n",
        b"mg x q\r\nmg x q\r\nmg x q k O1\r\n",
        b"ms x 1 k k k k k k k k k k k k k k k k k k k k k k k k k k k\r\nV\r\n",
        b"incr x 1 noreply\r\nincr x 99999999999999999999999\r\n",
        b"delete x 5 noreply\r\ntouch x y noreply\r\n",
        b"\x01\x02\x1b\x7f\xff\xfe \xff 0 0 1\r\n",
        b"   \t get\t x\r\n",
    ];
    let long = [b"get ".to_vec(), vec![b'k'; 300], b"\r\n".to_vec()].concat();
    let huge = [b"set x 0 0 1100000\r\n".to_vec(), INJECTED.repeat(1_100_000 / INJECTED.len() + 1)].concat();
    let lines = lines.into_iter().map(<[u8]>::to_vec).chain([long, huge]);
    lines.map(|line| [&line, INJECTED].concat()).collect()
}

#[test]
fn a_dead_shard_is_named_and_nothing_is_said_to_be_done() {
    let mut shards = shards(2);
    let lines: Vec<String> = shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect();
    let plain = Server::memstore_over(&[MEMCACHE], &lines);
    let lenient = Server::memstore_over(&[MEMCACHE, "miss_on_get_errors: true"], &lines);
    let mut client = plain.connect();
    // Keys of both shards.
    let keys: Vec<String> = (0..20).map(|key| format!("k{key}")).collect();
    for key in &keys {
        client.text(format!("set {key} 0 0 1\r\nx\r\n").as_bytes());
    }
    drop(shards.remove(0));
    let failed = "SERVER_ERROR shard shard-0: connection refused\\r\\n";
    let lost: Vec<&String> = keys
        .iter()
        .filter(|key| {
            let get = |client: &mut Client| client.text(format!("get {key}\r\n").as_bytes());
            let mut reply = get(&mut client);
            // The first to notice is told of the connection that it was sent on.
            if reply.starts_with("SERVER_ERROR") {
                reply = get(&mut client);
            }
            assert!(reply == failed || reply.starts_with(&format!("VALUE {key} ")), "{reply}");
            reply == failed
        })
        .collect();
    assert!(!lost.is_empty() && lost.len() < keys.len(), "{} of the keys are lost", lost.len());
    let key = lost[0];
    for request in [
        "delete KEY",
        "touch KEY 0",
        "incr KEY 1",
        "set KEY 0 0 0\r\n",
        "ms KEY 0 q\r\n",
        "md KEY q",
        "get KEY KEY",
    ] {
        let reply = client.text(format!("{}\r\n", request.replace("KEY", key)).as_bytes());
        assert_eq!(reply, failed, "{request}");
    }
    let all = format!("get {}\r\n", keys.join(" "));
    assert_eq!(client.text(all.as_bytes()), failed);
    assert_eq!(client.text(b"flush_all 9\r\n"), failed);
    assert_eq!(client.text(b"flush_all 0 noreply\r\nmn\r\n"), "MN\\r\\n");
    assert!(client.text(b"version\r\n").starts_with("VERSION 1."));
    let shard = client.text(b"stats shards\r\n");
    assert!(shard.contains("STAT shard-0:error SERVER_ERROR shard shard-0"), "{shard}");

    let mut client = lenient.connect();
    let found: Vec<&String> = keys.iter().filter(|key| !lost.contains(key)).collect();
    for key in &found {
        client.text(format!("set {key} 0 0 1\r\ny\r\n").as_bytes());
    }
    let expected =
        found.iter().map(|key| format!("VALUE {key} 0 1\\r\\ny\\r\\n")).collect::<String>() + "END\\r\\n";
    assert_eq!(client.text(all.as_bytes()), expected);
    assert_eq!(client.text(format!("get {key}\r\n").as_bytes()), "END\\r\\n");
    assert_eq!(client.text(format!("mg {key} v\r\n").as_bytes()), "EN\\r\\n");
    assert_eq!(client.text(format!("mg {key} v q\r\nmn\r\n").as_bytes()), "MN\\r\\n");
    assert_eq!(client.text(format!("mg {key} v O1\r\n").as_bytes()), failed);
    assert_eq!(client.text(format!("delete {key}\r\n").as_bytes()), failed);
}

#[test]
fn an_ejected_shard_comes_back_after_a_probe() {
    let shards = shards(2);
    let settings = [
        MEMCACHE,
        "timeout: 2000",
        "auto_eject_hosts: true",
        "server_failure_limit: 1",
        "server_retry_timeout: 100",
    ];
    let proxy = Server::memstore(&settings, &shards);
    let mut client = proxy.connect();
    let mut served = || {
        let is_served = |key: &i32| client.text(format!("get k{key}\r\n").as_bytes()) == "END\\r\\n";
        (0..20).filter(is_served).count().to_string()
    };
    assert_eq!(served(), "20");
    shards[0].signal("STOP");
    eventually(&mut served, "20");
    proxy.says("shard ejected");
    shards[0].signal("CONT");
    eventually(|| proxy.printed().contains("shard restored").to_string(), "true");
    assert_eq!(served(), "20");
}
