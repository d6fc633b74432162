//! A TCP or Unix connection, read into shared buffers and written from an [`Output`].

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::buffer::Output;
use crate::failure::ShardFailure;

/// Longest read. The buffer of a large message may have room for much more, and the kernel may have it.
const READ_MAX: usize = 256 * 1024;
/// Vectors handed to the kernel in one write.
const VECTORS_MAX: usize = 64;

/// One connection. Non-blocking; it belongs to no runtime, so it can be handed from thread to thread.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// The addresses of a connection's two ends. They are kept: asking the kernel costs two system calls for every client of a
/// listing. Small, because every idle client has them.
#[derive(Debug)]
pub enum Ends {
    /// The peer's, then our own.
    V4([SocketAddrV4; 2]),
    /// The same, as they are shown.
    Shown(Box<[String; 2]>),
}

/// One of [`Ends`], as listings and log lines show it.
#[derive(Clone, Copy, Debug)]
pub enum End<'e> {
    /// An address of IPv4.
    V4(SocketAddrV4),
    /// Anything else.
    Shown(&'e str),
}

impl Ends {
    /// Those of a socket that is connected.
    pub fn of(socket: &Socket) -> Self {
        match socket {
            Socket::Tcp(stream) => match [stream.peer_addr(), stream.local_addr()] {
                [Ok(SocketAddr::V4(peer)), Ok(SocketAddr::V4(local))] => Self::V4([peer, local]),
                both => Self::Shown(Box::new(
                    both.map(|end| end.map_or_else(|_| "?".to_owned(), |address| address.to_string())),
                )),
            },
            Socket::Unix(stream) => {
                let path = stream
                    .local_addr()
                    .ok()
                    .and_then(|address| address.as_pathname().map(|path| path.display().to_string()));
                let shown = format!("{}:0", path.as_deref().unwrap_or("?"));
                Self::Shown(Box::new([shown.clone(), shown]))
            }
        }
    }

    /// The peer's.
    pub fn peer(&self) -> End<'_> {
        self.both()[0]
    }

    /// The peer's, then our own.
    pub fn both(&self) -> [End<'_>; 2] {
        match self {
            Self::V4(both) => both.map(End::V4),
            Self::Shown(both) => [End::Shown(&both[0]), End::Shown(&both[1])],
        }
    }
}

impl fmt::Display for End<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(formatter),
            Self::Shown(text) => text.fmt(formatter),
        }
    }
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

/// Why a system call failed that was to reach a shard, as the core knows it.
pub fn failure(error: &io::Error) -> ShardFailure {
    match error.kind() {
        _ if is_local(error) => ShardFailure::LocalResources(error.to_string()),
        ErrorKind::ConnectionRefused => ShardFailure::ConnectRefused,
        ErrorKind::TimedOut => ShardFailure::ConnectTimeout,
        _ => ShardFailure::ConnectFailed(error.to_string()),
    }
}

/// Whether it is our own process or machine that has no more of something: descriptors, memory, local ports
/// (EADDRNOTAVAIL), sockets that epoll may watch (ENOSPC).
pub fn is_local(error: &io::Error) -> bool {
    let Some(code) = error.raw_os_error() else { return error.kind() == ErrorKind::OutOfMemory };
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL, Errno::NOSPC];
    ours.iter().any(|errno| errno.raw_os_error() == code)
}

impl Socket {
    /// Reads once into the room behind `scratch`. Straight to the kernel: the C library makes these calls points of
    /// cancellation, which costs some percent of a small request.
    #[inline]
    pub fn read(&self, scratch: &mut BytesMut) -> io::Result<Read> {
        let room = (scratch.capacity() - scratch.len()).min(READ_MAX);
        let count = match rustix::io::read(self, &mut scratch.spare_capacity_mut()[..room]) {
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

    /// Reads once, to no purpose but that it is gone.
    pub fn discard(&self, room: &mut [u8]) -> io::Result<Read> {
        let length = room.len();
        match rustix::io::read(self, room) {
            Ok(0) => Ok(Read::Ended),
            Ok(count) if count < length => Ok(Read::Drained),
            Ok(_) | Err(Errno::INTR) => Ok(Read::Full),
            Err(Errno::AGAIN) => Ok(Read::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes as much of `output` as the kernel takes.
    #[inline]
    pub fn write(&self, output: &mut Output) -> io::Result<()> {
        while !output.is_empty() {
            let (written, length) = match output.whole() {
                // Small messages are one piece: they need no table of vectors, which takes as long as to decode one.
                Some(whole) => (rustix::net::send(self, whole, SendFlags::NOSIGNAL), whole.len()),
                None => self.write_vectors(output),
            };
            let count = match written {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => count,
                Err(Errno::AGAIN) => 0,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            output.advance(count);
            if count < length {
                // No room is left; the socket becomes ready when there is.
                output.settle();
                return Ok(());
            }
        }
        Ok(())
    }

    /// Writes the first pieces of `output` in one call; the second number is how many bytes were tried.
    fn write_vectors(&self, output: &Output) -> (rustix::io::Result<usize>, usize) {
        let mut vectors = [IoSlice::new(&[]); VECTORS_MAX];
        let used = output.vectors(&mut vectors);
        let length = vectors[..used].iter().map(|vector| vector.len()).sum();
        // The standard library has SIGPIPE ignored.
        (rustix::io::writev(self, &vectors[..used]), length)
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
    pub fn finish(&self) {
        let socket = self.reference();
        // It may be closed already, which is as good.
        let _ = socket.shutdown(Shutdown::Write);
    }

    /// The address it leads to, if it has one.
    pub fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip()),
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
        asked == 0 && left == 0
    }

    fn reference(&self) -> socket2::SockRef<'_> {
        match self {
            Self::Tcp(stream) => socket2::SockRef::from(stream),
            Self::Unix(stream) => socket2::SockRef::from(stream),
        }
    }
}

impl AsFd for Socket {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_process_lacks_is_told_from_what_a_shard_does() {
        for code in
            [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EADDRNOTAVAIL, libc::ENOSPC]
        {
            let failure = failure(&io::Error::from_raw_os_error(code));
            assert!(matches!(failure, ShardFailure::LocalResources(_)), "{failure}");
        }
        let refused = failure(&io::Error::from_raw_os_error(libc::ECONNREFUSED));
        assert_eq!(refused, ShardFailure::ConnectRefused);
        let unreachable = failure(&io::Error::from_raw_os_error(libc::EHOSTUNREACH));
        assert!(matches!(unreachable, ShardFailure::ConnectFailed(_)), "{unreachable}");
    }
}
