//! Making connections to shards for all workers, which never wait for one.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use shard_discovery::Address;
use shard_discovery::resolver::{ResolveError, Resolver};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config;
use crate::failure::ShardFailure;
use crate::net::handshakes::{Peer, shake_hands, words};
use crate::net::socket::{Socket, failure, is_local};
use crate::net::tls::Tls;

/// How long a connection to a shard may be idle before the kernel probes it.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// A connection that is not there by then may never be: the name is looked up again, as often as that passes.
const SILENT: Duration = Duration::from_millis(100);
/// After so long an address is tried once more beside the first attempt, and then each time after twice as long: the packet
/// may be lost, and the kernel sends it again after 1, 3, 7 s only (tcp(7), tcp_syn_retries).
const ONCE_MORE: Duration = Duration::from_millis(250);
/// How long data may stay unacknowledged by a shard's host before the connection is given up.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// Connects to a shard within `connect_timeout`. Where it is not found, or silent, its name is looked up again, and what is
/// new is tried.
pub async fn connect(
    address: &Address,
    names: &Resolver,
    config: &config::Pool,
) -> Result<Socket, ShardFailure> {
    let (limit, begin) = (config.connect_timeout, Instant::now());
    let socket = match timeout(limit, attempt(address, names, config)).await {
        Ok(result) => result?,
        Err(_) => return Err(ShardFailure::ConnectTimeout),
    };
    secure(socket, config.servers_tls.as_ref(), address, limit.saturating_sub(begin.elapsed())).await
}

/// Puts TLS above a connection to this address, if that is wished for, within so long.
pub async fn secure(
    socket: Socket,
    tls: Option<&config::ShardTls>,
    address: &Address,
    left: Duration,
) -> Result<Socket, ShardFailure> {
    let Some(tls) = tls else { return Ok(socket) };
    let Some(session) = tls.session(address) else { return Ok(socket) };
    let session = Tls::new(session.map_err(ShardFailure::TlsFailed)?, None);
    let session = if tls.ends_alone { session.ending_alone() } else { session };
    let shaken = timeout(left, shake_hands(socket, session, left, Peer::Shard)).await;
    shaken.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())).map_err(|error| match is_local(&error) {
        true => ShardFailure::LocalResources(words(&error)),
        false => ShardFailure::TlsFailed(words(&error)),
    })
}

async fn attempt(address: &Address, names: &Resolver, config: &config::Pool) -> Result<Socket, ShardFailure> {
    let (host, port) = match address {
        Address::Unix(path) => {
            return match UnixStream::connect(path).await.and_then(UnixStream::into_std) {
                Ok(stream) => Ok(stream.into()),
                Err(error) => Err(failure(&error)),
            };
        }
        Address::Tcp { host, port } => (host, *port),
    };
    let unresolved = |error: ResolveError| match error.is_local() {
        true => ShardFailure::LocalResources(error.to_string()),
        false => ShardFailure::Unresolved(error.to_string()),
    };
    let port = match &config.servers_srv {
        Some(service) => names.port(service, host).await.map_err(unresolved)?,
        None => port,
    };
    let look_up = async || {
        let port = match &config.servers_srv {
            Some(service) => names.refresh_port(service, host).await?,
            None => port,
        };
        names.refresh(host).await.map(|found| at(found, port))
    };
    let mut waiting: VecDeque<SocketAddr> = at(names.addresses(host).await.map_err(unresolved)?, port).into();
    let mut known: Vec<SocketAddr> = waiting.iter().copied().collect();
    let mut trying = JoinSet::new();
    let mut last = ShardFailure::Unresolved("the name has no address".into());
    let begin = Instant::now();
    let mut once_more = ONCE_MORE;
    loop {
        if let Some(address) = waiting.pop_front() {
            trying.spawn_local(to_address(address));
        } else if trying.is_empty() {
            let found = look_up().await.map_err(unresolved)?;
            waiting.extend(found.into_iter().filter(|address| !known.contains(address)));
            if waiting.is_empty() {
                return Err(last);
            }
            known.extend(&waiting);
            continue;
        }
        // An address that nobody has any more refuses nothing: it is silent, and the next one is tried beside it.
        let later = async {
            tokio::time::sleep(SILENT).await;
            if waiting.is_empty() { look_up().await.unwrap_or_default() } else { Vec::new() }
        };
        tokio::select! {
            Some(done) = trying.join_next() => match done {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(failure)) => last = failure,
                Err(_) => {}
            },
            found = later => {
                let new: Vec<_> = found.into_iter().filter(|address| !known.contains(address)).collect();
                known.extend(&new);
                waiting.extend(new);
                if waiting.is_empty() && begin.elapsed() >= once_more {
                    once_more *= 2;
                    waiting.extend(&known);
                }
            }
        }
    }
}

/// Connects beside the data path to the first of these addresses at which somebody listens; each has so long.
pub async fn connect_to(
    addresses: impl IntoIterator<Item = SocketAddr>,
    limit: Duration,
) -> Result<(Socket, SocketAddr), ShardFailure> {
    let mut last = ShardFailure::Unresolved("the name has no address".into());
    for address in addresses {
        match timeout(limit, to_address(address)).await {
            Ok(Ok(socket)) => return Ok((socket, address)),
            Ok(Err(failure)) => last = failure,
            Err(_) => last = ShardFailure::ConnectTimeout,
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
            let socket = Socket::from(stream);
            socket.keep_alive(KEEPALIVE, Some(UNACKNOWLEDGED_MAX));
            socket.forget_unsent().map_err(|error| failure(&error))?;
            Ok(socket)
        }
        Err(error) => Err(failure(&error)),
    }
}
