//! What stands between the bytes of a connection and those that the kernel is given, as TLS does. A connection that
//! has one is read, written and closed like any other.
//!
//! A layer takes bytes before they are written. What it holds of them is told to the [`Output`], so that nobody who looks
//! whether a reply is sent (a drain, QUIT, the end of a connection) takes it for sent too early.

use std::fmt::Debug;
use std::io;

use bytes::BytesMut;

use super::plain::{Plain, Read, Written};
use crate::account::Share;
use crate::buffer::Output;

/// What it is that stands between. `below` is the socket of the kernel.
pub trait Layer: Debug + Send {
    /// Reads once from below, and puts what that says into the room behind `scratch`. [`Read::Full`] as long as something may
    /// come without a further event of the kernel. What it has to answer by itself it writes here, or at the next call: the
    /// driver reads whenever the socket is ready.
    fn read(&mut self, below: &mut Plain, scratch: &mut BytesMut, most: usize) -> io::Result<Read>;

    /// Writes what it holds, then takes more from `output`, for as long as there is room below, at most so many bytes. It takes
    /// nothing while it holds something, so that what it holds is bounded.
    fn write(&mut self, below: &mut Plain, output: &mut Output, most: usize) -> io::Result<Written>;

    /// Writes its own last words, once, behind what it holds. Called until it holds nothing.
    fn finish(&mut self, below: &mut Plain) -> io::Result<()>;

    /// Bytes that it has taken and not written.
    fn held(&self) -> usize;

    /// Bytes that it has read and not handed on.
    fn unread(&self) -> usize;

    /// Memory that is free once it is gone, but for what is [`Self::held`].
    fn memory(&self) -> usize;

    /// The client counts in this share from now on.
    fn join(&mut self, share: &Share);
}

/// What is above a socket of which nothing is said or heard any more.
#[derive(Debug)]
struct Spent;

impl Layer for Spent {
    fn read(&mut self, _: &mut Plain, _: &mut BytesMut, _: usize) -> io::Result<Read> {
        Ok(Read::Ended)
    }

    fn write(&mut self, _: &mut Plain, _: &mut Output, _: usize) -> io::Result<Written> {
        Err(io::ErrorKind::NotConnected.into())
    }

    fn finish(&mut self, _: &mut Plain) -> io::Result<()> {
        Ok(())
    }

    fn held(&self) -> usize {
        0
    }

    fn unread(&self) -> usize {
        0
    }

    fn memory(&self) -> usize {
        0
    }

    fn join(&mut self, _: &Share) {}
}

/// A socket of the kernel and the layer above it.
#[derive(Debug)]
pub struct Layered {
    plain: Plain,
    layer: Box<dyn Layer>,
}

impl Layered {
    /// The two of them.
    pub fn new(plain: Plain, layer: Box<dyn Layer>) -> Self {
        Self { plain, layer }
    }

    /// The socket of the kernel.
    pub fn plain(&self) -> &Plain {
        &self.plain
    }

    /// The same, to go past the layer.
    pub fn plain_mut(&mut self) -> &mut Plain {
        &mut self.plain
    }

    /// Reads once, at most so many bytes, into the room behind `scratch`.
    pub fn read(&mut self, scratch: &mut BytesMut, most: usize) -> io::Result<Read> {
        self.layer.read(&mut self.plain, scratch, most)
    }

    /// Writes as much of `output` as there is room for, at most so many bytes, and says in it what is held.
    pub fn write(&mut self, output: &mut Output, most: usize) -> io::Result<Written> {
        let written = self.layer.write(&mut self.plain, output, most);
        output.hold(self.layer.held());
        let written = written?;
        if written == Written::Pending {
            output.settle();
        }
        Ok(written)
    }

    /// Says that nothing more will be written, once all is that the layer has to say.
    pub fn finish(&mut self) -> Written {
        // Where that cannot be said any more, the connection is broken.
        if self.layer.finish(&mut self.plain).is_ok() && self.layer.held() > 0 {
            return Written::Pending;
        }
        self.plain.finish();
        Written::All
    }

    /// Nothing is said or heard by the layer any more: what it holds is free.
    pub fn spend(&mut self) {
        self.layer = Box::new(Spent);
    }

    /// As [`Layer::memory`].
    pub fn memory(&self) -> usize {
        self.layer.memory()
    }

    /// As [`Layer::join`].
    pub fn join(&mut self, share: &Share) {
        self.layer.join(share);
    }

    /// Bytes that the layer has taken and not written.
    pub fn held(&self) -> usize {
        self.layer.held()
    }

    /// Bytes that the layer has read and not handed on.
    pub fn unread(&self) -> usize {
        self.layer.unread()
    }
}

impl Drop for Layered {
    /// What is left of it is said, so that the peer does not take the end for a broken connection.
    fn drop(&mut self) {
        if self.layer.held() == 0 {
            // It may be broken, which is as good.
            let _ = self.layer.finish(&mut self.plain);
        }
    }
}
