//! The command table is generated once and servers go on changing, so it is compared with the server that is installed
//! here: a wrong key position sends a request to the wrong shard without anybody noticing.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command as Process, Stdio};

use memstore_proxy::protocol::resp::command_reply;
use memstore_proxy::protocol::resp::commands::{COMMANDS, Command, Handling, lookup};
use memstore_proxy::protocol::resp::encode;

#[test]
fn every_command_of_the_server_has_a_row_that_says_the_same() {
    let server = Server::start();
    let mut client = server.connect();
    let Value::Array(described) = client.ask(&[b"COMMAND"]).value else { panic!("COMMAND answers an array") };
    let mut differences = Vec::new();
    for description in &described {
        compare(description, &|name| lookup(name), &mut differences);
    }
    assert!(
        differences.is_empty(),
        "the table (command_table.py) and {} differ:\n{}",
        server.version(),
        differences.join("\n")
    );
    assert!(described.len() > 200, "the server described only {} commands", described.len());
}

type Find<'a> = &'a dyn Fn(&[u8]) -> Option<&'static Command>;

fn compare(theirs: &Value, find: Find<'_>, differences: &mut Vec<String>) {
    const PARTS: [&str; 9] =
        ["name", "arity", "flags", "first key", "last key", "step", "categories", "tips", "key specs"];
    let Value::Array(theirs) = theirs else { panic!("a description is an array") };
    let name = theirs[0].text();
    let Some(row) = find(name.rsplit('|').next().expect("rsplit yields at least one").as_bytes()) else {
        differences.push(format!("{name}: no row"));
        return;
    };
    let mut ours = Vec::new();
    command_reply::info(row, false, false, &mut ours);
    let Value::Array(ours) = read(&mut &ours[..]).value else { panic!("a description is an array") };
    for (part, (ours, theirs)) in PARTS.iter().zip(ours.iter().zip(theirs)) {
        if ours != theirs {
            differences.push(format!("{name}: {part}: row {ours:?}, server {theirs:?}"));
        }
    }
    let Value::Array(subcommands) = &theirs[9] else { panic!("subcommands are an array") };
    for subcommand in subcommands {
        compare(subcommand, &|name| row.subcommand(name), differences);
    }
}

#[test]
fn command_info_is_the_servers_byte_for_byte() {
    let server = Server::start();
    for resp3 in [false, true] {
        let mut client = server.connect();
        if resp3 {
            client.ask(&[b"HELLO", b"3"]);
        }
        let mut compared = 0;
        let rows = COMMANDS.iter().flat_map(|row| std::iter::once(row).chain(row.subcommands));
        for row in rows.filter(|row| row.is_served(false) && row.subcommands.is_empty()) {
            let request: [&[u8]; 3] = [b"COMMAND", b"INFO", row.name.as_bytes()];
            let theirs = client.ask(&request).bytes;
            if theirs.ends_with(b"*1\r\n_\r\n") || theirs.ends_with(b"*1\r\n$-1\r\n") {
                continue; // newer than the installed server
            }
            assert_eq!(text(&answer(&request, resp3)), text(&theirs), "{}", row.name);
            compared += 1;
        }
        assert!(compared > 200, "only {compared} commands were compared");
        for same in [
            "COMMAND INFO nosuch",
            "COMMAND INFO get nosuch|sub get|sub GET object|nosuch",
            "COMMAND DOCS nosuch get|sub",
            "COMMAND LIST FILTERBY MODULE nosuch",
            "COMMAND LIST FILTERBY ACLCAT nosuch",
            "COMMAND LIST FILTERBY PATTERN nosuch*",
            "COMMAND LIST FILTERBY ACLCAT read write",
            "COMMAND LIST FILTERBY nosuch x",
            "COMMAND LIST nosuch",
            "COMMAND COUNT 1",
            "COMMAND nosuch",
            "COMMAND GETKEYS",
            "COMMAND GETKEYSANDFLAGS mget a b",
            "COMMAND GETKEYSANDFLAGS sort a store b",
            "COMMAND GETKEYSANDFLAGS eval s 0",
        ] {
            let request: Vec<&[u8]> = same.split(' ').map(str::as_bytes).collect();
            assert_eq!(text(&answer(&request, resp3)), text(&client.ask(&request).bytes), "{same}");
        }
    }
}

