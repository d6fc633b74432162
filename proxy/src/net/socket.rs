//! A connection, read into shared buffers and written from an [`Output`]: a socket of the kernel, or one with a [`Layer`]
//! above it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::BytesMut;
use rustix::io::Errno;

use super::layer::{Layer, Layered};
use super::plain::Plain;
use crate::account::Share;
use crate::buffer::Output;
use crate::failure::ShardFailure;

pub use super::plain::{READ_MAX, Read, Written};

/// One connection. Whoever reads, writes and closes it does not know which of them it is.
#[derive(Debug)]
pub enum Socket {
    /// What is said is what the kernel is given.
    Plain(Plain),
    /// There is something between.
    Layered(Box<Layered>),
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
        match socket.plain() {
            Plain::Tcp(stream) => match [stream.peer_addr(), stream.local_addr()] {
                [Ok(SocketAddr::V4(peer)), Ok(SocketAddr::V4(local))] => Self::V4([peer, local]),
                both => Self::Shown(Box::new(
                    both.map(|end| end.map_or_else(|_| "?".to_owned(), |address| address.to_string())),
                )),
            },
            Plain::Unix(stream) => {
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

impl End<'_> {
    /// The address, without a port; none of a Unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::V4(address) => Some((*address.ip()).into()),
            Self::Shown(text) => text.parse().ok().map(|address: SocketAddr| address.ip().to_canonical()),
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

/// Why a system call failed that was to reach a shard, as the core knows it.
pub fn failure(error: &io::Error) -> ShardFailure {
    match error.kind() {
        _ if is_local(error) => ShardFailure::LocalResources(error.to_string()),
        ErrorKind::ConnectionRefused => ShardFailure::ConnectRefused,
        ErrorKind::TimedOut => ShardFailure::ConnectTimeout,
        _ => ShardFailure::ConnectFailed(error.to_string()),
    }
}

/// Why a connection to a shard is lost from which nothing can be read. What the kernel does not say the transport says, in words.
pub fn lost(error: &io::Error) -> ShardFailure {
    match error.raw_os_error() {
        Some(_) => ShardFailure::Reset,
        None => ShardFailure::TlsFailed(error.to_string()),
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
    /// A socket of the kernel with a layer above it.
    pub fn layered(plain: Plain, layer: Box<dyn Layer>) -> Self {
        Self::Layered(Box::new(Layered::new(plain, layer)))
    }

    /// Whether there is a layer above the socket of the kernel.
    pub fn is_layered(&self) -> bool {
        matches!(self, Self::Layered(_))
    }

    /// Memory of the layer, beside what it [`Layer::held`]s.
    pub fn layer_memory(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Layered(layered) => layered.memory(),
        }
    }

    /// What the layer holds counts in this share from now on.
    pub fn join(&mut self, share: &Share) {
        if let Self::Layered(layered) = self {
            layered.join(share);
        }
    }

    /// Nothing is said or heard any more: what the layer holds is free.
    pub fn spend(&mut self) {
        if let Self::Layered(layered) = self {
            layered.spend();
        }
    }

    /// Writes these bytes where nobody waits for room; returns how many are on their way.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(plain) => plain.send(bytes),
            Self::Layered(layered) => {
                let mut output = Output::default();
                output.copy(bytes);
                layered.write(&mut output, bytes.len())?;
                Ok(bytes.len() - output.unsent().min(bytes.len()))
            }
        }
    }

    /// Reads once, at most so many bytes, into the room behind `scratch`.
    #[inline]
    pub fn read(&mut self, scratch: &mut BytesMut, most: usize) -> io::Result<Read> {
        match self {
            Self::Plain(plain) => plain.read(scratch, most),
            Self::Layered(layered) => layered.read(scratch, most),
        }
    }

    /// Reads once, to no purpose but that it is gone.
    pub fn discard(&mut self, room: &mut [u8]) -> io::Result<Read> {
        match self {
            Self::Plain(plain) => plain.discard(room),
            Self::Layered(layered) => layered.plain_mut().discard(room),
        }
    }

    /// Writes as much of `output` as there is room for, at most so many bytes.
    #[inline]
    pub fn write(&mut self, output: &mut Output, most: usize) -> io::Result<Written> {
        match self {
            Self::Plain(plain) => plain.write(output, most),
            Self::Layered(layered) => layered.write(output, most),
        }
    }

    /// Says that nothing more will be written. To be repeated when the socket is ready until nothing of that waits.
    pub fn finish(&mut self) -> Written {
        match self {
            Self::Plain(plain) => {
                plain.finish();
                Written::All
            }
            Self::Layered(layered) => layered.finish(),
        }
    }

    /// Whether the peer has sent something that was not read, its end too.
    pub fn has_unread(&self) -> bool {
        match self {
            Self::Plain(plain) => plain.has_unread(),
            Self::Layered(layered) => layered.unread() > 0 || layered.plain().has_unread(),
        }
    }

    /// Bytes that have come and were not read.
    pub fn waiting(&self) -> usize {
        match self {
            Self::Plain(plain) => plain.waiting(),
            Self::Layered(layered) => layered.unread() + layered.plain().waiting(),
        }
    }

    /// Whether the peer's host has acknowledged all that was written.
    pub fn has_delivered(&self) -> bool {
        match self {
            Self::Plain(plain) => plain.has_delivered(),
            Self::Layered(layered) => layered.held() == 0 && layered.plain().has_delivered(),
        }
    }

    /// As [`Plain::hold_back`].
    pub fn hold_back(&self, held: bool) {
        self.plain().hold_back(held);
    }

    /// The address it leads to, if it has one.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.plain().peer()
    }

    /// As [`Plain::keep_alive`].
    pub fn keep_alive(&self, idle: Duration, unanswered: Option<Duration>) {
        self.plain().keep_alive(idle, unanswered);
    }

    /// As [`Plain::forget_unsent`].
    pub fn forget_unsent(&self) -> io::Result<()> {
        self.plain().forget_unsent()
    }

    /// The socket of the kernel.
    #[inline]
    fn plain(&self) -> &Plain {
        match self {
            Self::Plain(plain) => plain,
            Self::Layered(layered) => layered.plain(),
        }
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(Plain::Tcp(stream))
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self::Plain(Plain::Unix(stream))
    }
}

impl AsFd for Socket {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.plain().as_fd()
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
        let alert = io::Error::other("received fatal alert: CertificateRequired");
        assert_eq!(lost(&alert).to_string(), "TLS failed: received fatal alert: CertificateRequired");
        assert_eq!(lost(&io::Error::from_raw_os_error(libc::ECONNRESET)), ShardFailure::Reset);
    }
}
