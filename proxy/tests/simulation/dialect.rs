//! What the simulation has to know of a protocol: how its clients ask, what they may be told, and how a shard answers.

use memstore_proxy::protocol::Protocol;

use super::client::Keys;
use super::shard::{Shard, State};
use crate::Random;

/// A protocol for simulated peers, with a plain parser unlike the one under test.
pub trait Dialect: Protocol {
    /// Larger than any request the clients expect to be served.
    const REQUEST_BYTES_MAX: u64;

    fn settings() -> Self::Settings;

    /// One request, or some that belong together, and what has to be answered.
    fn ask(keys: &mut Keys, random: &mut Random) -> (Vec<u8>, Vec<Expectation>);

    /// The reply that `bytes` begins with and its length, once it is complete.
    fn reply(bytes: &[u8]) -> Option<(Reply, usize)>;

    /// Executes the request that `bytes` begins with, once it is complete: the response, and the request's length.
    fn execute(shard: &mut Shard, state: &mut State, bytes: &[u8]) -> Option<(Vec<u8>, usize)>;
}

/// What a client is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    Done,
    Count(i64),
    /// One for each key asked for.
    Values(Vec<Option<Vec<u8>>>),
    /// Those that were found, with their keys, in the order they were asked for.
    Hits(Vec<(Vec<u8>, Vec<u8>)>),
    Text(String),
    /// One for each command of a transaction, where they are not all values.
    Elements(Vec<Reply>),
    /// A shard could not serve the request.
    Failed(String),
    /// Any other error.
    Refused(String),
}

/// What a request must be answered with.
pub enum Expected {
    Exactly(Reply),
    /// The same, but a shard may fail.
    FromShards(Reply),
    Get(Vec<Vec<u8>>),
    Set(Vec<(Vec<u8>, Vec<u8>)>),
    Delete(Vec<Vec<u8>>),
    /// The value of the first key is under the second one then, on whatever shard.
    Rename(Vec<u8>, Vec<u8>),
    /// All of these or, if a shard has failed or refused, perhaps none.
    Transaction(Vec<Expected>),
    /// An error of the proxy's own that begins so; the connection goes on.
    Refusal(&'static str),
    Goodbye,
}

/// Whether a request is answered at all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Always,
    Never,
    /// Only what is unusual is told; the reply to the next request is this text and shows that nothing was.
    Unusual(&'static str),
}

pub struct Expectation {
    pub expected: Expected,
    pub told: Told,
}

impl Expected {
    /// Whether its request has so large a value that it may be refused where much is held already.
    pub fn is_large(&self) -> bool {
        const LARGE_MIN: usize = 256 * 1024;
        match self {
            Self::Set(pairs) => pairs.iter().map(|(_, value)| value.len()).sum::<usize>() >= LARGE_MIN,
            Self::Exactly(Reply::Values(values)) => {
                values.iter().flatten().any(|value| value.len() >= LARGE_MIN)
            }
            _ => false,
        }
    }

    pub fn told(self) -> Expectation {
        Expectation { expected: self, told: Told::Always }
    }
}
