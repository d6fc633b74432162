//! Real servers for tests: each listens on a port of its own and ends with the test that started it.
//!
//! A test process has a loopback address to itself, so that ports freed and taken again never meet those of another
//! test that runs beside it.

// Every test binary compiles this file and uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use client::Client;

pub mod blocking;
mod client;
pub mod cluster;
pub mod conversation;
pub mod dice;
pub mod names;

/// How long a server may take to start, a reply to come and a state to change, on a machine that is slow and busy. Nothing
/// waits for so long where all is well.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks, which leaves the processor to who is waited for.
const GLANCE: Duration = Duration::from_millis(1);

/// A process of ours, killed when dropped.
pub struct Server {
    process: Child,
    pub port: u16,
    /// What it printed, for the person who reads why a test failed.
    log: PathBuf,
}

impl Server {
    /// A redis-server that keeps nothing.
    pub fn redis(settings: &[&str]) -> Self {
        Self::start(&redis_program(), "redis-server", |port| {
            let mut arguments = words(&["--save", "", "--appendonly", "no", "--bind"]);
            arguments.extend([address().to_string(), "--port".into(), port.to_string()]);
            arguments.extend(words(settings));
            arguments
        })
    }

    /// What the program of [`Self::redis`] prints for this argument.
    pub fn redis_program_said(argument: &str) -> String {
        let output = Command::new(redis_program()).arg(argument).output();
        let output =
            output.unwrap_or_else(|error| panic!("redis-server: {error}; apt-get install redis-server"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same on a port that was told before.
    pub fn redis_at(port: u16) -> Self {
        Self::start_at(port, &redis_program(), "redis-server", |port| {
            let mut arguments = words(&["--save", "", "--appendonly", "no", "--bind"]);
            arguments.extend([address().to_string(), "--port".into(), port.to_string()]);
            arguments
        })
    }

    /// A memcached server.
    pub fn memcached(settings: &[&str]) -> Self {
        Self::start(&program("TEST_MEMCACHED", "memcached"), "memcached", |port| {
            let mut arguments = vec!["-l".into(), address().to_string(), "-p".into(), port.to_string()];
            arguments.extend(words(&["-U", "0", "-u", "nobody"]));
            arguments.extend(words(settings));
            arguments
        })
    }

    /// Our proxy, with the given lines in its pool's settings.
    pub fn memstore(settings: &[&str], shards: &[Server]) -> Self {
        let lines: Vec<String> = shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect();
        Self::memstore_over(settings, &lines)
    }

    /// Our proxy over shards given as lines of `servers:`.
    pub fn memstore_over(settings: &[&str], lines: &[String]) -> Self {
        Self::start(env!("CARGO_BIN_EXE_memstore"), "", |port| {
            let config = config(port, settings, lines);
            words(&["serve", "-c", &config, "-s", "0", "--admin-port", "0", "--workers", "2"])
        })
    }

    /// Our proxy with so many workers.
    pub fn memstore_of(workers: usize, settings: &[&str], shards: &[Server]) -> Self {
        let lines: Vec<String> = shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect();
        Self::start(env!("CARGO_BIN_EXE_memstore"), "", |port| {
            let config = config(port, settings, &lines);
            words(&[
                "serve",
                "-c",
                &config,
                "-s",
                "0",
                "--admin-port",
                "0",
                "--workers",
                &workers.to_string(),
            ])
        })
    }

    /// Our proxy, that may open so many files; with the addresses of its admin server and of the statistics.
    pub fn memstore_with_few_files(
        files: usize,
        settings: &[&str],
        shards: &[Server],
    ) -> (Self, [String; 2]) {
        let lines: Vec<String> = shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect();
        let (address, [admin, stats]) = (address().to_string(), [0; 2].map(|_| free_port().to_string()));
        let proxy = Self::start("sh", "dash", |port| {
            let config = config(port, settings, &lines);
            let limited = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
            let mut all = words(&["-c", &limited, env!("CARGO_BIN_EXE_memstore"), "serve", "-c", &config]);
            all.extend(words(&[
                "--stats-address",
                &address,
                "-s",
                &stats,
                "--admin-address",
                &address,
                "--admin-port",
                &admin,
                "--workers",
                "2",
            ]));
            all
        });
        (proxy, [admin, stats].map(|port| format!("{address}:{port}")))
    }

    /// Another proxy on the same port, which the kernel shares out between them.
    pub fn beside(&self, settings: &[&str], shards: &[Server]) -> Self {
        let lines: Vec<String> = shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect();
        let other = config(self.port, settings, &lines);
        let beside = file(self.port, "beside.yml");
        fs::rename(&other, &beside).expect("a file just written");
        config(self.port, settings, &lines);
        let log = file(self.port, "beside.log");
        let output = File::create(&log).expect("the folder for temporary files is writable");
        let process = Command::new(env!("CARGO_BIN_EXE_memstore"))
            .args(["serve", "-s", "0", "--admin-port", "0", "--workers", "2", "-c"])
            .arg(&beside)
            .stderr(output)
            .spawn()
            .expect("the proxy is built");
        let begin = Instant::now();
        while !fs::read_to_string(&log).unwrap_or_default().contains("memstore is serving") {
            assert!(begin.elapsed() < PATIENCE, "it does not start");
            std::thread::sleep(GLANCE);
        }
        Self { process, port: self.port, log }
    }

    /// The same with these flags.
    pub fn memstore_with_flags(lines: &[String], flags: &[&str]) -> Self {
        Self::start(env!("CARGO_BIN_EXE_memstore"), "", |port| {
            let mut all = words(&["serve", "-c", &config(port, &[], lines), "--workers", "2"]);
            all.extend(words(flags));
            all
        })
    }

    /// The same with an admin address and further flags; the address.
    pub fn memstore_with_admin(settings: &[&str], lines: &[String], flags: &[&str]) -> (Self, String) {
        Self::memstore_logging_to(None, settings, lines, flags)
    }

    /// The same, with the log somewhere else than in a file.
    pub fn memstore_logging_to(
        stderr: Option<Stdio>,
        settings: &[&str],
        lines: &[String],
        flags: &[&str],
    ) -> (Self, String) {
        let admin = free_port();
        let proxy = Self::start_logging_to(stderr, free_port(), env!("CARGO_BIN_EXE_memstore"), "", |port| {
            let config = config(port, settings, lines);
            let (address, admin) = (address().to_string(), admin.to_string());
            let mut all = words(&["serve", "-c", &config, "-s", "0", "--workers", "2"]);
            all.extend(words(&["--admin-address", &address, "--admin-port", &admin]));
            all.extend(words(flags));
            all
        });
        let admin = format!("{}:{admin}", address());
        let begin = Instant::now();
        loop {
            let mut stream = TcpStream::connect(&admin).expect("it listens before the pools do");
            stream.write_all(b"GET /ready HTTP/1.0\r\n\r\n").expect("it reads");
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            // A cluster that is not formed yet is served all the same, with errors.
            let is_served = answer.contains("is not known yet") && !answer.contains("not listening");
            if answer.contains(" 200 ") || is_served {
                return (proxy, admin);
            }
            assert!(begin.elapsed() < PATIENCE, "it is not ready: {answer}");
        }
    }

    /// Writes the proxy's configuration anew; it holds after a reload.
    pub fn rewrite(&self, settings: &[&str], lines: &[String]) {
        config(self.port, settings, lines);
    }

    /// Writes these bytes where the proxy's configuration was.
    pub fn overwrite(&self, bytes: &str) {
        replace(&file(self.port, "yml"), bytes);
    }

    /// The proxy that ours replaces, with the same settings.
    pub fn nutcracker(settings: &[&str], shards: &[Server]) -> Self {
        Self::start("nutcracker", "nutcracker", |port| {
            let statistics = free_port().to_string();
            let lines: Vec<String> =
                shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect();
            words(&["-c", &config(port, settings, &lines), "-a", &address().to_string(), "-s", &statistics])
        })
    }

    /// Starts a program that listens on the port it is given, on the address of this process.
    pub fn start(program: &str, package: &str, arguments: impl Fn(u16) -> Vec<String>) -> Self {
        // A port that was free a moment ago may have been given to somebody else.
        let try_one = |_| Self::try_start(None, free_port(), program, package, &arguments);
        let is_taken = |printed: &String| printed.to_ascii_lowercase().contains("address already in use");
        let mut tries = (0..5).map(try_one).skip_while(|started| started.as_ref().is_err_and(is_taken));
        tries
            .next()
            .expect("a port is free")
            .unwrap_or_else(|printed| panic!("{program} ended at once: {printed}"))
    }

    fn start_at(port: u16, program: &str, package: &str, arguments: impl Fn(u16) -> Vec<String>) -> Self {
        Self::start_logging_to(None, port, program, package, arguments)
    }

    fn start_logging_to(
        stderr: Option<Stdio>,
        port: u16,
        program: &str,
        package: &str,
        arguments: impl Fn(u16) -> Vec<String>,
    ) -> Self {
        let started = Self::try_start(stderr, port, program, package, &arguments);
        started.unwrap_or_else(|printed| panic!("{program} ended at once: {printed}"))
    }

    /// What it printed, if it ended before it served.
    fn try_start(
        stderr: Option<Stdio>,
        port: u16,
        program: &str,
        package: &str,
        arguments: &impl Fn(u16) -> Vec<String>,
    ) -> Result<Self, String> {
        let log = file(port, "log");
        let output = File::create(&log).expect("the folder for temporary files is writable");
        let elsewhere = stderr.is_some();
        let process = Command::new(program)
            .args(arguments(port))
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("one more descriptor"))
            .stderr(stderr.unwrap_or_else(|| output.into()))
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; apt-get install {package}"));
        // Ours says when it serves: a connection to find that out would be a client that it may count for a while.
        let tells = package.is_empty() && !elsewhere;
        let mut server = Self { process, port, log };
        let serves = |server: &Self| match tells {
            true => server.printed().contains("memstore is serving"),
            false => TcpStream::connect((address(), port)).is_ok(),
        };
        let begin = Instant::now();
        while !serves(&server) {
            let ended = server.process.try_wait().expect("it is our child");
            if ended.is_some() {
                return Err(server.printed());
            }
            assert!(begin.elapsed() < PATIENCE, "{program} does not listen: {}", server.printed());
            std::thread::sleep(GLANCE);
        }
        Ok(server)
    }

    /// A new connection.
    pub fn connect(&self) -> Client {
        connect(self.port)
    }

    /// Its line in `servers:`.
    pub fn line(&self, index: usize) -> String {
        format!("{}:{}:1 shard-{index}", address(), self.port)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.process.id().to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name}; apt-get install procps");
    }

    /// Waits for its end; the exit code.
    pub fn ended(&mut self) -> Option<i32> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("it is our child") {
                return status.code();
            }
            assert!(begin.elapsed() < PATIENCE, "it does not end: {}", self.printed());
            std::thread::sleep(GLANCE);
        }
    }

    /// Resident memory, in bytes.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line of status");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
    }

    /// Waits until it has printed this: a proxy's lines are written by a thread of their own.
    pub fn says(&self, text: &str) {
        let begin = Instant::now();
        while !self.printed().contains(text) {
            assert!(begin.elapsed() < PATIENCE, "it does not say {text:?}: {}", self.printed());
            std::thread::sleep(GLANCE);
        }
    }

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.log);
        let _ = fs::remove_file(file(self.port, "yml"));
    }
}

