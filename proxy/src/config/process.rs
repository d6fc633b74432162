//! Settings of the process.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use shard_discovery::yaml::Entry;

use super::Surroundings;
use super::auth::secret_file;
use super::mistake::{Mistake, Place, did_you_mean};
use super::section::Section;
use super::settings;
use super::value::{boolean, duration, number, percent, positive, size, text};
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
    /// Host or address; of the admin server also the path of a Unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Nobody has asked for it: if the port is taken, the proxy goes without.
    pub implied: bool,
}

impl SideListen {
    /// Port 0 is nowhere.
    pub fn of(host: String, port: u16, implied: bool) -> Option<Self> {
        (port > 0).then_some(Self { host, port, implied })
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
        let stats_port = section.setting("stats_port", port);
        let admin_implied = !section.has("admin_address") && !section.has("admin_port");
        let admin_host = section.setting("admin_address", text);
        let admin_port = section.setting("admin_port", port);
        Self {
            workers: section.setting("workers", workers),
            log_level: section.setting("log_level", log_level),
            log_format: section.setting("log_format", log_format),
            stats: SideListen::of(host, stats_port, implied),
            admin: SideListen::of(admin_host, admin_port, admin_implied),
            admin_token: section
                .optional("admin_token_file", |path| secret_file(path, around))
                .map(Secret::new),
            dns_server: section.optional("dns_server", |text| {
                text.parse().map_err(|_| "allowed is an address and a port, such as 10.96.0.10:53".to_owned())
            }),
            dns_refresh: section.setting("dns_refresh", positive),
            ready_min_healthy: section.setting("ready_min_healthy", percent),
            drain_grace: section.setting("drain_grace", duration),
            drain_limit: section.setting("drain_limit", duration),
            memory_max: section.setting("memory_max", memory_max),
            watch_config: section.setting("watch_config", boolean),
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
            ("dns_server", self.dns_server == wanted.dns_server),
        ];
        let adopted = Self {
            workers: self.workers,
            log_format: self.log_format,
            stats: self.stats.clone(),
            admin: self.admin.clone(),
            dns_server: self.dns_server,
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

/// `auto`, or so many.
pub fn workers(text: &str) -> Result<Option<usize>, String> {
    match text {
        "auto" => Ok(None),
        _ => number(text, 1, 256)
            .map(|workers| Some(workers as usize))
            .map_err(|allowed| format!("{allowed}, or auto")),
    }
}

/// A level by its name.
pub fn log_level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
    match LEVELS.into_iter().find(|level| *level == text) {
        Some(level) => Ok(level.to_owned()),
        None => Err(format!("allowed are {}{}", LEVELS.join(", "), did_you_mean(text, LEVELS))),
    }
}

/// `text` or `json`.
pub fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("allowed are text and json".into()),
    }
}

/// A port, or 0 for none.
pub fn port(text: &str) -> Result<u16, String> {
    number(text, 0, 65535).map(|port| port as u16)
}

/// `auto`, or a size.
pub fn memory_max(text: &str) -> Result<Option<u64>, String> {
    if text == "auto" {
        Ok(None)
    } else {
        size(text).map(Some).map_err(|allowed| format!("{allowed}, or auto"))
    }
}
