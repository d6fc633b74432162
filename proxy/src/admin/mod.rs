//! The door for operators and machines: probes, metrics, the topology, and what changes the process.
//!
//! A thread of its own with a runtime of its own: it answers when the workers are busy and costs them nothing. It reads
//! the [`Status`]; what changes something goes to the control thread.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::config::SideListen;
use crate::log_limit::warn_limited;
use crate::net::brake::Brake;
use crate::net::epoll::Alarm;
use crate::status::Status;
use access::{may_change, may_read};
use clients::ClientsWish;
use connections::{Busy, Connections, Work};
pub use endpoint::Endpoint;
use endpoint::{Connection, Peer};
use monitor::{Content, Lines, Refused};
pub use rings::Rings;
use routes::{Access, Action};
use share::Pace;
pub use share::Shares;

pub use client::{ask, follow, topology_of};
pub use history::History;
pub use route::{explained, hash};

mod access;
mod client;
pub mod clients;
mod collector;
mod config;
mod connections;
mod endpoint;
mod exposition;
mod history;
mod hot;
mod listeners;
mod metrics;
mod monitor;
mod numbers;
mod page;
mod query;
mod rings;
mod route;
mod routes;
mod share;
mod slow;
pub mod stats;
mod status;
mod topology;
mod traces;

/// Pause after an accept that failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a client may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest connection.
const CONNECTION_MAX: Duration = Duration::from_secs(300);
/// Longest body that is read.
const BODY_MAX: usize = 1024;
/// How long a worker may take for the pass that shows that it is alive.
const PASS_MAX: Duration = Duration::from_secs(2);

/// What became of a reload that did not fail.
pub struct Reloaded {
    /// Which configuration is active, counted from 1.
    pub generation: u64,
    /// Whether it is another one than before.
    pub changed: bool,
    /// Settings that have changed and take effect after a restart only.
    pub need_restart: Vec<&'static str>,
}

/// The status of a reload after which settings wait for a restart.
pub const RESTART_NEEDED: StatusCode = StatusCode::ACCEPTED;

/// A wish that the configuration is read again; answered with the reason if that failed.
pub type Reload = oneshot::Sender<Result<Reloaded, String>>;

/// What the door leads to.
pub struct Admin {
    /// What there is to tell.
    pub status: Arc<Status>,
    /// What wakes each worker.
    pub alarms: Vec<Alarm>,
    /// Notified when the process is to end as on SIGTERM.
    pub drain: Arc<Notify>,
    /// Where wishes for a reload go.
    pub reloads: mpsc::Sender<Reload>,
    /// Where wishes go that concern clients.
    pub clients: mpsc::Sender<ClientsWish>,
    /// Whoever lists clients, for as long as that takes.
    pub listing: tokio::sync::Mutex<()>,
    /// The figures of the last minutes.
    pub history: Mutex<History>,
    /// The process's log.
    pub set_log_level: crate::log::SetLogLevel,
    /// What peers have taken of the time of this thread.
    pub shares: Shares,
    /// Who owns what for now.
    pub rings: Rings,
    /// Connections that each of the two listeners may have.
    pub connections_max: usize,
}

/// Binds the address; `None` if it is taken and nobody has asked for it.
pub fn bind(listen: &SideListen) -> anyhow::Result<Option<Endpoint>> {
    match Endpoint::bind(listen) {
        Ok(endpoint) => Ok(Some(endpoint)),
        Err(error) if listen.implied => {
            tracing::warn!(
                %listen, reason = format!("{error:#}"),
                "admin server not started; set admin_port to another port, or to 0 to disable it"
            );
            Ok(None)
        }
        Err(error) => Err(error.context(format!(
            "cannot start the admin server on {listen}; set admin_port to another port, or to 0 to disable it"
        ))),
    }
}

