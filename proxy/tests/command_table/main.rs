//! The command table is generated from what servers published once, and servers go on changing, so it is compared with the
//! server that is installed here, whichever that is: a wrong key position sends a request to the wrong shard without
//! anybody noticing.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command as Process;

use memstore_proxy::protocol::Plan;
use memstore_proxy::protocol::resp::command::index::lookup;
use memstore_proxy::protocol::resp::command::info::info;
use memstore_proxy::protocol::resp::command::table::COMMANDS;
use memstore_proxy::protocol::resp::command::{Command, Commands, Handling, Version};
use memstore_proxy::protocol::resp::local::command as command_reply;
use server::{Client, Server, Value, read, text};

mod docs;
mod server;

/// A dump that `record.py` wrote: what one server says of its commands.
struct Dump(serde_json::Value);

impl Dump {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("it is there");
        Self(serde_json::from_str(&text).expect("it is JSON"))
    }

    /// All kept ones.
    fn all() -> Vec<Self> {
        let entries = std::fs::read_dir(scripts().join("servers")).expect("dumps are kept");
        let paths = entries.map(|entry| entry.expect("it can be listed").path());
        paths
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .map(|path| Self::read(&path))
            .collect()
    }

    fn family(&self) -> &str {
        self.0["family"].as_str().expect("a text")
    }

    fn version(&self) -> Version {
        Version::parse(self.0["version"].as_str().expect("a text")).expect("a version")
    }

    fn commands(&self) -> &serde_json::Map<String, serde_json::Value> {
        self.0["commands"].as_object().expect("commands by name")
    }
}

/// The folder of the scripts that write the table.
fn scripts() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/commands"))
}

