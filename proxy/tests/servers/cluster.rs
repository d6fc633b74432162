//! Redis Clusters of real servers, whose nodes have addresses of their own and can move.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Client, Server, address, connect_to, encoded, eventually, redis_program, shown, unused_port};

/// Milliseconds until a node that is silent counts as failed.
const NODE_TIMEOUT: &str = "2000";

/// Nodes on one port, each on an address of its own.
pub struct Nodes {
    pub port: u16,
    pub nodes: Vec<Node>,
    settings: Vec<String>,
    /// How nodes reach each other, if not directly.
    bus: Option<Bus>,
}

pub struct Node {
    process: Option<Child>,
    pub address: Ipv4Addr,
    /// Where it works, and keeps what it has.
    pub folder: PathBuf,
}

/// The bus between nodes, led through this process, which can cut one of them off from the others.
#[derive(Clone, Default)]
pub struct Bus {
    /// Its address, and the id by which its own connections are known.
    cut_off: Arc<Mutex<Option<(Ipv4Addr, String)>>>,
}

impl Bus {
    /// Only clients reach the node, and it reaches nobody, from now on.
    pub fn cut_off(&self, node: Option<(Ipv4Addr, String)>) {
        *self.cut_off.lock().expect("nobody panics with it") = node;
    }

    /// Leads connections to the node's bus there, from a port that is returned.
    fn relay(&self, node: Ipv4Addr, port: u16) -> u16 {
        // The node itself is about to take two ports of its address.
        let own = std::iter::repeat_with(unused_port).find(|&own| own != port).expect("there are many");
        let listener = TcpListener::bind((node, own)).expect("127.0.0.0/8 is local");
        let bus = self.clone();
        std::thread::spawn(move || {
            for incoming in listener.incoming().flatten() {
                let Ok(outgoing) = TcpStream::connect((node, port)) else { continue };
                let bus = bus.clone();
                std::thread::spawn(move || bus.connect(incoming, outgoing, node));
            }
        });
        own
    }

