//! Which sockets have something to say.
//!
//! A tokio task per socket costs memory that an idle client should not, and CPU time that a busy one should not. So one
//! future serves all sockets of a pool: they are in an epoll instance of its own, edge-triggered, which tokio watches
//! like any other file descriptor. A socket costs the kernel's entry and nothing here; readiness is one call per pass.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Sockets taken from the kernel at a time.
const EVENTS_MAX: usize = 1024;

/// Which socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Token {
    /// A client, by its place in the slab.
    Client(u32),
    /// A shard connection.
    Shard(u32),
    /// A connection that we have finished and that the client has still to close.
    Lingering(u32),
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
    /// It may have more to read.
    pub fn again(token: Token) -> Self {
        Self { token, ended: false, broken: false }
    }
}

/// The sockets of one pool.
pub struct Sockets {
    epoll: AsyncFd<OwnedFd>,
    events: Vec<epoll::Event>,
}

impl Sockets {
    /// No sockets yet. Must be called inside the worker's runtime.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        // SAFETY: the descriptor is owned, stays open and is never exchanged while tokio watches it.
        #[allow(unsafe_code)]
        let epoll = unsafe { AsyncFd::register_with_interest(epoll, Interest::READABLE)? };
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Watches a socket until it is closed.
    pub fn add(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(self.epoll.get_ref(), socket, EventData::new_u64(token.pack()), flags())?)
    }

    /// A watched socket has another token from now on.
    pub fn rename(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::modify(self.epoll.get_ref(), socket, EventData::new_u64(token.pack()), flags())?)
    }

    /// Appends the sockets that became ready. The future of `context` is woken when there are more.
    pub fn take(&mut self, context: &mut Context<'_>, into: &mut Vec<Ready>) -> io::Result<()> {
        while let Poll::Ready(guard) = self.epoll.poll_read_ready(context) {
            let mut guard = guard?;
            self.events.clear();
            let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            let spare = rustix::buffer::spare_capacity(&mut self.events);
            match epoll::wait(guard.get_inner(), spare, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            into.extend(self.events.iter().map(|event| {
                let flags = event.flags;
                Ready {
                    token: Token::unpack(event.data.u64()),
                    ended: flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR),
                    broken: flags.contains(EventFlags::ERR),
                }
            }));
            if self.events.len() == EVENTS_MAX {
                // The rest is for the next pass, so that a crowd does not hold up what was taken.
                context.waker().wake_by_ref();
                return Ok(());
            }
            guard.clear_ready();
        }
        Ok(())
    }
}

/// Whatever may happen to a socket, told once.
fn flags() -> EventFlags {
    EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET
}

impl Token {
    fn pack(self) -> u64 {
        let (kind, index) = match self {
            Self::Client(index) => (0, index),
            Self::Shard(index) => (1, index),
            Self::Lingering(index) => (2, index),
        };
        kind << 32 | u64::from(index)
    }

    fn unpack(packed: u64) -> Self {
        let index = packed as u32;
        match packed >> 32 {
            0 => Self::Client(index),
            1 => Self::Shard(index),
            _ => Self::Lingering(index),
        }
    }
}
