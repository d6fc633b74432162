//! A connection with a layer above it, inside a tokio runtime: what is said beside the data path passes the same layer.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::layer::Layered;
use super::plain::{Read, Written};
use crate::buffer::{Output, READ_SIZE};

/// Bytes that are taken before those that were taken earlier are written.
const TAKEN_MAX: usize = 64 * 1024;

struct Socket(Box<Layered>);

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.plain().as_fd().as_raw_fd()
    }
}

/// Reads and writes through a layer.
pub struct LayeredStream {
    socket: AsyncFd<Socket>,
    /// What is not written, or held by the layer.
    output: Output,
    /// What the layer has said and nobody has taken.
    come: BytesMut,
}

impl LayeredStream {
    /// Over a connection that does not block.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn over(layered: Box<Layered>) -> io::Result<Self> {
        // SAFETY: the socket has its descriptor to itself, always the same, and is closed after it was registered no more.
        #[allow(unsafe_code)]
        let socket = unsafe { AsyncFd::register(Socket(layered)) }?;
        Ok(Self { socket, output: Output::default(), come: BytesMut::new() })
    }

    fn poll_sent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, output, .. } = self;
        while !output.is_sent() {
            let mut ready = ready!(socket.poll_write_ready_mut(context))?;
            if ready.get_inner_mut().0.write(output, usize::MAX)? != Written::All {
                ready.clear_ready();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for LayeredStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        // What was said before leaves while the answer is waited for.
        if let Poll::Ready(sent) = stream.poll_sent(context) {
            sent?;
        }
        let Self { socket, come, .. } = stream;
        while come.is_empty() {
            let mut ready = ready!(socket.poll_read_ready_mut(context))?;
            come.reserve(READ_SIZE);
            match ready.get_inner_mut().0.read(come, READ_SIZE)? {
                Read::Ended if come.is_empty() => return Poll::Ready(Ok(())),
                Read::Nothing => ready.clear_ready(),
                Read::Full | Read::Drained | Read::Ended => {}
            }
        }
        let count = come.len().min(room.remaining());
        room.put_slice(&come[..count]);
        come.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LayeredStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        ready!(stream.poll_sent(context))?;
        let count = bytes.len().min(TAKEN_MAX);
        stream.output.copy(&bytes[..count]);
        if let Poll::Ready(sent) = stream.poll_sent(context) {
            sent?;
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_sent(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        ready!(stream.poll_sent(context))?;
        loop {
            let mut ready = ready!(stream.socket.poll_write_ready_mut(context))?;
            if ready.get_inner_mut().0.finish() == Written::All {
                return Poll::Ready(Ok(()));
            }
            ready.clear_ready();
        }
    }
}
