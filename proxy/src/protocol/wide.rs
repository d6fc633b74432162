//! Requests that wait for data under keys of several shards, as far as the pool has to know them: how a shard is made to tell when
//! a key has changed, and how one key is tried without waiting.

use bytes::Bytes;

use super::Spread;

/// What a shard says on a connection on which it tells of keys that have changed.
#[derive(PartialEq, Eq, Debug)]
pub enum Tracked<'b> {
    /// These have, since they were looked at.
    Changed(Vec<&'b [u8]>),
    /// Any may have.
    AllChanged,
    /// What was asked is done.
    Done,
    /// It is not, in these words.
    Refused(&'b [u8]),
    /// Nothing that belongs there.
    Odd,
}

/// What has come of trying one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tried {
    /// There is nothing.
    Nothing,
    /// The whole reply.
    Reply,
    /// A part of the reply: other keys may have more.
    Part,
    /// There is data of another kind. Who comes to that is told so; who waits already goes on waiting.
    WrongKind,
    /// An error.
    Refused,
    /// How the request is put from now on.
    Rewritten,
}

/// A key that is tried without the others of its request.
#[derive(PartialEq, Eq, Debug)]
pub struct Alone {
    /// Who takes data of the key from each other: those requests that have the same word for it. None: each has all of it, however
    /// many there are.
    pub rivals: Option<Vec<u8>>,
    /// Nothing is lost where the key changes after it was tried and nobody is told of that.
    pub is_early: bool,
}

/// How a protocol speaks of such requests. A protocol that has none says nothing.
pub trait Wide {
    /// Writes what makes a shard tell on this connection when keys change that are looked at there, which brings one response.
    fn track(_out: &mut Vec<u8>) {}

    /// Writes what looks at the key, whether it is there or not, which brings one response.
    fn look_at(_key: &[u8], _out: &mut Vec<u8>) {}

    /// Reads what a shard says on such a connection.
    fn tracked(_response: &[u8]) -> Tracked<'_> {
        Tracked::Odd
    }

    /// How each key of a request that waits is tried alone, in their order. None: they cannot be.
    fn alone(_request: &[u8]) -> Option<Vec<Alone>> {
        None
    }

    /// Writes the request that tries the key at this place among those of the request.
    fn try_key(_request: &[u8], _place: usize, _out: &mut Vec<u8>) {}

    /// Judges the response to that, and writes what [`Tried`] speaks of.
    fn tried(_request: &[u8], _place: usize, _response: &[u8], _out: &mut Vec<u8>) -> Tried {
        Tried::Refused
    }

    /// Writes the reply that has these parts, one at least.
    fn join_parts(_parts: &[Bytes], _out: &mut Vec<u8>) {}

    /// The reply to a request that cannot wait at several shards; with `most` because it has more keys than that.
    fn spread_wait(_spread: Spread, _most: Option<usize>) -> String {
        String::new()
    }

    /// The same, where this shard does not tell when they change, in these words.
    fn untracked(_spread: Spread, _shard: &str, _words: &str) -> String {
        String::new()
    }
}
