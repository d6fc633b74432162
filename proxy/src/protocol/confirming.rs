//! Requests that wait until replicas have what was executed before (WAIT), as far as the pool has to know them: how a shard is made
//! to count what it executed on other connections, and how the numbers of several shards become one reply.

use bytes::Bytes;

/// How a protocol speaks of such requests. A protocol that has none says nothing.
pub trait Confirming {
    /// Requests of which a replica that has them has all that was executed before, on any connection; each brings one response. They
    /// write under the key where there is no other way, and leave nothing there.
    fn mark(_key: Option<&[u8]>) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// Whether a response to one of those says that it was executed, or will be.
    fn is_marked(_response: &[u8]) -> bool {
        false
    }

    /// Whether the response can be the one to the request itself.
    fn is_count(_request: &[u8], _response: &[u8]) -> bool {
        false
    }

    /// Writes the reply: what all shards have at least. One that has said nothing has nothing.
    fn least<'r>(_request: &[u8], _responses: impl Iterator<Item = Option<&'r Bytes>>, _reply: &mut Vec<u8>) {
    }

    /// The reply where a shard has answered with this error.
    fn unconfirmed(_shard: &str, _error: &[u8], _reply: &mut Vec<u8>) {}
}
