//! Which commands the shards have is learnt from them: by a proxy over servers that have modules, lack commands, change, and lie.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use memstore_proxy::protocol::resp::command::table::COMMANDS;
use servers::{Client, Fake, Server, eventually, told};

mod servers;

/// What a server says that only pretends.
#[derive(Clone, Default)]
struct State {
    run: String,
    /// Further lines of INFO.
    info: String,
    /// Rows beyond those that every server has.
    rows: Vec<String>,
    /// What it says to COMMAND instead.
    command: Option<Vec<u8>>,
    /// It never answers this command; all of them if it is empty.
    hangs: Option<&'static str>,
    /// How often it was asked what.
    asked: BTreeMap<String, usize>,
}

/// A server that knows GET, and JSON.GET if it tells of it.
struct Pretender {
    state: Arc<Mutex<State>>,
    shard: Fake,
}

impl Pretender {
    fn new(number: usize) -> Self {
        let state = Arc::new(Mutex::new(State { run: "first".into(), ..State::default() }));
        let shared = state.clone();
        let mut shard = Fake::new(move |stream, _| serve(stream, number, &shared));
        shard.line = shard.line.replace("shard-0", &format!("shard-{number}"));
        Self { state, shard }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("nobody panics with it"));
    }

    fn asked(&self, word: &str) -> usize {
        self.state.lock().expect("nobody panics with it").asked.get(word).copied().unwrap_or(0)
    }
}

/// `name flags first last step` as COMMAND has it.
fn row(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let flags: Vec<&str> = words[1].split('+').collect();
    let flags = flags.iter().fold(format!("*{}\r\n", flags.len()), |all, flag| all + &format!("+{flag}\r\n"));
    let range: String = words[2..].iter().map(|number| format!(":{number}\r\n")).collect();
    format!("*6\r\n${}\r\n{}\r\n:-1\r\n{flags}{range}", words[0].len(), words[0])
}

fn serve(stream: TcpStream, number: usize, state: &Mutex<State>) {
    let mut client = Client::over(stream.try_clone().expect("one more descriptor"));
    let mut stream = stream;
    loop {
        // A request has the form of a reply.
        let request = client.reply();
        let request = String::from_utf8_lossy(&request).into_owned();
        let words: Vec<&str> = request.split("\r\n").skip(2).step_by(2).collect();
        let Some(name) = words.first().filter(|name| !name.is_empty()).map(|name| name.to_ascii_lowercase())
        else {
            return;
        };
        let told = {
            let mut state = state.lock().expect("nobody panics with it");
            *state.asked.entry(name.clone()).or_default() += 1;
            state.clone()
        };
        if let Some(hangs) = told.hangs
            && (hangs.is_empty() || hangs == name)
        {
            // It reads on, as the kernel of one that hangs does.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
            return;
        }
        let known: Vec<String> = COMMANDS
            .iter()
            .filter(|row| row.since.is_everywhere())
            .map(|row| format!("{} fast 0 0 0", row.name))
            .collect();
        let reply = match &*name {
            "info" => {
                let text =
                    format!("redis_version:7.0.15\r\nrun_id:{}\r\nrole:master\r\n{}", told.run, told.info);
                format!("${}\r\n{text}\r\n", text.len()).into_bytes()
            }
            "command" => told.command.unwrap_or_else(|| {
                let rows: Vec<String> = known.iter().chain(&told.rows).map(|text| row(text)).collect();
                format!("*{}\r\n{}", rows.len(), rows.concat()).into_bytes()
            }),
            "config" => b"*0\r\n".to_vec(),
            "ping" => b"+PONG\r\n".to_vec(),
            "get" => format!("$1\r\n{number}\r\n").into_bytes(),
            _ if told.rows.iter().any(|row| row.split(' ').next() == Some(&name)) => {
                format!("+{name} on {number}\r\n").into_bytes()
            }
            _ => format!("-ERR shard {number} does not know {name}\r\n").into_bytes(),
        };
        if stream.write_all(&reply).is_err() {
            return;
        }
    }
}

const SETTINGS: [&str; 3] = ["info_refresh: 20ms", "resp3: false", "databases: 1"];
const JSON: &str = "json.get readonly+module 1 1 1";

/// The reply without its line end.
fn said(client: &mut Client, line: &str) -> String {
    client.tell(line).trim_end_matches("\r\n").to_owned()
}

/// A key on each of two shards.
fn keys(client: &mut Client) -> [String; 2] {
    let mut found = [None, None];
    for number in 0.. {
        let key = format!("k{number}");
        let at: usize =
            client.tell(&format!("GET {key}")).lines().nth(1).expect("a value").parse().expect("a number");
        found[at].get_or_insert(key);
        if let [Some(one), Some(other)] = &found {
            return [one.clone(), other.clone()];
        }
    }
    unreachable!("keys do not end")
}

