//! Which sockets have something to say: one epoll instance per worker, edge-triggered.
//!
//! A task per socket costs memory that an idle client should not, and CPU time that a busy one should not; here a socket
//! costs the kernel's entry and nothing else. The worker sleeps in this instance itself. Watched by another one (that of
//! an async runtime), it would be woken without the kernel's hint that the waker is about to sleep: measured, that made
//! three times as many, smaller passes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

/// Sockets taken from the kernel at a time.
const EVENTS_MAX: usize = 1024;

/// Which socket, by its place. That is enough: the kernel tells nothing of a socket that is closed, and a place is given to
/// another one only after all that was told in a wait has been looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Token {
    /// A client, by its place in the table.
    Client(u32),
    /// A shard connection.
    Shard(u32),
    /// A connection that we have finished and that the client has still to close.
    Lingering(u32),
    /// None: the control thread has something for us.
    Alarm,
}

/// A socket that can be read or written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ready {
    /// Which.
    pub token: Token,
    /// Nothing more will come: the peer has closed its writing side, or the connection is broken.
    pub ended: bool,
    /// The connection is broken.
    pub broken: bool,
}

impl Ready {
    /// What the kernel says, and the pool it is about.
    pub fn of(event: &epoll::Event) -> (usize, Self) {
        let flags = event.flags;
        let (pool, token) = Token::unpack(event.data.u64());
        let ready = Self {
            token,
            ended: flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR),
            broken: flags.contains(EventFlags::ERR),
        };
        (pool, ready)
    }
}

/// The sockets of one worker.
pub struct Sockets {
    epoll: OwnedFd,
}

impl Sockets {
    /// No sockets yet; `alarm` ends a wait.
    pub fn new(alarm: &Alarm) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &*alarm.0,
            EventData::new_u64(Token::Alarm.pack(0)),
            EventFlags::IN | EventFlags::ET,
        )?;
        Ok(Self { epoll })
    }

    /// Watches a socket of a pool until it is closed.
    pub fn add(&self, socket: impl AsFd, pool: usize, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token.pack(pool)), flags())?)
    }

    /// A watched socket has another token from now on.
    pub fn rename(&self, socket: impl AsFd, pool: usize, token: Token) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(token.pack(pool)), flags())?)
    }

    /// Waits until sockets are ready, at most for `timeout`; `events` is what was found.
    pub fn wait(&self, events: &mut Vec<epoll::Event>, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        events.reserve(EVENTS_MAX);
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Wakes a worker from another thread.
#[derive(Clone)]
pub struct Alarm(Arc<OwnedFd>);

impl Alarm {
    /// An alarm that nobody listens to yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Ends the present wait, or the next one.
    pub fn ring(&self) {
        // It fails only if it has been rung 2^64 times.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

/// Whatever may happen to a socket, told once.
fn flags() -> EventFlags {
    EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET
}

impl Token {
    /// The kernel keeps a number for each socket: the kind, the pool and the place.
    fn pack(self, pool: usize) -> u64 {
        let (kind, index) = match self {
            Self::Client(index) => (0, index),
            Self::Shard(index) => (1, index),
            Self::Lingering(index) => (2, index),
            Self::Alarm => (3, 0),
        };
        kind << 62 | (pool as u64) << 32 | u64::from(index)
    }

    fn unpack(packed: u64) -> (usize, Self) {
        let index = packed as u32;
        let token = match packed >> 62 {
            0 => Self::Client(index),
            1 => Self::Shard(index),
            2 => Self::Lingering(index),
            _ => Self::Alarm,
        };
        ((packed >> 32) as usize & 0x3fff_ffff, token)
    }
}
