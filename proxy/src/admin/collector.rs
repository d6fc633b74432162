//! How a message comes to a collector of OpenTelemetry: over HTTP/1.1, or over gRPC, with TLS where its address wants that.
//!
//! The message is made by the exporter, which knows plain HTTP only. gRPC is the same message behind five bytes, as one request of
//! HTTP/2, and a status behind the answer. Sources: opentelemetry.io/docs/specs/otlp, github.com/grpc/grpc (doc/PROTOCOL-HTTP2.md).

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TE};
use hyper::{StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use shard_discovery::Address;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::{Otlp, ShardTls, servers_tls};
use crate::net::connect::secure;
use crate::net::conversation::stream;
use crate::net::socket::Socket;

/// Longest answer that is read.
const ANSWER_MAX: u32 = 64 * 1024;
/// Where spans are taken over gRPC.
const METHOD: &str = "opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Names of the statuses of gRPC, which are their numbers.
const STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
/// Those after which the same may be sent again. Source: the specification of OTLP.
const PASSING: [&str; 6] =
    ["CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"];

/// Somebody who takes spans, and the connection to it, which is kept for the next ones.
pub struct Collector {
    url: Uri,
    host: String,
    port: u16,
    grpc: bool,
    tls: Option<ShardTls>,
    headers: Vec<(HeaderName, HeaderValue)>,
    limit: Duration,
    connection: tokio::sync::Mutex<Option<Connection>>,
    /// Why the last request has failed.
    reason: Mutex<Option<String>>,
}

impl Collector {
    /// The one that is configured; each request may take so long.
    ///
    /// # Errors
    /// There is none, or its TLS cannot be spoken.
    pub fn new(otlp: &Otlp, limit: Duration) -> Result<Self, String> {
        let url: Uri =
            otlp.endpoint.as_deref().unwrap_or_default().parse().map_err(|_| "it has no address")?;
        let is_secure = url.scheme_str() == Some("https");
        let authority = url.authority().ok_or("it has no address")?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let path = match path.trim_end_matches('/') {
            path if otlp.grpc => format!("{path}/{METHOD}"),
            "" => "/v1/traces".to_owned(),
            path => path.to_owned(),
        };
        let scheme = if is_secure { "https" } else { "http" };
        let url = Uri::builder().scheme(scheme).authority(authority.clone()).path_and_query(path);
        let url = url.build().map_err(|error| error.to_string())?;
        let tls = match &otlp.tls {
            _ if !is_secure => None,
            Some(tls) => Some(tls.clone()),
            None => Some(servers_tls(&[], true)?),
        };
        let tls = tls.map(|tls| tls.speaking(if otlp.grpc { "h2" } else { "http/1.1" }));
        let (connection, reason) = Default::default();
        Ok(Self {
            url,
            host,
            port,
            grpc: otlp.grpc,
            tls,
            headers: otlp.headers.clone(),
            limit,
            connection,
            reason,
        })
    }

    /// Where it takes spans.
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    /// Why the last request has failed, once.
    pub fn take_reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn failed(&self, reason: String) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }

    async fn connect(&self) -> Result<Connection, HttpError> {
        let stream = TcpStream::connect((&*self.host, self.port)).await?;
        stream.set_nodelay(true)?;
        let address = Address::Tcp { host: self.host.clone(), port: self.port };
        let socket = secure(Socket::from(stream.into_std()?), self.tls.as_ref(), &address, self.limit).await;
        let stream = TokioIo::new(stream_of(socket.map_err(|failure| failure.to_string())?)?);
        if self.grpc {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(ANSWER_MAX)
                .initial_connection_window_size(ANSWER_MAX)
                .handshake(stream)
                .await?;
            Ok(Connection::of(Sender::Http2(sender), connection))
        } else {
            let (sender, connection) = http1::handshake(stream).await?;
            Ok(Connection::of(Sender::Http1(sender), connection))
        }
    }

    /// The request as it is sent.
    fn dress(&self, request: Request<Bytes>) -> Result<Request<Full<Bytes>>, HttpError> {
        let (mut head, mut body) = request.into_parts();
        if self.grpc {
            let mut message = vec![0];
            message.extend_from_slice(&u32::try_from(body.len())?.to_be_bytes());
            message.extend_from_slice(&body);
            body = message.into();
            head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            head.headers.insert(TE, HeaderValue::from_static("trailers"));
        } else {
            let authority = self.url.authority().map_or("", |authority| authority.as_str());
            head.headers.insert(HOST, HeaderValue::from_str(authority)?);
            head.uri = self.url.path_and_query().map_or("/", |path| path.as_str()).parse()?;
        }
        for (name, value) in &self.headers {
            head.headers.insert(name, value.clone());
        }
        Ok(Request::from_parts(head, Full::new(body)))
    }

    async fn ask(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut request = self.dress(request)?;
        let mut kept = self.connection.lock().await;
        // One that was kept may have been closed since; what it was not sent goes to the next one.
        if let Some(mut connection) = kept.take() {
            match connection.send(request).await {
                Ok(response) => return self.understand(response, &mut kept, connection).await,
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut connection = self.connect().await?;
        let response = connection.send(request).await.map_err(TrySendError::into_error)?;
        self.understand(response, &mut kept, connection).await
    }

    async fn understand(
        &self,
        response: Response<Incoming>,
        kept: &mut Option<Connection>,
        connection: Connection,
    ) -> Result<Response<Bytes>, HttpError> {
        let (mut head, body) = response.into_parts();
        let collected = Limited::new(body, ANSWER_MAX as usize).collect().await?;
        let trailers = collected.trailers().cloned();
        let mut body = collected.to_bytes();
        *kept = Some(connection);
        if self.grpc && head.status.is_success() {
            match grpc_status(&head.headers, trailers.as_ref())? {
                "OK" => body = body.slice(body.len().min(5)..),
                status => {
                    self.failed(format!("gRPC status {status}"));
                    let is_passing = PASSING.contains(&status);
                    head.status =
                        if is_passing { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::BAD_REQUEST };
                }
            }
        } else if !head.status.is_success() {
            self.failed(format!("HTTP status {}", head.status));
        }
        Ok(Response::from_parts(head, body))
    }
}

/// What the collector says of it by name. What it says in words may be what it was sent, a token too.
fn grpc_status(head: &HeaderMap, trailers: Option<&HeaderMap>) -> Result<&'static str, HttpError> {
    let told = trailers.and_then(|trailers| trailers.get("grpc-status")).or_else(|| head.get("grpc-status"));
    let told = told.ok_or("the answer is not gRPC: it has no grpc-status")?;
    let status = told.to_str().ok().and_then(|number| STATUSES.get(number.parse::<usize>().ok()?));
    Ok(status.copied().unwrap_or("UNKNOWN"))
}

fn stream_of(socket: Socket) -> Result<Box<dyn crate::net::conversation::Stream>, HttpError> {
    stream(socket).map_err(|error| error.to_string().into())
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answered = timeout(self.limit, self.ask(request)).await;
        let answered = answered.unwrap_or_else(|_| Err("timed out".into()));
        answered.inspect_err(|error| self.failed(told(&**error)))
    }
}

/// An error with what it comes from, which hyper's do not say by themselves.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut told = error.to_string();
    let mut error = error;
    while let Some(source) = error.source() {
        told = format!("{told}: {source}");
        error = source;
    }
    told
}

/// Nothing of what is in it.
impl fmt::Debug for Collector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Collector")
    }
}

/// A connection to it; what drives it ends with it.
struct Connection {
    sender: Sender,
    driver: JoinHandle<()>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    fn of(sender: Sender, connection: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Self {
        // How it ends is known by what is asked on it.
        Self { sender, driver: tokio::spawn(async { drop(connection.await) }) }
    }

    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        // Whether it can is said by the attempt.
        match &mut self.sender {
            Sender::Http1(sender) => {
                let _ = sender.ready().await;
                sender.try_send_request(request).await
            }
            Sender::Http2(sender) => {
                let _ = sender.ready().await;
                sender.try_send_request(request).await
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