#[test]
fn a_module_is_used_where_it_is_and_followed_where_it_comes_and_goes() {
    let shards = [Pretender::new(0), Pretender::new(1)];
    shards[0].change(|state| state.rows = vec![JSON.into(), "graph.list readonly+module 0 0 0".into()]);
    let lines: Vec<String> = shards.iter().map(|pretender| pretender.shard.line.clone()).collect();
    let (proxy, admin) = Server::memstore_with_admin(&SETTINGS, &lines, &[]);
    let mut client = proxy.connect();
    let keys = keys(&mut client);
    eventually(|| said(&mut client, &format!("JSON.GET {}", keys[0])), "+json.get on 0");
    assert_eq!(said(&mut client, &format!("JSON.GET {}", keys[1])), "-ERR shard 1 does not know json.get");
    assert!(said(&mut client, "GRAPH.LIST").starts_with("-ERR 'graph.list' is refused: it names no key"));
    proxy.says("shards differ in their commands");
    proxy.says("shard-1 lacks graph.list, json.get");
    assert!(told(&admin, "/metrics").contains("memstore_learnt_commands{pool=\"pool\"} 2"));

    // It comes back with the module.
    shards[1].change(|state| {
        state.run = "second".into();
        state.rows = vec![JSON.into(), "graph.list readonly+module 0 0 0".into()];
    });
    eventually(|| said(&mut client, &format!("JSON.GET {}", keys[1])), "+json.get on 1");
    proxy.says("all shards have the same commands again");

    // The module is unloaded while they run.
    for shard in &shards {
        shard.change(|state| {
            state.rows.clear();
            state.info = "# Modules\r\n".into();
            state.info += "module:name=other,ver=1\r\n";
        });
    }
    let unknown = format!("-ERR unknown command 'JSON.GET', with args beginning with: '{}' ", keys[0]);
    eventually(|| said(&mut client, &format!("JSON.GET {}", keys[0])), &unknown);
    // Asked once in each run: of which the first had two, the second three.
    let refreshes = shards[0].asked("info");
    eventually(|| (shards[0].asked("info") > refreshes + 5).to_string(), "true");
    assert_eq!([shards[0].asked("command"), shards[1].asked("command")], [2, 3]);
}

#[test]
fn what_a_shard_told_holds_while_it_is_away() {
    let shard = Server::redis(&[]);
    let line = shard.line(0);
    let proxy = Server::memstore_over(&["info_refresh: 20ms"], &[line]);
    let mut client = proxy.connect();
    let request = "HPTTL k FIELDS 1 f";
    let own = said(&mut shard.connect(), request);
    let shows = said(&mut shard.connect(), "SCRIPT SHOW x");
    let unknown = "-ERR unknown command 'HPTTL', with args beginning with: 'k' 'FIELDS' '1' 'f' ";
    for is_away in [false, true] {
        if own.starts_with("-ERR unknown command") {
            assert_eq!(said(&mut client, request), unknown);
            assert_eq!(said(&mut client, "MULTI"), "+OK");
            assert_eq!(said(&mut client, request), unknown);
            assert_eq!(
                said(&mut client, "EXEC"),
                "-EXECABORT Transaction discarded because of previous errors."
            );
            // Valkey 8.0 has it.
            let unknown = "-ERR unknown subcommand 'SHOW'. Try SCRIPT HELP.";
            if shows.starts_with(unknown) {
                assert!(said(&mut client, "SCRIPT SHOW x").starts_with(unknown));
            }
        } else {
            if !is_away {
                assert_eq!(said(&mut client, request), own);
            }
            assert_eq!(said(&mut client, "MULTI"), "+OK");
            assert_eq!(said(&mut client, request), "+QUEUED");
            assert_eq!(said(&mut client, "DISCARD"), "+OK");
        }
        shard.signal("STOP");
        eventually(|| client.tell("INFO memory").contains("maxmemory_policy").to_string(), "false");
    }
    shard.signal("CONT");
}

#[test]
fn shards_that_do_not_tell_may_have_anything() {
    let shards = [Server::redis(&["--rename-command", "COMMAND", ""])];
    let proxy = Server::memstore(&["info_refresh: 20ms"], &shards);
    let mut client = proxy.connect();
    let own = said(&mut shards[0].connect(), "HPTTL k FIELDS 1 f");
    assert_eq!(said(&mut client, "HPTTL k FIELDS 1 f"), own);
    assert_eq!(said(&mut client, "MULTI"), "+OK");
    assert_eq!(said(&mut client, "HPTTL k FIELDS 1 f"), "+QUEUED");
}

#[test]
fn a_shard_that_does_not_tell_for_the_moment_is_asked_again() {
    for error in ["BUSY a script runs", "MASTERDOWN no link", "NOPERM no permissions"] {
        let shards = [Pretender::new(0), Pretender::new(1)];
        shards[0].change(|state| state.rows = vec![JSON.into()]);
        shards[1].change(|state| {
            state.rows = vec![JSON.replace("readonly", "write")];
            state.command = Some(format!("-{error}\r\n").into_bytes());
        });
        let lines: Vec<String> = shards.iter().map(|pretender| pretender.shard.line.clone()).collect();
        let proxy = Server::memstore_over(&SETTINGS, &lines);
        let mut client = proxy.connect();
        eventually(|| (shards[1].asked("command") > 0).to_string(), "true");
        eventually(|| client.tell("COMMAND INFO json.get").contains("readonly").to_string(), "true");
        shards[1].change(|state| state.command = None);
        // The same run of the server tells now, and what both say is joined as the stricter has it.
        eventually(|| client.tell("COMMAND INFO json.get").contains("write").to_string(), "true");
        assert!(!client.tell("COMMAND INFO json.get").contains("readonly"));
        proxy.says("shard-0 differs in json.get");
    }
}

