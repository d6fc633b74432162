//! Where shards are now: host names whose addresses change.
//!
//! Names own keys, addresses do not. A name server that is away, or knows a name no more, does not mean that the shard is
//! gone: the last known addresses are kept until there are others. Nobody waits for a lookup of a name that was found
//! before, and however many want to know, each name is looked up once at a time.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, Record};

/// Least pause between two lookups of the same name.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// How long one question to one name server may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(1);

/// How names are looked up.
#[derive(Debug, Clone, Default)]
pub struct ResolverOptions {
    /// The name server; none: those of the system (`/etc/resolv.conf`).
    pub server: Option<SocketAddr>,
}

/// Why a name has no address.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{words}")]
pub struct ResolveError {
    words: String,
    is_absent: bool,
    is_local: bool,
}

impl ResolveError {
    fn other(error: impl std::fmt::Display) -> Self {
        Self { words: error.to_string(), is_absent: false, is_local: false }
    }

    fn absent() -> Self {
        Self { words: "the name has no address".into(), is_absent: true, is_local: false }
    }

    /// Whether a name server says that there is no such name, or no address under it; else it could not be asked.
    pub fn is_absent(&self) -> bool {
        self.is_absent
    }

    /// Whether nobody was asked because this process or machine has no more descriptors, ports or memory.
    pub fn is_local(&self) -> bool {
        self.is_local
    }
}

/// Looks through the reasons behind an error for one of the system.
fn is_local(error: &(dyn std::error::Error + 'static)) -> bool {
    // EMFILE, ENFILE, ENOMEM, ENOBUFS and EADDRNOTAVAIL on Linux.
    const OURS: [i32; 5] = [24, 23, 12, 105, 99];
    let code = match error.downcast_ref::<NetError>() {
        Some(NetError::Io(error)) => error.raw_os_error(),
        _ => error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error),
    };
    code.is_some_and(|code| OURS.contains(&code)) || error.source().is_some_and(is_local)
}

impl From<NetError> for ResolveError {
    fn from(error: NetError) -> Self {
        let is_local = is_local(&error);
        Self { words: error.to_string(), is_absent: error.is_no_records_found(), is_local }
    }
}

