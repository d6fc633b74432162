//! The list of a pool's shards at a URL, followed by a proxy that serves clients.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use servers::{Server, address, eventually, told as get};

mod servers;

/// Serves one document over HTTP, with its number as the tag, until the test ends.
struct Document {
    at: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What is sent whole, head and all, instead of the document.
    raw: Option<String>,
    body: String,
    version: usize,
    /// Answers so far: the document, and that it is the same.
    answers: [usize; 2],
}

impl Document {
    fn serve(body: &str) -> Self {
        let listener = TcpListener::bind((address(), 0)).expect("a port");
        let at = listener.local_addr().expect("bound");
        let state = Arc::new(Mutex::new(State { body: body.into(), ..State::default() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &shared);
            }
        });
        Self { at, state }
    }

    fn url(&self) -> String {
        format!("servers_url: http://{}/pools/cache", self.at)
    }

    fn put(&self, body: &str) {
        let mut state = self.state.lock().expect("nobody panics with it");
        (state.body, state.raw) = (body.into(), None);
        state.version += 1;
    }

    fn put_raw(&self, raw: &str) {
        self.state.lock().expect("nobody panics with it").raw = Some(raw.into());
    }

    fn answers(&self) -> [usize; 2] {
        self.state.lock().expect("nobody panics with it").answers
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) {
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(length) if length > 0 => request.extend_from_slice(&piece[..length]),
            _ => return,
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let mut state = state.lock().expect("nobody panics with it");
    let tag = format!("\"{}\"", state.version);
    let is_same = request.contains(&format!("If-None-Match: {tag}\r\n"));
    let text = match &state.raw {
        Some(raw) => raw.clone(),
        None if is_same => format!("HTTP/1.1 304 Not Modified\r\nETag: {tag}\r\n\r\n"),
        None => {
            let (length, body) = (state.body.len(), &state.body);
            format!("HTTP/1.1 200 OK\r\nETag: {tag}\r\nContent-Length: {length}\r\n\r\n{body}")
        }
    };
    state.answers[usize::from(is_same)] += 1;
    let _ = stream.write_all(text.as_bytes());
}

fn pool(admin: &str) -> serde_json::Value {
    let document: serde_json::Value = serde_json::from_str(&get(admin, "/topology")).expect("JSON");
    document["pools"]["pool"].clone()
}

fn names(admin: &str) -> String {
    names_of(&pool(admin))
}

fn names_of(pool: &serde_json::Value) -> String {
    let shards = pool["shards"].as_array().expect("shards").iter();
    shards.filter_map(|shard| shard["name"].as_str()).collect::<Vec<_>>().join(" ")
}

fn has_failed(admin: &str) -> String {
    get(admin, "/metrics").contains("memstore_servers_refresh_failed{pool=\"pool\"} 1").to_string()
}

fn list(lines: &[String]) -> String {
    serde_json::to_string(lines).expect("strings")
}

#[test]
fn a_list_at_a_url_is_followed_and_a_broken_one_changes_nothing() {
    let shards = [Server::redis(&[]), Server::redis(&[])];
    let lines = [shards[0].line(0), shards[1].line(1)];
    let document = Document::serve(&list(&lines[..1]));
    let settings = [document.url(), "servers_url_refresh: 50ms".into()];
    let (proxy, admin) = Server::memstore_with_admin(&settings.each_ref().map(|line| &**line), &[], &[]);
    let mut client = proxy.connect();
    assert_eq!(client.say("SET a 1"), "+OK\\r\\n");
    // Asked only whether there is another.
    eventually(|| (document.answers()[1] >= 2).to_string(), "true");
    assert_eq!(names(&admin), "shard-0");

    document.put(&list(&lines));
    eventually(|| names(&admin), "shard-0 shard-1");
    // By now each worker has acknowledged it.
    proxy.says("server list changed");
    for key in 0..50 {
        assert_eq!(client.say(&format!("SET k{key} 1")), "+OK\\r\\n");
    }
    let mut direct = shards[1].connect();
    assert_ne!(direct.say("DBSIZE"), ":0\\r\\n");
    assert_eq!(has_failed(&admin), "false");

    let other = r#"{"version":1,"pools":{"pool":{"protocol":"redis","hash":"md5","distribution":"ketama","shards":[{"name":"shard-0","address":"127.0.0.1:1"}]}}}"#;
    for (broken, words) in [
        ("[]", "the list is empty"),
        ("[\"h:1\"]", "cannot be used"),
        (other, "the list is for distribution ketama over hash md5"),
    ] {
        document.put(broken);
        eventually(|| get(&admin, "/topology").contains(words).to_string(), "true");
        assert_eq!((names(&admin), has_failed(&admin)), ("shard-0 shard-1".into(), "true".into()));
    }
    document.put_raw("HTTP/1.1 500 Oops\r\n\r\n");
    eventually(|| get(&admin, "/topology").contains("status 500").to_string(), "true");
    proxy.says("server list refresh failed; keeping the previous list");
    // Told once a minute, however often it is asked.
    let asked = document.answers()[0];
    eventually(|| (document.answers()[0] >= asked + 25).to_string(), "true");
    let told = |words| proxy.printed().lines().filter(|line| line.contains(words)).count();
    assert!(told("status 500") <= 1, "{}", proxy.printed());
    // What holds by now is told when the file is read again as well.
    proxy.signal("HUP");
    proxy.says("configuration unchanged");
    assert_eq!(names(&admin), "shard-0 shard-1");

    // Of a topology document, such as another proxy has.
    let same =
        other.replace("md5", "fnv1a_64").replace("127.0.0.1:1", &format!("{}:{}", address(), shards[0].port));
    document.put(&same);
    eventually(|| names(&admin), "shard-0");
    eventually(|| has_failed(&admin), "false");
}