#[test]
fn lists_name_what_the_proxy_does_and_nothing_else() {
    let Value::Array(names) = reply("COMMAND LIST") else { panic!("COMMAND LIST answers an array") };
    let names: Vec<_> = names.iter().map(Value::text).collect();
    for served in ["get", "mset", "object|encoding", "client|setinfo", "command|docs"] {
        assert!(names.contains(&served), "{served} is missing");
    }
    for refused in ["shutdown", "acl", "acl|cat", "multi", "blpop", "script", "config|set", "monitor"] {
        assert!(!names.contains(&refused), "{refused} is refused, but listed");
    }
    let Value::Array(described) = reply("COMMAND") else { panic!("COMMAND answers an array") };
    let Value::Array(documented) = reply("COMMAND DOCS") else { panic!("COMMAND DOCS answers an array") };
    assert_eq!(reply("COMMAND COUNT"), Value::Integer(described.len() as i64));
    assert_eq!(documented.len(), 2 * described.len());
}

#[test]
fn a_number_of_keys_is_refused_in_the_servers_words() {
    let server = Server::start();
    let mut client = server.connect();
    for command in [
        "EVAL return_1",
        "EVAL_RO return_1",
        "ZUNION",
        "ZINTER",
        "ZDIFF",
        "ZINTERCARD",
        "SINTERCARD",
        "ZUNIONSTORE dst",
        "ZINTERSTORE dst",
        "ZDIFFSTORE dst",
        "LMPOP",
        "ZMPOP",
        "BLMPOP 0.1",
        "BZMPOP 0.1",
    ] {
        for number in ["x", "", "-1", "0", "9", "1.0", "+1", "01", "-0", "9999999999", "99999999999999999999"]
        {
            let request = format!("{command} {number} a b LEFT");
            let request: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            let row = lookup(request[0]).expect("it has a row");
            let Err(ours) = row.key_positions(request.len(), |at| request[at]) else {
                assert!(command.starts_with("EVAL") && number == "0", "{command} {number} has keys");
                continue;
            };
            assert_eq!(Value::Error(ours.text(row.name)), client.ask(&request).value, "{command} {number}");
        }
    }
}

#[test]
fn command_getkeys_finds_the_servers_keys() {
    let server = Server::start();
    let mut client = server.connect();
    for invocation in INVOCATIONS.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let request = format!("COMMAND GETKEYS {invocation}");
        let request: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        assert_eq!(text(&answer(&request, false)), text(&client.ask(&request).bytes), "{invocation}");
    }
}

/// Words that steer the walk over arguments, in every place where they do and do not belong.
const WORDS: [&str; 24] = [
    "a",
    "b",
    "c",
    "STORE",
    "store",
    "STOREDIST",
    "STREAMS",
    "streams",
    "GROUP",
    "COUNT",
    "BLOCK",
    "NOACK",
    "KEYS",
    "BY",
    "GET",
    "LIMIT",
    "WEIGHTS",
    "AGGREGATE",
    "0",
    "1",
    "2",
    "3",
    "-1",
    ">",
];

/// Requests of one row, from a seed.
fn generated(row: &Command, seed: &mut u64) -> Vec<&'static str> {
    let mut below = |bound: usize| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) as usize % bound
    };
    let least = usize::from(row.arity.unsigned_abs());
    let mut request = vec![row.name];
    for _ in 1..least + below(8) {
        request.push(WORDS[below(WORDS.len())]);
    }
    request
}

