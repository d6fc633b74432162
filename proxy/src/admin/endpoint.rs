//! Where the admin server is reached, and who is at the other end: a port, or a Unix socket.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::Pin;

use socket2::{Domain, SockAddr, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use crate::config::SideListen;
use crate::net::listen::{SocketFile, remove_stale};

/// Connections of a Unix socket that wait to be accepted.
const BACKLOG: i32 = 128;

/// An address taken. Both kinds are not blocking.
pub enum Endpoint {
    /// A port.
    Tcp(std::net::TcpListener),
    /// A Unix socket, and its file until somebody takes that.
    Unix(std::os::unix::net::UnixListener, Option<SocketFile>),
}

/// Who asks.
#[derive(Clone, Copy)]
pub enum Peer {
    /// Somebody at this address.
    Tcp(SocketAddr),
    /// Somebody who may open the Unix socket.
    Unix,
}

impl Peer {
    /// Where it is; none over a Unix socket.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix => formatter.write_str("unix"),
        }
    }
}

impl Endpoint {
    /// Takes the address.
    pub fn bind(listen: &SideListen) -> anyhow::Result<Self> {
        if let Some(path) = listen.path() {
            return Self::bind_unix(path);
        }
        let listener = std::net::TcpListener::bind((listen.host.as_str(), listen.port))?;
        listener.set_nonblocking(true)?;
        Ok(Self::Tcp(listener))
    }

    /// Only for the user that the proxy runs as: whoever may open it may change the process.
    fn bind_unix(path: &Path) -> anyhow::Result<Self> {
        remove_stale(path)?;
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = SocketFile::new(path.to_owned());
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        socket.set_nonblocking(true)?;
        socket.listen(BACKLOG)?;
        Ok(Self::Unix(socket.into(), Some(file)))
    }

    /// Where it is.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(|_| "?".into(), |at| at.to_string()),
            Self::Unix(listener, _) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                path.map_or_else(|| "?".into(), |path| path.display().to_string())
            }
        }
    }

    /// The file of the Unix socket, which is removed when it is dropped. The thread that serves the socket never ends, so it
    /// is for whoever sees the end of the process.
    pub fn take_file(&mut self) -> Option<SocketFile> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(_, file) => file.take(),
        }
    }

    /// Must be called inside a runtime.
    pub fn listen(self) -> io::Result<Listener> {
        Ok(match self {
            Self::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener)?),
            Self::Unix(listener, _) => Listener::Unix(UnixListener::from_std(listener)?),
        })
    }
}

/// An endpoint that is served.
pub enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// A connection, over whatever it came.
pub trait Connection: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Connection for T {}

impl Listener {
    /// The next connection.
    pub async fn accept(&self) -> io::Result<(Pin<Box<dyn Connection>>, Peer)> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                (Box::pin(stream), Peer::Tcp(peer))
            }
            Self::Unix(listener) => (Box::pin(listener.accept().await?.0), Peer::Unix),
        })
    }
}
