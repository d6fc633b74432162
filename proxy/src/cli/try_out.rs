//! `memstore try`: is a store there, and does it keep what it is given? What a chart's tests ask, in images without a shell.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, anyhow, bail, ensure};
use clap::Args;
use redis_protocol::resp2::types::BytesFrame;
use shard_discovery::Address;
use shard_discovery::resolver::{Resolver, ResolverOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::common::{Tls, print};
use crate::config::{self, Auth, ShardTls, value};
use crate::net::connect::{connect_to, secure};
use crate::net::conversation::{Conversation, Stream, stream};
use crate::net::socket::Socket;
use crate::secret::Secret;

/// How long connecting, or one answer, may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Pause before it is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// Seconds until a value that could not be removed removes itself.
const EXPIRES: &str = "60";

/// Arguments of `memstore try`.
#[derive(Args)]
pub struct Try {
    /// host:port of a proxy or shard; several can be given
    #[arg(required = true, value_name = "HOST:PORT")]
    addresses: Vec<String>,
    /// Use the memcached text protocol instead of RESP
    #[arg(long)]
    memcached: bool,
    /// User name for authentication
    #[arg(long, value_name = "NAME", requires = "auth_file")]
    user: Option<String>,
    /// File that contains the password
    #[arg(long, value_name = "FILE")]
    auth_file: Option<PathBuf>,
    #[command(flatten)]
    tls: Tls,
    /// How long to retry
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = value::duration)]
    limit: Duration,
}

/// Writes a value through each address, reads it back and removes it; an error says where that did not work.
pub fn try_out(asked: &Try) -> anyhow::Result<()> {
    let password = asked.auth_file.as_deref().map(Secret::of_file).transpose()?;
    let auth = password.map(|password| Auth { user: asked.user.clone(), password, previous: None });
    let tls = asked.tls.read(!asked.memcached)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut text = String::new();
    for address in &asked.addresses {
        let begin = Instant::now();
        loop {
            let attempt = Instant::now();
            match runtime.block_on(once(address, auth.as_ref(), tls.as_ref(), asked.memcached)) {
                Ok(()) => {
                    break text
                        .push_str(&format!("{address}: written and read in {:?}\n", attempt.elapsed()));
                }
                Err(error) if begin.elapsed() > asked.limit => return Err(error.context(address.clone())),
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }
    print(&text)
}

async fn once(
    address: &str,
    auth: Option<&Auth>,
    tls: Option<&ShardTls>,
    memcached: bool,
) -> anyhow::Result<()> {
    let Some(address @ Address::Tcp { host, port }) = &config::address(address) else {
        bail!("{address:?}: allowed is host:port");
    };
    let names = Resolver::new(&ResolverOptions::default())?;
    let found = names.addresses(host).await?;
    let places = found.into_iter().map(|address| SocketAddr::new(address, *port));
    let connected = async {
        let (socket, _) = connect_to(places, ANSWER_LIMIT).await?;
        secure(socket, tls, address, ANSWER_LIMIT).await
    };
    let socket = connected.await.map_err(|failure| anyhow!("{failure}"))?;
    exchange(socket, auth, memcached).await
}

async fn exchange(socket: Socket, auth: Option<&Auth>, memcached: bool) -> anyhow::Result<()> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    // Nobody else has it: not another run, and not the application.
    let key = format!("memstore:try:{}:{}", std::process::id(), since.as_nanos());
    let value = "kept";
    if memcached {
        let mut stream = stream(socket)?;
        let size = value.len();
        say(&mut *stream, &format!("set {key} 0 {EXPIRES} {size}\r\n{value}\r\n"), "STORED\r\n").await?;
        let found = format!("VALUE {key} 0 {size}\r\n{value}\r\nEND\r\n");
        say(&mut *stream, &format!("get {key}\r\n"), &found).await?;
        return say(&mut *stream, &format!("delete {key}\r\n"), "DELETED\r\n").await;
    }
    let mut conversation = Conversation::over(socket, ANSWER_LIMIT)?;
    conversation.authenticate(auth).await?;
    conversation.ask(&["SET", &key, value, "EX", EXPIRES]).await?;
    let read = conversation.ask(&["GET", &key]).await?;
    ensure!(read == BytesFrame::BulkString(value.into()), "wrote {value:?} but read {read:?}");
    conversation.ask(&["DEL", &key]).await?;
    Ok(())
}

/// Sends a request to a memcached server, which has to answer so.
async fn say(stream: &mut dyn Stream, request: &str, expected: &str) -> anyhow::Result<()> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while answer != expected.as_bytes() {
        let read = timeout(ANSWER_LIMIT, stream.read_buf(&mut answer)).await.context("no answer")??;
        ensure!(read > 0, "connection closed");
        let so_far = String::from_utf8_lossy(&answer);
        ensure!(expected.starts_with(&*so_far), "unexpected answer {so_far:?} instead of {expected:?}");
    }
    Ok(())
}
