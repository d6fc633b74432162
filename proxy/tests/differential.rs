//! Generated requests to our proxy over one real server and to another server of the same kind: the replies must be the
//! same bytes, one for each request, and nobody beside may notice.
//!
//! One seed is one case: some clients with a script each, cut anywhere, over a proxy whose limits may be small. Their
//! keys are their own, so it does not matter in which order they are served. Beside them a witness writes and reads values
//! of its own over the same shard connection; it must never get another reply than its own. What ours answers itself or
//! refuses on purpose is told by `by_design` of each dialect, and only that is kept from the other server.
//!
//! `SEED=7` replays one case, `DIFFERENTIAL_CASES=5000` tries more. A case that fails is made smaller before it is
//! printed. `TEST_MEMCACHED` and `TEST_REDIS` name other servers than those that are installed.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use servers::dice::Dice;
use servers::{Server, address};

mod differential {
    pub mod memcache;
    pub mod redis;
}
mod servers;

/// How long everything of one script may take on a machine that is busy with builds.
const PATIENCE: Duration = Duration::from_secs(60);
/// A server that has said nothing for so long, and then again although it answers somebody else, waits for more of a request
/// that was cut off on purpose.
const SILENCE: Duration = Duration::from_millis(150);

/// What differs between the protocols.
pub trait Dialect: Sync {
    /// Settings of the proxies, of which each case takes one.
    const VARIANTS: &'static [&'static [&'static str]];

    /// Starts a server of this kind.
    fn server(&self) -> Server;

    /// Before each case, what was left of those before.
    fn clean(&self, _server: &Server) {}

    /// Requests of one client, whose keys begin with `prefix`.
    fn script(&self, dice: &mut Dice, prefix: &str, client: usize) -> Vec<Request>;

    /// Scripts that go systematically through what dice would meet too seldom.
    fn sweeps(&self, prefix: &str) -> Vec<Vec<Request>>;

    /// A request whose reply tells which one it was, and that reply.
    fn barrier(&self, prefix: &str, number: usize) -> (Vec<u8>, Vec<u8>);

    /// What has to be said before the first barrier.
    fn beginning(&self, prefix: &str) -> Vec<u8>;

    /// The length of the first reply, or of the first part that can be told apart.
    fn reply_end(&self, bytes: &[u8]) -> Option<usize>;

    /// Whether replies are compared. If not, only the witness has to be answered rightly.
    fn compares(&self) -> bool {
        true
    }

    /// Whether ours may answer so without the server being asked; then nothing was executed.
    fn by_design(&self, request: &[u8], reply: &[u8]) -> bool;

    /// A reply without what differs between two servers of the same kind.
    fn normal(&self, request: &[u8], reply: &[u8]) -> Vec<u8>;

    /// One round of a client that only knows its own keys; a sentence if a reply was wrong.
    fn witness(&self, client: &mut servers::Client, round: usize) -> Result<(), String>;
}

/// One request of a script.
#[derive(Clone)]
pub struct Request {
    /// As it is sent.
    pub bytes: Vec<u8>,
    /// A barrier follows it.
    pub barrier: bool,
}

impl Request {
    /// A barrier follows it.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), barrier: true }
    }
}

/// Clients beside each other, each with its script, over a proxy with these settings.
#[derive(Clone)]
struct Case {
    seed: u64,
    variant: usize,
    scripts: Vec<Vec<Request>>,
}

impl Case {
    fn new<D: Dialect>(dialect: &D, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let variant = dice.below(D::VARIANTS.len());
        let clients = 1 + dice.below(4);
        let scripts =
            (0..clients).map(|client| dialect.script(&mut dice, &prefix(seed, client), client)).collect();
        Self { seed, variant, scripts }
    }
}

fn prefix(seed: u64, client: usize) -> String {
    format!("c{seed}.{client}.")
}

/// The servers of all cases.
struct World {
    theirs: Server,
    proxies: Vec<Server>,
    shard: [Server; 1],
}

impl World {
    fn start<D: Dialect>(dialect: &D) -> Self {
        let shard = [dialect.server()];
        let proxies = D::VARIANTS.iter().map(|settings| Server::memstore_of(1, settings, &shard));
        Self { theirs: dialect.server(), proxies: proxies.collect(), shard }
    }

