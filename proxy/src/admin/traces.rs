//! Spans of requests, sent to a collector of OpenTelemetry ([`super::collector`]).
//!
//! Workers only note what has become of a request, in a queue of its pool; what a span is made of is made here, on the thread of the
//! admin server. A collector that is away, or slow, costs spans and nothing else.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status as SpanStatus, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    IdGenerator as _, RandomIdGenerator, SpanData, SpanEvents, SpanExporter as _, SpanLinks,
};
use shard_discovery::Address;

use super::collector::Collector;
use crate::config::Otlp;
use crate::log_limit::warn_limited;
use crate::slow::Entry;
use crate::status::{PoolStatus, Status};
use crate::worker;

/// How often it is looked for spans.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a collector may take for what it is sent.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Requests that are sent together, of each pool.
const BATCH_MAX: usize = 512;

/// Sends what there is to the collector, as long as the process lives.
pub async fn send(status: &Status) {
    let ids = RandomIdGenerator::default();
    let mut way: Option<Way> = None;
    loop {
        let mut spans = Vec::new();
        for pool in status.pools() {
            for entry in pool.slow.take_traced(BATCH_MAX) {
                spans.extend(spans_of(&pool, &entry, &ids));
            }
        }
        if spans.is_empty() {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        let count = spans.len() as u64;
        let otlp = status.process().otlp.clone();
        // The query may have a password, as that of the list of servers.
        let endpoint = otlp.endpoint.as_deref().and_then(|url| url.split('?').next()).unwrap_or_default();
        let endpoint = endpoint.to_owned();
        // Certificates and tokens may be others since.
        if way.as_ref().is_none_or(|way| way.otlp != otlp) {
            way = Way::to(otlp)
                .inspect_err(|why| warn_limited!(endpoint, reason = why, "traces not sent"))
                .ok();
        }
        let Some(way) = &way else {
            status.spans_failed.fetch_add(count, Relaxed);
            continue;
        };
        match tokio::time::timeout(2 * TIMEOUT, way.exporter.export(spans)).await {
            Ok(Ok(())) => drop(status.spans_sent.fetch_add(count, Relaxed)),
            failed => {
                status.spans_failed.fetch_add(count, Relaxed);
                // What the exporter says of it is that there was an error.
                let said = || failed.map_or_else(|_| "timed out".to_owned(), |failed| format!("{failed:?}"));
                let reason = way.collector.take_reason().unwrap_or_else(said);
                warn_limited!(endpoint, reason, "traces not sent");
            }
        }
    }
}

/// How spans come to a collector.
struct Way {
    otlp: Otlp,
    collector: Arc<Collector>,
    exporter: SpanExporter,
}

impl Way {
    fn to(otlp: Otlp) -> Result<Self, String> {
        let collector = Arc::new(Collector::new(&otlp, TIMEOUT)?);
        let exporter = SpanExporter::builder().with_http().with_shared_http_client(collector.clone());
        let exporter = exporter.with_protocol(Protocol::HttpBinary).with_endpoint(collector.url());
        let exporter = exporter.with_timeout(TIMEOUT).build();
        let mut exporter = exporter.map_err(|error| format!("traces cannot be sent: {error}"))?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let instance = KeyValue::new("service.instance.id", i64::from(std::process::id()).to_string());
        let resource = Resource::builder_empty().with_service_name("memstore");
        exporter.set_resource(&resource.with_attributes([version, instance]).build());
        Ok(Self { otlp, collector, exporter })
    }
}

/// The request at the proxy, and within it how long it was queued and how long it was at the shard.
fn spans_of(pool: &PoolStatus, entry: &Entry, ids: &RandomIdGenerator) -> [SpanData; 3] {
    let Entry { spent, shard, error, trace, .. } = entry;
    let protocol = worker::about(pool.config.protocol).name;
    let system = if protocol == "memcache" { "memcached" } else { protocol };
    let operation = entry
        .words
        .first()
        .map_or_else(String::new, |name| String::from_utf8_lossy(name).to_ascii_uppercase());
    let (trace_id, parent) = trace.map_or((0, 0), |trace| (trace.id, trace.parent));
    let at = |micros: u64| UNIX_EPOCH + Duration::from_micros(entry.at + micros);
    let (written, answered) = (spent.queued, spent.queued + spent.shard);
    let end = spent.micros() + spent.client;
    let mut attributes = vec![
        KeyValue::new("db.system.name", system),
        KeyValue::new("db.operation.name", operation.clone()),
        KeyValue::new("memstore.pool", pool.config.name.clone()),
        KeyValue::new("memstore.shard", shard.to_string()),
    ];
    let mut status = SpanStatus::Unset;
    if let Some(error) = error {
        let code = error.split(' ').next().unwrap_or_default().to_owned();
        attributes.push(KeyValue::new("db.response.status_code", code.clone()));
        attributes.push(KeyValue::new("error.type", if entry.failed { "timeout".into() } else { code }));
        status = SpanStatus::error(error.to_string());
    }
    let span = |name: String, parent: SpanId, kind, from: SystemTime, to: SystemTime| SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(trace_id.to_be_bytes()),
            ids.new_span_id(),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: parent,
        parent_span_is_remote: false,
        span_kind: kind,
        name: name.into(),
        start_time: from,
        end_time: to,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: SpanStatus::Unset,
        instrumentation_scope: InstrumentationScope::builder("memstore").build(),
    };
    let parent = SpanId::from_bytes(parent.to_be_bytes());
    let mut request = span(operation.clone(), parent, SpanKind::Server, at(0), at(end));
    request.parent_span_is_remote = parent != SpanId::INVALID;
    request.attributes = attributes.clone();
    request.attributes.push(KeyValue::new("client.address", entry.sender.address.clone()));
    request.attributes.push(KeyValue::new("memstore.request", entry.request()));
    request.status = status.clone();
    let own = request.span_context.span_id();
    let queued = span("queue".into(), own, SpanKind::Internal, at(0), at(written));
    let mut asked = span(operation, own, SpanKind::Client, at(written), at(answered));
    asked.attributes = attributes;
    asked.status = status;
    asked.attributes.extend(server(pool, shard));
    [request, queued, asked]
}

/// Where the shard is.
fn server(pool: &PoolStatus, name: &str) -> Vec<KeyValue> {
    match pool.topology.shards().iter().find(|shard| shard.name == name).map(|shard| &shard.address) {
        Some(Address::Tcp { host, port }) => vec![
            KeyValue::new("server.address", host.clone()),
            KeyValue::new("server.port", i64::from(*port)),
        ],
        Some(Address::Unix(path)) => vec![KeyValue::new("server.address", path.display().to_string())],
        None => Vec::new(),
    }
}
