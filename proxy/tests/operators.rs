//! What operators and their tools ask of a whole server, asked of a pool of three: the figures are those of all three together.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use servers::{Client, Server, eventually};

mod servers;

const SETTINGS: [&str; 2] = ["info_refresh: 50ms", "hash_tag: \"{}\""];

fn three() -> Vec<Server> {
    let flags =
        ["--maxmemory-policy", "allkeys-lfu", "--maxmemory", "100mb", "--latency-monitor-threshold", "1"];
    (0..3).map(|_| Server::redis(&flags)).collect()
}

fn fill(client: &mut Client) {
    for key in 0..100 {
        assert_eq!(client.tell(&format!("SET key:{key} {key}")), "+OK\r\n");
    }
    for element in 0..300 {
        client.tell(&format!("RPUSH longlist {element}"));
    }
    client.tell("LPUSH key:1 wrong");
}

/// The text of a reply.
fn text(reply: &str) -> &str {
    reply.split_once("\r\n").map_or("", |(_, text)| text)
}

/// The fields of a text like that of INFO.
fn fields(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// `calls=1` of a line.
fn number(line: &str, name: &str) -> u64 {
    let field = line.split(',').find_map(|field| field.strip_prefix(&format!("{name}=")));
    field.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {name} in {line}"))
}

/// The elements of a flat array of strings and numbers, as pairs.
fn pairs(reply: &str) -> BTreeMap<String, String> {
    let (mut lines, mut words) = (reply.split("\r\n").skip(1), Vec::new());
    while let Some(line) = lines.next().filter(|line| !line.is_empty()) {
        words.push(if line.starts_with('$') { lines.next().unwrap_or_default() } else { line });
    }
    words.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect()
}

#[test]
fn figures_are_those_of_all_shards() {
    let shards = three();
    let proxy = Server::memstore(&SETTINGS, &shards);
    let mut client = proxy.connect();
    fill(&mut client);
    let sum = |name: &str, field: &str, section: &str| -> u64 {
        let of = |shard: &Server| {
            let info = shard.connect().tell(&format!("INFO {section}"));
            fields(&info).get(name).map_or(0, |line| number(line, field))
        };
        shards.iter().map(of).sum()
    };
    for version in ["2", "3"] {
        client.tell(&format!("HELLO {version}"));
        let reply = client.tell("INFO commandstats");
        assert!(reply.starts_with(if version == "2" { "$" } else { "=" }), "{reply}");
        let stats = fields(&reply);
        let set = &stats["cmdstat_set"];
        assert_eq!(number(set, "calls"), 100);
        assert_eq!(number(set, "usec"), sum("cmdstat_set", "usec", "commandstats"));
        let per_call = number(set, "usec") as f64 / 100.0;
        assert!(set.contains(&format!("usec_per_call={per_call:.2},")), "{set}");
        assert_eq!(number(&stats["cmdstat_lpush"], "failed_calls"), 1);

        // Nothing of it is kept but what INFO tells who asks for nothing.
        eventually(
            || client.tell("INFO errorstats").contains("errorstat_WRONGTYPE:count=1").to_string(),
            "true",
        );
        let all = client.tell("INFO everything");
        for section in [
            "Server",
            "Memory",
            "CPU",
            "Modules",
            "Commandstats",
            "Errorstats",
            "Latencystats",
            "Cluster",
            "Keyspace",
        ] {
            assert!(all.contains(&format!("# {section}\r\n")), "{section}: {all}");
        }
        let usual = client.tell("INFO");
        assert!(!usual.contains("# Commandstats") && usual.contains("used_cpu_sys:"), "{usual}");
        for name in
            ["used_memory", "maxmemory", "rdb_last_save_time", "aof_enabled", "instantaneous_ops_per_sec"]
        {
            assert!(fields(&all).contains_key(name), "{name}: {all}");
        }
        assert_eq!(fields(&all)["maxmemory"], (300 << 20).to_string());
        assert!(all.contains("latency_percentiles_usec_set:p50="), "{all}");
        let keys = client.tell("INFO keyspace");
        assert_eq!(number(&fields(&keys)["db0"].replace("keys=", ",keys="), "keys"), 101);

        // What one of them says.
        let one = client.tell("INFO shard shard-1 server");
        let its = shards[1].connect().tell("INFO server");
        assert_eq!(fields(&one)["run_id"], fields(&its)["run_id"]);
        assert_eq!(
            client.tell("INFO shard nosuch"),
            "-ERR no shard has that name; the shards are shard-0, shard-1, shard-2\r\n"
        );
    }
    client.tell("HELLO 2");
    // There is no config of one shard that is not of all, and no secrets.
    let config = pairs(&client.tell("CONFIG GET *"));
    for (name, value) in
        [("maxmemory", "314572800"), ("maxmemory-policy", "allkeys-lfu"), ("hz", "10"), ("databases", "16")]
    {
        assert_eq!(config.get(name).map(String::as_str), Some(value), "{name}: {config:?}");
    }
    assert!(!config.contains_key("requirepass") && !config.contains_key("maxclients"), "{config:?}");
    assert_eq!(pairs(&client.tell("CONFIG GET save appendonly"))["appendonly"], "no");
    shards[2].connect().tell("CONFIG SET hz 20");
    assert_eq!(client.tell("CONFIG GET hz"), "*0\r\n");

    let memory = client.tell("MEMORY STATS");
    assert!(memory.contains("$10\r\nkeys.count\r\n:101\r\n"), "{memory}");
    let histogram = client.tell("LATENCY HISTOGRAM set");
    assert!(histogram.starts_with("*2\r\n$3\r\nset\r\n*4\r\n$5\r\ncalls\r\n:100\r\n"), "{histogram}");
    assert!(histogram.ends_with(":100\r\n"), "{histogram}");

    assert_eq!(client.tell("CONFIG RESETSTAT"), "+OK\r\n");
    assert!(!client.tell("INFO commandstats").contains("cmdstat_set:"));
    assert!(client.tell("CONFIG HELP").contains("RESETSTAT"));
}

/// Tools at a shard that is down go on, with what is known.
#[test]
fn a_shard_that_is_down_hides_nothing_else() {
    let mut shards = three();
    let lines: Vec<String> = shards.iter().enumerate().map(|(at, shard)| shard.line(at)).collect();
    let proxy = Server::memstore_over(&SETTINGS, &lines);
    let mut client = proxy.connect();
    eventually(|| client.tell("INFO all").contains("# Commandstats").to_string(), "true");
    drop(shards.pop());
    eventually(|| client.tell("INFO all").contains("# Commandstats").to_string(), "false");
    assert!(client.tell("INFO all").contains("# Clients"));
    assert!(client.tell("INFO commandstats").starts_with("-ERR shard shard-2: "));
    assert!(client.tell("INFO shard shard-2").starts_with("-ERR shard shard-2: "));
    assert!(client.tell("INFO shard shard-0").contains("run_id:"));
    let config = pairs(&client.tell("CONFIG GET *"));
    assert_eq!(config.get("hz").map(String::as_str), Some("10"), "{config:?}");
    assert!(
        !config.contains_key("maxmemory") || config["maxmemory"] == (300 << 20).to_string(),
        "{config:?}"
    );
}

#[test]
fn a_pool_of_one_shard_tells_all_that_it_has() {
    let shards = [Server::redis(&["--dir", "/"])];
    let proxy = Server::memstore(&SETTINGS, &shards);
    let (mut ours, mut theirs) = (proxy.connect(), shards[0].connect());
    ours.tell("SET k v");
    assert_eq!(pairs(&ours.tell("CONFIG GET dir"))["dir"], "/");
    let lines = |reply: &str| -> Vec<String> {
        let lines = text(reply).lines().filter(|line| line.starts_with("cmdstat_set:"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(lines(&ours.tell("INFO commandstats")), lines(&theirs.tell("INFO commandstats")));
    assert!(ours.tell("MEMORY STATS").contains("$10\r\nkeys.count\r\n:1\r\n"));
    assert!(ours.tell("LATENCY HISTOGRAM set").contains("$5\r\ncalls\r\n:1\r\n"));
}

/// The redis-cli that came with the servers that are tested.
fn cli() -> String {
    let beside = std::env::var("TEST_REDIS").ok().and_then(|server| {
        let folder = Path::new(&server).parent()?.to_owned();
        ["redis-cli", "valkey-cli"].iter().map(|name| folder.join(name)).find(|path| path.exists())
    });
    beside.map_or_else(|| "redis-cli".to_owned(), |path| path.display().to_string())
}

fn run(client: &Client, arguments: &[&str]) -> String {
    let peer = client.peer();
    let output = Command::new(cli())
        .args(["-h", &peer.ip().to_string(), "-p", &peer.port().to_string()])
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("redis-cli: {error}; apt-get install redis-tools"));
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn redis_cli_browses_all_shards() {
    let shards = three();
    let proxy = Server::memstore(&SETTINGS, &shards);
    let mut client = proxy.connect();
    fill(&mut client);
    for _ in 0..200 {
        client.tell("GET key:7");
    }
    let found = run(&client, &["--scan", "--pattern", "key:1*"]);
    assert_eq!(found.lines().count(), 11, "{found}");
    let found = run(&client, &["--bigkeys"]);
    assert!(found.contains("Sampled 101 keys in the keyspace!"), "{found}");
    assert!(found.contains("longlist") && found.contains("300 items"), "{found}");
    let found = run(&client, &["--memkeys"]);
    assert!(found.contains("Sampled 101 keys in the keyspace!") && found.contains("longlist"), "{found}");
    let found = run(&client, &["--hotkeys"]);
    assert!(
        found.contains("Sampled 101 keys in the keyspace!") && found.contains("keyname: \"key:7\""),
        "{found}"
    );
    let help = Command::new(cli()).arg("--help").output().expect("it was started before");
    if String::from_utf8_lossy(&[help.stdout, help.stderr].concat()).contains("--keystats") {
        let found = run(&client, &["--keystats"]);
        assert!(found.contains("longlist") && found.contains("101"), "{found}");
    }
    let peer = client.peer();
    let mut tool = Command::new(cli())
        .args(["-h", &peer.ip().to_string(), "-p", &peer.port().to_string(), "--latency-dist", "-i", "0.05"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was started before");
    let mut lines = BufReader::new(tool.stdout.take().expect("piped")).lines();
    assert!(lines.next().is_some_and(|line| line.is_ok()));
    let _ = tool.kill();
    let _ = tool.wait();
}

/// What clients that do not read ask for again and again takes no memory without end, and keeps nobody waiting.
#[test]
fn reports_that_nobody_reads_are_bounded() {
    let shards = three();
    let proxy = Server::memstore(&["info_refresh: 50ms"], &shards);
    let mut other = proxy.connect();
    eventually(|| other.tell("INFO memory").contains("used_memory").to_string(), "true");
    let before = proxy.memory();
    let mut slow: Vec<Client> = Vec::new();
    for request in [
        "CONFIG GET *",
        "INFO everything",
        "MEMORY STATS",
        "LATENCY HISTOGRAM",
        "INFO shard shard-0 everything",
    ] {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let many = servers::encoded(&words).repeat(500);
        for _ in 0..2 {
            let client = proxy.connect();
            let mut twin = client.twin();
            let many = many.clone();
            // It may be told to go.
            std::thread::spawn(move || {
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| twin.send(&many)))
            });
            slow.push(client);
        }
    }
    for number in 0..300 {
        assert_eq!(other.tell(&format!("SET k{number} v")), "+OK\r\n");
    }
    assert!(proxy.memory() < before + (160 << 20), "{} of {before}", proxy.memory());
}
