//! A collector of OpenTelemetry that takes spans over HTTP or gRPC, by other code than the proxy's.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

/// How it behaves.
#[derive(Clone, Default)]
pub struct Manner {
    /// It speaks gRPC only.
    pub grpc: bool,
    /// It speaks TLS only.
    pub tls: Option<Arc<ServerConfig>>,
    /// So many requests are refused at first.
    pub refuses: usize,
    /// Each connection is closed after a request.
    pub closes: bool,
}

/// One request.
pub struct Taken {
    pub spans: Vec<Span>,
    pub headers: HeaderMap,
    /// Number of its connection.
    pub connection: usize,
}

/// Its address, and what it takes.
pub fn collector(manner: Manner) -> (SocketAddr, mpsc::Receiver<Taken>) {
    let listener = TcpListener::bind((super::address(), 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    listener.set_nonblocking(true).expect("a socket");
    let (sender, taken) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            let left = Arc::new(AtomicUsize::new(manner.refuses));
            for connection in 0.. {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (manner, sender, left) = (manner.clone(), sender.clone(), left.clone());
                tokio::spawn(async move {
                    match manner.tls.clone().map(TlsAcceptor::from) {
                        None => serve(stream, manner, connection, sender, left).await,
                        Some(tls) => {
                            // Who does not believe it goes.
                            let Ok(stream) = tls.accept(stream).await else { return };
                            let wanted: &[u8] = if manner.grpc { b"h2" } else { b"http/1.1" };
                            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(wanted));
                            serve(stream, manner, connection, sender, left).await;
                        }
                    }
                });
            }
        });
    });
    (address, taken)
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    manner: Manner,
    connection: usize,
    sender: mpsc::Sender<Taken>,
    left: Arc<AtomicUsize>,
) {
    let (grpc, closes) = (manner.grpc, manner.closes);
    let service = service_fn(move |request| answer(request, grpc, connection, sender.clone(), left.clone()));
    let stream = TokioIo::new(stream);
    if grpc {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(stream, service).await;
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        let _ = builder.keep_alive(!closes).serve_connection(stream, service).await;
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    grpc: bool,
    connection: usize,
    sender: mpsc::Sender<Taken>,
    left: Arc<AtomicUsize>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let mut body = body.collect().await.expect("its body").to_bytes();
    let (path, kind) = match grpc {
        true => ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", "application/grpc"),
        false => ("/v1/traces", "application/x-protobuf"),
    };
    assert_eq!((head.method.as_str(), head.uri.path()), ("POST", path));
    assert_eq!(head.headers.get(CONTENT_TYPE), Some(&HeaderValue::from_static(kind)));
    assert_eq!(head.version, if grpc { Version::HTTP_2 } else { Version::HTTP_11 });
    if grpc {
        let prefix = body.split_to(5);
        assert_eq!(prefix[0], 0);
        assert_eq!(u32::from_be_bytes(prefix[1..].try_into().expect("four bytes")) as usize, body.len());
        assert_eq!(head.headers.get("te"), Some(&HeaderValue::from_static("trailers")));
    }
    let refuses = left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
    if !refuses {
        let request = ExportTraceServiceRequest::decode(body).expect("spans");
        let spans = request.resource_spans.into_iter().flat_map(|spans| spans.scope_spans);
        let spans = spans.flat_map(|spans| spans.spans).collect();
        let _ = sender.send(Taken { spans, headers: head.headers, connection });
    }
    let message = ExportTraceServiceResponse::default().encode_to_vec();
    let response = Response::builder().header(CONTENT_TYPE, kind);
    let response = if grpc {
        let said = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(if refuses { "16" } else { "0" }));
        // What it was sent may be in its words.
        trailers.insert("grpc-message", HeaderValue::from_static("token t0ken-of-collector is bad"));
        let body = Full::new(Bytes::from(said)).with_trailers(async { Some(Ok(trailers)) });
        response.body(body.boxed())
    } else {
        response.status(if refuses { 400 } else { 200 }).body(Full::new(Bytes::from(message)).boxed())
    };
    Ok(response.expect("a response"))
}
