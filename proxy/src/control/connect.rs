//! Making connections to shards for all workers: lookups run on threads of their own, and nobody waits for them.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use shard_discovery::Address;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

use crate::pool::failure::ShardFailure;
use crate::worker::socket::Socket;

/// How long a connection to a shard may be idle before the kernel probes it.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How long data may stay unacknowledged by a shard's host before the connection is given up.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// A connection, and the addresses its host name stood for.
pub struct Connected {
    /// The connection.
    pub socket: Socket,
    /// What the lookup said; empty where none was needed.
    pub resolved: Vec<SocketAddr>,
}

/// Connects to a shard within `limit`. `known` are the addresses of the last successful lookup: they are tried where the
/// name cannot be resolved now, because a name server that is away does not mean that the shard is.
pub async fn connect(
    address: &Address,
    known: Vec<SocketAddr>,
    limit: Duration,
) -> Result<Connected, ShardFailure> {
    match timeout(limit, attempt(address, known, limit)).await {
        Ok(result) => result,
        Err(_) => Err(ShardFailure::ConnectTimeout),
    }
}

async fn attempt(
    address: &Address,
    known: Vec<SocketAddr>,
    limit: Duration,
) -> Result<Connected, ShardFailure> {
    match address {
        Address::Unix(path) => match UnixStream::connect(path).await.and_then(UnixStream::into_std) {
            Ok(stream) => Ok(Connected { socket: Socket::Unix(stream), resolved: Vec::new() }),
            Err(error) => Err(failure(&error)),
        },
        Address::Tcp { host, port } => {
            // Half of the time for the lookup, so that the last known address still gets its chance.
            let found = timeout(limit / 2, lookup_host((host.as_str(), *port))).await;
            let addresses = match found {
                Ok(Ok(found)) => found.collect(),
                Ok(Err(_)) | Err(_) if !known.is_empty() => known,
                Ok(Err(error)) => return Err(ShardFailure::Unresolved(error.to_string())),
                Err(_) => return Err(ShardFailure::Unresolved("the lookup timed out".into())),
            };
            let mut last = ShardFailure::Unresolved("the name has no address".into());
            for address in &addresses {
                match TcpStream::connect(address).await.and_then(TcpStream::into_std) {
                    Ok(stream) => {
                        let _ = stream.set_nodelay(true);
                        let socket = Socket::Tcp(stream);
                        socket.keep_alive(KEEPALIVE, Some(UNACKNOWLEDGED_MAX));
                        return Ok(Connected { socket, resolved: addresses });
                    }
                    Err(error) => last = failure(&error),
                }
            }
            Err(last)
        }
    }
}

/// A failed connect as the core knows it.
fn failure(error: &io::Error) -> ShardFailure {
    match error.kind() {
        ErrorKind::ConnectionRefused => ShardFailure::ConnectRefused,
        ErrorKind::TimedOut => ShardFailure::ConnectTimeout,
        _ => ShardFailure::ConnectFailed(error.to_string()),
    }
}
