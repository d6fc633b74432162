//! What is known of one feed: the names that its shard was asked for, and what it has said. [`super::feeds`] has the rest.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::failure::ShardFailure;
use crate::protocol::Protocol;
use crate::protocol::channels::{Kind, Listening};
use crate::time::Time;

/// A name and what it is the name of.
pub type Key = (Kind, Bytes);

/// What has become of a name at the shards that matter.
pub enum Verdict {
    /// Some have not said yet.
    Open,
    /// It is listened to.
    Heard,
    /// It cannot be, and why.
    Failed(String),
}

/// So many names are asked at once: each has the time of a request, and a shard that has hundreds of thousands to answer takes
/// longer than that for all of them.
pub const ASKED_MAX: usize = 512;
/// What a name at a shard takes beside its bytes, which it shares.
const LINE_BYTES: usize = 2 * size_of::<(Bytes, Line)>();

/// What something that a shard has said is.
#[derive(PartialEq, Eq, Debug)]
pub enum Said {
    /// What was asked first is answered; it was about this name, or the answer is a sign of life.
    Answer(Option<Key>),
    /// The same, but the name is at another shard.
    Elsewhere(Key),
    /// The same as the first, where what was said before was taken for the answer.
    Late(Key),
    /// Nobody has asked: the name is at this shard no more.
    Left(Key),
    /// Nobody has asked, and nothing follows from it.
    Idle,
}

/// What is known of a feed beside its connection.
#[derive(Default, Debug)]
pub struct Feed {
    /// The shard is a node of a cluster: sharded channels leave it with their slots.
    pub follows: bool,
    /// What was asked and is not answered, oldest first: one for each ticket in flight.
    pub asked: VecDeque<FeedRequest>,
    /// Names to be asked once others are answered, who waits longest first.
    pub backlog: VecDeque<Key>,
    /// Names that the shard was asked for on the present connection, or is to be, by kind.
    pub names: [HashMap<Bytes, Line>; Kind::COUNT],
    /// Bytes of names that count for others.
    pub tally_bytes: usize,
    /// The names have been asked for on the present connection.
    pub begun: Option<Time>,
    /// When something has come on it last.
    pub heard: Time,
    /// When it is to be looked at: to be made again, to be asked for a sign of life, or to be closed because nothing is asked
    /// of it.
    pub due: Option<Time>,
    /// Times it was lost soon after it was made, or could not be made, in a row.
    pub attempts: u32,
    /// Why nobody waits for it, if so.
    pub failure: Option<ShardFailure>,
}

/// What a shard is asked on a feed.
#[derive(Debug)]
pub enum FeedRequest {
    /// Whether this name is listened to.
    Name(Listening, Bytes),
    /// A sign of life.
    Life,
}

/// A name at a shard.
#[derive(Default, Debug)]
pub struct Line {
    /// As it is to be.
    pub wanted: bool,
    /// As it was asked last, until that is answered.
    pub asked: Option<bool>,
    /// It stands in the backlog.
    pub queued: bool,
    /// As the shard has said.
    pub is_on: bool,
    /// Why the shard does not want to, if so.
    pub refused: Option<Box<str>>,
    /// Bits of which the shard was asked for the names that count for this one.
    pub tally: u32,
    /// Another node hands on what is published anywhere: only what this one makes of its own counts.
    pub only_own: bool,
}

impl Line {
    /// Whether it is as it is to be, or the shard does not want to.
    pub fn is_settled(&self) -> bool {
        self.asked.is_none() && !self.queued && (self.is_on == self.wanted || self.refused.is_some())
    }
}

impl Feed {
    /// Whether the shard is listened to for this name.
    pub fn hears(&self, kind: Kind, name: &[u8]) -> bool {
        self.names[kind.place()].get(name).is_some_and(|line| line.wanted)
    }

    /// Whether the message counts that has come for this name.
    pub fn takes<P: Protocol>(&self, kind: Kind, name: &[u8], message: &[u8]) -> bool {
        let is_own = || P::channel_of(message).is_some_and(|name| P::is_of_each_shard(Kind::Channel, name));
        let line = self.names[kind.place()].get(name);
        line.is_some_and(|line| line.wanted && (!line.only_own || is_own()))
    }

    /// Whether as much is asked as is at once.
    pub fn is_busy(&self) -> bool {
        self.asked.len() >= ASKED_MAX
    }

