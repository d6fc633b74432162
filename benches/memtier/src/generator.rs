//! A load generator of our own: closed loop as memtier's, and open loop, which memtier has not.
//!
//! In a closed loop a client sends when a reply has come, so a slow proxy gets fewer requests and its worst
//! moments are met by few of them. In an open loop requests are due at random times whatever the proxy does,
//! and their latency counts from then: a request that waits behind a pause has waited.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::client;
use crate::connection::Connection;
use crate::measurement::Outcome;
use crate::protocol::{self, Protocol, ReplyKind};
use crate::random::{Random, Ranks};
use crate::workload::{Mix, Popularity, Workload};

/// What decides when a request is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// The reply to an earlier one.
    Closed,
    /// A Poisson process of so many per second, all clients together.
    Open(f64),
}

/// A load to put on a port.
pub struct Load<'a> {
    /// Where on loopback.
    pub port: u16,
    /// What is sent.
    pub workload: &'a Workload,
    /// And when.
    pub pace: Pace,
    /// For how long.
    pub duration: Duration,
    /// Threads the clients are spread over.
    pub threads: usize,
}

/// After the end, replies may take this much longer.
const DRAIN: Duration = Duration::from_secs(3);
/// Requests of one thread in flight. What an open loop would send beyond it counts as unanswered.
const IN_FLIGHT_MAX: usize = 100_000;
const TIMER: Token = Token(usize::MAX);

impl Load<'_> {
    /// Sends it and waits for the end.
    pub fn run(&self) -> Result<Outcome> {
        let threads = self.threads.clamp(1, self.workload.clients);
        let requests = Arc::new(Requests::of(self.workload));
        let mut drivers = Vec::new();
        for thread in 0..threads {
            let share =
                self.workload.clients * (thread + 1) / threads - self.workload.clients * thread / threads;
            drivers.push(Driver::new(self, share, thread as u64, Arc::clone(&requests))?);
        }
        let barrier = Arc::new(Barrier::new(threads));
        let running: Vec<_> = drivers
            .into_iter()
            .map(|mut driver| {
                let (barrier, duration) = (Arc::clone(&barrier), self.duration);
                let per_thread = match self.pace {
                    Pace::Closed => None,
                    Pace::Open(per_second) => Some(threads as f64 / per_second),
                };
                std::thread::spawn(move || {
                    barrier.wait();
                    match per_thread {
                        None => driver.closed(duration),
                        Some(gap_mean) => driver.open(duration, gap_mean),
                    }
                    .map(|()| driver.seen)
                })
            })
            .collect();
        let mut total = Seen::new()?;
        for thread in running {
            let seen = thread.join().map_err(|_| anyhow!("a generator thread panicked"))??;
            total.add(&seen)?;
        }
        Ok(total.outcome())
    }
}

/// The requests of a workload, as far as they can be made beforehand.
struct Requests {
    mix: Mix,
    pipeline: usize,
    keys: Vec<String>,
    /// Which key is how popular; none if all are alike.
    ranks: Option<Ranks>,
    value: Vec<u8>,
}

impl Requests {
    fn of(workload: &Workload) -> Requests {
        Requests {
            mix: workload.mix,
            pipeline: workload.pipeline,
            keys: (1..=workload.keys).map(protocol::key).collect(),
            ranks: match workload.popularity {
                Popularity::Even => None,
                Popularity::Zipf(power) => Some(Ranks::zipf(workload.keys as usize, power)),
            },
            value: client::value(workload.value_bytes),
        }
    }

    /// Whether this connection is to send more.
    fn goes_on(&self, connection: &Connection) -> bool {
        match self.mix {
            Mix::Churn(most) => connection.answered() < most,
            _ => true,
        }
    }

    fn key(&self, random: &mut Random) -> &str {
        &self.keys[match &self.ranks {
            None => random.below(self.keys.len()),
            Some(ranks) => ranks.draw(random),
        }]
    }