#[test]
fn command_getkeys_finds_the_servers_keys_in_whatever_order_options_stand() {
    const REQUESTS: usize = 300;
    use memstore_proxy::protocol::resp::commands::flag;
    let server = Server::start();
    let mut client = server.connect();
    let (mut seed, mut found) = (1, 0);
    // MIGRATE, which is refused, has key specs that its server does not trust either.
    let is_asked =
        |row: &&Command| row.flags.has(flag::MOVABLEKEYS) && !matches!(row.handling, Handling::Refuse(_));
    for row in COMMANDS.iter().filter(is_asked) {
        let known = client.ask(&[b"COMMAND", b"INFO", row.name.as_bytes()]).bytes;
        if known.ends_with(b"$-1\r\n") || known.ends_with(b"*-1\r\n") {
            continue; // newer than the installed server
        }
        let generated: Vec<_> = (0..REQUESTS).map(|_| generated(row, &mut seed)).collect();
        for request in generated {
            let words = ["COMMAND", "GETKEYS"].iter().chain(&request).map(|word| word.as_bytes());
            let words: Vec<&[u8]> = words.collect();
            let theirs = client.ask(&words);
            found += usize::from(matches!(theirs.value, Value::Array(_)));
            assert_eq!(text(&answer(&words, false)), text(&theirs.bytes), "{}", request.join(" "));
        }
    }
    assert!(found > 1000, "only {found} requests had keys");
}

#[test]
fn keys_are_those_that_the_server_takes_when_it_executes_the_request() {
    const REQUESTS: usize = 3000;
    let server = Server::start();
    let mut client = server.connect();
    let mut ask = |request: &str| {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        client.ask(&words).value
    };
    let mut seed = 7_u64;
    let mut below = |bound: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % bound
    };
    let mut stored = 0;
    for _ in 0..REQUESTS {
        ask("FLUSHALL");
        ask("GEOADD src 1 1 m 1 1 STORE");
        let mut request =
            ["GEORADIUS src 1 1 9 m", "GEORADIUSBYMEMBER src m 9 m", "GEORADIUSBYMEMBER src STORE 9 m"]
                [below(3)]
            .to_owned();
        for _ in 0..1 + below(4) {
            let options = ["STORE", "STOREDIST", "COUNT", "ASC", "store"];
            request += &format!(" {} {}", options[below(5)], ["x", "y", "STORE", "1", "2"][below(5)]);
        }
        let Value::Integer(1..) = ask(&request) else { continue };
        let Value::Array(keys) = ask("KEYS *") else { panic!("KEYS answers an array") };
        let keys: BTreeSet<String> = keys.iter().map(|key| key.text().to_owned()).collect();
        assert_eq!(taken(&request), keys, "{request}");
        stored += 1;
    }
    assert!(stored > REQUESTS / 20, "only {stored} requests stored something");

    ask("FLUSHALL");
    for stream in ["a", "b", "streams", "STREAMS"] {
        for group in ["g", "streams"] {
            ask(&format!("XGROUP CREATE {stream} {group} 0 MKSTREAM"));
        }
        ask(&format!("XADD {stream} 1-1 f v"));
    }
    let mut read = 0;
    for _ in 0..REQUESTS {
        let mut request = ["XREAD", "XREADGROUP"][below(2)].to_owned();
        for _ in 0..below(3) {
            let options = ["COUNT 1", "GROUP streams STREAMS", "GROUP g streams", "NOACK", "COUNT 9"];
            request += &format!(" {}", options[below(5)]);
        }
        let count = 1 + below(2);
        request += " STREAMS";
        for _ in 0..count {
            request += &format!(" {}", ["a", "b", "streams", "STREAMS"][below(4)]);
        }
        request += &" 0".repeat(count);
        let Value::Array(streams) = ask(&request) else { continue };
        let names: BTreeSet<String> = streams
            .iter()
            .map(|stream| match stream {
                Value::Array(pair) => pair[0].text().to_owned(),
                other => panic!("{other:?} is no stream"),
            })
            .collect();
        assert_eq!(taken(&request), names, "{request}");
        read += 1;
    }
    assert!(read > REQUESTS / 20, "only {read} requests read something");
}

/// The keys by which the proxy finds the shard of a request.
fn taken(request: &str) -> BTreeSet<String> {
    let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
    let row = lookup(words[0]).expect("it has a row");
    let positions = row.key_positions(words.len(), |at| words[at]).expect("it has keys");
    positions.map(|at| text(words[at])).collect()
}

