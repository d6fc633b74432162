//! The other side of the door, for `memstore drain` and its like: images without a shell need no other client.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

/// Longest answer that is read: `/status` of a hundred thousand shards.
const ANSWER_MAX: u64 = 128 << 20;
/// The same of another process whose topology is asked for by this one.
const TOPOLOGY_MAX: u64 = 16 << 20;

/// Asks the proxy at this address, or Unix socket; the status and the body. All of it takes no longer than `limit`.
pub fn ask(
    address: &str,
    method: &str,
    path: &str,
    token: Option<&str>,
    limit: Duration,
) -> anyhow::Result<(u16, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = async {
        let until = Instant::now() + limit;
        if address.starts_with('/') {
            let stream = UnixStream::connect(address).await?;
            return converse(stream, &request("localhost", method, path, token), ANSWER_MAX).await;
        }
        let found: Vec<_> = lookup_host(address).await?.collect();
        let (stream, place) = connect(&found, until).await?;
        // The address, since a name could be one that leads here from elsewhere.
        converse(stream, &request(&place.to_string(), method, path, token), ANSWER_MAX).await
    };
    let answer = runtime.block_on(async { timeout(limit, asked).await });
    // A lookup that hangs is not waited for.
    runtime.shutdown_background();
    answer.unwrap_or_else(|_| Err(anyhow!("no answer within {limit:?}")))
}

/// Asks for what has no end; `show` gets it as it comes. The status, and what was said if that is no success. The proxy has to begin
/// within `limit`.
pub fn follow(
    address: &str,
    path: &str,
    token: Option<&str>,
    limit: Duration,
    mut show: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<(u16, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let followed = async {
        if address.starts_with('/') {
            let mut stream = timeout(limit, UnixStream::connect(address)).await??;
            return read_on(&mut stream, &request("localhost", "GET", path, token), limit, &mut show).await;
        }
        let found: Vec<_> = timeout(limit, lookup_host(address)).await??.collect();
        let (mut stream, place) = connect(&found, Instant::now() + limit).await?;
        read_on(&mut stream, &request(&place.to_string(), "GET", path, token), limit, &mut show).await
    };
    let answer = runtime.block_on(followed);
    runtime.shutdown_background();
    answer
}

async fn read_on(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &str,
    limit: Duration,
    show: &mut impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<(u16, String)> {
    // What is not sent in chunks ends with the connection.
    let request = request.replacen(" HTTP/1.1\r\n", " HTTP/1.0\r\n", 1);
    stream.write_all(request.as_bytes()).await?;
    let (mut head, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
    let until = Instant::now() + limit;
    let end = loop {
        let length = timeout_at(until, stream.read(&mut piece)).await.context("no answer in time")??;
        ensure!(length > 0, "the connection was closed");
        head.extend_from_slice(&piece[..length]);
        ensure!(head.len() <= piece.len(), "not an HTTP response");
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let body = head.split_off(end);
    let (status, _) = understand(&String::from_utf8_lossy(&head))?;
    if status != 200 {
        let mut said = body;
        // As much of it as comes in time.
        let _ = timeout_at(until, stream.take(ANSWER_MAX).read_to_end(&mut said)).await;
        return Ok((status, String::from_utf8_lossy(&said).into_owned()));
    }
    show(&body)?;
    loop {
        let length = stream.read(&mut piece).await?;
        if length == 0 {
            return Ok((status, String::new()));
        }
        show(&piece[..length])?;
    }
}

/// Connects to the first that takes the connection; one that is silent leaves time for those after it.
async fn connect(addresses: &[SocketAddr], until: Instant) -> anyhow::Result<(TcpStream, SocketAddr)> {
    let mut last = anyhow!("the name has no address");
    for (place, address) in addresses.iter().enumerate() {
        let left = until.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - place).unwrap_or(u32::MAX);
        match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, *address)),
            Ok(Err(error)) => last = error.into(),
            Err(_) => last = anyhow!("cannot connect to {address}"),
        }
    }
    Err(last)
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
    most: u64,
) -> anyhow::Result<(u16, String)> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    let length = stream.take(most + 1).read_to_string(&mut answer).await?;
    ensure!(length as u64 <= most, "the response is longer than {most} bytes");
    understand(&answer)
}

/// The topology document of another process; none if it does not tell it in time.
pub async fn topology_of(address: SocketAddr, limit: Duration) -> Option<serde_json::Value> {
    let exchange = async {
        let stream = TcpStream::connect(address).await?;
        converse(stream, &request(&address.to_string(), "GET", "/topology", None), TOPOLOGY_MAX).await
    };
    match timeout(limit, exchange).await {
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
    let (head, body) = answer.split_once("\r\n\r\n").context("not an HTTP response")?;
    let status =
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("not an HTTP response")?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use super::*;

    /// Somebody who listens, and the address.
    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        (listener, address)
    }

    #[test]
    fn an_exchange_ends_in_time_whatever_comes_and_however_slowly() {
        let (silent, address) = listener();
        let limit = Duration::from_millis(50);
        let error = ask(&address.to_string(), "GET", "/alive", None, limit).expect_err("nobody answers");
        assert_eq!(error.to_string(), "no answer within 50ms");
        drop(silent);

        // Endless, but never late.
        let (endless, address) = listener();
        std::thread::spawn(move || {
            let (mut stream, _) = endless.accept().expect("somebody connects");
            while stream.write_all(&[b'x'; 65536]).is_ok() {}
        });
        let limit = Duration::from_secs(60);
        let error = ask(&address.to_string(), "GET", "/alive", None, limit).expect_err("it does not end");
        assert!(error.to_string().starts_with("the response is longer"), "{error:#}");
    }

    #[test]
    fn all_addresses_of_a_name_are_tried() {
        // Nobody else can take it, and nobody listens.
        let refusing = tokio::net::TcpSocket::new_v4().expect("a socket");
        refusing.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let gone = refusing.local_addr().expect("bound");
        let (_listener, address) = listener();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let until = Instant::now() + Duration::from_secs(60);
        let (_, place) = runtime.block_on(connect(&[gone, address], until)).expect("one listens");
        assert_eq!(place, address);
        let error = runtime.block_on(connect(&[gone], until)).expect_err("nobody listens");
        let error = error.downcast_ref::<std::io::Error>().expect("an error of the system");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}