    /// Puts the next request on a connection.
    fn submit(&self, connection: &mut Connection, random: &mut Random, due: Instant) {
        match self.mix {
            Mix::MultiGet(keys) => {
                connection.submit(due, |protocol, output| {
                    protocol.multi_get(output, (0..keys).map(|_| self.key(random)))
                });
            }
            Mix::SetGet | Mix::Churn(_) | Mix::FixedRate | Mix::Idle => {
                let key = self.key(random);
                match random.below(11) {
                    0 => connection.submit(due, |protocol, output| protocol.set(output, key, &self.value)),
                    _ => connection.submit(due, |protocol, output| protocol.get(output, key)),
                }
            }
        }
    }
}

/// What a thread saw.
struct Seen {
    /// In nanoseconds.
    latency: Histogram<u64>,
    elapsed: Duration,
    errors: u64,
    misses: u64,
    unanswered: u64,
}

impl Seen {
    fn new() -> Result<Seen> {
        let latency = Histogram::new_with_bounds(1000, 60_000_000_000, 3).context("no histogram")?;
        Ok(Seen { latency, elapsed: Duration::ZERO, errors: 0, misses: 0, unanswered: 0 })
    }

    fn reply(&mut self, latency: Duration, kind: ReplyKind) {
        self.latency.saturating_record(latency.as_nanos() as u64);
        match kind {
            ReplyKind::Fine => {}
            ReplyKind::Miss => self.misses += 1,
            ReplyKind::Error => self.errors += 1,
        }
    }

    fn add(&mut self, other: &Seen) -> Result<()> {
        self.latency.add(&other.latency).context("histograms differ")?;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.errors += other.errors;
        self.misses += other.misses;
        self.unanswered += other.unanswered;
        Ok(())
    }

    fn outcome(&self) -> Outcome {
        let us = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1e3;
        Outcome {
            requests: self.latency.len(),
            elapsed: self.elapsed,
            p50_us: us(0.5),
            p99_us: us(0.99),
            p999_us: us(0.999),
            errors: self.errors,
            misses: self.misses,
            unanswered: self.unanswered,
        }
    }
}

/// One thread's clients.
struct Driver {
    poll: Poll,
    /// Wakes an open loop when a request is due: the poll's own timeout counts in milliseconds.
    timer: OwnedFd,
    target: (u16, Protocol),
    connections: Vec<Connection>,
    requests: Arc<Requests>,
    random: Random,
    chunk: Vec<u8>,
    in_flight: usize,
    seen: Seen,
}

/// A new connection for this client, watched by the poll.
fn watched(poll: &Poll, (port, protocol): (u16, Protocol), client: usize) -> Result<Connection> {
    let mut connection =
        Connection::connect(port, protocol).with_context(|| format!("client {client} cannot connect"))?;
    let interest = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(&mut connection.stream, Token(client), interest)?;
    Ok(connection)
}

impl Driver {
    fn new(load: &Load, clients: usize, seed: u64, requests: Arc<Requests>) -> Result<Driver> {
        let poll = Poll::new()?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let raw = timer.as_raw_fd();
        poll.registry().register(&mut SourceFd(&raw), TIMER, Interest::READABLE)?;
        let target = (load.port, load.workload.protocol);
        let mut connections = Vec::with_capacity(clients);
        for number in 0..clients {
            connections.push(watched(&poll, target, number)?);
        }
        Ok(Driver {
            poll,
            timer,
            target,
            connections,
            requests,
            random: Random::new(seed),
            chunk: vec![0; 128 * 1024],
            in_flight: 0,
            seen: Seen::new()?,
        })
    }

