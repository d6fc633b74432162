//! What is known of one connection on which a shard tells of keys that have changed. [`super::trackers`] has the rest.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::failure::ShardFailure;
use crate::time::Time;

/// So many names are asked at once: each has the time of a request.
pub const ASKED_MAX: usize = 512;

/// What is known of it beside its connection.
#[derive(Default, Debug)]
pub struct Tracker {
    /// What was asked and is not answered, oldest first: one for each ticket in flight.
    pub asked: VecDeque<TrackerRequest>,
    /// Names to be asked once others are answered.
    pub backlog: VecDeque<Asked>,
    /// What the shard has said, to be acted upon.
    pub news: Vec<News>,
    /// It was asked to tell on the present connection.
    pub begun: Option<Time>,
    /// When something has come on it last.
    pub heard: Time,
    /// When it is to be looked at: to be made again, to be asked for a sign of life, or to be closed because nobody waits.
    pub due: Option<Time>,
    /// Times it was lost soon after it was made, or could not be made, in a row.
    pub attempts: u32,
    /// Why nobody waits for it, if so.
    pub failure: Option<ShardFailure>,
    /// The shard does not tell, in these words.
    pub refused: Option<Box<str>>,
    /// The shard is telling of more at once than is looked at.
    pub overlong: bool,
    /// Set where the shard tells of all keys that begin in some way, and not of those that it was asked to look at: the number of what it was
    /// asked for last.
    pub prefixes: Option<u64>,
}

/// What a connection is for on which a shard tells of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tells {
    /// Those that it is asked to look at: see [`super::wide`].
    Named,
    /// All that begin in some way: see [`super::broadcasts`].
    Prefixed,
}

impl Tells {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Named, Self::Prefixed];

    /// Its place among them.
    pub fn place(self) -> usize {
        self as usize
    }
}

/// A name that a shard is to look at.
#[derive(Debug)]
pub struct Asked {
    /// It.
    pub name: Bytes,
    /// The shard is a node of a cluster that its slot is on its way to.
    pub is_coming: bool,
}

/// What a shard is asked.
#[derive(Debug)]
pub enum TrackerRequest {
    /// To tell of changes.
    ToTell,
    /// To look at this name.
    Name(Bytes),
    /// What clears the way for that.
    Way,
    /// To tell of nothing more.
    ToCease,
    /// To tell of all keys that begin as is asked for by then.
    Prefixes { version: u64 },
    /// A sign of life.
    Life,
}

/// What a shard has said.
#[derive(PartialEq, Eq, Debug)]
pub enum News {
    /// It tells of this name.
    Tracked(Bytes),
    /// It has changed.
    Changed(Bytes),
    /// Any name may have.
    AllChanged,
    /// The shard does not look at this name: its response.
    NameRefused(Bytes, Bytes),
    /// It is a node of a cluster, and sends those that ask for this name elsewhere: its response.
    Elsewhere(Bytes, Bytes),
    /// It tells of nothing, in these words.
    Refused(String),
    /// It tells of all keys that begin as was asked for.
    Prefixes { version: u64 },
}

impl Tracker {
    /// What it is for.
    pub fn tells(&self) -> Tells {
        if self.prefixes.is_some() { Tells::Prefixed } else { Tells::Named }
    }

    /// Whether as much is asked as is at once.
    pub fn is_busy(&self) -> bool {
        self.asked.len() >= ASKED_MAX
    }

    /// How many names wait for an answer.
    pub fn unanswered(&self) -> usize {
        self.asked.len() + self.backlog.len()
    }

    /// Memory it holds.
    pub fn bytes(&self) -> usize {
        self.asked.len() * size_of::<TrackerRequest>() + self.backlog.len() * size_of::<Asked>()
    }
}
