//! Settings of the process.

use std::time::Duration;

use super::mistake::{Mistake, Place, did_you_mean};
use super::section::Section;
use super::settings;
use super::value::{boolean, duration, number, size, text};
use super::yaml::Entry;

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where statistics are served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatsListen {
    /// Host or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Nobody has asked for it: if the port is taken, the proxy goes without.
    pub implied: bool,
}

/// Settings of the process. [`settings::PROCESS`] says what each means.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the table has it
pub struct Process {
    pub workers: Option<usize>,
    pub log_level: String,
    pub log_format: LogFormat,
    pub stats: Option<StatsListen>,
    pub drain_grace: Duration,
    pub drain_limit: Duration,
    pub memory_max: Option<u64>,
    pub watch_config: bool,
}

impl Process {
    /// Reads the settings beside `pools:`.
    pub fn read(place: Place, entries: &[Entry], mistakes: &mut Vec<Mistake>) -> Self {
        let mut section = Section::new("process".into(), place, entries, settings::PROCESS, mistakes);
        let implied = !section.has("stats_address") && !section.has("stats_port");
        let host = section.setting("stats_address", text);
        let port = section.setting("stats_port", port);
        Self {
            workers: section.setting("workers", workers),
            log_level: section.setting("log_level", log_level),
            log_format: section.setting("log_format", log_format),
            stats: (port > 0).then_some(StatsListen { host, port, implied }),
            drain_grace: section.setting("drain_grace", duration),
            drain_limit: section.setting("drain_limit", duration),
            memory_max: section.setting("memory_max", memory_max),
            watch_config: section.setting("watch_config", boolean),
        }
    }

    /// The defaults, which hold for a file that nutcracker could read as well.
    pub fn of_nutcracker() -> Self {
        Self::read(Place::START, &[], &mut Vec::new())
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
