//! Keys that a shard watches for a client, as far as the pool has to know: what is said of them, and how it ends.

use super::Spread;

/// What has become of keys that a client watches, or wanted to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watched {
    /// A shard watches them.
    Begun,
    /// None does, and the client was told so.
    Refused,
    /// None does any more, and the client does not know: what they guard is not to be executed.
    Lost,
}

/// How a protocol speaks of keys that are watched. A protocol that has none says nothing.
pub trait Watching {
    /// Writes the reply to a client whose keys are watched.
    fn is_watching(_reply: &mut Vec<u8>) {}

    /// Writes the request after which a shard watches nothing any more on this connection.
    fn unwatch(_out: &mut Vec<u8>) {}

    /// The reply to a client that watches keys elsewhere than those it watches already.
    fn spread_watch(_spread: Spread) -> &'static str {
        ""
    }

    /// The reply to a request whose keys are elsewhere than those that its block watches.
    fn spread_from_watch(_spread: Spread) -> &'static str {
        ""
    }
}
