//! Clients that keep what they have read and are told once it changes, as far as the pool has to know them.

/// How a protocol speaks of what such clients keep. A protocol that has none says nothing.
pub trait Caching {
    /// Adds the places of the keys that the responses to these requests, one or several, tell something of which clients keep. False
    /// if it may be others as well.
    fn keys_read(_requests: &[u8], _keys: &mut Vec<(usize, usize)>) -> bool {
        true
    }

    /// Writes what tells a client that it has something of these keys no more; of all, where there are none.
    fn tell_changed(_keys: &[&[u8]], _out: &mut Vec<u8>) {}
}
