//! Clients that keep what they have read and are told once it changes, as far as the pool has to know them.

use bytes::Bytes;

use super::store::Store;

/// What a client is told of by all shards, whatever it has read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broadcast<'s> {
    /// Keys that begin so, in order.
    pub prefixes: &'s [Bytes],
    /// Only of those that it has read.
    pub is_of_read: bool,
}

/// Who is told in the stead of a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Receiver {
    /// The client with this number.
    There(u64),
    /// The one that had this number, which is not there any more.
    Lost(u64),
}

/// Keys that requests read, by their places.
#[derive(Default, Debug)]
pub struct KeysRead {
    /// A shard that is asked to tell of what is read tells of these.
    pub keys: Vec<(usize, usize)>,
    /// Of these it may not.
    pub unsure: Vec<(usize, usize)>,
}

/// How a protocol speaks of what such clients keep. A protocol that has none says nothing.
pub trait Caching {
    /// Adds the keys that the responses to these requests, one or several, tell something of which clients keep. False
    /// if it may be others as well. The store says which commands shards have.
    fn keys_read(_requests: &[u8], _store: &Store, _read: &mut KeysRead) -> bool {
        true
    }

    /// Writes what makes a shard tell on this connection of all changes of keys that begin so, beside those that it tells of already,
    /// which brings one response.
    fn subscribe(_prefixes: &[Bytes], _out: &mut Vec<u8>) {}

    /// Writes what makes a shard tell nothing more on this connection, which brings one response.
    fn unsubscribe(_out: &mut Vec<u8>) {}

    /// Writes what tells a client that it has something of these keys no more; of all, where there are none.
    fn tell_changed(_keys: &[&[u8]], _out: &mut Vec<u8>) {}
}