/// Looks up host names and remembers what it found.
pub struct Resolver {
    names: TokioResolver,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    services: Mutex<HashMap<String, Arc<Service>>>,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

#[derive(Default)]
struct Host {
    found: Mutex<Found>,
    /// Held while it is looked up.
    asking: tokio::sync::Mutex<()>,
}

/// The SRV records of one service.
#[derive(Default)]
struct Service {
    found: Mutex<Ports>,
    /// Held while they are looked up.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default, Clone)]
struct Ports {
    /// By host; what was found last of each.
    ports: HashMap<String, u16>,
    /// When they were last asked for.
    asked: Option<Instant>,
    /// Why that brought nothing, if so.
    error: Option<ResolveError>,
}

#[derive(Default, Clone)]
struct Found {
    /// In ascending order; what was found last.
    addresses: Vec<IpAddr>,
    /// When it was last asked for.
    asked: Option<Instant>,
    /// Why that brought nothing, if so.
    error: Option<ResolveError>,
}

impl Resolver {
    /// A resolver that has looked up nothing yet.
    ///
    /// # Errors
    /// When the system's configuration cannot be read.
    pub fn new(options: &ResolverOptions) -> Result<Self, ResolveError> {
        let mut builder = match options.server {
            None => TokioResolver::builder_tokio().map_err(ResolveError::other)?,
            Some(server) => {
                let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
                for connection in &mut connections {
                    connection.port = server.port();
                }
                let server = NameServerConfig::new(server.ip(), true, connections);
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let settings = builder.options_mut();
        settings.timeout = QUESTION_TIMEOUT;
        settings.attempts = 2;
        settings.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // What is remembered is remembered here: an answer that is asked for has to be a new one.
        settings.cache_size = 0;
        Ok(Self {
            names: builder.build().map_err(ResolveError::other)?,
            hosts: Mutex::default(),
            services: Mutex::default(),
            succeeded: AtomicU64::default(),
            failed: AtomicU64::default(),
        })
    }

    /// Addresses of a host: those found last, however long ago, else those of a lookup. An address stands for itself.
    ///
    /// # Errors
    /// When the name was never found.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let known = self.known(host);
        if known.is_empty() { self.refresh(host).await } else { Ok(known) }
    }

    /// What was found last; nothing if it never was.
    pub fn known(&self, host: &str) -> Vec<IpAddr> {
        lock(&self.host(host).found).addresses.clone()
    }

    /// Addresses of a host, looked up now, or by another caller since this one asked. Where that brings nothing those
    /// found before are kept.
    ///
    /// # Errors
    /// When the name was never found.
    pub async fn refresh(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let since = Instant::now();
        let entry = self.host(host);
        let _asking = entry.asking.lock().await;
        let before = lock(&entry.found).clone();
        if before.asked.is_none_or(|asked| asked < since && since.duration_since(asked) >= PAUSE_MIN) {
            let answer = self.names.lookup_ip(host).await;
            let mut found = lock(&entry.found);
            found.asked = Some(Instant::now());
            match answer {
                Ok(answer) => {
                    let mut addresses: Vec<IpAddr> = answer.iter().collect();
                    addresses.sort_unstable();
                    addresses.dedup();
                    found.error = addresses.is_empty().then(ResolveError::absent);
                    if !addresses.is_empty() {
                        found.addresses = addresses;
                    }
                }
                Err(error) => found.error = Some(error.into()),
            }
            let counter = if found.error.is_none() { &self.succeeded } else { &self.failed };
            counter.fetch_add(1, Relaxed);
        }
        let found = lock(&entry.found);
        if found.addresses.is_empty() {
            Err(found.error.clone().unwrap_or_else(ResolveError::absent))
        } else {
            Ok(found.addresses.clone())
        }
    }

    /// Time since the host was last asked for; none if it never was.
    pub fn age(&self, host: &str) -> Option<Duration> {
        lock(&self.host(host).found).asked.map(|asked| asked.elapsed())
    }

    /// The port of a host, as the SRV records of a service name it: what was found last, however long ago, else what a
    /// lookup brings. The list of hosts is not taken from there: records are in no order, and hosts that are away are
    /// missing.
    ///
    /// # Errors
    /// When no record ever named the host.
    pub async fn port(&self, service: &str, host: &str) -> Result<u16, ResolveError> {
        match self.known_port(service, host) {
            Some(port) => Ok(port),
            None => self.refresh_port(service, host).await,
        }
    }

    /// The port that was found last; nothing if it never was.
    pub fn known_port(&self, service: &str, host: &str) -> Option<u16> {
        lock(&self.service(service).found).ports.get(&plain(host)).copied()
    }

    /// The port of a host, looked up now, or by another caller since this one asked. Where that brings nothing the one
    /// found before is kept.
    ///
    /// # Errors
    /// When no record ever named the host.
    pub async fn refresh_port(&self, service: &str, host: &str) -> Result<u16, ResolveError> {
        let since = Instant::now();
        let entry = self.service(service);
        let _asking = entry.asking.lock().await;
        let asked = lock(&entry.found).asked;
        if asked.is_none_or(|asked| asked < since && since.duration_since(asked) >= PAUSE_MIN) {
            let answer = self.names.srv_lookup(service).await;
            let counter = if answer.is_ok() { &self.succeeded } else { &self.failed };
            counter.fetch_add(1, Relaxed);
            let mut found = lock(&entry.found);
            found.asked = Some(Instant::now());
            found.error = answer.as_ref().err().map(|error| error.clone().into());
            let named = |record: &Record| match &record.data {
                RData::SRV(srv) => Some((plain(&srv.target.to_utf8()), srv.port)),
                _ => None,
            };
            found.ports.extend(answer.iter().flat_map(|answer| answer.answers()).filter_map(named));
        }
        let found = lock(&entry.found);
        let missing = || match &found.error {
            Some(error) => ResolveError { is_absent: false, ..error.clone() },
            None => ResolveError::other(format!("{service} has no SRV record of {host}")),
        };
        found.ports.get(&plain(host)).copied().ok_or_else(missing)
    }

    fn service(&self, service: &str) -> Arc<Service> {
        let mut services = lock(&self.services);
        match services.get(service) {
            Some(entry) => entry.clone(),
            None => services.entry(service.to_owned()).or_default().clone(),
        }
    }

    /// Forgets hosts and services that nobody needs any more.
    pub fn retain(&self, is_needed: impl Fn(&str) -> bool) {
        lock(&self.hosts).retain(|host, _| is_needed(host));
        lock(&self.services).retain(|service, _| is_needed(service));
    }

    /// Lookups that found something, and those that did not.
    pub fn lookups(&self) -> [u64; 2] {
        [self.succeeded.load(Relaxed), self.failed.load(Relaxed)]
    }

    fn host(&self, host: &str) -> Arc<Host> {
        let mut hosts = lock(&self.hosts);
        match hosts.get(host) {
            Some(entry) => entry.clone(),
            None => hosts.entry(host.to_owned()).or_default().clone(),
        }
    }
}

/// Names are compared without their last dot and without regard to case.
fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
