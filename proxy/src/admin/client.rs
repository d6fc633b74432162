//! The other side of the door, for `memstore drain` and its like: images without a shell need no other client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How long the proxy may take to answer; a reload waits for new shards.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest document of another process that is read.
const DOCUMENT_MAX: u64 = 16 << 20;

/// Asks the proxy at this address, or Unix socket; the status and the body.
pub fn ask(address: &str, method: &str, path: &str, token: Option<&str>) -> anyhow::Result<(u16, String)> {
    if address.starts_with('/') {
        let stream = UnixStream::connect(address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        return converse(stream, "localhost", method, path, token);
    }
    let resolved = address.to_socket_addrs()?.next().context("the name has no address")?;
    let stream = TcpStream::connect_timeout(&resolved, CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    // The address, since a name could be one that leads here from elsewhere.
    converse(stream, &resolved.to_string(), method, path, token)
}

fn converse(
    mut stream: impl Read + Write,
    host: &str,
    method: &str,
    path: &str,
    token: Option<&str>,
) -> anyhow::Result<(u16, String)> {
    stream.write_all(request(host, method, path, token).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    understand(&answer)
}

/// The topology document of another process; none if it does not tell it in time.
pub async fn topology_of(address: SocketAddr, limit: Duration) -> Option<serde_json::Value> {
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.write_all(request(&address.to_string(), "GET", "/topology", None).as_bytes()).await?;
        let mut answer = String::new();
        stream.take(DOCUMENT_MAX).read_to_string(&mut answer).await?;
        understand(&answer)
    };
    match tokio::time::timeout(limit, exchange).await {
        Ok(Ok((200, body))) => serde_json::from_str(&body).ok(),
        _ => None,
    }
}

fn request(address: &str, method: &str, path: &str, token: Option<&str>) -> String {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 0\r\n{authorization}\r\n"
    )
}

fn understand(answer: &str) -> anyhow::Result<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n").context("it does not speak HTTP")?;
    let status =
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("it does not speak HTTP")?;
    Ok((status, body.to_owned()))
}
