//! Wire protocols: where a message ends, what it is called and which keys it names.
//!
//! No sockets, clocks, shards or configuration here.

pub mod resp;
