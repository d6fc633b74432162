//! A transport for tests that takes what it is given at once and writes it later, as one that encrypts does: a few bytes each
//! time the peer has read those before.
#![cfg(test)]

use std::io;
use std::os::unix::net::UnixStream;

use bytes::BytesMut;

use super::layer::Layer;
use super::plain::{Plain, Read, Written};
use super::socket::Socket;
use crate::account::{Aside, Share};
use crate::buffer::Output;

/// What it says last.
pub const FAREWELL: &str = "<farewell>";
/// Bytes that it writes at a time.
pub const CHUNK: usize = 8;
/// Bytes that it takes at a time.
const TAKEN_MAX: usize = 1024;

#[derive(Default, Debug)]
pub struct Late {
    held: Vec<u8>,
    has_finished: bool,
    /// What it keeps for itself.
    hoard: Option<Aside>,
}

impl Late {
    pub fn over(stream: UnixStream) -> Socket {
        Socket::layered(Plain::Unix(stream), Box::<Self>::default())
    }

    /// One that holds so much.
    pub fn hoarding(stream: UnixStream, hoard: Aside) -> Socket {
        Socket::layered(Plain::Unix(stream), Box::new(Self { hoard: Some(hoard), ..Self::default() }))
    }

    fn flush(&mut self, below: &mut Plain) -> io::Result<()> {
        if below.has_delivered() {
            let count = below.send(&self.held[..self.held.len().min(CHUNK)])?;
            self.held.drain(..count);
        }
        Ok(())
    }
}

impl Layer for Late {
    fn read(&mut self, below: &mut Plain, scratch: &mut BytesMut, most: usize) -> io::Result<Read> {
        below.read(scratch, most)
    }

    fn write(&mut self, below: &mut Plain, output: &mut Output, _: usize) -> io::Result<Written> {
        if self.held.is_empty() {
            let count = output.len().min(TAKEN_MAX);
            self.held.extend_from_slice(&output.first(count));
            output.advance(count);
        }
        self.flush(below)?;
        Ok(if output.is_empty() && self.held.is_empty() { Written::All } else { Written::Pending })
    }

    fn finish(&mut self, below: &mut Plain) -> io::Result<()> {
        if !std::mem::replace(&mut self.has_finished, true) {
            self.held.extend_from_slice(FAREWELL.as_bytes());
        }
        self.flush(below)
    }

    fn held(&self) -> usize {
        self.held.len()
    }

    fn unread(&self) -> usize {
        0
    }

    fn memory(&self) -> usize {
        self.hoard.as_ref().map_or(0, Aside::held)
    }

    fn join(&mut self, share: &Share) {
        if let Some(hoard) = &mut self.hoard {
            hoard.join(share);
        }
    }
}
