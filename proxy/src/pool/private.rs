//! Private connections: one client has a connection of a shard to itself for a time, because what it says there would hold
//! up all others (a command that waits for data) or changes what the connection is (WATCH).
//!
//! ```text
//!   new ──> made ──> spare <──────────┐ clean                 a client takes one: `Router::take_private`
//!     \        \       │ taken        │                       and has it until     `Router::release_private`
//!      └────────└──> held ────────────┤                       or it is gone:       `Router::abandon_private`
//!                      │              │
//!                      └─> cleared ───┤                       what it watches is watched no more: `Router::clear_private`
//!                                     └> closed: anything else
//! ```
//!
//! This file says what they are, `lending.rs` how they are taken and given back, `spare.rs` has those that nobody has.
//!
//! They are in the book of connections like all others, but in no lane: nobody finds one who does not hold it. A spare one is
//! warm: its handshake is over, its database is selected, and its number at the shard is known, or it is being made for a client that
//! has gone meanwhile. It is given back only clean, that is with everything asked on it answered, and nothing done that outlasts the
//! answer; else it is closed. The next client has it once what was asked elsewhere to end a wait on it is answered, too.
//!
//! Whoever waits on one has its id in [`Activity::private`](super::client::Activity::private); whoever watches keys has a pin
//! (`pins.rs`) to it, and may wait on another one meanwhile. What is asked on it are tickets as anywhere. Its deadlines are its own, and what fails on it once it is made counts against nobody; that no connection can be
//! made does, as for any other. It is no part of `server_connections`.
//!
//! Limits: at most `blocked_max` are held of a shard by the whole process, and at most so many are there in one worker, spare
//! ones and those that are being made included, and [`CLEARED_MAX`](super::lending::CLEARED_MAX) more that are being cleared. Spare ones are closed after [`SPARE_MAX`](super::lending::SPARE_MAX).

use std::time::Duration;

use super::ClientId;
use super::watch::Watch;
use crate::time::Time;

/// What is known of a connection that one client has.
#[derive(Debug)]
pub struct Private {
    /// The client that has it. None has it while it is spare, or is made for one that has gone.
    pub holder: Option<ClientId>,
    /// Its number at the shard, if that says so.
    pub peer: Option<i64>,
    /// What is done on it outlasts the answer: it is closed once its client has done with it.
    pub is_tainted: bool,
    /// So many requests to end a wait on it are not answered: they could end the next one.
    pub asked: u32,
    /// Its writing side is closed.
    pub finished: bool,
    /// Responses that name other nodes are followed.
    pub follows: bool,
    /// The request on it waits for data.
    pub wait: Option<Wait>,
    /// The request on it waits for replicas.
    pub confirms: Option<Confirms>,
    /// Keys are watched on it, or will be.
    pub watch: Option<Watch>,
    /// It is among the spare ones.
    pub is_spare: bool,
    /// Nobody has it, and it will be spare once the shard watches nothing on it any more.
    pub is_cleared: bool,
}

/// A request that waits for replicas.
#[derive(Clone, Copy, Debug)]
pub struct Confirms {
    /// For how long; `None` for ever.
    pub patience: Option<Duration>,
}

/// A request that waits for data.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// For how long; `None` for ever.
    pub patience: Option<Duration>,
    /// Until then, where that is known: from when the shard was asked, or could be.
    pub due: Option<Time>,
    /// It is to end before its time, and the shard is asked for that.
    pub ending: Option<Ending>,
    /// How it is asked for that.
    pub asked: EndRequests,
}

/// How a shard is asked to end a wait.
#[derive(Clone, Copy, Default, Debug)]
pub struct EndRequests {
    /// How often it was.
    pub times: u32,
    /// Until then it is asked again; then the connection's writing side is closed.
    pub again: Time,
    /// Until then it may take to end the wait.
    pub until: Time,
}

impl Wait {
    /// Its client is to go on waiting, here or somewhere else.
    pub fn goes_on(&self) -> bool {
        self.ending.is_none_or(|ending| ending == Ending::Again)
    }

    /// It was to end, for good.
    pub fn is_over(&self) -> bool {
        !self.goes_on()
    }
}

/// How a wait ends before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// As if its time were over.
    TimeOver,
    /// With an error.
    Error,
    /// The client goes on waiting somewhere else.
    Again,
}

/// What a private connection was before it was closed.
#[derive(Clone, Copy, Debug)]
pub struct Was {
    /// Its handshake was over.
    pub up: bool,
    /// It was about to be closed.
    pub closing: bool,
}