/// A configuration that both proxies read: a Redis pool, unless the settings say what it is. Shards are named, so that
/// keys do not follow the ports of the day.
fn config(port: u16, settings: &[&str], lines: &[String]) -> String {
    let mut text = format!("pool:\n  listen: {}:{port}\n", address());
    if !settings.iter().any(|line| line.starts_with("redis:")) {
        text.push_str("  redis: true\n");
    }
    for line in settings {
        text.push_str(&format!("  {line}\n"));
    }
    if !settings.iter().any(|line| line.starts_with("cluster:") || line.starts_with("servers_url:")) {
        text.push_str("  servers:\n");
    }
    for line in lines {
        text.push_str(&format!("   - {line}\n"));
    }
    let path = file(port, "yml");
    replace(&path, &text);
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// Writes a file at once: nobody who looks meanwhile finds it half written.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, path))
        .expect("the folder for temporary files is writable");
}

fn file(port: u16, extension: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{port}.{extension}", address()))
}

/// Of this process alone.
pub fn address() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    // Linux counts processes to 2^22 at most, so neither 127.0.0.1 nor the broadcast address comes out.
    Ipv4Addr::new(127, 64 + high, middle, low)
}

/// On a port that no other test of this process has been given.
fn listener() -> TcpListener {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind((address(), 0)).expect("127.0.0.0/8 is local");
        let port = listener.local_addr().expect("it is bound").port();
        if GIVEN.lock().expect("nobody panics with it").insert(port) {
            return listener;
        }
    }
}

