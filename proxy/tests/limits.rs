//! What a client may hold of the proxy: over the core alone, where every byte can be counted.

mod world;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use memstore_proxy::metrics::Counters;
use memstore_proxy::pool::{
    self, ClientId, ConnectionId, Identity, Limits, NEVER_SLOW, Notice, PASS_WORK_MAX, Pool, Shell, Verdict,
    Wish,
};
use memstore_proxy::privacy::Privacy;
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
use memstore_proxy::protocol::{ClientFilter, Found, Question, Rows};
use memstore_proxy::time::Time;
use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};
use world::{Event, World};

const MIB: usize = 1 << 20;

/// A pool of one shard that answers everything at once, and clients that do what a test says.
struct Bench {
    pool: Pool<Resp>,
    counters: Counters,
    now: Time,
    scratch: BytesMut,
    /// What the shard says to a GET.
    value: Vec<u8>,
    /// The shard is given no time.
    frozen: bool,
    unanswered: Vec<u8>,
    connection: Option<ConnectionId>,
    /// Who was settled last, and what is to be done about it.
    settled: Option<(ClientId, Verdict)>,
    notices: Vec<Notice>,
}

impl Bench {
    fn new(change: impl FnOnce(&mut Limits)) -> Self {
        let shards = vec![Shard::new(Address::Tcp { host: "h".into(), port: 1 }, 1, Some("shard".into()))];
        let topology =
            Topology::new(shards, DistributionKind::Ketama, KeyHash::Fnv1a64, None).expect("one shard");
        let mut limits = Limits {
            per_shard_transactions: false,
            renames_across_shards: false,
            timeout: None,
            queue_wait: Duration::from_secs(3600),
            in_flight_max: 1024,
            request_bytes_max: 1 << 30,
            blocked_max: 1000,
            arguments_max: 1 << 20,
            client_output_max: 1 << 30,
            client_output_pause: 4 * MIB,
            // All of it is about one connection to each shard.
            large_value_min: usize::MAX,
            shard_queue_max: 65536,
            shard_queue_bytes_max: 64 << 20,
            parked_bytes_max: 8 << 20,
            subscriber_output_max: 32 * MIB,
            subscriber_output_soft_max: 8 * MIB,
            subscriber_output_soft_time: Duration::from_secs(60),
            closes_on_gap: false,
            subscriptions_max: 10_000,
            listens_everywhere: true,
            memory_max: usize::MAX,
            pass_work_max: PASS_WORK_MAX,
            server_connections: 1,
            eager_connects: 0,
            client_idle_timeout: None,
            client_request_timeout: None,
            client_age_max: None,
            slow_min: NEVER_SLOW,
            slow_log_max: 128,
            access_sample: 0,
            access_errors: false,
            trace_sample: 0,
            trace_min: NEVER_SLOW,
            privacy: Privacy::Shown,
            hot_keys_sample: 100,
        };
        change(&mut limits);
        let identity =
            Identity { name: "p".into(), unix_start: 0, client_id_first: 1, client_id_step: 1, seed: 1 };
        let settings = Settings { databases: 16, ..Settings::default() };
        let counters = Counters::of_workers(1, 1).remove(0);
        Self {
            pool: Pool::new(identity, settings, limits, Arc::new(topology), counters.clone()),
            counters,
            now: Time::from_micros(1),
            scratch: BytesMut::new(),
            value: vec![b'v'; 1000],
            frozen: false,
            unanswered: Vec::new(),
            connection: None,
            settled: None,
            notices: Vec::new(),
        }
    }

    fn client(&mut self) -> ClientId {
        self.pool.client_connected(self.now)
    }

    /// What the client's socket buffer has goes to the proxy as far as that reads it.
    fn send(&mut self, client: ClientId, bytes: &mut &[u8]) {
        while !bytes.is_empty() && self.pool.wants_read(client) {
            let (now, later) = bytes.split_at(bytes.len().min(50_000));
            *bytes = later;
            self.pool.before_client_read(client, &mut self.scratch);
            self.scratch.extend_from_slice(now);
            self.pool.client_received(client, &mut self.scratch, self.now);
            assert!(self.scratch.is_empty());
            self.settle(client);
        }
    }

