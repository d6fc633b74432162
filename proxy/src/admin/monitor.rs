//! `/monitor`: requests as they are served, a line for each, as long as the connection lasts. [`crate::monitor`] has the feeds.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};

use crate::monitor::{Filter, Monitor, Monitors, Reader, TooMany, Who, lost};
use crate::protocol::glob::Pattern;
use crate::status::Status;

/// Bytes that are taken of a feed at once.
const TAKEN_MAX: usize = 64 * 1024;
/// Longest pattern.
const PATTERN_MAX: usize = 256;

/// What is sent of a reply: all of it, or what comes.
pub enum Content {
    /// It is there.
    Whole(Full<Bytes>),
    /// It has no end.
    Lines(Lines),
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::Whole(Full::new(Bytes::from(text)))
    }
}

/// One who watches pools; it leaves when it is dropped.
pub struct Lines(Vec<(Arc<Monitors>, Arc<Monitor>)>);

/// Why nothing is shown.
#[derive(Debug)]
pub enum Refused {
    /// There is no such pool, or no such shard.
    Unknown(String),
    /// The query is wrong.
    Wrong(String),
    /// As many watch as may.
    TooMany,
}

impl Lines {
    /// Begins to watch what the query asks for.
    pub fn watch(status: &Status, query: &HashMap<String, String>) -> Result<Self, Refused> {
        const NAMES: [&str; 5] = ["pool", "shard", "client", "pattern", "sample"];
        if let Some(other) = query.keys().find(|name| !NAMES.contains(&name.as_str())) {
            return Err(Refused::Wrong(format!(
                "unknown parameter {other:?}; there are {}",
                NAMES.join(", ")
            )));
        }
        let wrong = |what: &str| Refused::Wrong(what.to_owned());
        let sample = match query.get("sample").map(|sample| sample.parse::<u64>()) {
            None => 1,
            Some(Ok(sample)) if sample > 0 => sample,
            Some(_) => {
                return Err(wrong("sample has to be a number above 0: one request in so many is shown"));
            }
        };
        let client = query.get("client").map(|client| {
            Who::of(client).ok_or_else(|| {
                wrong("client has to be a number (id in CLIENT LIST), an IP address, or ADDRESS:PORT")
            })
        });
        let client = client.transpose()?;
        if query.get("pattern").is_some_and(|pattern| pattern.len() > PATTERN_MAX) {
            return Err(Refused::Wrong(format!("pattern is longer than {PATTERN_MAX} bytes")));
        }
        let mut lines = Self(Vec::new());
        let pools = status.pools();
        let meant = |name: &str| query.get("pool").is_none_or(|pool| pool == name);
        let mut has_shard = false;
        for pool in pools.iter().filter(|pool| meant(&pool.config.name)) {
            let shard = query.get("shard").cloned();
            let shards = pool.topology.shards();
            if shard.as_ref().is_some_and(|shard| !shards.iter().any(|known| known.name == *shard)) {
                continue;
            }
            has_shard = true;
            let keys = query.get("pattern").map(|pattern| Pattern::exact(pattern.as_bytes()));
            let monitor = pool.monitors.watch(Filter { client, shard, keys, sample }, Reader::Task);
            lines.0.push((pool.monitors.clone(), monitor.map_err(|TooMany| Refused::TooMany)?));
        }
        match query.get("pool") {
            Some(pool) if !pools.iter().any(|known| known.config.name == *pool) => {
                Err(Refused::Unknown(format!("unknown pool {pool:?}")))
            }
            _ if !has_shard && query.contains_key("shard") => {
                Err(Refused::Unknown(format!("unknown shard {:?}", query["shard"])))
            }
            _ => Ok(lines),
        }
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<Option<Bytes>> {
        let mut text = Vec::new();
        let mut has_ended = true;
        for (monitors, monitor) in &self.0 {
            match monitors.poll_take(monitor, TAKEN_MAX, context) {
                Poll::Pending => has_ended = false,
                Poll::Ready(None) => {}
                Poll::Ready(Some(taken)) => {
                    has_ended = false;
                    let dropped = (taken.dropped > 0).then(|| lost(unix_micros(), taken.dropped));
                    for line in dropped.iter().chain(&taken.lines) {
                        text.extend_from_slice(line);
                        text.push(b'\n');
                    }
                }
            }
        }
        if text.is_empty() && !has_ended {
            Poll::Pending
        } else {
            Poll::Ready((!text.is_empty()).then(|| text.into()))
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        for (monitors, monitor) in &self.0 {
            monitors.leave(monitor);
        }
    }
}

fn unix_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(context),
            Self::Lines(lines) => lines.poll(context).map(|text| text.map(|text| Ok(Frame::data(text)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Lines(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Lines(_) => SizeHint::default(),
        }
    }
}