    /// How many names wait for an answer.
    pub fn unanswered(&self) -> usize {
        self.asked.len() + self.backlog.len()
    }

    /// The shard says that this is so. None if that cannot be.
    pub fn done(&mut self, change: Listening, name: &[u8]) -> Option<Said> {
        let known = match self.asked.front() {
            Some(FeedRequest::Name(asked, known)) if *asked == change && known == name => known.clone(),
            _ => return self.unasked(change, name),
        };
        self.asked.pop_front();
        let line = self.names[change.kind.place()].get_mut(name)?;
        line.asked = None;
        line.is_on = change.on;
        Some(Said::Answer(Some((change.kind, known))))
    }

    /// A node that loses a slot says of its channels that they are listened to no more, and may answer afterwards what was asked
    /// before: then what it has said first was taken for the answer, and this one is left over.
    pub fn unasked(&mut self, change: Listening, name: &[u8]) -> Option<Said> {
        if !self.follows || change.kind != Kind::Sharded {
            return None;
        }
        let names = &mut self.names[change.kind.place()];
        let Some((known, _)) = names.get_key_value(name) else {
            return (!change.on).then_some(Said::Idle);
        };
        let key = (change.kind, known.clone());
        let line = names.get_mut(name)?;
        let was_on = std::mem::replace(&mut line.is_on, change.on);
        let is_left = was_on && line.wanted && line.asked.is_none();
        Some(match change.on {
            true => Said::Late(key),
            false if is_left => Said::Left(key),
            false => Said::Idle,
        })
    }

    /// The shard has given a sign of life. None if that was not asked.
    pub fn lives(&mut self, is_asked: bool) -> Option<Said> {
        if is_asked && matches!(self.asked.front(), Some(FeedRequest::Life)) {
            self.asked.pop_front();
            return Some(Said::Answer(None));
        }
        // What was left over before it may have been taken for it.
        self.follows.then_some(Said::Idle)
    }

    /// The shard does not do what was asked first, maybe because the name is at another one. None if nothing was asked. A sign of life is this as well.
    pub fn refused(&mut self, words: &[u8], is_elsewhere: bool, is_asked: bool) -> Option<Said> {
        let is_elsewhere = is_elsewhere && self.follows;
        let may_be_asked = match self.asked.front() {
            Some(FeedRequest::Name(change, _)) => change.kind == Kind::Sharded,
            Some(FeedRequest::Life) => true,
            None => false,
        };
        if is_elsewhere && !(is_asked && may_be_asked) {
            // It is left over, as above.
            return Some(Said::Idle);
        }
        let (change, name) = match self.asked.pop_front().filter(|_| is_asked)? {
            FeedRequest::Life => return Some(Said::Answer(None)),
            FeedRequest::Name(change, name) => (change, name),
        };
        let line = self.names[change.kind.place()].get_mut(&name)?;
        line.asked = None;
        let key = (change.kind, name);
        if !is_elsewhere {
            line.refused = Some(shown(words));
            return Some(Said::Answer(Some(key)));
        }
        line.is_on = false;
        Some(if line.wanted && change.on { Said::Elsewhere(key) } else { Said::Answer(Some(key)) })
    }

    /// Nothing is asked or heard any more. The names that were heard.
    pub fn take_heard(&mut self) -> Vec<Key> {
        self.tally_bytes = 0;
        (self.asked, self.backlog) = (VecDeque::new(), VecDeque::new());
        let mut heard = Vec::new();
        for (kind, names) in Kind::ALL.into_iter().zip(std::mem::take(&mut self.names)) {
            let on = names.into_iter().filter(|(_, line)| line.is_on && line.wanted);
            heard.extend(on.map(|(name, _)| (kind, name)));
        }
        heard
    }

    /// Memory it holds.
    pub fn bytes(&self) -> usize {
        self.asked.len() * size_of::<FeedRequest>()
            + self.backlog.len() * size_of::<Key>()
            + self.tally_bytes
            + self.names.iter().map(HashMap::len).sum::<usize>() * LINE_BYTES
    }
}

/// As much of a shard's words as is kept.
pub fn shown(words: &[u8]) -> Box<str> {
    const SHOWN_MAX: usize = 200;
    String::from_utf8_lossy(&words[..words.len().min(SHOWN_MAX)]).into()
}
