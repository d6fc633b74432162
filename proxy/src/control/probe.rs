//! One question to one shard on a connection of its own: are you well?

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use redis_protocol::codec::Resp2;
use redis_protocol::resp2::types::BytesFrame;
use shard_discovery::Address;
use shard_discovery::resolver::Resolver;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::codec::{Framed, LinesCodec};

use super::connect::connect;
use crate::config;
use crate::protocol::resp::is_needless_password;
use crate::worker::socket::Socket;

/// A shard that takes longer is not well.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest answer of a memcached server that is looked at.
const LINE_MAX: usize = 1024;

/// Asks; an error says in words what is wrong.
pub async fn probe(address: &Address, names: &Resolver, config: &config::Pool) -> Result<(), String> {
    let limit = config.timeout.unwrap_or(PROBE_TIMEOUT).max(PROBE_TIMEOUT);
    let socket = connect(address, names, config).await.map_err(|failure| failure.to_string())?;
    let asked = async {
        match socket {
            Socket::Tcp(stream) => ask(from_std(TcpStream::from_std(stream))?, config).await,
            Socket::Unix(stream) => ask(from_std(UnixStream::from_std(stream))?, config).await,
        }
    };
    tokio::time::timeout(limit, asked).await.map_err(|_| "the probe timed out".to_owned())?
}

/// Asks a Redis shard for its name, which it tells as the address it announces to replicas; an error says that it is
/// another one, or none that says who it is. Nothing is left to be read on the connection.
pub async fn identify(socket: &Socket, address: &Address, config: &config::Pool) -> Result<(), String> {
    let (Address::Tcp { host, .. }, Socket::Tcp(stream)) = (address, socket) else { return Ok(()) };
    let stream = from_std(stream.try_clone().and_then(TcpStream::from_std))?;
    let asked = async {
        let mut framed = Framed::new(stream, Resp2::default());
        authenticate(&mut framed, config).await?;
        match exchange(&mut framed, &["CONFIG", "GET", "replica-announce-ip"]).await? {
            BytesFrame::Array(words) => match &words[..] {
                [_, BytesFrame::BulkString(name)] => Ok(String::from_utf8_lossy(name).into_owned()),
                _ => Err("it does not know replica-announce-ip".to_owned()),
            },
            _ => Err("it does not say who it is".to_owned()),
        }
    };
    let name = tokio::time::timeout(PROBE_TIMEOUT, asked)
        .await
        .map_err(|_| "it does not say who it is in time".to_owned())??;
    let plain = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
    if plain(&name) == plain(host) { Ok(()) } else { Err(format!("it is {name:?}, not {host:?}")) }
}

/// Asks a Redis shard whether it speaks RESP3; an error says in words why that cannot be known now.
pub async fn speaks_resp3(
    address: &Address,
    names: &Resolver,
    config: &config::Pool,
) -> Result<bool, String> {
    let socket = connect(address, names, config).await.map_err(|failure| failure.to_string())?;
    let asked = async {
        match socket {
            Socket::Tcp(stream) => greet(from_std(TcpStream::from_std(stream))?, config).await,
            Socket::Unix(stream) => greet(from_std(UnixStream::from_std(stream))?, config).await,
        }
    };
    tokio::time::timeout(PROBE_TIMEOUT, asked).await.map_err(|_| "the probe timed out".to_owned())?
}

async fn greet(stream: impl AsyncRead + AsyncWrite + Unpin, config: &config::Pool) -> Result<bool, String> {
    let mut framed = Framed::new(stream, Resp2::default());
    authenticate(&mut framed, config).await?;
    // The answer is RESP3 where it is a good one.
    let mut stream = framed.into_inner();
    stream.write_all(b"HELLO 3\r\n").await.map_err(|error| error.to_string())?;
    let mut answer = [0; 128];
    let length = stream.read(&mut answer).await.map_err(|error| error.to_string())?;
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    match answer.strip_prefix('-') {
        None if answer.is_empty() => Err("the shard closed the connection".into()),
        None => Ok(true),
        Some(words) if words.contains("unknown command") || words.starts_with("NOPROTO") => Ok(false),
        Some(words) => Err(words.trim_end().to_owned()),
    }
}

fn from_std<S>(stream: std::io::Result<S>) -> Result<S, String> {
    stream.map_err(|error| error.to_string())
}

async fn ask(stream: impl AsyncRead + AsyncWrite + Unpin, config: &config::Pool) -> Result<(), String> {
    match config.protocol {
        config::Protocol::Redis => ask_redis(stream, config).await,
        config::Protocol::Memcache => ask_memcached(stream).await,
    }
}

/// Any version will do.
async fn ask_memcached(stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), String> {
    let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(LINE_MAX));
    lines.send("version\r").await.map_err(|error| error.to_string())?;
    match lines.next().await {
        None => Err("the shard closed the connection".into()),
        Some(Err(error)) => Err(error.to_string()),
        Some(Ok(line)) if line.starts_with("VERSION ") => Ok(()),
        Some(Ok(line)) => Err(line),
    }
}

async fn ask_redis(stream: impl AsyncRead + AsyncWrite + Unpin, config: &config::Pool) -> Result<(), String> {
    let mut framed = Framed::new(stream, Resp2::default());
    authenticate(&mut framed, config).await?;
    request(&mut framed, &["PING"]).await
}

async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    framed: &mut Framed<S, Resp2>,
    config: &config::Pool,
) -> Result<(), String> {
    let Some(auth) = &config.auth else { return Ok(()) };
    let mut words = vec!["AUTH"];
    words.extend(auth.user.as_deref());
    words.push(auth.password.expose());
    request(framed, &words).await
}

/// Sends one request; any reply but an error will do.
async fn request<S: AsyncRead + AsyncWrite + Unpin>(
    framed: &mut Framed<S, Resp2>,
    words: &[&str],
) -> Result<(), String> {
    match exchange(framed, words).await {
        Err(error) if !is_needless_password(error.as_bytes()) => Err(error),
        _ => Ok(()),
    }
}

/// Sends one request; its reply, or the words of the error.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    framed: &mut Framed<S, Resp2>,
    words: &[&str],
) -> Result<BytesFrame, String> {
    let words = words.iter().map(|word| BytesFrame::BulkString(word.as_bytes().to_vec().into())).collect();
    framed.send(BytesFrame::Array(words)).await.map_err(|error| error.to_string())?;
    match framed.next().await {
        None => Err("the shard closed the connection".into()),
        Some(Err(error)) => Err(error.to_string()),
        Some(Ok(BytesFrame::Error(words))) => Err(words.to_string()),
        Some(Ok(reply)) => Ok(reply),
    }
}
