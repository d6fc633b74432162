//! Listening, and dealing accepted clients to workers.
//!
//! One thread accepts for all workers: clients of caches keep few connections for long, and the kernel's hashing
//! (SO_REUSEPORT) spreads few of them unevenly. Each goes to the worker with the fewest.

use std::io::{self, Write as _};
use std::net::ToSocketAddrs as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use socket2::{Domain, SockAddr, Type};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use super::brake::Brake;
use super::pools::PoolControl;
use crate::config::{self, Listen};
use crate::metrics::PoolCounters;
use crate::worker::Order;
use crate::worker::log_limit::warn_limited;
use crate::worker::socket::Socket;

/// Pause after an accept that failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    /// Takes the address that the pool's configuration names. With `beside` a listener of this process may have it, or
    /// one that overlaps; see [`Listener::tolerate`].
    pub fn new(pool: &config::Pool, beside: bool) -> anyhow::Result<Self> {
        let (socket, file) = match &pool.listen {
            Listen::Tcp { host, port } => {
                let address = (host.as_str(), *port)
                    .to_socket_addrs()
                    .with_context(|| format!("cannot resolve {host}"))?
                    .next()
                    .with_context(|| format!("{host} has no address"))?;
                let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.set_reuse_port(pool.reuseport || beside)?;
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
        Ok(Self { socket, file, backlog: i32::try_from(pool.backlog).unwrap_or(i32::MAX) })
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

    async fn accept(&self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Replies are small and awaited.
                let _ = stream.set_nodelay(true);
                Socket::Tcp(stream.into_std()?)
            }
            Self::Unix { listener, .. } => Socket::Unix(listener.accept().await?.0.into_std()?),
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
                anyhow::bail!("{} is in use by another process; listen elsewhere", path.display());
            }
            Ok(std::fs::remove_file(path)?)
        }
        Ok(_) => {
            anyhow::bail!("{} exists and is not a socket; remove it or listen elsewhere", path.display())
        }
        Err(_) => Ok(()),
    }
}

/// Accepts clients of a pool until told to close; then takes those that the kernel has already accepted, of which there are
/// no more than may wait.
pub async fn accept(listener: Rc<Listener>, pool: Rc<PoolControl>, mut closed: watch::Receiver<bool>) {
    let mut brake = Brake::new(Instant::now());
    let mut left = None;
    loop {
        if *closed.borrow() {
            match left.get_or_insert(pool.config().backlog) {
                0 => return,
                left => *left -= 1,
            }
        }
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            _ = closed.wait_for(|closed| *closed) => return,
        };
        match accepted {
            Ok(accepted) => {
                let begin = Instant::now();
                if !deal(&pool, accepted).await {
                    // Others may refuse as well; nobody waits for a place here.
                    let now = Instant::now();
                    tokio::time::sleep(brake.spent(now - begin, now)).await;
                }
            }
            Err(error) => {
                warn_limited!(pool = %pool.config().name, %error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Hands a client to the worker that has the fewest; false if it is refused.
async fn deal(pool: &PoolControl, accepted: Socket) -> bool {
    let (config, counters) = (pool.config(), pool.counters());
    let open = |worker: usize| pool.dealt[worker].get().saturating_sub(gone(&counters.workers()[worker]));
    let total: u64 = (0..pool.dealt.len()).map(open).sum();
    if config.client_connections.is_some_and(|most| total >= u64::from(most)) {
        counters.client_refused.add(1);
        warn_limited!(pool = %config.name, clients = total, "client_connections reached; client refused");
        refuse(accepted, config.protocol);
        return false;
    }
    let number = u64::from(accepted.as_fd().as_raw_fd().unsigned_abs());
    if !pool.descriptors.admits(number) {
        counters.client_refused.add(1);
        let (limit, reserved) = (pool.descriptors.limit(), pool.descriptors.reserved());
        warn_limited!(
            pool = %config.name, clients = total, limit, reserved,
            "no open files left for clients; client refused; raise the limit (ulimit -n, LimitNOFILE)"
        );
        refuse(accepted, config.protocol);
        return false;
    }
    let worker = (0..pool.dealt.len()).min_by_key(|&worker| open(worker)).expect("there is a worker");
    pool.dealt[worker].set(pool.dealt[worker].get() + 1);
    pool.orders[worker].send(Order::Serve(accepted)).await;
    true
}

/// Clients of one worker that have come and gone.
fn gone(counters: &PoolCounters) -> u64 {
    let connected = u64::try_from(counters.client_connections.get()).unwrap_or(0);
    counters.client_connections_total.get().saturating_sub(connected)
}

/// Says why, in the words of the server, and closes. A client that does not read at once gets no reason.
fn refuse(accepted: Socket, protocol: config::Protocol) {
    let reason: &[u8] = match protocol {
        config::Protocol::Redis => b"-ERR max number of clients reached\r\n",
        config::Protocol::Memcache => b"ERROR Too many open connections\r\n",
    };
    let _ = match accepted {
        Socket::Tcp(mut stream) => stream.write(reason),
        Socket::Unix(mut stream) => stream.write(reason),
    };
}