    /// Runs a case; a text for people if a reply is not what it should be.
    fn try_case<D: Dialect>(&self, dialect: &D, case: &Case) -> Result<(), String> {
        let proxy = &self.proxies[case.variant];
        for server in [&self.theirs, &self.shard[0]] {
            dialect.clean(server);
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let witness = scope.spawn(|| {
                let mut client = proxy.connect();
                for round in 0.. {
                    dialect.witness(&mut client, round)?;
                    if done.load(Ordering::Relaxed) && round > 1 {
                        break;
                    }
                }
                Ok(())
            });
            let clients: Vec<_> = case
                .scripts
                .iter()
                .enumerate()
                .map(|(client, script)| {
                    let prefix = prefix(case.seed, client);
                    scope.spawn(move || {
                        let cuts = Dice::new(case.seed ^ (client as u64) << 32);
                        self.try_script(dialect, proxy, &prefix, script, cuts)
                    })
                })
                .collect();
            let results: Vec<_> = clients
                .into_iter()
                .map(|client| client.join().unwrap_or_else(|_| Err("it panicked".into())))
                .collect();
            done.store(true, Ordering::Relaxed);
            let witnessed = witness.join().unwrap_or_else(|_| Err("the witness panicked".into()));
            results.into_iter().collect::<Result<(), _>>()?;
            witnessed
        })
    }

    /// Plays one script to ours, and what ours did not refuse on purpose to theirs.
    fn try_script<D: Dialect>(
        &self,
        dialect: &D,
        proxy: &Server,
        prefix: &str,
        script: &[Request],
        mut cuts: Dice,
    ) -> Result<(), String> {
        let told = |requests: Range<usize>| {
            let requests = script.get(requests).unwrap_or_default();
            let shown: Vec<_> = requests.iter().take(8).map(|request| shortly(&request.bytes)).collect();
            shown.join("\n           ")
        };
        let pieces = self.pieces(dialect, prefix, script, &vec![true; script.len()]);
        let ours = converse(proxy.port, &pieces, Some(&mut cuts))
            .map_err(|so_far| format!("ours does not end; at last it said {}", shortly(&so_far)))?;
        if !dialect.compares() {
            return Ok(());
        }
        let ours = groups(dialect, prefix, script, &ours);
        let mut asked = vec![true; script.len()];
        for group in &ours {
            let start = group.requests.start;
            let is_alone = group.requests.len() == 1 || group.requests.end == usize::MAX;
            if is_alone
                && script.get(start).is_some_and(|request| dialect.by_design(&request.bytes, &group.reply))
            {
                // Where ours has closed the connection, nothing more is asked of theirs.
                let end = group.requests.end.min(script.len());
                asked[start..end].fill(false);
            }
        }
        let pieces = self.pieces(dialect, prefix, script, &asked);
        let theirs = converse(self.theirs.port, &pieces, None)
            .map_err(|so_far| format!("theirs does not end; at last it said {}", shortly(&so_far)))?;
        let theirs = groups(dialect, prefix, script, &theirs);
        for group in &ours {
            let requests = group.requests.clone();
            if asked.get(requests.start) == Some(&false) {
                continue;
            }
            let their = theirs.iter().find(|other| other.requests.end == requests.end);
            let their = their.map_or(&[][..], |group| &group.reply);
            let request = script.get(requests.start).map_or(&[][..], |request| &request.bytes);
            if dialect.normal(request, &group.reply) != dialect.normal(request, their) {
                return Err(format!(
                    "  asked    {}\n  ours     {}\n  theirs   {}",
                    told(requests),
                    shortly(&group.reply),
                    shortly(their)
                ));
            }
        }
        // What only theirs answered.
        let (our_end, their_end) =
            (ours.last().map(|group| group.requests.end), theirs.last().map(|group| group.requests.end));
        if our_end < their_end {
            let rest = our_end.unwrap_or(0)..their_end.unwrap_or(0);
            return Err(format!("  not answered by ours: {}", told(rest)));
        }
        Ok(())
    }

    /// The bytes of a script up to each barrier, and the reply to that.
    fn pieces<D: Dialect>(
        &self,
        dialect: &D,
        prefix: &str,
        script: &[Request],
        asked: &[bool],
    ) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut bytes = dialect.beginning(prefix);
        let mut pieces = Vec::new();
        let end = |mut bytes: Vec<u8>, number| {
            let (barrier, reply) = dialect.barrier(prefix, number);
            bytes.extend(barrier);
            (bytes, reply)
        };
        pieces.push(end(std::mem::take(&mut bytes), 0));
        for (number, request) in script.iter().enumerate() {
            if asked[number] {
                bytes.extend_from_slice(&request.bytes);
            }
            if request.barrier || number + 1 == script.len() {
                pieces.push(end(std::mem::take(&mut bytes), number + 1));
            }
        }
        pieces
    }
}

