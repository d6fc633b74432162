//! The server that is installed, and its replies.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command as Process, Stdio};

use memstore_proxy::protocol::resp::encode;

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Error(String),
    Integer(i64),
    Array(Vec<Value>),
    Null,
}

impl Value {
    pub fn array(&self) -> &[Value] {
        match self {
            Self::Array(values) => values,
            other => panic!("{other:?} is no array"),
        }
    }

    pub fn texts(&self) -> BTreeSet<&str> {
        self.array().iter().map(Value::text).collect()
    }

    /// The value of a map.
    pub fn member(&self, name: &str) -> &Value {
        let mut pairs = self.array().chunks(2);
        &pairs.find(|pair| pair[0].text() == name).unwrap_or_else(|| panic!("no {name} in {self:?}"))[1]
    }

    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }
}

/// A reply, and the bytes it came in.
pub struct Reply {
    pub value: Value,
    pub bytes: Vec<u8>,
}

/// Reads one value of RESP2 or RESP3; aggregates of any kind are arrays.
pub fn read(from: &mut impl BufRead) -> Reply {
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

/// The one that an environment variable names, or the one that is installed.
pub fn program() -> String {
    std::env::var("TEST_REDIS").unwrap_or_else(|_| "redis-server".into())
}

/// A Redis server of our own, killed when dropped.
pub struct Server {
    process: Child,
    port: u16,
    log: BufReader<ChildStdout>,
}

impl Server {
    pub fn start() -> Self {
        for _ in 0..5 {
            // The port is free at this moment; should somebody else take it, the server ends and the next one is tried.
            let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            let port = port.expect("127.0.0.1 has a free port").port();
            let directory = std::env::temp_dir();
            let mut process = Process::new(program())
                .args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string(), "--dir"])
                .arg(&directory)
                // Not what another server, perhaps a newer one, has left there.
                .args(["--dbfilename", "none.rdb"])
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

    pub fn connect(&self) -> Client {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).expect("it said that it is ready");
        Client { socket: BufReader::new(socket) }
    }

    /// The family and the version of this server.
    pub fn identity(&self) -> (String, String) {
        let info = self.connect().ask(&[b"INFO", b"server"]).value;
        let line =
            |name: &str| Some(info.text().lines().find_map(|line| line.strip_prefix(name))?.to_owned());
        match line("valkey_version:") {
            Some(version) => ("valkey".into(), version),
            None => ("redis".into(), line("redis_version:").expect("a server has a version")),
        }
    }

    pub fn version(&self) -> String {
        let (family, version) = self.identity();
        format!("{family} {version}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub struct Client {
    socket: BufReader<TcpStream>,
}

impl Client {
    pub fn ask(&mut self, request: &[&[u8]]) -> Reply {
        let mut bytes = Vec::new();
        encode::request(&mut bytes, request);
        self.socket.get_mut().write_all(&bytes).expect("the server reads");
        read(&mut self.socket)
    }
}
