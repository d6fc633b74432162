//! Spans of requests, as a collector of OpenTelemetry is sent them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use authority::Authority;
use collector::{Manner, Taken, collector};
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::Span;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use servers::{Server, address, eventually, metrics};

#[allow(dead_code)]
#[path = "tls/authority.rs"]
mod authority;
#[path = "servers/collector.rs"]
mod collector;
mod servers;

const PATIENCE: Duration = Duration::from_secs(60);

fn lines(shards: &[Server]) -> Vec<String> {
    shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect()
}

/// A proxy that sends traces to this collector, and its admin address.
fn traced_proxy(collector: &str, shards: &[Server], settings: &[&str], flags: &[&str]) -> (Server, String) {
    let flags = [&["--otlp-endpoint", collector], flags].concat();
    Server::memstore_with_admin(settings, &lines(shards), &flags)
}

/// The next request with spans.
#[track_caller]
fn next(taken: &mpsc::Receiver<Taken>) -> Taken {
    taken.recv_timeout(PATIENCE).expect("spans")
}

fn attribute(span: &Span, name: &str) -> String {
    let value = span.attributes.iter().find(|one| one.key == name).and_then(|one| one.value.clone()?.value);
    match value {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => panic!("{name}: {other:?} in {span:?}"),
    }
}

#[test]
fn spans_of_requests_are_sent_to_a_collector() {
    let shards = [Server::redis(&[])];
    let (address, taken) = collector(Manner::default());
    let settings = ["trace_sample: 1", "slowlog_log_slower_than: -1"];
    let (proxy, admin) = traced_proxy(&format!("http://{address}/"), &shards, &settings, &[]);
    let mut client = proxy.connect();
    client.tell("SET secret-key secret-value");
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    client.tell(&format!("CLIENT SETINFO TRACEPARENT 00-{TRACE}-b7ad6b7169203331-01"));
    client.tell("INCR secret-key");
    let mut spans = Vec::new();
    while spans.len() < 6 {
        spans.extend(next(&taken).spans);
    }
    let [set, queue, asked, incr, _, failed] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((&*set.name, &*queue.name, &*asked.name), ("SET", "queue", "SET"));
    assert!(
        set.parent_span_id.is_empty()
            && set.trace_id == asked.trace_id
            && set.trace_id.iter().any(|&byte| byte > 0)
    );
    assert_eq!([&queue.parent_span_id, &asked.parent_span_id], [&set.span_id, &set.span_id]);
    assert!(
        set.start_time_unix_nano <= asked.start_time_unix_nano
            && asked.end_time_unix_nano <= set.end_time_unix_nano
    );
    assert_eq!(attribute(set, "db.system.name"), "redis");
    assert_eq!(attribute(set, "db.operation.name"), "SET");
    assert_eq!(attribute(asked, "server.port"), shards[0].port.to_string());
    assert_eq!(attribute(set, "client.address"), client.local().to_string());
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!((&*hex(&incr.trace_id), &*hex(&incr.parent_span_id)), (TRACE, "b7ad6b7169203331"));
    assert_eq!(attribute(failed, "error.type"), "ERR");
    assert!(!format!("{spans:?}").contains("secret"), "{spans:?}");
    let metrics = metrics(&admin);
    assert!(metrics.contains("memstore_trace_requests_dropped_total{pool=\"pool\"} 0"), "{metrics}");
}

#[test]
fn a_collector_that_refuses_or_is_away_costs_spans_only() {
    let shards = [Server::redis(&[])];
    for grpc in [false, true] {
        let flags = if grpc { &["--otlp-protocol", "grpc"][..] } else { &[] };
        let (address, taken) = collector(Manner { grpc, refuses: 1, ..Manner::default() });
        let (proxy, _) = traced_proxy(&format!("http://{address}"), &shards, &["trace_sample: 1"], flags);
        let mut client = proxy.connect();
        assert_eq!(client.tell("SET k v"), "+OK\r\n");
        let begin = Instant::now();
        while taken.recv_timeout(Duration::from_millis(100)).is_err() {
            assert_eq!(client.tell("SET k v"), "+OK\r\n");
            assert!(begin.elapsed() < PATIENCE);
        }
        let reason = if grpc { "gRPC status UNAUTHENTICATED" } else { "HTTP status 400 Bad Request" };
        proxy.says("traces not sent");
        assert!(proxy.printed().contains(reason), "{}", proxy.printed());
        assert!(!proxy.printed().contains("t0ken"), "{}", proxy.printed());
    }
    let (away, admin) = traced_proxy("http://127.0.0.1:1", &shards, &["trace_sample: 1"], &[]);
    let mut client = away.connect();
    for _ in 0..200 {
        client.send(&servers::encoded(&[b"GET", b"k"]).repeat(100));
        assert_eq!(client.bytes(7 * 100), b"$1\r\nv\r\n".repeat(100));
    }
    let failed = |line: &str| {
        line.strip_prefix("memstore_trace_spans_total{result=\"failed\"} ").is_some_and(|count| count != "0")
    };
    eventually(|| metrics(&admin).lines().any(failed).to_string(), "true");
    away.says("Connection refused");
}