    /// What a worker does after a pass; nothing is written to the client, which is told.
    fn settle(&mut self, client: ClientId) -> Verdict {
        self.settled = Some((client, Verdict::Wait));
        loop {
            pool::settle(self, self.now);
            if !self.pool.has_work() {
                return self.settled.expect("just set").1;
            }
        }
    }

    /// Of what the log was told since the last call, what is chosen.
    fn logged<T>(&mut self, chosen: impl Fn(Notice) -> Option<T>) -> Vec<T> {
        std::mem::take(&mut self.notices).into_iter().filter_map(chosen).collect()
    }

    /// The shard answers what it is sent.
    fn serve(&mut self) {
        let Some(connection) = self.connection.filter(|_| !self.frozen) else { return };
        let Some(output) = self.pool.shard_output(connection) else { return };
        self.unanswered.extend(taken(output, usize::MAX));
        self.pool.settle_shard(connection);
        let mut responses = Vec::new();
        let mut used = 0;
        for at in memchr::memchr_iter(b'*', &self.unanswered) {
            match self.unanswered.get(at..at + 13) {
                Some(b"*3\r\n$3\r\nSET\r\n") => responses.extend_from_slice(b"+OK\r\n"),
                Some(b"*2\r\n$3\r\nGET\r\n") => {
                    responses.extend_from_slice(format!("${}\r\n", self.value.len()).as_bytes());
                    responses.extend_from_slice(&self.value);
                    responses.extend_from_slice(b"\r\n");
                }
                Some(b"*2\r\n$6\r\nPUBSU") => responses.extend_from_slice(&self.value),
                _ => panic!("values of these tests have no star in them"),
            }
            used = self.unanswered.len();
        }
        self.unanswered.drain(..used);
        for piece in responses.chunks(100_000) {
            self.pool.before_shard_read(connection, &mut self.scratch);
            self.scratch.extend_from_slice(piece);
            self.pool.shard_received(connection, &mut self.scratch, self.now).expect("good responses");
        }
    }

    /// The client takes so many bytes of its replies at most.
    fn take(&mut self, client: ClientId, most: usize) -> Vec<u8> {
        let bytes = self.pool.client_output(client).map_or_else(Vec::new, |output| taken(output, most));
        self.settle(client);
        bytes
    }

    /// What CLIENT LIST says of the client.
    fn row(&mut self, client: ClientId) -> Row {
        let question =
            Question { filter: ClientFilter::default(), deed: memstore_proxy::protocol::Deed::List, form: 0 };
        let (mut rows, place) = (Rows::default(), client.index as usize);
        let ends = |_| Some(["", ""]);
        self.pool.list_clients(&question, 0, place..place + 1, self.now, ends, &mut rows);
        let line = String::from_utf8(Found::of(&[rows]).text.to_vec()).expect("text");
        let field = |name: &str| {
            let value = line.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            value.and_then(|value| value.parse().ok()).expect("a number")
        };
        Row { input_bytes: field("qbuf"), output_bytes: field("omem") }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        self.pool.tick(self.now);
        let mut due = Vec::new();
        self.pool.sweep_clients(self.now, &mut due);
        due.into_iter().for_each(|(id, why)| self.pool.part_with(id, why, self.now));
        self.pool.sweep_blocked(self.now);
    }
}

impl Shell<Resp> for Bench {
    fn pool(&mut self) -> (&mut Pool<Resp>, &mut BytesMut) {
        (&mut self.pool, &mut self.scratch)
    }

    fn fulfil(&mut self, wish: Wish, now: Time) {
        match wish {
            Wish::Connect(connection) => {
                assert!(self.connection.replace(connection).is_none(), "one connection will do");
                self.pool.shard_connected(connection, None, now);
            }
            Wish::Log(notice) => self.notices.push(notice),
            _ => {}
        }
    }

