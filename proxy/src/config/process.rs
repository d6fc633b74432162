//! Settings of the process.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use shard_discovery::source::fixed::bare;
use shard_discovery::yaml::Entry;

use super::Surroundings;
use super::auth::secret_file;
use super::kind;
use super::mistake::{Mistake, Place};
use super::otlp::Otlp;
use super::section::Section;
use super::settings;
use super::value::text;
use crate::secret::Secret;

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where something is served over HTTP, or the statistics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SideListen {
    /// Host or address, without brackets; of the admin server also the path of a Unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Nobody has asked for it: if the port is taken, the proxy goes without.
    pub implied: bool,
}

impl SideListen {
    /// Port 0 is nowhere.
    pub fn of(host: String, port: u16, implied: bool) -> Option<Self> {
        (port > 0).then(|| Self { host: bare(&host).to_owned(), port, implied })
    }

    /// The path of the Unix socket, if it is one.
    pub fn path(&self) -> Option<&Path> {
        self.host.starts_with('/').then(|| Path::new(&self.host))
    }
}

impl fmt::Display for SideListen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path() {
            Some(path) => path.display().fmt(formatter),
            None if self.host.contains(':') => write!(formatter, "[{}]:{}", self.host, self.port),
            None => write!(formatter, "{}:{}", self.host, self.port),
        }
    }
}

/// Settings of the process. [`settings::PROCESS`] says what each means.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)] // the table has it
pub struct Process {
    pub workers: Option<usize>,
    pub log_level: String,
    pub log_format: LogFormat,
    pub stats: Option<SideListen>,
    pub drain_grace: Duration,
    pub drain_limit: Duration,
    pub memory_max: Option<u64>,
    pub watch_config: bool,
    pub admin: Option<SideListen>,
    pub admin_token: Option<Secret>,
    pub otlp: Otlp,
    pub ready_min_healthy: u8,
    pub dns_server: Option<SocketAddr>,
    pub dns_refresh: Duration,
}

impl Process {
    /// Reads the settings beside `pools:`.
    pub fn read(
        place: Place,
        entries: &[Entry],
        around: &Surroundings<'_>,
        mistakes: &mut Vec<Mistake>,
    ) -> Self {
        let mut section = Section::new("process".into(), place, entries, settings::PROCESS, mistakes);
        let implied = !section.has("stats_address") && !section.has("stats_port");
        let host = section.setting("stats_address", text);
        let stats_port = section.value("stats_port");
        let admin_implied = !section.has("admin_address") && !section.has("admin_port");
        let admin_host = section.setting("admin_address", text);
        let admin_port = section.value("admin_port");
        Self {
            workers: section.value("workers"),
            log_level: section.value::<&str>("log_level").to_owned(),
            log_format: LogFormat::of(section.value("log_format")),
            stats: SideListen::of(host, stats_port, implied),
            admin: SideListen::of(admin_host, admin_port, admin_implied),
            admin_token: section
                .optional("admin_token_file", |path| secret_file(path, around))
                .map(Secret::new),
            dns_server: section.optional("dns_server", |text| {
                text.parse().map_err(|_| "allowed is an address and a port, such as 10.96.0.10:53".to_owned())
            }),
            dns_refresh: section.value("dns_refresh"),
            otlp: Otlp::read(&mut section, around),
            ready_min_healthy: section.value("ready_min_healthy"),
            drain_grace: section.value("drain_grace"),
            drain_limit: section.value("drain_limit"),
            memory_max: section.value("memory_max"),
            watch_config: section.value("watch_config"),
        }
    }

    /// The settings once `wanted` has come to hold while the process runs, and the names of those that cannot change then
    /// and would.
    pub fn adopt(&self, wanted: Self) -> (Self, Vec<&'static str>) {
        let fixed = [
            ("workers", self.workers == wanted.workers),
            ("log_format", self.log_format == wanted.log_format),
            ("stats_address, stats_port", self.stats == wanted.stats),
            ("admin_address, admin_port", self.admin == wanted.admin),
            ("otlp_endpoint", self.otlp.endpoint == wanted.otlp.endpoint),
            ("otlp_protocol", self.otlp.grpc == wanted.otlp.grpc),
            ("dns_server", self.dns_server == wanted.dns_server),
        ];
        let adopted = Self {
            workers: self.workers,
            log_format: self.log_format,
            stats: self.stats.clone(),
            admin: self.admin.clone(),
            dns_server: self.dns_server,
            otlp: Otlp { endpoint: self.otlp.endpoint.clone(), grpc: self.otlp.grpc, ..wanted.otlp },
            ..wanted
        };
        (adopted, fixed.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect())
    }

    /// The defaults, which hold for a file that nutcracker could read as well.
    pub fn of_nutcracker() -> Self {
        let around =
            Surroundings { read_file: &|_| Err(io::ErrorKind::NotFound.into()), environment: &|_| None };
        Self::read(Place::START, &[], &around, &mut Vec::new())
    }
}

/// A setting of the process that is written elsewhere than in the file.
pub fn read<T: kind::Value>(name: &str, text: &str) -> Result<T, String> {
    settings::row(settings::PROCESS, name).read(text)
}

impl LogFormat {
    /// By its word in the table.
    pub fn of(word: &str) -> Self {
        if word == "json" { Self::Json } else { Self::Text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_with_brackets_or_without() {
        for host in ["::1", "[::1]"] {
            let listens = SideListen::of(host.to_owned(), 9121, false).expect(host);
            assert_eq!((listens.host.as_str(), listens.to_string().as_str()), ("::1", "[::1]:9121"));
        }
        let plain = SideListen::of("127.0.0.1".to_owned(), 9121, false).expect("a port");
        assert_eq!(plain.to_string(), "127.0.0.1:9121");
    }
}
