//! A socket of the kernel, over TCP or a Unix socket: the system calls.

use std::io::{self, ErrorKind, IoSlice};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::buffer::Output;

/// Longest read. The buffer of a large message may have room for much more, and the kernel may have it.
pub const READ_MAX: usize = 256 * 1024;
/// Vectors handed to the kernel in one write.
const VECTORS_MAX: usize = 64;

/// A socket of the kernel. Non-blocking; it belongs to no runtime, so it can be handed from thread to thread.
#[derive(Debug)]
pub enum Plain {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// What became of a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// Bytes came; there may be more.
    Full,
    /// Bytes came, and for now that is all.
    Drained,
    /// Nothing came.
    Nothing,
    /// The peer has closed its writing side.
    Ended,
}

/// What became of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    /// All of it is on its way.
    All,
    /// Some of it waits, queued or held by the transport, because the kernel had no room. The socket becomes ready as it has.
    Pending,
    /// Some of it waits for its next turn: the kernel may have room, and tells nobody.
    Paused,
}

impl Plain {
    /// Reads once, at most so many bytes, into the room behind `scratch`. Straight to the kernel: the C library makes these calls points of
    /// cancellation, which costs some percent of a small request.
    #[inline]
    pub fn read(&mut self, scratch: &mut BytesMut, most: usize) -> io::Result<Read> {
        let room = (scratch.capacity() - scratch.len()).min(most);
        let count = match rustix::io::read(&*self, &mut scratch.spare_capacity_mut()[..room]) {
            Ok((filled, _)) => filled.len(),
            Err(Errno::AGAIN) => return Ok(Read::Nothing),
            Err(Errno::INTR) => return Ok(Read::Full),
            Err(error) => return Err(error.into()),
        };
        // SAFETY: `read` has just filled so many bytes of the spare capacity.
        #[allow(unsafe_code)]
        unsafe {
            scratch.advance_mut(count);
        }
        Ok(match count {
            0 => Read::Ended,
            _ if count < room => Read::Drained,
            _ => Read::Full,
        })
    }

    /// Reads once; the second number is how many bytes have come.
    pub fn read_into(&mut self, room: &mut [u8]) -> io::Result<(Read, usize)> {
        let length = room.len();
        match rustix::io::read(&*self, room) {
            Ok(0) => Ok((Read::Ended, 0)),
            Ok(count) if count < length => Ok((Read::Drained, count)),
            Ok(count) => Ok((Read::Full, count)),
            Err(Errno::AGAIN) => Ok((Read::Nothing, 0)),
            Err(Errno::INTR) => Ok((Read::Full, 0)),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads once, to no purpose but that it is gone.
    pub fn discard(&mut self, room: &mut [u8]) -> io::Result<Read> {
        self.read_into(room).map(|(read, _)| read)
    }

    /// Writes as much of `output` as the kernel takes, at most so many bytes.
    #[inline]
    pub fn write(&mut self, output: &mut Output, most: usize) -> io::Result<Written> {
        let mut left = most;
        while !output.is_empty() {
            if left == 0 {
                return Ok(Written::Paused);
            }
            let (written, length) = match output.whole() {
                // Small messages are one piece: they need no table of vectors, which takes as long as to decode one.
                Some(whole) => {
                    let part = &whole[..whole.len().min(left)];
                    (rustix::net::send(&*self, part, SendFlags::NOSIGNAL), part.len())
                }
                None => self.write_vectors(output, left),
            };
            let count = match written {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => count,
                Err(Errno::AGAIN) => 0,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            output.advance(count);
            left -= count;
            if count < length {
                output.settle();
                return Ok(Written::Pending);
            }
        }
        Ok(Written::All)
    }

    /// Writes the first pieces of `output`, at most so many bytes, in one call; the second number is how many were tried.
    fn write_vectors(&self, output: &Output, most: usize) -> (rustix::io::Result<usize>, usize) {
        let mut vectors = [IoSlice::new(&[]); VECTORS_MAX];
        let used = output.vectors(&mut vectors, most);
        let length = vectors[..used].iter().map(|vector| vector.len()).sum();
        // The standard library has SIGPIPE ignored.
        (rustix::io::writev(self, &vectors[..used]), length)
    }

    /// Writes these pieces in one call; returns how many bytes the kernel has taken.
    pub fn send_vectors(&mut self, vectors: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            match rustix::io::writev(&*self, vectors) {
                Ok(count) => return Ok(count),
                Err(Errno::AGAIN) => return Ok(0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes these bytes; returns how many the kernel has taken.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match rustix::net::send(&*self, bytes, SendFlags::NOSIGNAL) {
            Ok(count) => Ok(count),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the peer has sent something that was not read, its end too.
    pub fn has_unread(&self) -> bool {
        let mut room = [0; 1];
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        !matches!(rustix::net::recv(self, &mut room, flags), Err(Errno::AGAIN))
    }

    /// What is written leaves together with the end of the connection, so that whoever reads it knows of both; or else
    /// when it is taken back.
    pub fn hold_back(&self, held: bool) {
        if let Self::Tcp(_) = self {
            // Without it the two follow each other closely.
            let _ = rustix::net::sockopt::set_tcp_cork(self, held);
        }
    }

    /// Bytes that have come and were not read.
    pub fn waiting(&self) -> usize {
        rustix::io::ioctl_fionread(self).map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// Says that nothing more will be written.
    pub fn finish(&mut self) {
        // It may be closed already, which is as good.
        let _ = self.reference().shutdown(Shutdown::Write);
    }

    /// The address it leads to, if it has one.
    pub fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// A peer that vanished without a word is noticed: probes when idle, and a limit for unanswered data.
    pub fn keep_alive(&self, idle: Duration, unanswered: Option<Duration>) {
        if let Self::Tcp(_) = self {
            let socket = self.reference();
            let keepalive =
                socket2::TcpKeepalive::new().with_time(idle).with_interval(idle / 4).with_retries(4);
            // A socket that refuses these options works without them.
            let _ = socket.set_tcp_keepalive(&keepalive);
            if unanswered.is_some() {
                let _ = socket.set_tcp_user_timeout(unanswered);
            }
        }
    }

    /// Whatever the peer has not acknowledged is dropped when the connection is closed, by whom and how ever: the kernel
    /// would send it for minutes, and a shard that comes back would execute what its clients were told has failed.
    pub fn forget_unsent(&self) -> io::Result<()> {
        match self {
            Self::Tcp(_) => self.reference().set_linger(Some(Duration::ZERO)),
            // Here bytes are with the peer as soon as they are written.
            Self::Unix(_) => Ok(()),
        }
    }

    /// Whether the peer's host has acknowledged all that was written.
    pub fn has_delivered(&self) -> bool {
        let mut left: libc::c_int = 0;
        // SAFETY: the descriptor is open, and this request (SIOCOUTQ, for sockets) writes one integer.
        #[allow(unsafe_code)]
        let asked =
            unsafe { libc::ioctl(self.as_fd().as_raw_fd(), libc::TIOCOUTQ, std::ptr::addr_of_mut!(left)) };
        // A peer on this machine that has just read is told of as long as one byte is still counted (sock_wfree), and not again.
        let uncounted = libc::c_int::from(matches!(self, Self::Unix(_)));
        asked == 0 && left <= uncounted
    }

    fn reference(&self) -> socket2::SockRef<'_> {
        match self {
            Self::Tcp(stream) => socket2::SockRef::from(stream),
            Self::Unix(stream) => socket2::SockRef::from(stream),
        }
    }
}

impl AsFd for Plain {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}