/// What was said between two barriers.
struct Group {
    requests: Range<usize>,
    reply: Vec<u8>,
}

/// Cuts what a server said at the replies to barriers. What stands behind the last one is a group without an end.
fn groups<D: Dialect>(dialect: &D, prefix: &str, script: &[Request], mut said: &[u8]) -> Vec<Group> {
    let mut groups = Vec::new();
    let (mut start, mut reply, mut next) = (0, Vec::new(), 0);
    let ends: Vec<_> = (0..=script.len())
        .filter(|&number| number == 0 || number == script.len() || script[number - 1].barrier)
        .map(|number| (number, dialect.barrier(prefix, number).1))
        .collect();
    while let Some(length) = dialect.reply_end(said) {
        let (part, rest) = said.split_at(length);
        said = rest;
        match ends[next..].iter().position(|(_, end)| end == part) {
            Some(at) => {
                let end = ends[next + at].0;
                next += at + 1;
                if end > 0 {
                    groups.push(Group { requests: start..end, reply: std::mem::take(&mut reply) });
                }
                reply.clear();
                start = end;
            }
            None => reply.extend_from_slice(part),
        }
    }
    reply.extend_from_slice(said);
    if !reply.is_empty() {
        groups.push(Group { requests: start..usize::MAX, reply });
    }
    groups
}

/// Sends all pieces and reads until the server closes the connection: at once and cut anywhere if there is something to
/// cut with, else each once the one before is answered, since memcached holds back or takes back replies of a pipeline.
/// Our side is closed once the last reply is there, or nothing comes any more. `Err` holds what came before it hung.
fn converse(port: u16, pieces: &[(Vec<u8>, Vec<u8>)], cuts: Option<&mut Dice>) -> Result<Vec<u8>, Vec<u8>> {
    let stream = TcpStream::connect((address(), port)).expect("somebody listens");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(SILENCE)).expect("a socket");
    let mut said = Vec::new();
    let begin = Instant::now();
    let mut rest = pieces;
    if cuts.is_none() {
        // Whoever does not answer one of them waits for more of it, and takes the others for that.
        while let [(bytes, end), after @ ..] = rest {
            let _ = (&stream).write_all(bytes);
            rest = after;
            while !said.ends_with(end) {
                match read(&stream, port, &mut said) {
                    Heard::Bytes => {}
                    Heard::End => return Ok(said),
                    Heard::Silence => break,
                }
            }
            if !said.ends_with(end) {
                break;
            }
        }
    }
    let bytes: Vec<u8> = rest.iter().flat_map(|(bytes, _)| bytes.iter().copied()).collect();
    let last = pieces.last().map_or(&[][..], |(_, end)| end);
    let written = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (mut writer, written) = (&stream, &written);
        scope.spawn(move || {
            let mut rest = &bytes[..];
            if let Some(dice) = cuts {
                for _ in 0..dice.below(40) {
                    let most = [3, 40, 3_000, bytes.len()][dice.below(4)];
                    let (piece, after) = rest.split_at((1 + dice.below(most.max(1))).min(rest.len()));
                    rest = after;
                    let _ = writer.write_all(piece);
                    if dice.one_in(3) {
                        std::thread::yield_now();
                    }
                }
            }
            let _ = writer.write_all(rest);
            written.store(true, Ordering::Release);
        });
        let mut is_finished = false;
        loop {
            let is_last = said.ends_with(last);
            if !is_finished && is_last && written.load(Ordering::Acquire) {
                is_finished = true;
                let _ = stream.shutdown(Shutdown::Write);
            }
            match read(&stream, port, &mut said) {
                Heard::Bytes => {}
                Heard::End => return Ok(said),
                Heard::Silence if !is_finished && written.load(Ordering::Acquire) => {
                    is_finished = true;
                    let _ = stream.shutdown(Shutdown::Write);
                }
                Heard::Silence => {}
            }
            if begin.elapsed() > PATIENCE {
                let _ = stream.shutdown(Shutdown::Both);
                return Err(said);
            }
        }
    })
}

enum Heard {
    Bytes,
    Silence,
    End,
}