    fn write_shards(&mut self, _: Time) {
        self.pool.take_dirty_shards(&mut Vec::new());
        self.serve();
    }

    fn write_clients(&mut self, now: Time) {
        self.pool.take_dirty_clients(&mut Vec::new());
        if let Some((client, verdict)) = &mut self.settled {
            if self.pool.client_output(*client).is_some_and(|output| !output.is_empty()) {
                self.pool.client_blocked(*client, false, now);
            }
            *verdict = self.pool.settle_client(*client);
        }
    }
}

/// Numbers of a line of CLIENT LIST.
#[derive(Debug)]
struct Row {
    input_bytes: usize,
    output_bytes: usize,
}

fn taken(output: &mut memstore_proxy::buffer::Output, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !output.is_empty() && bytes.len() < most {
        let mut vectors = [std::io::IoSlice::new(&[]); 8];
        let used = output.vectors(&mut vectors, usize::MAX);
        let part: Vec<u8> = vectors[..used].iter().flat_map(|vector| vector.iter().copied()).collect();
        let count = part.len().min(most - bytes.len());
        bytes.extend_from_slice(&part[..count]);
        output.advance(count);
    }
    bytes
}

/// `SET key value` and `GET key`, so many times.
fn pairs(count: usize, value: usize) -> Vec<u8> {
    let value = "v".repeat(value);
    let pair = format!(
        "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        value.len()
    );
    pair.repeat(count).into_bytes()
}

#[test]
fn a_pipeline_that_is_written_before_it_is_read_is_served() {
    let mut bench = Bench::new(|_| {});
    let client = bench.client();
    let requests = pairs(20_000, 1000);
    let mut unsent = &requests[..];
    bench.send(client, &mut unsent);
    assert_eq!(unsent.len(), 0, "the client is read until it has written everything");
    let mut replies = 0;
    loop {
        let taken = bench.take(client, MIB).len();
        replies += taken;
        if taken == 0 {
            break;
        }
    }
    assert_eq!(replies, 20_000 * (5 + 1009), "and then gets all of its replies");
}

#[test]
fn replies_that_are_not_read_are_not_asked_for() {
    let mut bench = Bench::new(|_| {});
    bench.value = vec![b'v'; 100_000];
    let client = bench.client();
    let requests = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n".repeat(300);
    let mut unsent = &requests[..];
    bench.send(client, &mut unsent);
    assert_eq!(unsent.len(), 0);
    let held = bench.row(client).output_bytes;
    assert!(held < 20 * MIB, "{held} bytes of 30 MB are held");
    let mut replies = 0;
    loop {
        let taken = bench.take(client, MIB).len();
        replies += taken;
        if taken == 0 {
            break;
        }
        assert!(bench.row(client).output_bytes < 20 * MIB);
    }
    assert_eq!(replies, 300 * 100_011);
}

#[test]
fn a_client_that_never_reads_is_read_up_to_its_limit() {
    let mut bench = Bench::new(|limits| limits.client_output_max = 8 * MIB);
    let client = bench.client();
    let requests = pairs(40_000, 1000);
    let mut unsent = &requests[..];
    bench.send(client, &mut unsent);
    let read = requests.len() - unsent.len();
    assert!(!unsent.is_empty() && read > 4 * MIB, "{read} bytes were read");
    let row = bench.row(client);
    assert!(row.input_bytes + row.output_bytes <= 9 * MIB, "{row:?}");
    // Nothing is lost: once it reads, it is read again.
    let mut replies = 0;
    loop {
        let taken = bench.take(client, MIB).len();
        replies += taken;
        bench.send(client, &mut unsent);
        if taken == 0 {
            break;
        }
    }
    assert_eq!(replies, 40_000 * (5 + 1009));
}