#[test]
fn a_reload_deals_keys_only_as_the_list_says() {
    let shard = Server::redis(&[]);
    let of = |hash: &str, name: &str| {
        let shard = format!("{{\"name\":\"{name}\",\"address\":\"{}:{}\"}}", address(), shard.port);
        format!(
            "{{\"version\":1,\"pools\":{{\"pool\":{{\"protocol\":\"redis\",\"hash\":\"{hash}\",\"distribution\":\"ketama\",\"shards\":[{shard}]}}}}}}"
        )
    };
    let document = Document::serve(&of("fnv1a_64", "a"));
    let url = document.url();
    let settings = [&*url, "servers_url_refresh: 1h", "hash: fnv1a_64"];
    let (proxy, admin) = Server::memstore_with_admin(&settings, &[], &[]);
    proxy.rewrite(&[&url, "servers_url_refresh: 1h", "hash: md5"], &[]);
    proxy.signal("HUP");
    proxy.says("the list is for distribution ketama over hash fnv1a_64");
    assert_eq!(pool(&admin)["hash"], "fnv1a_64");
    // Once the list says so as well.
    document.put(&of("md5", "a"));
    proxy.signal("HUP");
    eventually(|| pool(&admin)["hash"].to_string(), "\"md5\"");
    // Another pause holds at once, not after the one before.
    document.put(&of("md5", "b"));
    proxy.rewrite(&[&url, "servers_url_refresh: 50ms", "hash: md5"], &[]);
    proxy.signal("HUP");
    eventually(|| names(&admin), "b");
    document.put(&of("md5", "c"));
    eventually(|| names(&admin), "c");
}

#[test]
fn a_shard_that_is_listed_gets_keys_once_it_has_answered() {
    let shard = Server::redis(&[]);
    let port = servers::unused_port();
    let lines = [shard.line(0), format!("{}:{port}:1 shard-1", address())];
    let document = Document::serve(&list(&lines[..1]));
    let url = document.url();
    let settings = [&*url, "servers_url_refresh: 50ms", "adopt_wait: 10m"];
    let (proxy, admin) = Server::memstore_with_admin(&settings, &[], &[]);
    document.put(&list(&lines));
    eventually(|| pool(&admin)["shards_awaited"].to_string(), "[\"shard-1\"]");
    assert_eq!(names(&admin), "shard-0");
    // Nobody else waits for it.
    proxy.signal("HUP");
    proxy.says("configuration unchanged");
    proxy.rewrite(&[&settings[..], &["server_connections: 64"]].concat(), &[]);
    proxy.signal("HUP");
    eventually(|| (pool(&admin)["shard_connections_max"].as_u64() >= Some(64)).to_string(), "true");
    eventually(|| pool(&admin)["shards_awaited"].to_string(), "[\"shard-1\"]");
    let _late = Server::redis_at(port);
    eventually(|| names(&admin), "shard-0 shard-1");
}

