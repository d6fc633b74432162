//! `memstore serve`: runs the proxy, with the flags over the file's settings.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser};

use super::check::warnings;
use super::common::File;
use crate::config::{self, Config, LogFormat, Origin, SideListen, otlp, process};
use crate::secret::Secret;
use crate::{Hooks, log};

/// Its flags.
#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    file: File,
    /// Port for statistics in Twemproxy's format; 0 disables them
    #[arg(short = 's', long, value_name = "PORT", env = "MEMSTORE_STATS_PORT", value_parser = |text: &str| process::read::<u16>("stats_port", text))]
    stats_port: Option<u16>,
    /// Listen address for statistics
    #[arg(short = 'a', long, value_name = "ADDRESS", env = "MEMSTORE_STATS_ADDRESS")]
    stats_address: Option<String>,
    /// Port of the admin server (HTTP): probes, metrics, topology; 0 disables it
    #[arg(long, value_name = "PORT", env = "MEMSTORE_ADMIN_PORT", value_parser = |text: &str| process::read::<u16>("admin_port", text))]
    admin_port: Option<u16>,
    /// Listen address of the admin server, or the path of a Unix socket
    #[arg(long, value_name = "ADDRESS", env = "MEMSTORE_ADMIN_ADDRESS")]
    admin_address: Option<String>,
    /// File that contains the bearer token required for changes over HTTP
    #[arg(long, value_name = "FILE", env = "MEMSTORE_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
    /// Number of worker threads, or auto
    #[arg(long, value_name = "COUNT", env = "MEMSTORE_WORKERS", value_parser = |text: &str| process::read::<Option<usize>>("workers", text).map(Chosen))]
    workers: Option<Chosen<Option<usize>>>,
    /// Minimum log level: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", env = "MEMSTORE_LOG_LEVEL", value_parser = |text: &str| process::read::<&str>("log_level", text).map(str::to_owned))]
    log_level: Option<String>,
    /// Log format: text, json
    #[arg(long, value_name = "FORMAT", env = "MEMSTORE_LOG_FORMAT", value_parser = |text: &str| process::read::<&str>("log_format", text).map(LogFormat::of))]
    log_format: Option<LogFormat>,
    /// Collector of OpenTelemetry that traces are sent to, such as http://127.0.0.1:4318
    #[arg(long, value_name = "URL", env = "MEMSTORE_OTLP_ENDPOINT", value_parser = otlp::endpoint)]
    otlp_endpoint: Option<String>,
    /// How the collector is spoken to: http, grpc
    #[arg(long, value_name = "PROTOCOL", env = "MEMSTORE_OTLP_PROTOCOL", value_parser = |text: &str| process::read::<&str>("otlp_protocol", text).map(str::to_owned))]
    otlp_protocol: Option<String>,
    /// File with headers that the collector is sent, one NAME: VALUE a line
    #[arg(long, value_name = "FILE", env = "MEMSTORE_OTLP_HEADERS_FILE")]
    otlp_headers_file: Option<PathBuf>,
    /// How long new clients are still accepted after SIGTERM, such as 5s
    #[arg(long, value_name = "TIME", env = "MEMSTORE_DRAIN_GRACE", value_parser = |text: &str| process::read::<Duration>("drain_grace", text))]
    drain_grace: Option<Duration>,
    /// How long a drain waits for clients to read their last replies and close, such as 30s
    #[arg(long, value_name = "TIME", env = "MEMSTORE_DRAIN_LIMIT", value_parser = |text: &str| process::read::<Duration>("drain_limit", text))]
    drain_limit: Option<Duration>,
    /// Maximum memory for client and shard data, such as 512MiB, or auto
    #[arg(long, value_name = "SIZE", env = "MEMSTORE_MEMORY_MAX", value_parser = |text: &str| process::read::<Option<u64>>("memory_max", text).map(Chosen))]
    memory_max: Option<Chosen<Option<u64>>>,
    /// What of this was said, and where.
    #[arg(skip)]
    given: Vec<Given>,
}

/// A setting that a flag or an environment variable has set.
#[derive(Clone)]
struct Given {
    name: &'static str,
    value: String,
    origin: Origin,
}

/// Settings that have a flag and a variable.
const SETTINGS: [&str; 14] = [
    "stats_port",
    "stats_address",
    "admin_port",
    "admin_address",
    "admin_token_file",
    "workers",
    "log_level",
    "log_format",
    "otlp_endpoint",
    "otlp_protocol",
    "otlp_headers_file",
    "drain_grace",
    "drain_limit",
    "memory_max",
];