#[test]
fn nothing_that_a_shard_tells_of_its_commands_is_too_much() {
    let shard = Pretender::new(0);
    let (proxy, admin) = Server::memstore_with_admin(&SETTINGS, std::slice::from_ref(&shard.shard.line), &[]);
    let mut client = proxy.connect();
    let mut run = 0;
    let mut becomes = |change: &dyn Fn(&mut State)| {
        run += 1;
        let before = shard.asked("command");
        shard.change(|state| {
            (state.run, state.rows, state.command) = (format!("run {run}"), Vec::new(), None);
            change(state);
        });
        eventually(|| (shard.asked("command") > before).to_string(), "true");
    };
    let metric = |name: &str| {
        let page = told(&admin, "/metrics");
        page.lines()
            .find_map(|line| line.strip_prefix(&format!("{name}{{pool=\"pool\"}} ")))
            .map(str::to_owned)
    };
    // More of them than are learnt, and names that are too long or odd.
    becomes(&|state| {
        state.rows = (0..1500).map(|number| format!("m.{number} module+readonly 1 1 1")).collect();
        state.rows.push(format!("m.{} module 1 1 1", "x".repeat(100)));
        state.rows.push("m.\x01 module 1 1 1".into());
    });
    eventually(|| metric("memstore_learnt_commands").unwrap_or_default(), "1024");
    assert_eq!(metric("memstore_learnt_commands_ignored").as_deref(), Some("478"));
    proxy.says("commands of a shard not learnt");
    // No answer at all, or one without an end: the rest of what it says counts all the same, and it is not asked for ever.
    let bulk = [b"*1\r\n$9000000\r\n".to_vec(), vec![b'x'; 9_000_000]].concat();
    let nested = b"*1\r\n".repeat(100_000);
    for answer in [&b"*1\r\n*2\r\n+x\r\n:1\r\n"[..], b"+OK\r\n", b"*0\r\n", &bulk, &nested] {
        becomes(&|state| state.command = Some(answer.to_vec()));
        let (asked, refreshes) = (shard.asked("command"), shard.asked("info"));
        eventually(|| (shard.asked("info") > refreshes + 8).to_string(), "true");
        assert!(shard.asked("command") <= asked + 2, "{:?}", String::from_utf8_lossy(&answer[..9]));
        assert_eq!(said(&mut client, "GET k"), "$1\r\n0");
    }
    // And it is believed again in its next run.
    becomes(&|state| state.rows = vec![JSON.into()]);
    eventually(|| said(&mut client, "JSON.GET k"), "+json.get on 0");
}

#[test]
fn a_pool_of_valkeys_says_so() {
    let shard = Pretender::new(0);
    shard.change(|state| state.info = "server_name:valkey\r\nvalkey_version:9.1.2\r\n".into());
    let proxy = Server::memstore_over(&SETTINGS, std::slice::from_ref(&shard.shard.line));
    let mut client = proxy.connect();
    eventually(
        || client.tell("HELLO").contains("\r\nvalkey\r\n$7\r\nversion\r\n$5\r\n9.1.2\r\n").to_string(),
        "true",
    );
    let info = client.tell("INFO server");
    assert!(
        info.contains(
            "redis_version:7.0.15\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\nserver_mode:standalone\r\n"
        ),
        "{info}"
    );
}

/// Both look the same where clients use nothing but commands of the module.
#[test]
fn a_shard_that_hangs_is_ejected_and_one_that_lets_a_client_of_a_module_wait_is_not() {
    let shards = [Pretender::new(0), Pretender::new(1)];
    let lines: Vec<String> = shards.iter().map(|pretender| pretender.shard.line.clone()).collect();
    shards.iter().for_each(|shard| shard.change(|state| state.rows = vec![JSON.into()]));
    let more = ["timeout: 100ms", "auto_eject_hosts: true", "server_failure_limit: 2"];
    let proxy = Server::memstore_over(&[&SETTINGS[..], &more].concat(), &lines);
    let mut client = proxy.connect();
    let [key, _] = keys(&mut client);
    let request = format!("JSON.GET {key}");
    eventually(|| said(&mut client, &request), "+json.get on 0");

    shards[0].change(|state| state.hangs = Some("json.get"));
    for _ in 0..20 {
        assert_eq!(said(&mut client, &request), "-ERR shard shard-0: timed out");
    }
    // Whatever else is asked is answered once the connection was given up.
    eventually(|| said(&mut client, &format!("GET {key}")), "$1\r\n0");

    shards[0].change(|state| state.hangs = Some(""));
    eventually(|| said(&mut client, &request), "+json.get on 1");
    proxy.says("shard ejected");
}