/// The reload waits for a shard of another pool, and comes to its end with the list that is in force by then.
#[test]
fn a_reload_that_waits_for_a_shard_holds_up_no_list() {
    let shards = [Server::redis(&[]), Server::redis(&[])];
    let lines = [shards[0].line(0), shards[1].line(1)];
    let document = Document::serve(&list(&lines[..1]));
    let url = document.url();
    let (proxy, admin) =
        Server::memstore_with_admin(&[&url, "servers_url_refresh: 50ms", "adopt_wait: 10m"], &[], &[]);
    let listen = proxy.connect().peer();
    let other_listen = format!("{}:{}", address(), servers::unused_port());
    let ports = [servers::unused_port(), servers::unused_port()];
    // A second pool of so many servers, and a setting of the first one.
    let configure = |others: usize, connections: usize| {
        let late = ports.iter().enumerate().map(|(at, port)| format!("{}:{port}:1 late-{at}", address()));
        let others: String = std::iter::once(lines[0].clone())
            .chain(late)
            .take(others)
            .map(|line| format!("   - {line}\n"))
            .collect();
        proxy.overwrite(&format!(
            "pool:\n  listen: {listen}\n  redis: true\n  {url}\n  servers_url_refresh: 50ms\n  adopt_wait: 10m\n\
             \x20 server_connections: {connections}\n\
             other:\n  listen: {other_listen}\n  redis: true\n  adopt_wait: 10m\n  servers:\n{others}"
        ));
    };
    let document_of = || serde_json::from_str::<serde_json::Value>(&get(&admin, "/topology")).expect("JSON");
    let other = || document_of()["pools"]["other"].clone();
    let digest = || document_of()["config_digest"].to_string();
    configure(1, 1);
    proxy.signal("HUP");
    eventually(|| other().is_object().to_string(), "true");

    // Of the first pool the reload changes nothing.
    configure(2, 1);
    proxy.signal("HUP");
    eventually(|| other()["shards_awaited"].to_string(), "[\"late-0\"]");
    document.put(&list(&lines));
    eventually(|| names(&admin), "shard-0 shard-1");
    assert_eq!(names_of(&other()), "shard-0");
    let _late = Server::redis_at(ports[0]);
    eventually(|| names_of(&other()), "late-0 shard-0");
    assert_eq!(names(&admin), "shard-0 shard-1");
    // What is told of the configuration is what is in force: it is the same whoever has come to it. It is told once all pools
    // have changed.
    servers::logged(&proxy, "configuration reloaded", 2);
    let before = digest();
    for (text, expected) in [(&lines[..1], "shard-0"), (&lines[..], "shard-0 shard-1")] {
        document.put(&list(text));
        eventually(|| names(&admin), expected);
    }
    eventually(digest, &before);

    // This one changes it as well: it starts again with the list that has taken its place.
    configure(3, 64);
    let answer = std::thread::scope(|scope| {
        let reload = scope.spawn(|| {
            let mut stream = TcpStream::connect(&admin).expect("it listens");
            stream.write_all(b"POST /reload HTTP/1.0\r\n\r\n").expect("it reads");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("it answers");
            answer
        });
        eventually(|| other()["shards_awaited"].to_string(), "[\"late-1\"]");
        document.put(&list(&lines[..1]));
        eventually(|| names(&admin), "shard-0");
        proxy.says("configuration reload restarted: the files or a server list changed meanwhile");
        eventually(|| other()["shards_awaited"].to_string(), "[\"late-1\"]");
        assert!(pool(&admin)["shard_connections_max"].as_u64() < Some(64), "nothing of it is in force");
        let late = Server::redis_at(ports[1]);
        (reload.join().expect("it is answered"), late)
    });
    assert!(answer.0.contains(" 200 ") && !answer.0.contains("nothing to apply"), "{}", answer.0);
    assert_eq!((names(&admin), names_of(&other())), ("shard-0".into(), "late-0 late-1 shard-0".into()));
    eventually(|| (pool(&admin)["shard_connections_max"].as_u64() >= Some(64)).to_string(), "true");
    proxy.signal("HUP");
    proxy.says("configuration unchanged");
}

/// A list that changes again and again, and a shard that does not answer: whoever has asked for the reload is told so.
#[test]
fn a_reload_that_lists_overtake_again_and_again_comes_to_its_end() {
    let shards = [Server::redis(&[]), Server::redis(&[])];
    let lines = [shards[0].line(0), shards[1].line(1)];
    let document = Document::serve(&list(&lines[..1]));
    let url = document.url();
    let settings = ["servers_url_refresh: 50ms", "adopt_wait: 1s"];
    let (proxy, admin) = Server::memstore_with_admin(&[&[&*url], &settings[..]].concat(), &[], &[]);
    let listen = proxy.connect().peer();
    let silent = format!("{}:{}:1 silent", address(), servers::unused_port());
    proxy.overwrite(&format!(
        "pool:\n  listen: {listen}\n  redis: true\n  {url}\n  {}\n  {}\n  server_connections: 64\n\
         other:\n  listen: {}:{}\n  redis: true\n  {}\n  servers:\n   - {silent}\n",
        settings[0],
        settings[1],
        address(),
        servers::unused_port(),
        settings[1],
    ));
    proxy.signal("HUP");
    for most in [2, 1].into_iter().cycle() {
        document.put(&list(&lines[..most]));
        let expected = ["shard-0", "shard-0 shard-1"][most - 1];
        eventually(|| names(&admin), expected);
        if proxy.printed().contains("configuration reload failed") {
            break;
        }
        assert!(
            proxy.printed().matches("configuration reload restarted").count() < 50,
            "{}",
            proxy.printed()
        );
    }
    proxy.says("configuration reload restarted");
}

