//! What becomes of requests around a MULTI, which is refused: a client that waits for its replies goes on, and a
//! transaction that was sent at once is not executed in part, wherever the network cuts it.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use memstore_proxy::buffer::Output;
use memstore_proxy::metrics::Counters;
use memstore_proxy::pool::{
    self, ClientId, ConnectionId, Identity, Limits, Parting, Pool, Shell, Verdict, Wish,
};
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;
use memstore_proxy::time::Time;
use proptest::prelude::*;
use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};

/// A client that is silent for so long has sent all that it wanted to send at once.
const SILENCE: Duration = Duration::from_millis(250);

/// One client of a pool with one shard, which answers every request with `+OK`.
struct Talk {
    pool: Pool<Resp>,
    client: ClientId,
    connection: Option<ConnectionId>,
    now: Time,
    /// What the shard was sent, inline.
    executed: Vec<String>,
    heard: String,
    ended: Option<Verdict>,
    scratch: BytesMut,
}

impl Talk {
    fn new() -> Self {
        let shards = vec![Shard::new(Address::Tcp { host: "h".into(), port: 1 }, 1, Some("shard".into()))];
        let topology =
            Topology::new(shards, DistributionKind::Ketama, KeyHash::Fnv1a64, None).expect("one shard");
        let limits = Limits {
            timeout: None,
            queue_wait: Duration::from_secs(1),
            in_flight_max: 1024,
            request_bytes_max: 1 << 20,
            client_output_max: 1 << 20,
            shard_queue_max: 1024,
            shard_queue_bytes_max: 1 << 20,
            memory_max: usize::MAX,
            server_connections: 1,
            eager_connects: 0,
            client_idle_timeout: None,
            client_request_timeout: None,
            client_age_max: None,
            ..Limits::default()
        };
        let identity =
            Identity { name: "p".into(), unix_start: 0, client_id_first: 1, client_id_step: 1, seed: 1 };
        let settings = Settings { databases: 16, ..Settings::default() };
        let counters = Counters::of_workers(1, 1).remove(0);
        let mut pool = Pool::new(identity, settings, limits, Arc::new(topology), counters);
        let now = Time::from_micros(1_000_000);
        let client = pool.client_connected(now);
        Self {
            pool,
            client,
            connection: None,
            now,
            executed: vec![],
            heard: String::new(),
            ended: None,
            scratch: BytesMut::new(),
        }
    }

    /// Bytes come, and the worker does all that follows.
    fn say(&mut self, bytes: &[u8]) {
        assert!(self.pool.wants_read(self.client), "the client is read");
        let mut scratch = BytesMut::new();
        self.pool.before_client_read(self.client, &mut scratch);
        scratch.extend_from_slice(bytes);
        self.pool.client_received(self.client, &mut scratch, self.now);
        self.settle();
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now.plus(time);
        while let Some(deadline) = self.pool.next_deadline().filter(|deadline| *deadline <= until) {
            self.now = deadline.max(self.now);
            self.pool.tick(self.now);
            self.settle();
        }
        self.now = until;
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            pool::settle(self, self.now);
            if !self.pool.has_work() {
                return;
            }
        }
    }

    /// What the client has heard since the last call.
    fn heard(&mut self) -> String {
        std::mem::take(&mut self.heard)
    }
}

impl Shell<Resp> for Talk {
    fn pool(&mut self) -> (&mut Pool<Resp>, &mut BytesMut) {
        (&mut self.pool, &mut self.scratch)
    }

    fn fulfil(&mut self, wish: Wish, now: Time) {
        if let Wish::Connect(connection) = wish {
            self.connection = Some(connection);
            self.pool.shard_connected(connection, None, now);
        }
    }

    fn write_shards(&mut self, now: Time) {
        self.pool.take_dirty_shards(&mut vec![]);
        if let Some(connection) = self.connection
            && let Some(output) = self.pool.shard_output(connection)
        {
            let text = taken(output);
            self.pool.settle_shard(connection);
            let requests = words(&text);
            let mut replies = BytesMut::from("+OK\r\n".repeat(requests.len()).as_bytes());
            self.executed.extend(requests);
            if !replies.is_empty() {
                self.pool.shard_received(connection, &mut replies, now).expect("well-formed");
            }
        }
    }

    fn write_clients(&mut self, _: Time) {
        let mut clients = vec![];
        self.pool.take_dirty_clients(&mut clients);
        if !clients.is_empty() {
            if let Some(output) = self.pool.client_output(self.client) {
                self.heard += &taken(output);
            }
            let verdict = self.pool.settle_client(self.client);
            if matches!(verdict, Verdict::Finish | Verdict::Close) {
                self.ended = Some(verdict);
                self.pool.client_gone(self.client, false);
            }
        }
    }
}