fn read(mut stream: &TcpStream, port: u16, said: &mut Vec<u8>) -> Heard {
    let mut room = [0; 65536];
    for was_silent in [false, true] {
        match stream.read(&mut room) {
            Ok(0) => return Heard::End,
            Ok(count) => {
                said.extend_from_slice(&room[..count]);
                return Heard::Bytes;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Heard::Bytes,
            Err(_) => return Heard::End,
        }
        if !was_silent {
            wait_for_a_turn(port);
        }
    }
    Heard::Silence
}

/// Until somebody else is answered, with an error if need be: the server is not just without a processor.
fn wait_for_a_turn(port: u16) {
    let Ok(mut other) = TcpStream::connect((address(), port)) else { return };
    let _ = other.set_read_timeout(Some(PATIENCE / 4)).and_then(|()| other.write_all(b"PING\r\n"));
    let _ = other.read(&mut [0; 64]);
}

/// Bytes for people: escaped, without long repetitions, not too many.
fn shortly(bytes: &[u8]) -> String {
    let (mut text, mut at) = (String::new(), 0);
    while at < bytes.len() && text.len() < 1_500 {
        let run = bytes[at..].iter().take_while(|&&byte| byte == bytes[at]).count();
        if run > 24 {
            text.push_str(&format!("<{} x {run}>", bytes[at].escape_ascii()));
            at += run;
        } else {
            text.push_str(&bytes[at].escape_ascii().to_string());
            at += 1;
        }
    }
    if at < bytes.len() {
        text.push_str(&format!("<and {} bytes more>", bytes.len() - at));
    }
    text
}

/// Makes a case that fails smaller, as long as it fails with fresh servers. Returns it with what is wrong.
fn shrink<D: Dialect>(dialect: &D, mut case: Case, mut wrong: String) -> (Case, String) {
    let begin = Instant::now();
    let fails = |case: &Case| {
        (begin.elapsed() < Duration::from_secs(60))
            .then(|| World::start(dialect).try_case(dialect, case).err())
            .flatten()
    };
    for client in 0..case.scripts.len() {
        let mut fewer = case.clone();
        fewer.scripts[client].clear();
        if let Some(still) = fails(&fewer) {
            (case, wrong) = (fewer, still);
        }
    }
    for client in 0..case.scripts.len() {
        let mut piece = case.scripts[client].len().div_ceil(2);
        while piece > 0 && !case.scripts[client].is_empty() {
            let mut start = 0;
            while start < case.scripts[client].len() {
                let mut fewer = case.clone();
                let end = (start + piece).min(fewer.scripts[client].len());
                fewer.scripts[client].drain(start..end);
                match fails(&fewer) {
                    Some(still) => (case, wrong) = (fewer, still),
                    None => start += piece,
                }
            }
            piece /= 2;
        }
    }
    (case, wrong)
}

fn report<D: Dialect>(dialect: &D, case: Case, wrong: String, replay: &str) -> ! {
    let (case, wrong) = shrink(dialect, case, wrong);
    let mut text = format!("{replay}\nproxy settings: {:?}\n", D::VARIANTS[case.variant]);
    for (client, script) in case.scripts.iter().enumerate().filter(|(_, script)| !script.is_empty()) {
        text.push_str(&format!("client {client}, keys {}\n", prefix(case.seed, client)));
        for request in script.iter().take(30) {
            text.push_str(&format!("  {}\n", shortly(&request.bytes)));
        }
    }
    panic!("{text}{wrong}");
}

/// So many cases of each protocol are quick; `make soak` has many more.
const CASES: u64 = 15;

/// As many cases as are wanted, or the one that is to be replayed.
fn try_cases<D: Dialect>(dialect: &D, cases: u64) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DIFFERENTIAL_CASES").unwrap_or(cases),
    };
    let world = World::start(dialect);
    for seed in seeds {
        let case = Case::new(dialect, seed);
        if let Err(wrong) = world.try_case(dialect, &case) {
            report(dialect, case, wrong, &format!("SEED={seed} replays this"));
        }
    }
}

fn try_sweeps<D: Dialect>(dialect: &D) {
    let world = World::start(dialect);
    for (number, script) in dialect.sweeps(&prefix(0, 0)).into_iter().enumerate() {
        let case = Case { seed: 0, variant: 0, scripts: vec![script] };
        if let Err(wrong) = world.try_case(dialect, &case) {
            report(dialect, case, wrong, &format!("sweep {number}"));
        }
    }
}

#[test]
fn random_requests_are_answered_as_memcached_answers_them() {
    try_cases(&differential::memcache::Memcached::new(), CASES);
}

#[test]
fn limits_of_memcached_are_kept_on_both_sides_of_them() {
    try_sweeps(&differential::memcache::Memcached::new());
}

#[test]
fn random_requests_are_answered_as_redis_answers_them() {
    try_cases(&differential::redis::Redis, CASES);
}

#[test]
fn long_arguments_of_any_command_are_answered_as_redis_answers_them() {
    try_sweeps(&differential::redis::Redis);
}