/// Serves both on a thread of its own as long as the process lives.
pub fn spawn(
    endpoint: Option<Endpoint>,
    stats: Option<std::net::TcpListener>,
    admin: Admin,
) -> anyhow::Result<()> {
    let traces = admin.status.process().otlp.endpoint.is_some();
    if endpoint.is_none() && stats.is_none() && !traces {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let admin = Arc::new(admin);
    std::thread::Builder::new()
        .name("admin".into())
        .spawn(move || {
            runtime.block_on(async {
                let of_stats = async {
                    let Some(stats) = stats else { return Ok(()) };
                    stats::serve(stats, admin.clone()).await
                };
                let of_admin = async {
                    let Some(endpoint) = endpoint else { return Ok(()) };
                    serve(endpoint, admin.clone()).await
                };
                let of_traces = async {
                    if traces {
                        traces::send(&admin.status).await;
                    }
                };
                let ended = tokio::join!(of_stats, of_admin, of_traces);
                for error in [ended.0, ended.1].into_iter().filter_map(Result::err) {
                    tracing::error!(reason = format!("{error:#}"), "admin thread task ended");
                }
            });
        })
        .context("cannot start the admin thread")?;
    Ok(())
}

async fn serve(endpoint: Endpoint, admin: Arc<Admin>) -> anyhow::Result<()> {
    let listener = endpoint.listen().context("the admin address cannot be served")?;
    tokio::spawn(sample(admin.clone()));
    let mut connections = Connections::new(admin.connections_max);
    let mut brake = Brake::new(Instant::now());
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let begin = Instant::now();
        let (admin, work) = (admin.clone(), Work::default());
        connections.spawn(peer.ip(), work.clone(), async move {
            let _ = tokio::time::timeout(CONNECTION_MAX, converse(stream, peer, admin, work)).await;
        });
        // What it asks is read before another one comes, which might cut it off.
        tokio::task::yield_now().await;
        let now = Instant::now();
        let pause = brake.spent(now - begin, now);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Takes samples for the page's charts as long as the process lives.
async fn sample(admin: Arc<Admin>) {
    let mut due = tokio::time::interval(history::INTERVAL);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let mut history = admin.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.sample(&admin.status, Instant::now());
    }
}

async fn converse(stream: Pin<Box<dyn Connection>>, peer: Peer, admin: Arc<Admin>, work: Work) {
    let pace = Arc::new(Mutex::new(Pace::new(Instant::now())));
    let service = service_fn(|request| {
        let (admin, work, pace) = (admin.clone(), work.clone(), pace.clone());
        async move {
            let wait = pace.lock().unwrap_or_else(PoisonError::into_inner).wait(Instant::now());
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            work.set(Busy::Asked);
            let reply = admin.answer(request, peer, &work).await;
            work.set(Busy::Idle);
            Ok::<_, Infallible>(reply)
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, reason = %error, "admin connection closed");
    }
}

type Reply = Response<Content>;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Admin {
    async fn answer(&self, request: Request<Incoming>, peer: Peer, work: &Work) -> Reply {
        let path = request.uri().path().to_owned();
        let Some(route) = routes::route(&path) else {
            return reply(StatusCode::NOT_FOUND, TEXT, format!("unknown path {path}\n{}", routes::index()));
        };
        if !route.allows(request.method()) {
            let mut refused =
                reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, format!("{path} requires {}\n", route.method));
            if let Ok(value) = HeaderValue::from_str(route.method.as_str()) {
                refused.headers_mut().insert(ALLOW, value);
            }
            return refused;
        }
        let process = self.status.process();
        let token = process.admin_token.as_ref();
        let allowed = match route.access {
            Access::Everybody => Ok(()),
            Access::Readers => may_read(&request, peer, token),
            Access::Owners => may_change(&request, peer, token),
        };
        if let Err(why) = allowed {
            warn_limited!(%peer, path, reason = why, "admin request refused");
            return reply(StatusCode::FORBIDDEN, TEXT, format!("{why}\n"));
        }
        if route.changes() {
            work.set(Busy::Changing);
        }
        match route.action {
            Action::Index if page::is_wanted(&request) => page::reply(),
            Action::Index => reply(StatusCode::OK, TEXT, routes::index()),
            Action::Runbook => reply(StatusCode::OK, TEXT, page::RUNBOOK.into()),
            Action::History => {
                let query = request.uri().query().map(str::to_owned);
                document(&self.shares, peer.ip(), || self.history_of(query.as_deref())).await
            }
            Action::Clients => self.list_clients(&request, peer).await,
            Action::Kill => self.kill_client(request).await,
            Action::Token => reply(StatusCode::OK, TEXT, "the request may change something\n".into()),
            Action::Ready => self.ready(),
            Action::Alive => self.alive().await,
            Action::Metrics => {
                let open_metrics = wants_open_metrics(&request);
                document(&self.shares, peer.ip(), || self.metrics(open_metrics)).await
            }
            Action::Status => {
                let query = request.uri().query().map(str::to_owned);
                document(&self.shares, peer.ip(), || self.status_of(query.as_deref())).await
            }
            Action::Config => {
                let text = || config::document(&self.status);
                document(&self.shares, peer.ip(), || reply(StatusCode::OK, JSON, text())).await
            }
            Action::Route => {
                let query = request.uri().query().map(str::to_owned);
                document(&self.shares, peer.ip(), || self.route_of(query.as_deref())).await
            }
            Action::Topology => {
                let text = || format!("{:#}\n", topology::document(&self.status, &self.rings));
                document(&self.shares, peer.ip(), || reply(StatusCode::OK, JSON, text())).await
            }
            Action::Slow => {
                let text = || format!("{:#}\n", slow::document(&self.status));
                document(&self.shares, peer.ip(), || reply(StatusCode::OK, JSON, text())).await
            }
            Action::Hot => {
                let query = request.uri().query().map(str::to_owned);
                document(&self.shares, peer.ip(), || self.hot(query.as_deref())).await
            }
            Action::Monitor => {
                let reply = self.monitor(&request);
                // One that only listens is the first to go where connections are wanted.
                work.set(Busy::Idle);
                reply
            }
            Action::Stats => {
                let text = || stats::json(&self.status);
                document(&self.shares, peer.ip(), || reply(StatusCode::OK, JSON, text())).await
            }
            Action::Drain => self.drain(),
            Action::Reload => self.reload().await,
            Action::LogLevel => self.log_level(request).await,
        }
    }

    fn ready(&self) -> Reply {
        let mut reasons = String::new();
        if self.status.draining.load(Relaxed) {
            reasons.push_str("draining\n");
        }
        let least = usize::from(self.status.process().ready_min_healthy);
        let pools = self.status.pools();
        if pools.is_empty() {
            reasons.push_str("no configuration is active yet\n");
        }
        for pool in &pools {
            let name = &pool.config.name;
            if !pool.listening {
                let _ = writeln!(reasons, "pool {name}: not listening");
            }
            if pool.config.cluster().is_some() && pool.topology.shards().is_empty() {
                let _ = writeln!(reasons, "pool {name}: the topology of the cluster is not known yet");
            }
            let (healthy, all) = (pool.healthy(), pool.topology.shards().len());
            if healthy * 100 < all * least {
                let _ = writeln!(reasons, "pool {name}: {healthy} of {all} shards are healthy");
            }
        }
        if reasons.is_empty() {
            reply(StatusCode::OK, TEXT, "ready\n".into())
        } else {
            reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, reasons)
        }
    }

    /// Every worker is woken and has to end a pass.
    async fn alive(&self) -> Reply {
        let passed = || self.status.workers.iter().map(|worker| worker.passed.get()).collect::<Vec<_>>();
        let before = passed();
        for alarm in &self.alarms {
            alarm.ring();
        }
        let until = tokio::time::Instant::now() + PASS_MAX;
        loop {
            let now = passed();
            let stuck: Vec<usize> = (0..now.len()).filter(|&worker| now[worker] == before[worker]).collect();
            if stuck.is_empty() {
                return reply(StatusCode::OK, TEXT, "alive\n".into());
            }
            // Workers that have ended after a drain make no progress any more, and need not.
            if self.status.draining.load(Relaxed) {
                return reply(StatusCode::OK, TEXT, "draining\n".into());
            }
            if tokio::time::Instant::now() >= until {
                let text = format!("workers without progress: {stuck:?}\n");
                return reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, text);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn metrics(&self, open_metrics: bool) -> Reply {
        let page = metrics::page(&self.status, open_metrics);
        reply(StatusCode::OK, if open_metrics { OPEN_METRICS } else { PROMETHEUS }, page)
    }

    fn status_of(&self, query: Option<&str>) -> Reply {
        let text = query::pairs(query).and_then(|query| {
            let asked = status::Asked::of(&query)?;
            Ok(status::document(&self.status, &self.rings, &asked).ok_or(asked.pool.map(str::to_owned)))
        });
        match text {
            Ok(Ok(text)) => reply(StatusCode::OK, JSON, text),
            Ok(Err(pool)) => {
                reply(StatusCode::NOT_FOUND, TEXT, format!("unknown pool {:?}\n", pool.unwrap_or_default()))
            }
            Err(why) => reply(StatusCode::BAD_REQUEST, TEXT, format!("{why}\n")),
        }
    }

    fn hot(&self, query: Option<&str>) -> Reply {
        let query = match query::pairs(query) {
            Ok(query) => query,
            Err(why) => return reply(StatusCode::BAD_REQUEST, TEXT, format!("{why}\n")),
        };
        match hot::Asked::of(&query).map(|asked| hot::document(&self.status, &self.rings, &asked)) {
            Ok(Ok(document)) => reply(StatusCode::OK, JSON, format!("{document:#}\n")),
            Ok(Err(why)) => reply(StatusCode::NOT_FOUND, TEXT, format!("{why}\n")),
            Err(why) => reply(StatusCode::BAD_REQUEST, TEXT, format!("{why}\n")),
        }
    }

    fn monitor(&self, request: &Request<Incoming>) -> Reply {
        let refuse = |status, why: &str| reply(status, TEXT, format!("{why}\n"));
        if request.method() == Method::HEAD {
            return reply(StatusCode::OK, TEXT, String::new());
        }
        let watched = query::pairs(request.uri().query())
            .map_err(Refused::Wrong)
            .and_then(|query| Lines::watch(&self.status, &query));
        match watched {
            Ok(lines) => {
                let mut reply = reply(StatusCode::OK, TEXT, String::new());
                *reply.body_mut() = Content::Lines(lines);
                reply
            }
            Err(Refused::Wrong(why)) => refuse(StatusCode::BAD_REQUEST, &why),
            Err(Refused::Unknown(why)) => refuse(StatusCode::NOT_FOUND, &why),
            Err(Refused::TooMany) => {
                refuse(StatusCode::SERVICE_UNAVAILABLE, "too many clients and others watch this pool already")
            }
        }
    }

    fn route_of(&self, query: Option<&str>) -> Reply {
        let found = query::raw(query)
            .map_err(|why| (StatusCode::BAD_REQUEST, why))
            .and_then(|query| route::document(&self.status, &self.rings, &query));
        match found {
            Ok(text) => reply(StatusCode::OK, JSON, text),
            Err((status, why)) => reply(status, TEXT, format!("{why}\n")),
        }
    }

    fn history_of(&self, query: Option<&str>) -> Reply {
        let query = match query::pairs(query) {
            Ok(query) => query,
            Err(why) => return reply(StatusCode::BAD_REQUEST, TEXT, format!("{why}\n")),
        };
        // What is no number is left out: the answer has all there is.
        let since = query.get("since").and_then(|since| since.parse().ok());
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        reply(StatusCode::OK, JSON, history.json(query.get("pool").map(String::as_str), since))
    }

    fn drain(&self) -> Reply {
        if !self.status.draining.swap(true, Relaxed) {
            self.drain.notify_one();
        }
        reply(StatusCode::ACCEPTED, TEXT, "draining\n".into())
    }

    async fn reload(&self) -> Reply {
        let (answer, answered) = oneshot::channel();
        if self.reloads.send(answer).await.is_err() {
            return reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the process is shutting down\n".into());
        }
        match answered.await {
            Ok(Ok(Reloaded { generation, changed, need_restart })) => {
                let change = if changed { "" } else { ": nothing to apply" };
                let mut text = format!("generation {generation}{change}\n");
                if need_restart.is_empty() {
                    return reply(StatusCode::OK, TEXT, text);
                }
                text.push_str(&format!("changed, and need a restart: {}\n", need_restart.join(", ")));
                reply(RESTART_NEEDED, TEXT, text)
            }
            Ok(Err(why)) => reply(StatusCode::CONFLICT, TEXT, format!("{why}\n")),
            Err(_) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, "the process is shutting down\n".into()),
        }
    }

    async fn log_level(&self, request: Request<Incoming>) -> Reply {
        let Ok(body) = Limited::new(request.into_body(), BODY_MAX).collect().await else {
            return reply(StatusCode::BAD_REQUEST, TEXT, "the body cannot be read\n".into());
        };
        let body = body.to_bytes();
        let level = String::from_utf8_lossy(&body);
        let level = level.trim();
        match (self.set_log_level)(level) {
            Ok(()) => {
                tracing::info!(level, "log level changed");
                reply(StatusCode::OK, TEXT, format!("{level}\n"))
            }
            Err(why) => reply(StatusCode::BAD_REQUEST, TEXT, format!("log level {level:?}: {why}\n")),
        }
    }
}

/// Waits until the peer may have a document; what is taken to be its cost. A refusal is the reply.
async fn admitted(shares: &Shares, peer: Option<IpAddr>) -> Result<Duration, Reply> {
    let (wait, taken) = shares.enter(peer, Instant::now()).map_err(|wait| {
        let text = "too many requests from this address; retry later\n";
        let mut refused = reply(StatusCode::TOO_MANY_REQUESTS, TEXT, text.into());
        refused.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        refused
    })?;
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    Ok(taken)
}

/// What takes time to write, for a peer that has not taken more than its share.
async fn document(shares: &Shares, peer: Option<IpAddr>, write: impl FnOnce() -> Reply) -> Reply {
    let taken = match admitted(shares, peer).await {
        Ok(taken) => taken,
        Err(refused) => return refused,
    };
    let begin = Instant::now();
    let reply = write();
    shares.spent(peer, taken, begin.elapsed());
    reply
}

fn wants_open_metrics(request: &Request<Incoming>) -> bool {
    let mut accepted = request.headers().get_all(ACCEPT).iter();
    accepted.any(|value| value.to_str().is_ok_and(|value| value.contains("application/openmetrics-text")))
}

fn reply(status: StatusCode, kind: &'static str, text: String) -> Reply {
    let mut reply = Response::new(Content::from(text));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // No browser takes it for a script or page, and none keeps it.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_taken_more_than_its_share_is_refused_documents_and_nobody_else_is() {
        let shares = Shares::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let [greedy, other] = [1, 2].map(|last| Some(IpAddr::from([127, 0, 0, last])));
        let ask = |peer, cost| {
            let write = || {
                std::thread::sleep(cost);
                reply(StatusCode::OK, TEXT, String::new())
            };
            runtime.block_on(document(&shares, peer, write))
        };
        assert_eq!(ask(greedy, Duration::from_millis(600)).status(), StatusCode::OK);
        let refused = ask(greedy, Duration::ZERO);
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.headers().contains_key(RETRY_AFTER));
        assert_eq!(ask(other, Duration::ZERO).status(), StatusCode::OK);
    }
}