    fn closed(&mut self, duration: Duration) -> Result<()> {
        let start = Instant::now();
        let end = start + duration;
        for connection in &mut self.connections {
            for _ in 0..self.requests.pipeline {
                self.requests.submit(connection, &mut self.random, Instant::now());
                self.in_flight += 1;
            }
            connection.flush()?;
        }
        let mut events = Events::with_capacity(1024);
        while self.in_flight > 0 && Instant::now() < end + DRAIN {
            self.wait(&mut events)?;
            for event in &events {
                if event.token() == TIMER {
                    continue;
                }
                let replies = self.receive(event.token().0)?;
                let connection = &mut self.connections[event.token().0];
                let now = Instant::now();
                if now < end && self.requests.goes_on(connection) {
                    (0..replies).for_each(|_| self.requests.submit(connection, &mut self.random, now));
                    self.in_flight += replies;
                } else if now < end && connection.in_flight() == 0 {
                    self.renew(event.token().0)?;
                    continue;
                }
                connection.flush()?;
            }
        }
        self.finish(start);
        Ok(())
    }

    /// Gives a client another connection and its first requests.
    fn renew(&mut self, client: usize) -> Result<()> {
        let connection = &mut self.connections[client];
        self.poll.registry().deregister(&mut connection.stream)?;
        *connection = watched(&self.poll, self.target, client)?;
        for _ in 0..self.requests.pipeline {
            self.requests.submit(connection, &mut self.random, Instant::now());
            self.in_flight += 1;
        }
        connection.flush().context("a client cannot send")
    }

    fn open(&mut self, duration: Duration, gap_mean: f64) -> Result<()> {
        let start = Instant::now();
        let end = start + duration;
        let mut due = start + Duration::from_secs_f64(self.random.exponential(gap_mean));
        let mut events = Events::with_capacity(1024);
        loop {
            let now = Instant::now();
            while due <= now && due < end {
                self.send(due)?;
                due += Duration::from_secs_f64(self.random.exponential(gap_mean));
            }
            if due >= end && (self.in_flight == 0 || now >= end + DRAIN) {
                break;
            }
            if due < end {
                self.wake_in(due.saturating_duration_since(Instant::now()))?;
            }
            self.wait(&mut events)?;
            for event in &events {
                if event.token() != TIMER {
                    self.receive(event.token().0)?;
                    self.connections[event.token().0].flush()?;
                }
            }
        }
        self.finish(start);
        Ok(())
    }

    /// Sends one request on a client of the dice's choice, behind what that client may still wait for.
    fn send(&mut self, due: Instant) -> Result<()> {
        if self.in_flight >= IN_FLIGHT_MAX {
            self.seen.unanswered += 1;
            return Ok(());
        }
        let client = self.random.below(self.connections.len());
        let connection = &mut self.connections[client];
        self.requests.submit(connection, &mut self.random, due);
        self.in_flight += 1;
        connection.flush().context("a client cannot send")
    }

    fn receive(&mut self, client: usize) -> Result<usize> {
        let connection = &mut self.connections[client];
        let before = connection.in_flight();
        let seen = &mut self.seen;
        connection
            .receive(&mut self.chunk, |due, reply| seen.reply(due.elapsed(), reply.kind))
            .context("a client lost its connection")?;
        let replies = before - connection.in_flight();
        self.in_flight -= replies;
        Ok(replies)
    }

    fn wait(&mut self, events: &mut Events) -> Result<()> {
        match self.poll.poll(events, Some(Duration::from_millis(100))) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error).context("cannot poll"),
            _ => Ok(()),
        }
    }

    fn wake_in(&self, delay: Duration) -> Result<()> {
        // Zero would disarm it.
        let delay = delay.max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: delay.as_secs() as i64, tv_nsec: i64::from(delay.subsec_nanos()) },
        };
        timerfd_settime(self.timer.as_fd(), TimerfdTimerFlags::empty(), &once)
            .context("cannot set a timer")?;
        Ok(())
    }

    fn finish(&mut self, start: Instant) {
        self.seen.elapsed = start.elapsed();
        self.seen.unanswered += self.in_flight as u64;
    }
}
