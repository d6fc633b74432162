//! Requests that bring the value of one key to another key, where the two are on several shards (RENAME, COPY), as far as the pool has
//! to know them: how a value is read with its time to live, written elsewhere and removed where it was.

use std::ops::Range;

use bytes::Bytes;

use super::Spread;

/// What a command does that brings the value of one key to another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransferKind {
    /// The value is not under its old key afterwards; what was under the other one is gone.
    Renames,
    /// The same, but only where nothing is under the other key.
    RenamesIfNew,
    /// The value stays where it is. What is under the other key stays too, unless the request has an option.
    Copies,
}

/// A request for that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// What it is called.
    pub name: &'static str,
    /// What it does.
    pub kind: TransferKind,
    /// What is under the other key is overwritten.
    pub replaces: bool,
    /// The key that has the value.
    pub source: Bytes,
    /// The key that is to have it.
    pub destination: Bytes,
}

/// What has come of a request that was done, as far as it could be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transferred {
    /// The value is where it is to be.
    Done,
    /// There was none.
    Missing,
    /// Something is under the other key, and stays there.
    Occupied,
}

/// What a shard says to a step.
#[derive(PartialEq, Eq, Debug)]
pub enum Heard<'r, T> {
    /// It is done, with this.
    Done(T),
    /// There is nothing to do: the value is missing, or something else is where it is to go.
    Nothing,
    /// It is not done, in these words.
    Refused(&'r [u8]),
}

/// How a protocol speaks of such requests. A protocol that has none says nothing.
pub trait Transferring {
    /// What the request, whose keys are on several shards, asks for, if it is such a one of a client of this database; an error says
    /// why it cannot be done.
    fn transfer(_request: &[u8], _database: u32) -> Option<Result<Transfer, String>> {
        None
    }

    /// The reply where that is not done.
    fn untransferred(_spread: Spread) -> String {
        String::new()
    }

    /// Writes the question for how long the value lives on.
    fn ask_lifetime(_source: &[u8], _out: &mut Vec<u8>) {}

    /// For how many milliseconds it does, if not for ever.
    fn lifetime(_response: &[u8]) -> Heard<'_, Option<u64>> {
        Heard::Nothing
    }

    /// Writes the question for the value.
    fn ask_value(_source: &[u8], _out: &mut Vec<u8>) {}

    /// Where the value stands in the response.
    fn value(_response: &[u8]) -> Heard<'_, Range<usize>> {
        Heard::Nothing
    }

    /// Writes the request that puts the value under the other key.
    fn store(_transfer: &Transfer, _lifetime: Option<u64>, _value: &[u8], _out: &mut Vec<u8>) {}

    /// Whether that is done.
    fn stored(_response: &[u8]) -> Heard<'_, ()> {
        Heard::Nothing
    }

    /// What the words of a shard that has not taken the value may mean, behind a comma.
    fn why_unstored(_words: &[u8]) -> &'static str {
        ""
    }

    /// Writes the request that removes the value where it was.
    fn remove(_source: &[u8], _out: &mut Vec<u8>) {}

    /// Whether that is done.
    fn removed(_response: &[u8]) -> Heard<'_, ()> {
        Heard::Nothing
    }

    /// Writes the reply.
    fn transferred(_transfer: &Transfer, _outcome: Transferred, _reply: &mut Vec<u8>) {}
}