#[test]
fn a_client_that_does_not_read_is_told_and_closed_when_idle_clients_are() {
    let mut bench = Bench::new(|limits| limits.client_idle_timeout = Some(Duration::from_secs(60)));
    let client = bench.client();
    let mut request = &b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"[..];
    bench.send(client, &mut request);
    let wedged = |bench: &mut Bench| {
        bench.settle(client);
        bench.logged(|notice| if let Notice::Wedged(id, _) = notice { Some(id) } else { None })
    };
    bench.pass(Duration::from_secs(4));
    assert_eq!(wedged(&mut bench), []);
    bench.pass(Duration::from_secs(1));
    assert_eq!(wedged(&mut bench), [client]);
    bench.pass(Duration::from_secs(1));
    assert_eq!(wedged(&mut bench), [], "once is enough");
    assert_eq!(bench.counters.client_wedged.get(), 1);
    bench.pass(Duration::from_secs(53));
    assert_ne!(bench.settle(client), Verdict::Close, "59 s");
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.settle(client), Verdict::Close, "60 s");
    assert_eq!(bench.counters.client_timedout.get(), 1);
}

#[test]
fn a_client_that_is_to_go_and_does_not_read_is_closed() {
    let mut bench = Bench::new(|_| {});
    let client = bench.client();
    bench.send(client, &mut &b"*1\r\n$4\r\nQUIT\r\n"[..]);
    bench.pass(Duration::from_secs(29));
    assert_ne!(bench.settle(client), Verdict::Close);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.settle(client), Verdict::Close);
}

#[test]
fn a_complete_request_that_waits_is_no_unfinished_one() {
    let mut bench = Bench::new(|limits| {
        limits.client_request_timeout = Some(Duration::from_secs(1));
        limits.shard_queue_max = 1;
    });
    bench.frozen = true;
    let (first, second) = (bench.client(), bench.client());
    let get = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
    bench.send(first, &mut &get[..]);
    // It begins with a part of it, and then finds the queue full.
    bench.send(second, &mut &get[..5]);
    bench.send(second, &mut &get[5..]);
    bench.pass(Duration::from_secs(30));
    bench.settle(second);
    assert_eq!(bench.counters.client_timedout.get(), 0, "it waits for the shard, not for the client");
    bench.frozen = false;
    bench.settle(first);
    bench.settle(second);
    assert_eq!(bench.take(second, usize::MAX).len(), 1009);
    // One that does not come to its end is.
    bench.send(second, &mut &get[..5]);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.settle(second), Verdict::Finish);
}