/// One that does not speak what it is asked in is told of, and not for ever waited for.
#[test]
fn a_collector_of_another_protocol_is_told_of() {
    let shards = [Server::redis(&[])];
    for (manner, scheme, protocol) in [
        (Manner { grpc: true, ..Manner::default() }, "http", "http"),
        (Manner::default(), "http", "grpc"),
        (Manner::default(), "https", "grpc"),
    ] {
        let (address, _taken) = collector(manner);
        let flags = ["--otlp-protocol", protocol];
        let url = format!("{scheme}://{address}");
        let (proxy, _) = traced_proxy(&url, &shards, &["trace_sample: 1"], &flags);
        let mut client = proxy.connect();
        assert_eq!(client.tell("SET k v"), "+OK\r\n");
        proxy.says("traces not sent");
        assert_eq!(client.tell("GET k"), "$1\r\nv\r\n");
    }
}

/// What a collector with this certificate goes by.
fn tls(authority: &Authority, protocol: &str) -> Arc<ServerConfig> {
    let pair = authority.sign("collector", &[&address().to_string()]);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
    let chain = vec![CertificateDer::from_pem_file(&pair.certificate).expect("PEM")];
    let key = PrivateKeyDer::from_pem_file(&pair.key).expect("PEM");
    let mut config = builder.with_single_cert(chain, key).expect("a pair");
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    Arc::new(config)
}

fn write(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", address()));
    std::fs::write(&path, text).expect("the folder is writable");
    path
}

/// The configuration of a proxy whose settings of the process are these.
fn with_process(proxy: &Server, process: &str, shards: &[Server]) {
    let pool = format!(
        "pools:\n  pool:\n    listen: {}:{}\n    redis: true\n    trace_sample: 1\n    servers: [\"{}\"]\n",
        address(),
        proxy.port,
        shards[0].line(0),
    );
    proxy.overwrite(&format!("{process}{pool}"));
}

#[test]
fn spans_go_over_tls_with_a_token_to_whoever_proves_to_be_the_collector() {
    const TOKENS: [&str; 2] = ["t0ken-of-collector", "an0ther-t0ken"];
    let (authority, stranger) = (Authority::new("collector"), Authority::new("stranger"));
    let shards = [Server::redis(&[])];
    for (protocol, alpn) in [("grpc", "h2"), ("http", "http/1.1")] {
        let manner =
            Manner { grpc: protocol == "grpc", tls: Some(tls(&authority, alpn)), ..Manner::default() };
        let (address, taken) = collector(manner);
        let headers = |token: &str| format!("# of the tenant\nAuthorization: Bearer {token}\nx-scope: a\n");
        let file = write("headers", &headers(TOKENS[0]));
        let process = |authority: &Authority| {
            let ca = authority.file();
            format!(
                "otlp_headers_file: {}\notlp_tls: {{ca: {}}}\nlog_level: trace\n",
                file.display(),
                ca.display()
            )
        };
        let flags = ["--otlp-protocol", protocol];
        let url = format!("https://{address}");
        let (proxy, admin) = traced_proxy(&url, &shards, &[], &flags);
        with_process(&proxy, &process(&authority), &shards);
        servers::reload(&proxy);
        let mut client = proxy.connect();
        let token = |taken: &Taken| {
            assert_eq!(taken.headers.get("x-scope").and_then(|value| value.to_str().ok()), Some("a"));
            taken.headers["authorization"].to_str().expect("text").to_owned()
        };
        for _ in 0..3 {
            assert_eq!(client.tell("SET k v"), "+OK\r\n");
            let taken = next(&taken);
            assert_eq!((token(&taken), taken.connection), (format!("Bearer {}", TOKENS[0]), 0));
            assert_eq!(taken.spans[0].name, "SET");
        }
        // Another token, once the file has it.
        std::fs::write(&file, headers(TOKENS[1])).expect("the folder is writable");
        let begin = Instant::now();
        loop {
            client.tell("SET k v");
            if token(&next(&taken)) == format!("Bearer {}", TOKENS[1]) {
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "{}", proxy.printed());
        }
        // Somebody else's certificate.
        with_process(&proxy, &process(&stranger), &shards);
        servers::reload(&proxy);
        while !proxy.printed().contains("traces not sent") {
            client.tell("SET k v");
            assert!(begin.elapsed() < PATIENCE, "{}", proxy.printed());
        }
        assert!(proxy.printed().contains("UnknownIssuer"), "{}", proxy.printed());
        let config = servers::told(&admin, "/config");
        assert!(config.contains("otlp_tls.ca") && config.contains("otlp_headers_file"), "{config}");
        for told in [proxy.printed(), config, servers::told(&admin, "/status"), metrics(&admin)] {
            assert!(!TOKENS.iter().any(|token| told.contains(token)), "{told}");
        }
        let _ = std::fs::remove_file(file);
    }
}

/// A connection that the collector has closed meanwhile costs no spans.
#[test]
fn a_connection_that_was_closed_meanwhile_is_made_again() {
    let shards = [Server::redis(&[])];
    let (address, taken) = collector(Manner { closes: true, ..Manner::default() });
    let (proxy, admin) = traced_proxy(&format!("http://{address}"), &shards, &["trace_sample: 1"], &[]);
    let mut client = proxy.connect();
    for connection in 0..4 {
        assert_eq!(client.tell("SET k v"), "+OK\r\n");
        assert_eq!(next(&taken).connection, connection);
    }
    let told = metrics(&admin);
    assert!(told.contains("memstore_trace_spans_total{result=\"failed\"} 0"), "{told}");
}