/// Runs one of them and returns what it prints.
fn script(name: &str, arguments: &[&str]) -> String {
    let output = Process::new("python3").arg("-B").arg(scripts().join(name)).args(arguments).output();
    let output = output.expect("this test needs python3: apt-get install python3");
    assert!(output.status.success(), "{name}: {}", text(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text")
}

/// A row or one of its subcommands, by the name in it.
fn row(name: &str) -> Option<&'static Command<'static>> {
    match name.split_once('|') {
        Some((container, name)) => lookup(container.as_bytes())?.subcommand(name.as_bytes()),
        None => lookup(name.as_bytes()),
    }
}

#[test]
fn the_table_is_what_the_script_makes_of_the_dumps() {
    let table = include_str!("../../src/protocol/resp/command/table.rs");
    let written = script("table.py", &[]);
    let mut lines = table.lines().zip(written.lines()).enumerate();
    let other = lines.find(|(_, (kept, written))| kept != written);
    assert!(other.is_none(), "`make commands` writes another table: {other:#?}");
    assert_eq!(table.len(), written.len(), "`make commands` writes another table");
}

#[test]
fn a_row_says_which_families_know_the_command_since_when() {
    for dump in Dump::all() {
        for name in dump.commands().keys() {
            let since = row(name).unwrap_or_else(|| panic!("{name} has no row")).since;
            let of_family = if dump.family() == "redis" { since.redis } else { since.valkey };
            assert!(of_family.is_some_and(|since| since <= dump.version()), "{name}: {since:?}");
        }
    }
    for (name, redis, valkey) in [
        ("get", "1.0.0", "1.0.0"),
        ("vadd", "8.0.0", ""),
        ("hexpire", "7.4.0", "9.0.0"),
        ("commandlog|get", "", "8.1.0"),
        ("delifeq", "", "9.0.0"),
        ("msetex", "8.4.0", "9.1.0"),
        ("arset", "8.8.0", ""),
    ] {
        let since = row(name).expect("a row").since;
        let expected = [redis, valkey].map(Version::parse);
        assert_eq!([since.redis, since.valkey], expected, "{name}");
    }
}

#[test]
fn a_dump_is_what_its_server_says() {
    let directory = std::env::temp_dir().join(format!("memstore-commands-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a folder");
    let directory = directory.to_str().expect("its name is text");
    script("record.py", &[&server::program(), directory]);
    let path =
        std::fs::read_dir(directory).expect("a folder").next().expect("a dump").expect("a dump").path();
    let recorded = Dump::read(&path);
    std::fs::remove_dir_all(directory).expect("it is ours");
    assert!(recorded.commands().len() > 200, "only {} commands", recorded.commands().len());
    let is_kept = |kept: &&Dump| kept.family() == recorded.family() && kept.version() == recorded.version();
    // Another release of the same server: what it says is compared with the rows.
    let all = Dump::all();
    let Some(kept) = all.iter().find(is_kept) else { return };
    for (name, said) in recorded.commands() {
        assert_eq!(Some(said), kept.commands().get(name), "{name}");
    }
    assert_eq!(recorded.commands().len(), kept.commands().len());
}

#[test]
fn every_command_of_the_server_has_a_row_that_fits() {
    let server = Server::start();
    let mut client = server.connect();
    let Value::Array(described) = client.ask(&[b"COMMAND"]).value else { panic!("COMMAND answers an array") };
    let mut differences = Vec::new();
    for description in &described {
        compare(description, &|name| lookup(name), &mut differences);
    }
    assert!(
        differences.is_empty(),
        "{} differs from the table; record it and decide about new commands (proxy/commands/README.md):\n{}",
        server.version(),
        differences.join("\n")
    );
    assert!(described.len() > 200, "the server described only {} commands", described.len());
}

type Find<'a> = &'a dyn Fn(&[u8]) -> Option<&'static Command<'static>>;

/// Servers differ in what they say of a command. What a request is routed by has to be the same in all of them, and a row
/// accepts every number of arguments that any of them does.
fn compare(theirs: &Value, find: Find<'_>, differences: &mut Vec<String>) {
    let parts = theirs.array();
    let name = parts[0].text();
    let Some(row) = find(name.rsplit('|').next().expect("rsplit yields at least one").as_bytes()) else {
        differences.push(format!("{name}: no row"));
        return;
    };
    let mut ours = Vec::new();
    info(row, false, false, &mut ours);
    let ours = read(&mut &ours[..]).value;
    let mut differ = |part: &str, ours: &dyn std::fmt::Debug, theirs: &dyn std::fmt::Debug| {
        differences.push(format!("{name}: {part}: row {ours:?}, server {theirs:?}"));
    };
    let Value::Integer(arity) = parts[1] else { panic!("an arity is a number") };
    let least = arity.unsigned_abs() as usize;
    let most = if arity < 0 { least + 3 } else { least };
    let [our_flags, their_flags] = [&ours, theirs].map(|value| value.array()[2].texts());
    // A module of Redis 8.0 counts arguments itself.
    let judges_itself = their_flags.contains("module") && arity == -1;
    if !judges_itself && (least..=most).any(|count| !row.accepts(count)) {
        differ("arity", &row.arity, &arity);
    }
    for flag in ["write", "readonly", "blocking", "movablekeys"] {
        let [ours, theirs] = [&our_flags, &their_flags].map(|flags| flags.contains(flag));
        // Some servers only say later that a command waits.
        if ours != theirs && !(flag == "blocking" && ours) {
            differ(flag, &ours, &theirs);
        }
    }
    for (at, part) in [(3, "first key"), (4, "last key"), (5, "step")] {
        if ours.array()[at] != parts[at] {
            differ(part, &ours.array()[at], &parts[at]);
        }
    }
    let [our_keys, their_keys] = [&ours, theirs].map(|value| positions(&value.array()[8]));
    if our_keys != their_keys {
        differ("key positions", &our_keys, &their_keys);
    }
    for subcommand in parts[9].array() {
        compare(subcommand, &|name| row.subcommand(name), differences);
    }
}

/// The key specs without what becomes of the keys, and without remarks.
fn positions(specs: &Value) -> Vec<[&Value; 2]> {
    let specs = specs.array().iter();
    specs.map(|spec| [spec.member("begin_search"), spec.member("find_keys")]).collect()
}

#[test]
fn command_info_is_the_servers_byte_for_byte() {
    let server = Server::start();
    for resp3 in [false, true] {
        let mut client = server.connect();
        if resp3 {
            client.ask(&[b"HELLO", b"3"]);
        }
        let (mut compared, mut equal) = (0, 0);
        let rows = COMMANDS.iter().flat_map(|row| std::iter::once(row).chain(row.subcommands));
        for row in rows.filter(|row| row.is_served(false) && row.subcommands.is_empty()) {
            let request: [&[u8]; 3] = [b"COMMAND", b"INFO", row.name.as_bytes()];
            let theirs = client.ask(&request).bytes;
            if theirs.ends_with(b"*1\r\n_\r\n") || theirs.ends_with(b"*1\r\n$-1\r\n") {
                continue; // this server does not know it
            }
            let ours = answer(&request, resp3);
            let [ours, theirs] = [&ours, &theirs].map(|bytes| without_subcommands(bytes));
            // What differs otherwise is looked at above.
            assert_eq!(shape(ours), shape(theirs), "{}", row.name);
            equal += usize::from(ours == theirs);
            compared += 1;
        }
        assert!(compared > 200, "only {compared} commands were compared");
        assert!(equal * 10 > compared * 8, "only {equal} of {compared} descriptions are the server's");
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
            // Empty sets of subcommands are arrays in Valkey from 9.1 on.
            let replies = [answer(&request, resp3), client.ask(&request).bytes];
            let [ours, theirs] = replies.map(|bytes| text(&bytes).replace("*0\r\n", "~0\r\n"));
            assert_eq!(ours, theirs, "{same}");
        }
    }
}

#[test]
fn lists_name_what_the_proxy_does_and_nothing_else() {
    let Value::Array(names) = reply("COMMAND LIST") else { panic!("COMMAND LIST answers an array") };
    let names: Vec<_> = names.iter().map(Value::text).collect();
    for served in ["get", "mset", "blpop", "watch", "object|encoding", "client|setinfo", "command|docs"] {
        assert!(names.contains(&served), "{served} is missing");
    }
    for refused in
        ["shutdown", "acl|setuser", "module|load", "bzmove", "script|debug", "config|rewrite", "monitor"]
    {
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
    let is_valkey = server.identity().0 == "valkey";
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
        "MSETEX",
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
            let theirs = client.ask(&request).value;
            // Valkey has words of its own, and older servers do not know it.
            let Value::Error(words) = &theirs else { panic!("{command} {number}: {theirs:?}") };
            if command == "MSETEX" && (words.contains("unknown") || is_valkey) {
                continue;
            }
            assert_eq!(Value::Error(ours.text(row.name)), theirs, "{command} {number}");
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
        let (ours, theirs) = (answer(&request, false), client.ask(&request).bytes);
        if ours != theirs && !lookup(request[2]).is_some_and(|row| finds_by_code(row, &mut client)) {
            assert_eq!(text(&ours), text(&theirs), "{invocation}");
        }
    }
}

/// Later servers look for the keys of these by code, instead of by the key specs that they publish: that makes a difference for
/// requests that are wrong, or name an option twice.
fn finds_by_code(row: &Command, client: &mut Client) -> bool {
    let theirs = client.ask(&[b"COMMAND", b"INFO", b"georadius"]).bytes;
    ["sort", "georadius", "georadiusbymember", "xread", "xreadgroup"].contains(&row.name)
        && ["+incomplete", "+variable_flags"].iter().any(|flag| text(&theirs).contains(flag))
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
fn generated(row: &Command<'static>, seed: &mut u64) -> Vec<&'static str> {
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
    use memstore_proxy::protocol::resp::command::flag;
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
        if finds_by_code(row, &mut client) {
            continue;
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
    get a b
    set a b
    set a b GET
    set a
    nosuch a
    ping a
    echo a
    mget a
    mget a b c
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
        assert_eq!(row.waits(args.len(), |at| args[at]).is_some(), waits, "{request}");
    }
}

#[test]
fn a_flag_says_blocking_only_where_the_proxy_knows_how_to_treat_it() {
    use memstore_proxy::protocol::resp::command::{Feature, flag};
    let block: [&[u8]; 3] = [b"", b"BLOCK", b"0"];
    for row in COMMANDS.iter().filter(|row| row.flags.has(flag::BLOCKING)) {
        let apart = matches!(
            row.handling,
            Handling::Block(_) | Handling::Later(Feature::Blocking) | Handling::Confirm { .. }
        );
        assert!(
            apart || row.waits(block.len(), |at| block[at]).is_some(),
            "{} would block a shared connection",
            row.name
        );
    }
}

/// A description without its empty set of subcommands, which is an array in Valkey from 9.1 on.
fn without_subcommands(description: &[u8]) -> &[u8] {
    let found = [b"~0\r\n", b"*0\r\n"].into_iter().find_map(|end| description.strip_suffix(end));
    found.expect("it has no subcommands")
}

/// The kinds of the outer parts of a description.
fn shape(description: &[u8]) -> Vec<u8> {
    let mut rest = description;
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let end = rest.iter().position(|&byte| byte == b'\n').expect("a line") + 1;
        kinds.extend_from_slice(&rest[..end]);
        rest = &rest[end..];
    }
    while !rest.is_empty() {
        kinds.push(rest[0]);
        read(&mut rest);
    }
    kinds
}

fn reply(request: &str) -> Value {
    let request: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
    read(&mut &answer(&request, false)[..]).value
}

fn answer(request: &[&[u8]], resp3: bool) -> Vec<u8> {
    let mut plan = Plan::default();
    command_reply::answer(request, false, &Commands::default(), resp3, &mut plan);
    plan.take_reply().as_slice().to_vec()
}