/// Requests, right and wrong, of all shapes that key specs can take.
const INVOCATIONS: &str = "
    get a
    GET a
    gEt a
    get
    get a b
    set a b
    set a b GET
    set a
    nosuch a
    ping a
    echo a
    mget a
    mget a b c
    mget
    mset a 1 b 2
    mset a 1 b
    msetnx a 1 b 2
    del a b
    unlink a b c
    exists a a
    touch a
    rename a b
    rename a
    renamenx a b
    copy a b DB 1 REPLACE
    move a 1
    object encoding a
    OBJECT FREQ a
    object nosuch a
    object help x
    memory usage a SAMPLES 3
    memory usage
    memory stats x
    xinfo stream a FULL
    xgroup create a g $ MKSTREAM
    xgroup destroy a g
    bitop AND dst a b
    bitop NOT dst a
    bitop AND dst
    smove a b member
    lmove a b LEFT RIGHT
    rpoplpush a b
    blmove a b LEFT RIGHT 0
    blpop a b c 0
    blpop a
    brpoplpush a b 0
    bzpopmin a b 0
    lmpop 2 a b LEFT
    lmpop 3 a b
    lmpop 0 a LEFT
    blmpop 0 2 a b LEFT
    zmpop 1 a MIN
    bzmpop 0 1 a MIN
    sintercard 2 a b LIMIT 1
    sinter a b
    sinterstore dst a b
    sunionstore dst a
    sdiff a
    pfcount a b
    pfmerge dst a b
    zunion 2 a b WITHSCORES
    zunion 2 a
    zunion 0 a
    zunion -1 a
    zunion x a
    zunionstore dst 2 a b WEIGHTS 1 2
    zunionstore dst 2 a
    zdiffstore dst 1 a
    zintercard 2 a b LIMIT 2
    zrangestore dst a 0 -1
    geosearchstore dst a FROMMEMBER m BYRADIUS 1 m
    georadius a 1 1 1 m
    georadius a 1 1 1 m STORE b
    georadius a 1 1 1 m STOREDIST b
    georadius a 1 1 1 m COUNT 1 STORE b STOREDIST c
    georadius a 1 1 1 m STORE
    georadiusbymember a STORE 1 m store b
    georadius_ro a 1 1 1 m STORE b
    sort a
    sort a STORE b
    sort a BY w_* GET # GET o_* LIMIT 0 1 ALPHA DESC STORE b
    sort a BY STORE x
    sort a GET STORE STORE b
    sort a LIMIT STORE 1 STORE b
    sort a STORE b STORE c
    sort a STORE
    sort a STORE LIMIT STORE b
    sort_ro a BY w_*
    eval s 0
    eval s 2 a b c
    eval s 3 a
    eval s x a
    eval s
    evalsha_ro s 1 a
    fcall f 1 a b
    xread COUNT 1 STREAMS a b 0 0
    xread BLOCK 0 STREAMS a $
    xread STREAMS a b 0
    xread COUNT 1 a b
    xread STREAMS a
    xreadgroup GROUP g c STREAMS a b > >
    xreadgroup GROUP STREAMS c COUNT 1 NOACK STREAMS a >
    xadd a * f v
    lcs a b LEN
    migrate host 1 a 0 1
    publish ch m
    spublish ch m
    subscribe ch
    watch a b
    restore a 0 x
    pfdebug ENCODING a
    command info get
    config get a
    client nosuch
";

#[test]
fn options_that_make_a_command_wait_are_found_where_the_server_finds_them() {
    for (request, waits) in [
        ("XREAD BLOCK 0 STREAMS a $", true),
        ("xread count 1 block 0 streams a $", true),
        ("XREAD COUNT 1 STREAMS BLOCK 0", false),
        ("XREAD STREAMS BLOCK 0", false),
        ("XREADGROUP BLOCK 0 GROUP g c STREAMS a >", true),
        ("XREADGROUP GROUP BLOCK BLOCK STREAMS a >", false),
        ("XREADGROUP GROUP STREAMS c BLOCK 0 STREAMS a >", true),
        ("XREADGROUP GROUP g c NOACK COUNT 1 BLOCK 0 STREAMS a >", true),
        ("XREADGROUP GROUP g c NEWER STREAMS BLOCK 0 STREAMS a >", true),
        ("GET BLOCK", false),
    ] {
        let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let row = lookup(args[0]).expect("it has a row");
        assert_eq!(row.waits(args.len(), |at| args[at]), waits, "{request}");
    }
}

