//! `memstore try`: is a store there, and does it keep what it is given? And `memstore await-ring`: have all proxies left the
//! shards that are to go? What a chart's tests and hooks ask, in images without a shell.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use futures_util::{SinkExt as _, StreamExt as _};
use redis_protocol::resp2::types::BytesFrame;
use shard_discovery::resolver::{Resolver, ResolverOptions};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::{Framed, LinesCodec};

use crate::admin;
use crate::config::{self, Auth, Secret, value};
use crate::conversation::Conversation;
use crate::worker::socket::Socket;

/// How long connecting, or one answer, may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// A proxy that has not answered for so long does not run.
const SILENT_MAX: Duration = Duration::from_secs(30);
/// However short the limit is, one attempt may take so long.
const ONCE_MIN: Duration = Duration::from_secs(1);
/// Pause before it is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// Seconds until a value that could not be removed removes itself.
const EXPIRES: &str = "60";
/// Longest line of a memcached server that is looked at.
const LINE_MAX: usize = 1024;

/// Arguments of `memstore try`.
#[derive(Args)]
pub struct Try {
    /// host:port of a proxy or shard; each is tried
    #[arg(required = true, value_name = "HOST:PORT")]
    addresses: Vec<String>,
    /// It speaks memcached's text protocol; else RESP
    #[arg(long)]
    memcached: bool,
    /// User that is named beside the password
    #[arg(long, value_name = "NAME", requires = "auth_file")]
    user: Option<String>,
    /// File with the password
    #[arg(long, value_name = "FILE")]
    auth_file: Option<PathBuf>,
    /// How long it is tried again
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = value::duration)]
    limit: Duration,
}

/// Arguments of `memstore await-ring`.
#[derive(Args)]
pub struct AwaitRing {
    /// A name that stands for the admin addresses of all proxies, and their port
    #[arg(long, value_name = "HOST:PORT")]
    proxies: String,
    /// The pool
    #[arg(long)]
    pool: String,
    /// The list of its shards from now on, as servers_file has it
    #[arg(long, value_name = "FILE")]
    servers: PathBuf,
    /// How long that may take
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = value::duration)]
    limit: Duration,
}

