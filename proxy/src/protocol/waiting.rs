//! Requests that wait for data, as far as the pool has to know them: what ends a wait before its time, and how the rest of
//! it is asked for again.

use std::time::Duration;

/// What a shard says whose request waits no more though nothing has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interruption {
    /// Somebody has asked for that.
    Asked,
    /// The shard serves such requests no more; nothing was taken.
    Changed,
}

/// How a protocol speaks of requests that wait for data. A protocol that has none says nothing.
pub trait Waiting {
    /// Writes the question for the number that the shard has for this connection, and tells how many responses it brings.
    fn ask_peer(_out: &mut Vec<u8>) -> usize {
        0
    }

    /// The number, if the response is one.
    fn peer(_response: &[u8]) -> Option<i64> {
        None
    }

    /// Writes what ends the wait of the connection with this number: as if its time were over, or with an error.
    fn unblock(_peer: i64, _with_error: bool, _out: &mut Vec<u8>) {}

    /// Whether the response, an error, says that a wait was ended.
    fn interruption(_response: &[u8]) -> Option<Interruption> {
        None
    }

    /// The reply to a request whose wait another client has ended with an error.
    fn unblocked(_reply: &mut Vec<u8>) {}

    /// Writes the request once more, to wait for as long as is left; `None` for ever. False if it would mean something else.
    fn wait_again(_request: &[u8], _left: Option<Duration>, _out: &mut Vec<u8>) -> bool {
        false
    }

    /// Adds the places of the request's keys.
    fn keys_of(_request: &[u8], _keys: &mut Vec<(usize, usize)>) {}
}