#[test]
fn a_flag_says_blocking_only_where_the_proxy_knows_how_to_treat_it() {
    use memstore_proxy::protocol::resp::commands::{Feature, flag};
    let block: [&[u8]; 3] = [b"", b"BLOCK", b"0"];
    for row in COMMANDS.iter().filter(|row| row.flags.has(flag::BLOCKING)) {
        let later = row.handling == Handling::Later(Feature::Blocking);
        assert!(
            later || row.waits(block.len(), |at| block[at]),
            "{} would block a shared connection",
            row.name
        );
    }
}

fn reply(request: &str) -> Value {
    let request: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
    read(&mut &answer(&request, false)[..]).value
}

fn answer(request: &[&[u8]], resp3: bool) -> Vec<u8> {
    let mut out = Vec::new();
    command_reply::answer(request, false, resp3, &mut out);
    out
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[derive(Debug, PartialEq)]
enum Value {
    Text(String),
    Error(String),
    Integer(i64),
    Array(Vec<Value>),
    Null,
}

impl Value {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }
}

/// A reply, and the bytes it came in.
struct Reply {
    value: Value,
    bytes: Vec<u8>,
}

/// Reads one value of RESP2 or RESP3; aggregates of any kind are arrays.
fn read(from: &mut impl BufRead) -> Reply {
    let mut bytes = Vec::new();
    let value = read_value(from, &mut bytes);
    Reply { value, bytes }
}

fn read_value(from: &mut impl BufRead, bytes: &mut Vec<u8>) -> Value {
    let start = bytes.len();
    from.read_until(b'\n', bytes).expect("the server answers");
    let line = text(&bytes[start..]);
    let (kind, rest) = line.trim_end().split_at(1);
    let number = || rest.parse::<i64>().expect("a length or a number");
    match kind {
        "+" => Value::Text(rest.to_owned()),
        "-" => Value::Error(rest.to_owned()),
        ":" => Value::Integer(number()),
        "_" => Value::Null,
        "$" | "*" if rest == "-1" => Value::Null,
        "$" => {
            let start = bytes.len();
            let length = number() as usize;
            bytes.resize(start + length + 2, 0);
            from.read_exact(&mut bytes[start..]).expect("the server sends the whole string");
            Value::Text(text(&bytes[start..start + length]))
        }
        "*" | "~" => Value::Array((0..number()).map(|_| read_value(from, bytes)).collect()),
        "%" => Value::Array((0..2 * number()).map(|_| read_value(from, bytes)).collect()),
        _ => panic!("{line:?} starts no RESP value"),
    }
}

/// A Redis server of our own, killed when dropped.
struct Server {
    process: Child,
    port: u16,
    log: BufReader<ChildStdout>,
}

impl Server {
    fn start() -> Self {
        for _ in 0..5 {
            // The port is free at this moment; should somebody else take it, the server ends and the next one is tried.
            let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            let port = port.expect("127.0.0.1 has a free port").port();
            let directory = std::env::temp_dir();
            let mut process = Process::new("redis-server")
                .args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string(), "--dir"])
                .arg(&directory)
                .stdout(Stdio::piped())
                .spawn()
                .expect("this test needs redis-server: apt-get install redis-server");
            let log = BufReader::new(process.stdout.take().expect("it is piped"));
            let mut server = Self { process, port, log };
            let mut line = String::new();
            while server.log.read_line(&mut line).expect("its log can be read") > 0 {
                if line.contains("Ready to accept connections") {
                    return server;
                }
                line.clear();
            }
        }
        panic!("redis-server did not start in five attempts");
    }

    fn connect(&self) -> Client {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).expect("it said that it is ready");
        Client { socket: BufReader::new(socket) }
    }

    fn version(&self) -> String {
        let Value::Text(info) = self.connect().ask(&[b"INFO", b"server"]).value else {
            panic!("INFO is a text")
        };
        info.lines().find(|line| line.starts_with("redis_version")).unwrap_or("the server").to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Client {
    socket: BufReader<TcpStream>,
}

impl Client {
    fn ask(&mut self, request: &[&[u8]]) -> Reply {
        let mut bytes = Vec::new();
        encode::request(&mut bytes, request);
        self.socket.get_mut().write_all(&bytes).expect("the server reads");
        read(&mut self.socket)
    }
}