fn taken(output: &mut Output) -> String {
    let bytes = output.first(output.len());
    output.advance(output.len());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The requests of a text of arrays, each as one line.
fn words(text: &str) -> Vec<String> {
    let mut requests: Vec<String> = Vec::new();
    for line in text.split("\r\n").filter(|line| !line.is_empty() && !line.starts_with('$')) {
        match (line.strip_prefix('*'), requests.last_mut()) {
            (Some(_), _) => requests.push(String::new()),
            (None, Some(request)) if request.is_empty() => request.push_str(line),
            (None, Some(request)) => *request += &format!(" {line}"),
            (None, None) => panic!("{text:?} begins with no request"),
        }
    }
    requests
}

const MULTI_REFUSED: &str =
    "-ERR 'multi' is refused: transactions (MULTI, EXEC, DISCARD, WATCH) are not supported yet\r\n";
const ABORTED: &str = "-EXECABORT Transaction discarded because of previous errors.\r\n";

fn not_executed(command: &str) -> String {
    format!(
        "-ERR '{command}' was not executed: it is part of a transaction, and transactions are not supported yet\r\n"
    )
}

#[test]
fn a_client_that_waits_for_the_reply_to_multi_goes_on() {
    let mut talk = Talk::new();
    talk.say(b"MULTI\r\n");
    assert_eq!(talk.heard(), MULTI_REFUSED);
    talk.say(b"SET k 1\r\n");
    talk.wait(SILENCE);
    assert_eq!((talk.heard().as_str(), &talk.executed[..]), ("+OK\r\n", &["SET k 1".to_owned()][..]));
    // Only the first request is held.
    talk.say(b"GET k\r\n");
    assert_eq!(talk.heard(), "+OK\r\n");
    assert_eq!(talk.executed, ["SET k 1", "GET k"]);
}

#[test]
fn who_was_silent_for_long_waited() {
    let mut talk = Talk::new();
    talk.say(b"MULTI\r\n");
    assert_eq!(talk.heard(), MULTI_REFUSED);
    talk.wait(SILENCE);
    talk.say(b"GET k\r\nGET l\r\n");
    assert_eq!(talk.heard(), "+OK\r\n+OK\r\n");
}

#[test]
fn a_client_that_tries_multi_again_and_again_is_told_each_time_at_once() {
    let mut talk = Talk::new();
    for _ in 0..3 {
        talk.say(b"MULTI\r\n");
        assert_eq!(talk.heard(), MULTI_REFUSED);
    }
    talk.say(b"EXEC\r\n");
    assert_eq!(talk.heard(), ABORTED);
    talk.say(b"GET k\r\n");
    assert_eq!(talk.heard(), "+OK\r\n");
}

#[test]
fn what_stood_behind_multi_is_refused_until_the_transaction_ends() {
    for end in ["EXEC", "DISCARD"] {
        let mut talk = Talk::new();
        talk.say(b"MULTI\r\nSET a 1\r\nSET b");
        talk.wait(10 * SILENCE);
        talk.say(b" 1\r\n");
        talk.wait(10 * SILENCE);
        let expected = [MULTI_REFUSED, &not_executed("set"), &not_executed("set")].concat();
        assert_eq!(talk.heard(), expected);
        talk.say(format!("{end}\r\nGET a\r\n").as_bytes());
        assert!(talk.heard().ends_with("\r\n+OK\r\n"));
        assert_eq!(talk.executed, ["GET a"]);
    }
}

/// The beginning of the next request is enough: its sender did not wait.
#[test]
fn a_request_that_had_begun_stood_behind_multi() {
    let mut talk = Talk::new();
    talk.say(b"MULTI\r\nSE");
    assert_eq!(talk.heard(), MULTI_REFUSED);
    talk.wait(10 * SILENCE);
    talk.say(b"T a 1\r\n");
    assert_eq!(talk.heard(), not_executed("set"));
}

/// The error is not written when the next request comes, so nobody can have read it.
#[test]
fn a_request_that_comes_before_the_error_was_delivered_stood_behind_multi() {
    let mut talk = Talk::new();
    let mut scratch = BytesMut::new();
    for line in ["MULTI\r\n", "SET a 1\r\n"] {
        talk.pool.before_client_read(talk.client, &mut scratch);
        scratch.extend_from_slice(line.as_bytes());
        talk.pool.client_received(talk.client, &mut scratch, talk.now);
    }
    talk.wait(10 * SILENCE);
    assert_eq!(talk.heard(), [MULTI_REFUSED, &not_executed("set")].concat());
    assert!(talk.executed.is_empty());
}

/// It hears nothing, so it waits for nothing.
#[test]
fn a_client_without_replies_did_not_wait() {
    let mut talk = Talk::new();
    talk.say(b"CLIENT REPLY OFF\r\nMULTI\r\n");
    talk.wait(10 * SILENCE);
    talk.say(b"SET a 1\r\n");
    talk.wait(10 * SILENCE);
    assert!(talk.executed.is_empty());
    talk.say(b"EXEC\r\nSET b 1\r\n");
    assert_eq!(talk.executed, ["SET b 1"]);
}

#[test]
fn what_is_held_is_bounded() {
    let mut talk = Talk::new();
    talk.say(b"MULTI\r\n");
    talk.say(b"SET first 1\r\n");
    let line = format!("SET k {}\r\n", "v".repeat(1000));
    for _ in 0..40 {
        talk.say(line.as_bytes());
    }
    assert!(talk.heard().ends_with(&not_executed("set")), "it does not wait for replies");
    talk.wait(10 * SILENCE);
    assert!(talk.executed.is_empty());
}

#[test]
fn a_client_that_closes_its_side_has_sent_all() {
    let mut talk = Talk::new();
    talk.say(b"MULTI\r\n");
    talk.say(b"SET a 1\r\n");
    talk.pool.client_ended(talk.client);
    talk.settle();
    assert_eq!(talk.heard(), [MULTI_REFUSED, "+OK\r\n"].concat());
    assert_eq!(talk.ended, Some(Verdict::Close));

    // With half a request behind it, it was cut off.
    let mut talk = Talk::new();
    talk.say(b"MULTI\r\n");
    talk.say(b"SET a 1\r\nEX");
    talk.wait(10 * SILENCE);
    talk.pool.client_ended(talk.client);
    talk.settle();
    assert_eq!(talk.heard(), [MULTI_REFUSED, &not_executed("set")].concat());
    assert_eq!((talk.ended, talk.pool.next_deadline()), (Some(Verdict::Close), None));
}

/// Nothing is read of it any more, so that nobody can know what it means.
#[test]
fn a_drain_executes_nothing_that_is_held() {
    let mut talk = Talk::new();
    talk.say(b"MULTI\r\n");
    talk.say(b"SET a 1\r\n");
    talk.pool.part_with(talk.client, Parting::Drained, talk.now);
    talk.wait(10 * SILENCE);
    assert_eq!((talk.ended, talk.executed.len()), (Some(Verdict::Finish), 0));
    assert_eq!(talk.pool.next_deadline(), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Wherever the network cuts, and however long it takes for a piece within the bound.
    #[test]
    fn a_transaction_that_was_sent_at_once_is_not_executed_in_part(
        before in 0..3_usize,
        writes in 1..5_usize,
        end in prop::sample::select(vec!["EXEC", "DISCARD", "RESET"]),
        cuts in prop::collection::vec((0.0..1.0_f64, 0..249_u64), 0..8),
    ) {
        let mut text = "GET before\r\n".repeat(before) + "MULTI\r\n";
        for write in 0..writes {
            text += &format!("*3\r\n$3\r\nSET\r\n$4\r\npart\r\n$1\r\n{write}\r\n");
        }
        text += end;
        text += "\r\nGET after\r\n";
        let mut cuts: Vec<(usize, u64)> =
            cuts.into_iter().map(|(place, pause)| ((place * text.len() as f64) as usize, pause)).collect();
        // MULTI alone, more often than chance has it.
        if let Some(cut) = cuts.first_mut() {
            cut.0 = "GET before\r\n".len() * before + "MULTI\r\n".len();
        }
        cuts.sort_unstable();
        // Several at one place would make one pause beyond the bound.
        cuts.dedup_by_key(|(place, _)| *place);
        let mut talk = Talk::new();
        let mut start = 0;
        for (place, pause) in cuts {
            if place > start {
                talk.say(&text.as_bytes()[start..place]);
                start = place;
            }
            talk.wait(Duration::from_millis(pause));
        }
        talk.say(&text.as_bytes()[start..]);
        talk.wait(2 * SILENCE);
        let written = talk.executed.iter().filter(|request| request.contains("part")).count();
        prop_assert_eq!(written, 0, "{:?}", talk.executed);
        prop_assert_eq!(talk.executed.last().map(String::as_str), Some("GET after"));
    }
}