/// Writes a value through each address, reads it back and removes it; an error says where that did not work.
pub fn try_out(asked: &Try) -> anyhow::Result<String> {
    let password = asked.auth_file.as_deref().map(Secret::of_file).transpose()?;
    let auth = password.map(|password| Auth { user: asked.user.clone(), password, previous: None });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut text = String::new();
    for address in &asked.addresses {
        let begin = Instant::now();
        loop {
            let attempt = Instant::now();
            match runtime.block_on(once(address, auth.as_ref(), asked.memcached)) {
                Ok(()) => {
                    break text
                        .push_str(&format!("{address}: written and read in {:?}\n", attempt.elapsed()));
                }
                Err(error) if begin.elapsed() > asked.limit => return Err(error.context(address.clone())),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }
    Ok(text)
}

async fn once(address: &str, auth: Option<&Auth>, memcached: bool) -> anyhow::Result<()> {
    let mut last = anyhow::anyhow!("the name has no address");
    for place in places(address).await? {
        match timeout(ANSWER_LIMIT, TcpStream::connect(place)).await {
            Ok(Ok(stream)) => return exchange(stream, auth, memcached).await,
            Ok(Err(error)) => last = error.into(),
            Err(_) => last = anyhow::anyhow!("{place} does not take the connection"),
        }
    }
    Err(last)
}

/// Addresses behind `host:port` now.
async fn places(address: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let Some(shard_discovery::Address::Tcp { host, port }) = config::address(address) else {
        bail!("{address:?}: allowed is host:port");
    };
    let names = Resolver::new(&ResolverOptions::default())?;
    let found = names.addresses(&host).await?;
    Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

async fn exchange(stream: TcpStream, auth: Option<&Auth>, memcached: bool) -> anyhow::Result<()> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    // Nobody else has it: not another run, and not the application.
    let key = format!("memstore:try:{}:{}", std::process::id(), since.as_nanos());
    let value = "kept";
    if memcached {
        let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(LINE_MAX));
        let size = value.len();
        say(&mut lines, &format!("set {key} 0 {EXPIRES} {size}\r\n{value}"), &["STORED"]).await?;
        say(&mut lines, &format!("get {key}"), &[&format!("VALUE {key} 0 {size}"), value, "END"]).await?;
        return say(&mut lines, &format!("delete {key}"), &["DELETED"]).await;
    }
    let mut conversation = Conversation::over(Socket::Tcp(stream.into_std()?), ANSWER_LIMIT)?;
    conversation.authenticate(auth).await?;
    conversation.ask(&["SET", &key, value, "EX", EXPIRES]).await?;
    let read = conversation.ask(&["GET", &key]).await?;
    ensure!(read == BytesFrame::BulkString(value.into()), "it was given {value:?} and gives {read:?} back");
    conversation.ask(&["DEL", &key]).await?;
    Ok(())
}

/// Says a line to a memcached server, which has to answer with these.
async fn say(lines: &mut Framed<TcpStream, LinesCodec>, line: &str, expected: &[&str]) -> anyhow::Result<()> {
    // The codec ends a line with LF alone, which memcached takes for CRLF.
    lines.send(format!("{line}\r")).await?;
    for expected in expected {
        let answer = timeout(ANSWER_LIMIT, lines.next()).await.context("it does not answer")?;
        let answer = answer.context("it closes the connection")??;
        ensure!(answer == *expected, "it says {answer:?} instead of {expected:?}");
    }
    Ok(())
}

/// Waits until no proxy has a shard that is not in the list; an error says which one still has.
pub fn await_ring(asked: &AwaitRing) -> anyhow::Result<String> {
    let meant: Vec<String> = config::servers(&asked.servers)?.into_iter().map(|shard| shard.name).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let begin = Instant::now();
    let until = begin + asked.limit.max(ONCE_MIN);
    let names = Resolver::new(&ResolverOptions::default())?;
    loop {
        let held_up = match runtime.block_on(proxies(&asked.proxies, &names)) {
            Ok(None) => return Ok(format!("{} has no address: no proxy runs\n", asked.proxies)),
            Ok(Some(found)) => {
                let is_late = begin.elapsed() > SILENT_MAX;
                let behind =
                    found.iter().find_map(|proxy| match leftover(proxy, &asked.pool, &meant, until) {
                        Ok(left) => left.map(|shard| format!("{proxy} still sends requests to {shard}")),
                        // It serves nobody: one that does not start must not keep what mends it from being installed.
                        Err(error) if is_late || is_refused(&error) => None,
                        Err(error) => Some(format!("{proxy}: {error:#}")),
                    });
                match behind {
                    None => {
                        return Ok(format!(
                            "none of {} proxies sends requests to other shards\n",
                            found.len()
                        ));
                    }
                    Some(reason) => reason,
                }
            }
            Err(error) => format!("{error:#}"),
        };
        ensure!(begin.elapsed() < asked.limit, "the ring is not adopted: {held_up}");
        std::thread::sleep(PAUSE);
    }
}

/// Admin addresses of all proxies; none if there are none.
async fn proxies(name: &str, names: &Resolver) -> anyhow::Result<Option<Vec<SocketAddr>>> {
    let Some(shard_discovery::Address::Tcp { host, port }) = config::address(name) else {
        bail!("--proxies {name}: allowed is host:port");
    };
    match names.refresh(&host).await {
        Ok(found) => Ok(Some(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_refused(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// A shard of a proxy's pool that is not among those that are meant.
fn leftover(
    proxy: &SocketAddr,
    pool: &str,
    meant: &[String],
    until: Instant,
) -> anyhow::Result<Option<String>> {
    let limit = until.saturating_duration_since(Instant::now()).min(ANSWER_LIMIT);
    let (status, body) = admin::ask(&proxy.to_string(), "GET", "/topology", None, limit)?;
    ensure!(status == 200, "/topology answers {status}");
    let document: shard_discovery::document::Document = serde_json::from_str(&body)?;
    let pool = document.pools.get(pool).with_context(|| format!("it has no pool {pool:?}"))?;
    let names: Vec<String> = pool.shards.iter().map(|shard| shard.name.clone()).collect();
    // Other names are another ring, which proxies take over as a whole, later.
    let is_part = meant.iter().all(|name| names.contains(name));
    Ok(names.into_iter().find(|name| is_part && !meant.contains(name)))
}