/// Nobody listens there, and no other test of this process will.
pub fn free_port() -> u16 {
    listener().local_addr().expect("it is bound").port()
}

/// The server of Redis or Valkey that all tests start.
pub fn redis_program() -> String {
    program("TEST_REDIS", "redis-server")
}

/// The program that an environment variable names, or the one that is installed.
fn program(variable: &str, installed: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| installed.to_owned())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// A shard that does what a test wants: `play` is given every connection and its number.
pub struct Fake {
    /// Its line in `servers:`.
    pub line: String,
    /// How often it was connected to.
    pub connections: Arc<AtomicUsize>,
}

impl Fake {
    /// Listens.
    pub fn new(play: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        let listener = listener();
        let line = format!("{}:1 shard-0", listener.local_addr().expect("bound"));
        let connections = Arc::new(AtomicUsize::new(0));
        let (counter, play) = (connections.clone(), Arc::new(play));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let number = counter.fetch_add(1, Ordering::Relaxed);
                let play = play.clone();
                std::thread::spawn(move || play(stream, number));
            }
        });
        Self { line, connections }
    }

    /// Sends the same bytes whenever something comes, then closes if it is told to.
    pub fn answering(bytes: &'static [u8], close: bool) -> Self {
        Self::new(move |mut stream, _| {
            let mut room = [0; 65536];
            while stream.read(&mut room).is_ok_and(|count| count > 0) {
                if stream.write_all(bytes).is_err() || close {
                    return;
                }
            }
        })
    }

    /// Our proxy over it alone.
    pub fn proxy(&self, settings: &[&str]) -> Server {
        Server::memstore_over(settings, std::slice::from_ref(&self.line))
    }
}

