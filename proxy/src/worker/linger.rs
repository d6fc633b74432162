//! Connections of clients that we have finished with: read until the client closes, because closing with unread bytes in
//! them would destroy replies on their way.

use std::io;
use std::rc::Rc;

use bytes::BytesMut;
use slab::Slab;

use super::ready::{Ready, Sockets, Token};
use super::socket::{Read, Socket};
use crate::pool::time::Time;

/// Connections that linger; further ones are just closed.
const LINGERING_MAX: usize = 4096;

/// The lingering connections of one pool.
pub struct Lingering {
    connections: Slab<(Socket, Time)>,
    pool: usize,
    sockets: Rc<Sockets>,
}

impl Lingering {
    /// None so far.
    pub fn new(pool: usize, sockets: Rc<Sockets>) -> Self {
        Self { connections: Slab::new(), pool, sockets }
    }

    /// Nobody lingers.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// One more, until then at most. Returns what is to be read next.
    pub fn add(&mut self, socket: Socket, until: Time) -> Option<Ready> {
        socket.finish();
        if self.connections.len() >= LINGERING_MAX {
            return None;
        }
        let entry = self.connections.vacant_entry();
        let token = Token::Lingering(entry.key() as u32);
        self.sockets.rename(&socket, self.pool, token).ok()?;
        entry.insert((socket, until));
        Some(Ready::again(token))
    }

    /// Whatever comes is dropped. Returns what is to be read again: the end may have come with it.
    pub fn read(&mut self, index: usize, scratch: &mut BytesMut) -> Option<Ready> {
        let (socket, _) = self.connections.get_mut(index)?;
        scratch.reserve(crate::pool::buffer::READ_SIZE);
        let read: io::Result<Read> = socket.read(scratch);
        scratch.clear();
        match read {
            Ok(Read::Nothing) => None,
            Ok(Read::Full | Read::Drained) => Some(Ready::again(Token::Lingering(index as u32))),
            Ok(Read::Ended) | Err(_) => {
                self.connections.remove(index);
                None
            }
        }
    }

    /// Closes those whose time has passed.
    pub fn sweep(&mut self, now: Time) {
        self.connections.retain(|_, (_, until)| *until > now);
    }

    /// Closes all.
    pub fn clear(&mut self) {
        self.connections.clear();
    }
}