/// `SET key value`.
fn set(value: usize) -> Vec<u8> {
    format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${value}\r\n{}\r\n", "v".repeat(value)).into_bytes()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

fn evicted_client(notice: Notice) -> Option<(ClientId, usize)> {
    if let Notice::Evicted(id, bytes) = notice { Some((id, bytes)) } else { None }
}

#[test]
fn who_holds_most_goes_and_nobody_else() {
    let mut bench = Bench::new(|limits| limits.memory_max = 16 * MIB);
    let innocent: Vec<ClientId> = (0..50).map(|_| bench.client()).collect();
    for &client in &innocent {
        // Each holds a part of a request.
        bench.send(client, &mut &set(50_000)[..40_000]);
    }
    let greedy = bench.client();
    bench.send(greedy, &mut &set(30 * MIB)[..20 * MIB]);
    assert_eq!(bench.counters.client_evicted.get(), 1);
    let evicted = bench.logged(evicted_client);
    assert_eq!(evicted.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [greedy]);
    assert!(evicted[0].1 > 5 * MIB, "{evicted:?}");
    let words = bench.pool.client_output(greedy).map(|output| taken(output, usize::MAX)).expect("last words");
    assert!(words.starts_with(b"-OOM "), "{}", text(words));
    assert_eq!(bench.settle(greedy), Verdict::Finish);
    bench.pool.client_gone(greedy, false, bench.now);
    for &client in &innocent {
        bench.send(client, &mut &set(50_000)[40_000..]);
        assert_eq!(text(bench.take(client, usize::MAX)), "+OK\r\n");
    }
}

#[test]
fn requests_that_wait_for_a_shard_are_held_by_their_client() {
    let mut bench = Bench::new(|limits| limits.memory_max = 8 * MIB);
    let innocent = bench.client();
    bench.frozen = true;
    bench.send(innocent, &mut &set(100)[..]);
    let greedy = bench.client();
    let requests = set(1_000_000).repeat(16);
    bench.send(greedy, &mut &requests[..]);
    let evicted = bench.logged(evicted_client);
    assert_eq!(evicted.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [greedy]);
    assert!(evicted[0].1 > 5 * MIB, "{evicted:?}");
    let queued = bench.counters.shards()[0].in_queue_bytes.get();
    assert!(queued < MIB as i64, "{queued} bytes are queued still");
    assert!(text(bench.take(greedy, usize::MAX)).starts_with("-OOM "));
    bench.pool.client_gone(greedy, false, bench.now);
    bench.frozen = false;
    bench.settle(innocent);
    assert_eq!(text(bench.take(innocent, usize::MAX)), "+OK\r\n");
    // The connection is in step.
    bench.send(innocent, &mut &pairs(1, 10)[..]);
    assert_eq!(bench.take(innocent, usize::MAX).len(), 5 + 1009);
}

#[test]
fn what_clients_left_in_a_queue_goes_before_any_client() {
    let mut bench = Bench::new(|limits| limits.memory_max = 8 * MIB);
    let innocent = bench.client();
    bench.frozen = true;
    bench.send(innocent, &mut &set(100)[..]);
    for _ in 0..20 {
        let client = bench.client();
        bench.send(client, &mut &set(100_000).repeat(10)[..]);
        bench.pool.client_gone(client, false, bench.now);
    }
    bench.settle(innocent);
    assert_eq!(bench.counters.client_evicted.get(), 0, "20 MB were queued by nobody who is there");
    bench.frozen = false;
    bench.settle(innocent);
    assert_eq!(text(bench.take(innocent, usize::MAX)), "+OK\r\n");
}

#[test]
fn a_request_that_there_is_no_room_for_is_refused_in_words() {
    let mut bench = Bench::new(|limits| limits.memory_max = 4 * MIB);
    let client = bench.client();
    let echo =
        |length: usize| format!("*2\r\n$4\r\nECHO\r\n${length}\r\n{}\r\n", "v".repeat(length)).into_bytes();
    bench.send(client, &mut &echo(MIB)[..]);
    assert_eq!(bench.take(client, usize::MAX).len(), MIB + 12, "this one fits");
    bench.send(client, &mut &echo(3 * MIB)[..]);
    assert!(text(bench.take(client, usize::MAX)).starts_with("-OOM "), "the reply would not");
    assert_eq!(bench.counters.out_of_memory.get(), 1);
    let oversized = |notice| if let Notice::Oversized(id, bytes) = notice { Some((id, bytes)) } else { None };
    assert_eq!(bench.logged(oversized).len(), 1);
    bench.send(client, &mut &b"*1\r\n$4\r\nPING\r\n"[..]);
    assert_eq!(text(bench.take(client, usize::MAX)), "+PONG\r\n", "the connection goes on");
}

#[test]
fn arguments_and_names_have_limits() {
    let mut bench = Bench::new(|limits| limits.arguments_max = 1000);
    let client = bench.client();
    let name = "n".repeat(2 * MIB);
    for request in [
        format!("*4\r\n$5\r\nHELLO\r\n$1\r\n2\r\n$7\r\nSETNAME\r\n${}\r\n{name}\r\n", name.len()),
        format!("*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n${}\r\n{name}\r\n", name.len()),
    ] {
        bench.send(client, &mut request.as_bytes());
        let reply = text(bench.take(client, usize::MAX));
        assert!(reply.starts_with("-ERR Client names"), "{reply}");
    }
    bench.send(client, &mut &b"*1001\r\n$4\r\nMGET\r\n"[..]);
    let reply = text(bench.take(client, usize::MAX));
    assert!(reply.contains("request has 1001 arguments, more than arguments_max (1000)"), "{reply}");
}

#[test]
fn replies_made_here_are_bounded() {
    let mut bench = Bench::new(|_| {});
    let client = bench.client();
    let words = 100_000;
    let request =
        format!("*{}\r\n$7\r\nCOMMAND\r\n$4\r\nINFO\r\n{}", words + 2, "$6\r\nclient\r\n".repeat(words));
    bench.send(client, &mut request.as_bytes());
    let reply = text(bench.take(client, usize::MAX));
    assert!(reply.starts_with("-ERR the reply is larger than"), "{} bytes", reply.len());
}

#[test]
fn lists_of_channels_are_bounded() {
    let mut bench = Bench::new(|_| {});
    let client = bench.client();
    for (count, refused) in [(50_000, 0), (50_001, 1)] {
        bench.value = format!("*{count}\r\n{}", "$1\r\nc\r\n".repeat(count)).into_bytes();
        bench.send(client, &mut &b"*2\r\n$6\r\nPUBSUB\r\n$8\r\nCHANNELS\r\n"[..]);
        let reply = text(bench.take(client, usize::MAX));
        let words = "-ERR the shards have more than 50000 channels; ask with a pattern\r\n";
        assert_eq!(reply, if refused > 0 { words } else { "*1\r\n$1\r\nc\r\n" });
        assert_eq!(bench.counters.refused.get(), refused);
    }
}

/// What is queued for a transaction is in the account, and goes with its client.
#[test]
fn queued_requests_are_held_by_their_client() {
    let mut bench = Bench::new(|limits| limits.memory_max = 100_000);
    let clients: Vec<ClientId> = (0..20).map(|_| bench.client()).collect();
    for &client in &clients {
        bench.send(client, &mut &b"*1\r\n$5\r\nMULTI\r\n"[..]);
        assert_eq!(text(bench.take(client, usize::MAX)), "+OK\r\n");
        bench.send(client, &mut &set(15_000)[..]);
        let reply = text(bench.take(client, usize::MAX));
        assert!(reply == "+QUEUED\r\n" || bench.counters.client_evicted.get() > 0, "{reply}");
    }
    assert!(bench.counters.client_evicted.get() > 0);
    clients.into_iter().for_each(|client| bench.pool.client_gone(client, false, bench.now));
}

/// Half of it is with a shard that hangs, and the client has closed its side: it goes for the other half, and not somebody
/// who holds less, nor who waits behind it.
#[test]
fn what_is_left_of_a_request_that_is_half_written_is_its_clients() {
    let shard = Shard::new(Address::Tcp { host: "h".into(), port: 1 }, 1, Some("hangs".into()));
    let topology = Topology::new(vec![shard], DistributionKind::Ketama, KeyHash::Fnv1a64, None);
    let limits = Limits {
        memory_max: MIB,
        shard_queue_bytes_max: 4 << 20,
        request_bytes_max: 4 << 20,
        large_value_min: usize::MAX,
        ..Limits::default()
    };
    let mut world = World::<Resp>::new(Settings::default(), limits, Arc::new(topology.expect("a shard")), 1);
    let set = |size: usize| format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${size}\r\n{}\r\n", "x".repeat(size));
    let [ended, behind, other] = [(); 3].map(|()| world.pool.client_connected(world.now));
    world.eager.extend([ended, behind, other].map(|id| (id, Vec::new())));
    world.client_sends(ended, set(800_000).as_bytes());
    world.settle();
    let index = world.wanted_connects();
    assert_eq!(world.shard_takes(index, |_| 100_000).len(), 100_000);
    world.client_sends(behind, b"GET behind\r\n");
    world.pool.client_ended(ended);
    world.settle();
    world.client_sends(other, &set(500_000).as_bytes()[..400_000]);
    let events = world.settle();
    let left = |event: &Event| if let Event::ClientLeft(id, _) = event { Some(*id) } else { None };
    assert_eq!(events.iter().filter_map(left).collect::<Vec<_>>(), [ended]);
    assert!(world.eager[&ended].starts_with(b"-OOM "));
    assert_eq!(world.wanted, [index], "the next connection, for who waits");
}
