//! Making connections to shards for all workers, which never wait for one.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use shard_discovery::Address;
use shard_discovery::resolver::{ResolveError, Resolver};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::config;
use crate::pool::failure::ShardFailure;
use crate::worker::socket::Socket;

/// How long a connection to a shard may be idle before the kernel probes it.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// A connection that is not there by then may never be: the name is looked up again, as often as that passes.
const SILENT: Duration = Duration::from_millis(100);
/// How long data may stay unacknowledged by a shard's host before the connection is given up.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// Connects to a shard within `connect_timeout`. Where it is not found, or silent, its name is looked up again, and what is
/// new is tried.
pub async fn connect(
    address: &Address,
    names: &Resolver,
    config: &config::Pool,
) -> Result<Socket, ShardFailure> {
    match timeout(config.connect_timeout, attempt(address, names, config)).await {
        Ok(result) => result,
        Err(_) => Err(ShardFailure::ConnectTimeout),
    }
}

async fn attempt(address: &Address, names: &Resolver, config: &config::Pool) -> Result<Socket, ShardFailure> {
    let (host, port) = match address {
        Address::Unix(path) => {
            return match UnixStream::connect(path).await.and_then(UnixStream::into_std) {
                Ok(stream) => Ok(Socket::Unix(stream)),
                Err(error) => Err(failure(&error)),
            };
        }
        Address::Tcp { host, port } => (host, *port),
    };
    let unresolved = |error: ResolveError| ShardFailure::Unresolved(error.to_string());
    let port = match &config.servers_srv {
        Some(service) => names.port(service, host).await.map_err(unresolved)?,
        None => port,
    };
    let mut known: Vec<SocketAddr> = at(names.addresses(host).await.map_err(unresolved)?, port);
    let look_up = async || {
        let port = match &config.servers_srv {
            Some(service) => names.refresh_port(service, host).await?,
            None => port,
        };
        names.refresh(host).await.map(|found| at(found, port))
    };
    let mut trying = Box::pin(first_of(known.clone()));
    loop {
        let later = async {
            tokio::time::sleep(SILENT).await;
            look_up().await
        };
        tokio::select! {
            result = &mut trying => {
                let failure = match result {
                    Ok(socket) => return Ok(socket),
                    Err(failure) => failure,
                };
                let mut found = look_up().await.map_err(unresolved)?;
                found.retain(|address| !known.contains(address));
                if found.is_empty() {
                    return Err(failure);
                }
                known.extend(&found);
                trying = Box::pin(first_of(found));
            }
            // An address that nobody has any more refuses nothing: it is silent.
            found = later => {
                if let Ok(found) = found && !found.iter().any(|address| known.contains(address)) {
                    known.clone_from(&found);
                    trying = Box::pin(first_of(found));
                }
            }
        }
    }
}

/// A connection to the first of the addresses that takes one.
async fn first_of(addresses: Vec<SocketAddr>) -> Result<Socket, ShardFailure> {
    let mut last = ShardFailure::Unresolved("the name has no address".into());
    for address in addresses {
        match to_address(address).await {
            Ok(socket) => return Ok(socket),
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

fn at(addresses: Vec<IpAddr>, port: u16) -> Vec<SocketAddr> {
    addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect()
}

async fn to_address(address: SocketAddr) -> Result<Socket, ShardFailure> {
    match TcpStream::connect(address).await.and_then(TcpStream::into_std) {
        Ok(stream) => {
            let _ = stream.set_nodelay(true);
            let socket = Socket::Tcp(stream);
            socket.keep_alive(KEEPALIVE, Some(UNACKNOWLEDGED_MAX));
            Ok(socket)
        }
        Err(error) => Err(failure(&error)),
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