    fn connect(&self, mut incoming: TcpStream, mut outgoing: TcpStream, node: Ipv4Addr) {
        // The header of a message has the id of its sender: src/cluster.h, clusterMsg.
        let mut header = [0; 80];
        if incoming.read_exact(&mut header).and_then(|()| outgoing.write_all(&header)).is_err() {
            return;
        }
        let sender = String::from_utf8_lossy(&header[40..]).into_owned();
        let (Ok(from), Ok(to)) = (outgoing.try_clone(), incoming.try_clone()) else { return };
        let (bus, known) = (self.clone(), sender.clone());
        std::thread::spawn(move || bus.copy(from, to, node, &known));
        self.copy(incoming, outgoing, node, &sender);
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, node: Ipv4Addr, sender: &str) {
        let mut room = [0; 65536];
        while let Ok(count @ 1..) = from.read(&mut room) {
            let cut_off = self.cut_off.lock().expect("nobody panics with it").clone();
            let is_cut = cut_off.is_some_and(|(address, id)| address == node || id == sender);
            if is_cut || to.write_all(&room[..count]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}

/// An address that no other server of this process has.
pub fn new_address() -> Ipv4Addr {
    static GIVEN: AtomicU8 = AtomicU8::new(128);
    let [.., middle, low] = address().octets();
    Ipv4Addr::new(127, GIVEN.fetch_add(1, Ordering::Relaxed), middle, low)
}

impl Nodes {
    /// Nodes that do not know each other.
    pub fn start(count: usize, settings: &[&str]) -> Self {
        Self::start_over(None, count, settings)
    }

    /// The same, where nodes reach each other only over this bus.
    pub fn start_over(bus: Option<Bus>, count: usize, settings: &[&str]) -> Self {
        let port = loop {
            let port = unused_port();
            // The bus has a port 10,000 above.
            if port < 55_000 && TcpListener::bind((address(), port + 10_000)).is_ok() {
                break port;
            }
        };
        let settings = settings.iter().map(|&word| word.to_owned()).collect();
        let mut nodes = Self { port, nodes: Vec::new(), settings, bus };
        for _ in 0..count {
            nodes.add();
        }
        nodes
    }

    /// One more; its number.
    pub fn add(&mut self) -> usize {
        let address = new_address();
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("node-{address}-{}", self.port));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("the folder for temporary files is writable");
        self.nodes.push(Node { process: None, address, folder });
        self.run(self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn run(&mut self, number: usize) {
        let node = &self.nodes[number];
        let host = node.address.to_string();
        let bus = self.bus.as_ref().map(|bus| bus.relay(node.address, self.port + 10_000).to_string());
        let port = self.port.to_string();
        let speaks_tls = self.settings.iter().any(|word| word == "--tls-cluster");
        let listens: &[&str] =
            if speaks_tls { &["--port", "0", "--tls-port", &port] } else { &["--port", &port] };
        let process = Command::new(redis_program())
            .args(["--cluster-enabled", "yes", "--cluster-node-timeout", NODE_TIMEOUT])
            .args(listens)
            .args(["--bind", &host, "--cluster-announce-ip", &host])
            .args(["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"])
            .args(["--cluster-require-full-coverage", "no", "--cluster-allow-replica-migration", "no"])
            .args(["--enable-debug-command", "yes", "--cluster-replica-validity-factor", "0"])
            .args(&self.settings)
            .args(bus.iter().flat_map(|port| ["--cluster-announce-bus-port", port]))
            .current_dir(&node.folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("redis-server: {error}; apt-get install redis-server"));
        let at = (node.address, self.port);
        self.nodes[number].process = Some(process);
        eventually(|| TcpStream::connect(at).is_ok().to_string(), "true");
    }

    /// Ends a node at once.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut process) = self.nodes[number].process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it again, elsewhere if it is to move; with `forgetful` it has lost its disk.
    pub fn restart(&mut self, number: usize, moves: bool, forgetful: bool) {
        self.kill(number);
        if moves {
            self.nodes[number].address = new_address();
        }
        if forgetful {
            let _ = fs::remove_file(self.nodes[number].folder.join("nodes.conf"));
        }
        self.run(number);
    }

    pub fn signal(&self, number: usize, name: &str) {
        let id = self.nodes[number].process.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").arg(format!("-{name}")).arg(id).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name}; apt-get install procps");
    }

    pub fn connect(&self, number: usize) -> Client {
        connect_to(self.nodes[number].address, self.port)
    }

    /// What a node says to a command, bulk strings without their frame.
    pub fn ask(&self, number: usize, line: &str) -> String {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let reply = self.connect(number).ask(&words);
        let reply = String::from_utf8_lossy(&reply).into_owned();
        match reply.strip_prefix('$').and_then(|rest| rest.split_once("\r\n")) {
            Some((_, text)) => text.trim_end().to_owned(),
            None => reply.trim_end().to_owned(),
        }
    }

    /// What a node has to agree to.
    pub fn tell(&self, number: usize, line: &str) {
        assert_eq!(self.ask(number, line), "+OK", "{line}");
    }

    pub fn id(&self, number: usize) -> String {
        self.ask(number, "CLUSTER MYID")
    }

    /// The address and port of a node.
    pub fn place(&self, number: usize) -> String {
        format!("{}:{}", self.nodes[number].address, self.port)
    }

    /// Makes one cluster of them: the first so many share the slots, the others are their replicas in turn.
    pub fn form(&self, primaries: usize) {
        for number in 0..self.nodes.len() {
            self.tell(number, &format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1));
        }
        for number in 0..primaries {
            let first = 16384 * number / primaries;
            let last = 16384 * (number + 1) / primaries - 1;
            self.tell(number, &format!("CLUSTER ADDSLOTSRANGE {first} {last}"));
        }
        for number in 1..self.nodes.len() {
            let port = self.bus_port(number);
            self.tell(0, &format!("CLUSTER MEET {} {} {port}", self.nodes[number].address, self.port));
        }
        for number in 0..self.nodes.len() {
            self.knows(number, self.nodes.len());
        }
        for number in primaries..self.nodes.len() {
            let primary = self.id(number % primaries);
            eventually(|| self.ask(number, &format!("CLUSTER REPLICATE {primary}")), "+OK");
        }
        self.is_well();
        for number in primaries..self.nodes.len() {
            eventually(
                || self.ask(number, "INFO replication").contains("master_link_status:up").to_string(),
                "true",
            );
        }
    }

    /// Where the others reach the bus of a node.
    fn bus_port(&self, number: usize) -> String {
        let lines = self.ask(number, "CLUSTER NODES");
        let port = lines.split('@').nth(1).and_then(|rest| rest.split([' ', ',']).next());
        port.expect("a node knows its own bus port").to_owned()
    }

    fn knows(&self, number: usize, count: usize) {
        let known = || self.ask(number, "CLUSTER NODES").matches(" connected").count().to_string();
        eventually(known, &count.to_string());
    }

    /// Waits until every node that runs says that all is well.
    pub fn is_well(&self) {
        for number in (0..self.nodes.len()).filter(|&number| self.nodes[number].process.is_some()) {
            let state = || {
                let info = self.ask(number, "CLUSTER INFO");
                (info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384")).to_string()
            };
            eventually(state, "true");
        }
    }

    /// Our proxy in front, with these settings of its cluster, and the address of its admin server. Requests may take much
    /// longer than a primary that hands over, or is busy with moves, holds them back, which is some seconds.
    pub fn proxy(&self, settings: &[&str], seeds: &[usize]) -> (Server, String) {
        self.patient_proxy(settings, seeds, 30)
    }

    /// The same with so many seconds for each request.
    pub fn patient_proxy(&self, settings: &[&str], seeds: &[usize], seconds: u32) -> (Server, String) {
        let numbers = seeds;
        let seeds: Vec<String> = numbers.iter().map(|&seed| self.place(seed)).collect();
        let cluster = format!("cluster: {{seeds: [{}], {}}}", seeds.join(", "), settings.join(", "));
        let proxy = Server::memstore_with_admin(&[&cluster, &format!("timeout: {seconds}s")], &[], &[]);
        let is_whole =
            |seed: &usize| self.ask(*seed, "CLUSTER INFO").contains("cluster_slots_assigned:16384");
        if numbers.iter().all(is_whole) {
            // It begins to serve before it knows who owns what, if the nodes take their time. One client for each worker.
            let mut clients = [proxy.0.connect(), proxy.0.connect()];
            for client in &mut clients {
                let is_unknown = |reply: &str| reply.starts_with("-ERR no node of the cluster");
                eventually(|| is_unknown(&client.tell("EXISTS a")).to_string(), "false");
            }
        }
        proxy
    }

    /// A replica takes the place of its primary, however often it has to be asked: on a busy machine the primary may not be heard of
    /// in the 5 s that an attempt has.
    pub fn hand_over(&self, number: usize) {
        let mut asked: Option<Instant> = None;
        let mut takes_over = || {
            if asked.is_none_or(|asked| asked.elapsed() > Duration::from_secs(6)) {
                let reply = self.ask(number, "CLUSTER FAILOVER");
                println!("node {number}: {reply}");
                asked = reply.starts_with('+').then(Instant::now);
            }
            self.ask(number, "CLUSTER NODES").contains("myself,master").to_string()
        };
        eventually(&mut takes_over, "true");
    }

    /// Moves one slot with all its keys, as `redis-cli --cluster reshard` does.
    pub fn move_slot(&self, slot: usize, from: usize, to: usize) {
        let (source, target) = (self.id(from), self.id(to));
        self.tell(to, &format!("CLUSTER SETSLOT {slot} IMPORTING {source}"));
        self.tell(from, &format!("CLUSTER SETSLOT {slot} MIGRATING {target}"));
        let mut client = self.connect(from);
        loop {
            let reply = client.ask(&[b"CLUSTER", b"GETKEYSINSLOT", slot.to_string().as_bytes(), b"10"]);
            let reply = String::from_utf8_lossy(&reply).into_owned();
            let keys: Vec<&str> =
                reply.split("\r\n").skip(2).step_by(2).filter(|key| !key.is_empty()).collect();
            if keys.is_empty() {
                break;
            }
            let (host, port) = (self.nodes[to].address.to_string(), self.port.to_string());
            let mut words: Vec<&[u8]> =
                vec![b"MIGRATE", host.as_bytes(), port.as_bytes(), b"", b"0", b"5000", b"KEYS"];
            words.extend(keys.iter().map(|key| key.as_bytes()));
            client.send(&encoded(&words));
            let moved = shown(&client.reply());
            assert!(moved.starts_with("+OK") || moved.starts_with("+NOKEY"), "{moved}");
        }
        for number in [to, from] {
            self.tell(number, &format!("CLUSTER SETSLOT {slot} NODE {target}"));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
