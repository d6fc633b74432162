//! Addresses that clients connect to: taken first, listened on once all of them are.

use std::io;
use std::net::ToSocketAddrs as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use socket2::{Domain, SockAddr, Type};
use tokio::net::{TcpListener, UnixListener};

use super::socket::Socket;
use crate::config::Listen;

/// An address taken; nobody can connect yet.
pub struct Bound {
    socket: socket2::Socket,
    file: Option<SocketFile>,
    backlog: i32,
}

/// A socket that clients connect to.
pub enum Listener {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over a Unix socket, whose file goes with it.
    Unix { listener: UnixListener, _file: SocketFile },
}

/// The file of a Unix socket, removed when dropped unless another one has taken its place.
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    /// Of a socket just bound there.
    pub fn new(path: PathBuf) -> Self {
        Self { identity: Self::identity(&path), path }
    }

    fn identity(path: &Path) -> Option<(u64, u64)> {
        std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
    }
}

impl Bound {
    /// Takes the address. With `shared` another listener may have it, or one that overlaps; see [`Listener::tolerate`].
    pub fn new(at: &Listen, shared: bool, backlog: u32) -> anyhow::Result<Self> {
        let (socket, file) = match at {
            Listen::Tcp { host, port } => {
                let address = (host.as_str(), *port)
                    .to_socket_addrs()
                    .with_context(|| format!("cannot resolve {host}"))?
                    .next()
                    .with_context(|| format!("{host} has no address"))?;
                let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.set_reuse_port(shared)?;
                socket.bind(&address.into())?;
                (socket, None)
            }
            Listen::Unix { path, mode } => {
                remove_stale(path)?;
                let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.bind(&SockAddr::unix(path)?)?;
                let file = SocketFile::new(path.clone());
                if let Some(mode) = mode {
                    std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode))?;
                }
                (socket, Some(file))
            }
        };
        socket.set_nonblocking(true)?;
        Ok(Self { socket, file, backlog: i32::try_from(backlog).unwrap_or(i32::MAX) })
    }

    /// Clients can connect from now on. Must be called inside a runtime.
    pub fn listen(self) -> io::Result<Listener> {
        let Self { socket, file, backlog } = self;
        socket.listen(backlog)?;
        Ok(match file {
            None => Listener::Tcp(TcpListener::from_std(socket.into())?),
            Some(file) => Listener::Unix { listener: UnixListener::from_std(socket.into())?, _file: file },
        })
    }
}

impl Listener {
    /// Whether another listener of this user may have an address that overlaps, such as 0.0.0.0 and 127.0.0.1 with the
    /// same port. Asked for while the other one takes it.
    pub fn tolerate(&self, others: bool) {
        if let Self::Tcp(listener) = self {
            // The kernel then refuses the other one, which is told.
            let _ = socket2::SockRef::from(listener).set_reuse_port(others);
        }
    }

    /// So many clients may wait to be accepted from now on.
    pub fn set_backlog(&self, backlog: u32) {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        let _ = match self {
            Self::Tcp(listener) => socket2::SockRef::from(listener).listen(backlog),
            Self::Unix { listener, .. } => socket2::SockRef::from(listener).listen(backlog),
        };
    }

    /// The next client that has connected.
    pub async fn accept(&self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Replies are small and awaited.
                let _ = stream.set_nodelay(true);
                stream.into_std()?.into()
            }
            Self::Unix { listener, .. } => listener.accept().await?.0.into_std()?.into(),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if Self::identity(&self.path) == self.identity {
            // Gone already is as good.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A socket left behind by an earlier process is in the way; anything else there is not ours to remove.
pub fn remove_stale(path: &Path) -> anyhow::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                anyhow::bail!("{} is in use by another process; use another address", path.display());
            }
            Ok(std::fs::remove_file(path)?)
        }
        Ok(_) => {
            anyhow::bail!("{} exists and is not a socket; remove it or use another address", path.display())
        }
        Err(_) => Ok(()),
    }
}