#[test]
fn without_a_first_list_nothing_starts() {
    let at = format!("{}:{}", address(), servers::unused_port());
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("lists-{}.yml", servers::unused_port()));
    let listen = format!("{}:{}", address(), servers::unused_port());
    let text = format!("pool:\n  listen: {listen}\n  redis: true\n  servers_url: http://{at}/\n");
    std::fs::write(&file, text).expect("a file");
    let memstore = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_memstore")).args(arguments).arg("-c").arg(&file).output();
        let output = output.expect("the proxy is built");
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let (good, told) = memstore(&["serve", "-s", "0", "--admin-port", "0"]);
    let words = format!("pool pool: the list of servers cannot be used: http://{at}/:1:1: cannot be read");
    assert!(!good && told.contains(&words), "{told}");
    let (good, told) = memstore(&["check"]);
    assert!(good && told.contains(&format!("shards listed at {at}")), "{told}");
    let (good, told) = memstore(&["ring"]);
    assert!(!good && told.contains("a running proxy shows them"), "{told}");
    let _ = std::fs::remove_file(file);
}

/// Whether a request comes that ends like this.
fn hears(stream: &mut TcpStream, end: &[u8]) -> bool {
    let mut request = Vec::new();
    while !request.ends_with(end) {
        let mut byte = [0];
        if stream.read_exact(&mut byte).is_err() {
            return false;
        }
        request.extend(byte);
    }
    true
}

/// The first is answered only once the second has been asked for.
#[test]
fn the_first_lists_of_several_pools_are_asked_for_at_a_time() {
    let listener = TcpListener::bind((address(), 0)).expect("a port");
    let at = listener.local_addr().expect("bound");
    let body = list(&[format!("{}:1:1 shard-0", address())]);
    let asked = std::thread::spawn(move || {
        let mut asking = [0, 1].map(|_| listener.accept().expect("somebody asks").0);
        assert!(asking.iter_mut().all(|stream| hears(stream, b"\r\n\r\n")));
        for mut stream in asking {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).expect("it reads");
        }
    });
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("lists-{}.yml", servers::unused_port()));
    let _proxy = Server::start(env!("CARGO_BIN_EXE_memstore"), "", |port| {
        let pool = |name: &str, port: u16| {
            format!(
                "  {name}:\n    listen: {}:{port}\n    redis: true\n    servers_url: http://{at}/{name}\n    \
                 servers_url_refresh: 1h\n",
                address()
            )
        };
        let pools = pool("first", port) + &pool("second", servers::unused_port());
        std::fs::write(&file, format!("pools:\n{pools}")).expect("a file");
        let file = file.display().to_string();
        ["serve", "-c", &file, "-s", "0", "--admin-port", "0"].map(str::to_owned).into()
    });
    asked.join().expect("both are asked for");
}

/// None answers before all have been asked.
#[test]
fn new_shards_of_a_list_are_asked_at_a_time() {
    let shard = Server::redis(&[]);
    let new = [0, 1, 2].map(|_| TcpListener::bind((address(), 0)).expect("a port"));
    let place = |listener: &TcpListener| listener.local_addr().expect("bound").to_string();
    let lines: Vec<String> = std::iter::once(shard.line(0))
        .chain(new.iter().enumerate().map(|(nth, at)| format!("{}:1 new-{nth}", place(at))))
        .collect();
    let document = Document::serve(&list(&lines[..1]));
    let url = document.url();
    let settings = [&*url, "servers_url_refresh: 50ms", "adopt_wait: 10s"];
    let (_proxy, admin) = Server::memstore_with_admin(&settings, &[], &[]);
    std::thread::spawn(move || {
        loop {
            let mut asking = new.each_ref().map(|listener| listener.accept().expect("somebody asks").0);
            // One that was not answered in time is asked again.
            if !asking.iter_mut().all(|stream| hears(stream, b"PING\r\n")) {
                continue;
            }
            for mut stream in asking {
                let _ = stream.write_all(b"+PONG\r\n");
            }
        }
    });
    document.put(&list(&lines));
    eventually(|| names(&admin), "new-0 new-1 new-2 shard-0");
}
