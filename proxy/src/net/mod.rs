//! Sockets: what reads, writes, waits, connects, listens. The only place that makes system calls for them.

pub mod brake;
pub mod connect;
pub mod conversation;
pub mod epoll;
pub mod handshakes;
pub mod late;
pub mod layer;
pub mod listen;
pub mod plain;
pub mod socket;
mod stream;
pub mod tls;