/// Asks again until the reply is this one.
pub fn eventually(mut ask: impl FnMut() -> String, wanted: &str) {
    let begin = Instant::now();
    loop {
        let reply = ask();
        if reply == wanted {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{reply:?} instead of {wanted:?}");
        std::thread::sleep(GLANCE);
    }
}

/// Waits until the log has so many lines with this text.
pub fn logged(proxy: &Server, text: &str, times: usize) {
    eventually(|| (proxy.printed().matches(text).count() >= times).to_string(), "true");
}

/// Asks for a reload and waits until it is done. Where the file was seen to have changed before, nothing is left to do.
pub fn reload(proxy: &Server) {
    let done = || {
        let is_done = |line: &&str| line.contains(" reloaded ") || line.contains("configuration unchanged");
        proxy.printed().lines().filter(|line| line.contains("SIGHUP")).filter(is_done).count()
    };
    let before = done();
    proxy.signal("HUP");
    eventually(|| (done() > before).to_string(), "true");
}

/// What a proxy says at its admin address. Whoever has asked for more than its share, as one does that waits for something on
/// a busy machine, asks again.
pub fn told(admin: &str, path: &str) -> String {
    let begin = Instant::now();
    loop {
        let mut stream = TcpStream::connect(admin).expect("it listens");
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("it speaks HTTP");
        if head.split(' ').nth(1) != Some("429") {
            return body.to_owned();
        }
        assert!(begin.elapsed() < PATIENCE, "{head}");
        std::thread::sleep(GLANCE);
    }
}

/// One request at an admin address with these header lines; its status, headers and body.
pub fn ask(admin: &str, line: &str, headers: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(admin).expect("the admin server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head.to_owned(), body.to_owned())
}

/// A proxy's topology document.
pub fn topology(admin: &str) -> serde_json::Value {
    serde_json::from_str(&told(admin, "/topology")).expect("JSON")
}

/// A proxy's metrics.
pub fn metrics(admin: &str) -> String {
    told(admin, "/metrics")
}

/// A port for a pool that a reload brings.
pub fn unused_port() -> u16 {
    free_port()
}

/// A connection to a port of this process's address.
pub fn connect(port: u16) -> Client {
    connect_to(address(), port)
}

/// A connection to a server elsewhere.
pub fn connect_to(address: impl Into<IpAddr>, port: u16) -> Client {
    let stream = TcpStream::connect((address.into(), port)).expect("somebody listens");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    Client::over(stream)
}

/// A request as an array of bulk strings.
pub fn encoded(words: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Bytes for people.
pub fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Where the reply of memcached's ends, if it is there in full.
fn text_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let end = at + bytes[at..].windows(2).position(|pair| pair == b"\r\n")? + 2;
        let line = std::str::from_utf8(&bytes[at..end - 2]).expect("keys of tests are text");
        let mut words = line.split(' ');
        let length = match words.next() {
            Some("VALUE") => words.nth(2),
            Some("VA") => words.next(),
            Some("STAT") => None,
            _ => return Some(end),
        };
        at = end + length.map_or(0, |length| length.parse::<usize>().expect("a length") + 2);
        if line.starts_with("VA ") {
            return (at <= bytes.len()).then_some(at);
        }
        if at > bytes.len() {
            return None;
        }
    }
}

/// Where the value that starts at `at` ends, if it is there in full.
pub fn end(bytes: &[u8], at: usize) -> Option<usize> {
    let line = at + bytes.get(at..)?.windows(2).position(|pair| pair == b"\r\n")?;
    let mut next = line + 2;
    let count = std::str::from_utf8(&bytes[at + 1..line]).ok().and_then(|text| text.parse::<i64>().ok());
    let values = match bytes[at] {
        b'$' | b'=' | b'!' => {
            let length = count.expect("a length");
            if length >= 0 {
                next += length as usize + 2;
            }
            0
        }
        b'*' | b'~' | b'>' => count.expect("a count").max(0),
        b'%' => 2 * count.expect("a count"),
        _ => 0,
    };
    for _ in 0..values {
        next = end(bytes, next)?;
    }
    (next <= bytes.len()).then_some(next)
}