impl Serve {
    /// The flags as they were read, with where each was found.
    pub fn with_origins(mut self, matches: &ArgMatches) -> Self {
        let given = |name: &'static str| {
            let origin = match matches.value_source(name)? {
                ValueSource::CommandLine => Origin::Flag,
                ValueSource::EnvVariable => {
                    Origin::Environment(format!("MEMSTORE_{}", name.to_ascii_uppercase()))
                }
                _ => return None,
            };
            let value = matches.get_raw(name)?.next()?.to_string_lossy().into_owned();
            Some(Given { name, value, origin })
        };
        self.given = SETTINGS.into_iter().filter_map(given).collect();
        self
    }
}

/// A value of its own, where clap would take an `Option` for an absent flag.
#[derive(Clone)]
struct Chosen<T>(T);

/// The same for whoever has the flags as words.
#[derive(Parser)]
#[command(name = "memstore serve")]
struct Line {
    #[command(flatten)]
    serve: Serve,
}

/// Runs the proxy with these flags.
pub fn serve_with(flags: Vec<OsString>, hooks: Hooks) -> anyhow::Result<()> {
    let program: OsString = "memstore".into();
    let matches = Line::command().try_get_matches_from(std::iter::once(program).chain(flags))?;
    serve(Line::from_arg_matches(&matches)?.serve.with_origins(&matches), hooks)
}

/// Runs the proxy until it is told to end.
pub fn serve(serve: Serve, hooks: Hooks) -> anyhow::Result<()> {
    let config = settled(&serve)?;
    let set_log_level = log::begin(&config.process)?;
    warn(&config);
    let load = move || {
        let config = settled(&serve)?;
        warn(&config);
        Ok(config)
    };
    crate::serve(config, load, set_log_level, hooks)
}

fn warn(config: &Config) {
    for warning in config.pools.iter().flat_map(warnings) {
        tracing::warn!("{warning}");
    }
}

/// The file's settings, then those of the environment and the flags over them.
fn settled(serve: &Serve) -> anyhow::Result<Config> {
    let mut config = config::load(&serve.file.config)?;
    let process = &mut config.process;
    let plain = config::Process::of_nutcracker();
    let flags = (&serve.stats_address, serve.stats_port);
    process.stats = overridden(process.stats.take(), plain.stats, flags);
    let flags = (&serve.admin_address, serve.admin_port);
    process.admin = overridden(process.admin.take(), plain.admin, flags);
    if let Some(file) = &serve.admin_token_file {
        process.admin_token = Some(Secret::of_file(file)?);
        config.files.push(file.clone());
    }
    let process = &mut config.process;
    if let Some(Chosen(workers)) = serve.workers {
        process.workers = workers;
    }
    if let Some(Chosen(memory_max)) = serve.memory_max {
        process.memory_max = memory_max;
    }
    if let Some(level) = &serve.log_level {
        process.log_level.clone_from(level);
    }
    if let Some(endpoint) = &serve.otlp_endpoint {
        process.otlp.endpoint = Some(endpoint.clone());
    }
    if let Some(protocol) = &serve.otlp_protocol {
        process.otlp.grpc = protocol == "grpc";
    }
    if let Some(file) = &serve.otlp_headers_file {
        let named = || file.display().to_string();
        let headers = otlp::headers(Secret::of_file(file)?.expose());
        process.otlp.headers = headers.map_err(anyhow::Error::msg).with_context(named)?;
        config.files.push(file.clone());
    }
    let process = &mut config.process;
    process.log_format = serve.log_format.unwrap_or(process.log_format);
    process.drain_grace = serve.drain_grace.unwrap_or(process.drain_grace);
    process.drain_limit = serve.drain_limit.unwrap_or(process.drain_limit);
    for Given { name, value, origin } in &serve.given {
        config.shown.set(name, value.clone(), origin.clone());
    }
    Ok(config)
}

/// Where something is served by the file, or where that serves nothing by the defaults, with the flags over it.
fn overridden(
    in_file: Option<SideListen>,
    plain: Option<SideListen>,
    (address, port): (&Option<String>, Option<u16>),
) -> Option<SideListen> {
    if address.is_none() && port.is_none() {
        return in_file;
    }
    let before = in_file.or(plain)?;
    SideListen::of(address.clone().unwrap_or(before.host), port.unwrap_or(before.port), false)
}
