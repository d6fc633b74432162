//! The command line: `memstore serve`, `check`, `route`, `ring`, `settings`, and what asks a running proxy.

use std::ffi::OsString;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use shard_discovery::{DistributionKind, KeyHash, Place, Topology};
use tracing_subscriber::EnvFilter;

use crate::admin::{self, SetLogLevel};
use crate::cluster::arguments::{self, Cluster};
use crate::config::{self, Config, LogFormat, SideListen, process, value};
use crate::plan;
use crate::trial::{self, AwaitRing, Try};

/// A sharding proxy for Redis, Valkey and memcached that takes Twemproxy's place.
#[derive(Parser)]
#[command(name = "memstore", version)]
struct CommandLine {
    /// Only to say what nutcracker's users should write instead.
    #[arg(short = 'c', hide = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy
    Serve(Serve),
    /// Say all that is wrong with a configuration, or nothing
    Check(File),
    /// Say which shard owns a key, and why
    Route(Route),
    /// Say which share of the keys each shard owns
    Ring(Ring),
    /// Say which keys move where if one configuration takes the place of another
    Plan(Plan),
    /// Care for a Redis Cluster
    #[command(subcommand)]
    Cluster(Cluster),
    /// Write a value through an address, read it back, and remove it; exit 1 if that does not work
    Try(Try),
    /// Wait until all proxies have left the shards that are not in a list any more
    AwaitRing(AwaitRing),
    /// Print all settings: a table in Markdown, or a JSON schema by which an editor checks the configuration
    Settings(Settings),
    /// Tell a running proxy to accept no more clients, answer the others, and end
    Drain(Ask),
    /// Tell a running proxy to read its configuration again
    Reload(Ask),
    /// Ask a running proxy whether clients can be served; exit 1 if not
    Ready(Ask),
    /// Ask a running proxy whether it makes progress; exit 1 if not
    Alive(Ask),
}

#[derive(Args)]
struct File {
    /// The configuration: a nutcracker.yml, or one with `pools:`
    #[arg(short = 'c', long = "config", value_name = "FILE", env = "MEMSTORE_CONFIG")]
    config: PathBuf,
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    file: File,
    /// Port of the statistics; 0 serves none
    #[arg(short = 's', long, value_name = "PORT", env = "MEMSTORE_STATS_PORT", value_parser = process::port)]
    stats_port: Option<u16>,
    /// Address of the statistics
    #[arg(short = 'a', long, value_name = "ADDRESS", env = "MEMSTORE_STATS_ADDRESS")]
    stats_address: Option<String>,
    /// Port of probes, metrics and the topology over HTTP; 0 serves none
    #[arg(long, value_name = "PORT", env = "MEMSTORE_ADMIN_PORT", value_parser = process::port)]
    admin_port: Option<u16>,
    /// Address of that
    #[arg(long, value_name = "ADDRESS", env = "MEMSTORE_ADMIN_ADDRESS")]
    admin_address: Option<String>,
    /// File with the token that allows changes over HTTP from elsewhere
    #[arg(long, value_name = "FILE", env = "MEMSTORE_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
    /// Worker threads, or auto
    #[arg(long, value_name = "COUNT", env = "MEMSTORE_WORKERS", value_parser = |text: &str| process::workers(text).map(Chosen))]
    workers: Option<Chosen<Option<usize>>>,
    /// Least important lines that are logged: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", env = "MEMSTORE_LOG_LEVEL", value_parser = process::log_level)]
    log_level: Option<String>,
    /// How log lines look: text, json
    #[arg(long, value_name = "FORMAT", env = "MEMSTORE_LOG_FORMAT", value_parser = process::log_format)]
    log_format: Option<LogFormat>,
    /// How long clients are still accepted after SIGTERM
    #[arg(long, value_name = "TIME", env = "MEMSTORE_DRAIN_GRACE", value_parser = value::duration)]
    drain_grace: Option<Duration>,
    /// How long clients may take to read their last replies and close
    #[arg(long, value_name = "TIME", env = "MEMSTORE_DRAIN_LIMIT", value_parser = value::duration)]
    drain_limit: Option<Duration>,
    /// Bytes that all clients may hold together, or auto
    #[arg(long, value_name = "SIZE", env = "MEMSTORE_MEMORY_MAX", value_parser = |text: &str| process::memory_max(text).map(Chosen))]
    memory_max: Option<Chosen<Option<u64>>>,
}

/// A value of its own, where clap would take an `Option` for an absent flag.
#[derive(Clone)]
struct Chosen<T>(T);

#[derive(Args)]
struct Route {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    output: Output,
    /// Keys; `-` reads them from standard input, one a line
    #[arg(required = true)]
    keys: Vec<OsString>,
}

#[derive(Args)]
struct Ring {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    output: Output,
}

#[derive(Args)]
struct Plan {
    /// The present configuration
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// The one to come
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Only this pool
    #[arg(long)]
    pool: Option<String>,
    /// `-` reads keys from standard input, one a line; without it a sample of all possible keys is taken
    #[arg(value_parser = ["-"])]
    keys: Option<String>,
}

#[derive(Args)]
struct Settings {
    /// As a table, or as a JSON schema
    #[arg(long, value_enum, default_value_t = SettingsFormat::Markdown)]
    format: SettingsFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum SettingsFormat {
    Markdown,
    JsonSchema,
}

#[derive(Args)]
struct Ask {
    /// The proxy's admin address
    #[arg(long, value_name = "HOST:PORT", env = "MEMSTORE_ADMIN", default_value = "127.0.0.1:9121")]
    admin: String,
    /// File with the token
    #[arg(long, value_name = "FILE", env = "MEMSTORE_ADMIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

#[derive(Args)]
struct Output {
    /// Only this pool
    #[arg(long)]
    pool: Option<String>,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Runs the command that the command line asks for.
pub fn run() -> ExitCode {
    let line = CommandLine::parse();
    let done = match line.command {
        Some(Command::Serve(serve)) => start(serve),
        Some(Command::Check(file)) => check(&file.config),
        Some(Command::Route(route)) => show_route(&route),
        Some(Command::Ring(ring)) => show_ring(&ring),
        Some(Command::Plan(plan)) => show_plan(&plan),
        Some(Command::Cluster(cluster)) => arguments::run(cluster),
        Some(Command::Try(asked)) => trial::try_out(&asked).and_then(|said| print(&said)),
        Some(Command::AwaitRing(asked)) => trial::await_ring(&asked).and_then(|said| print(&said)),
        Some(Command::Settings(asked)) => print(&match asked.format {
            SettingsFormat::Markdown => config::settings::markdown(),
            SettingsFormat::JsonSchema => config::json_schema::text(),
        }),
        Some(Command::Drain(ask)) => say("POST", "/drain", &ask),
        Some(Command::Reload(ask)) => say("POST", "/reload", &ask),
        Some(Command::Ready(ask)) => say("GET", "/ready", &ask),
        Some(Command::Alive(ask)) => say("GET", "/alive", &ask),
        None => {
            let file = line.config.unwrap_or_else(|| "FILE".into());
            Err(anyhow::anyhow!("say what to do, for example: memstore serve -c {}", file.display()))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(serve: Serve) -> anyhow::Result<()> {
    let config = settled(&serve)?;
    let set_log_level = begin_logging(&config.process);
    warn(&config);
    let load = move || {
        let config = settled(&serve)?;
        warn(&config);
        Ok(config)
    };
    crate::serve(config, load, set_log_level)
}

/// Asks a running proxy; prints what it says.
fn say(method: &str, path: &str, ask: &Ask) -> anyhow::Result<()> {
    let token = ask.token_file.as_deref().map(config::Secret::of_file).transpose()?;
    let token = token.as_ref().map(config::Secret::expose);
    let (status, body) = admin::ask(&ask.admin, method, path, token)
        .with_context(|| format!("the proxy at {} cannot be asked", ask.admin))?;
    anyhow::ensure!((200..300).contains(&status), "{status}: {}", body.trim_end());
    print(&body)
}

fn warn(config: &Config) {
    for warning in config.pools.iter().flat_map(surprises) {
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
        process.admin_token = Some(config::Secret::of_file(file)?);
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
    process.log_format = serve.log_format.unwrap_or(process.log_format);
    process.drain_grace = serve.drain_grace.unwrap_or(process.drain_grace);
    process.drain_limit = serve.drain_limit.unwrap_or(process.drain_limit);
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

/// Begins to log; returns what changes the level.
fn begin_logging(process: &config::Process) -> SetLogLevel {
    fn setter<S: 'static>(handle: tracing_subscriber::reload::Handle<EnvFilter, S>) -> SetLogLevel {
        Arc::new(move |level| {
            let level = process::log_level(level)?;
            handle.reload(EnvFilter::new(level)).map_err(|error| error.to_string())
        })
    }
    let builder =
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let filter = EnvFilter::new(&process.log_level);
    match process.log_format {
        LogFormat::Text => {
            let builder = builder.with_env_filter(filter).with_filter_reloading();
            let set = setter(builder.reload_handle());
            builder.init();
            set
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_env_filter(filter).with_filter_reloading();
            let set = setter(builder.reload_handle());
            builder.init();
            set
        }
    }
}

fn check(path: &Path) -> anyhow::Result<()> {
    let config = config::load(path)?;
    let mut text = String::new();
    for pool in &config.pools {
        let protocol = match pool.protocol {
            config::Protocol::Redis => "Redis",
            config::Protocol::Memcache => "memcache",
        };
        let shards = match &pool.cluster {
            Some(cluster) => format!("a cluster with {} seeds", cluster.seeds.len()),
            None => {
                format!("{} shards, {} over {}", pool.shards.len(), pool.distribution, pool.key_hash)
            }
        };
        text.push_str(&format!("pool {}: {protocol} on {}, {shards}\n", pool.name, pool.listen));
        for warning in surprises(pool) {
            text.push_str(&format!("  warning: {warning}\n"));
        }
    }
    print(&text)
}

/// What is allowed and most likely not meant.
fn surprises(pool: &config::Pool) -> Vec<String> {
    let mut found = Vec::new();
    let several = pool.shards.len() > 1;
    if several && pool.key_hash == KeyHash::Crc32 && pool.distribution == DistributionKind::Ketama {
        found.push(format!(
            "pool {}: hash crc32 has only 15 bits, so ketama puts every key on one shard; crc32a has all 32",
            pool.name
        ));
    }
    if let Ok(topology) = pool.topology() {
        for share in topology.shares().iter().filter(|share| share.points == 0) {
            let shard = &topology.shards()[share.shard];
            found.push(format!(
                "pool {}: shard {} has weight {} beside much heavier ones and gets no keys",
                pool.name, shard.name, shard.weight
            ));
        }
    }
    found
}

fn show_route(route: &Route) -> anyhow::Result<()> {
    let config = config::load(&route.file.config)?;
    let mut keys = Vec::new();
    for key in &route.keys {
        if key == "-" {
            keys.extend(keys_of_input()?);
        } else {
            keys.push(key.as_bytes().to_vec());
        }
    }
    let mut text = String::new();
    for (name, topology) in topologies(&config, &route.output)? {
        for key in &keys {
            text.push_str(&routed(name, &topology, key, route.output.format));
        }
    }
    print(&text)
}

/// Keys from standard input, one a line.
fn keys_of_input() -> std::io::Result<Vec<Vec<u8>>> {
    let without_return = |line: std::io::Result<Vec<u8>>| {
        line.map(|mut line| {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            line
        })
    };
    std::io::stdin().lock().split(b'\n').map(without_return).collect()
}

fn show_plan(asked: &Plan) -> anyhow::Result<()> {
    let (from, to) = (config::load(&asked.from)?, config::load(&asked.to)?);
    let keys = if asked.keys.is_some() { Some(keys_of_input()?) } else { None };
    let mut text = String::new();
    let is_meant = |pool: &&config::Pool| asked.pool.as_ref().is_none_or(|name| *name == pool.name);
    for pool in to.pools.iter().filter(is_meant) {
        match from.pools.iter().find(|before| before.name == pool.name) {
            Some(before) => {
                let moves = plan::Moves::of(&before.topology()?, &pool.topology()?, keys.as_deref());
                text.push_str(&moves.text(&pool.name));
            }
            None => text.push_str(&format!("{}: is new\n", pool.name)),
        }
    }
    for pool in from.pools.iter().filter(is_meant) {
        if to.pools.iter().all(|after| after.name != pool.name) {
            text.push_str(&format!("{}: is gone\n", pool.name));
        }
    }
    anyhow::ensure!(!text.is_empty(), "there is no such pool in either file");
    print(&text)
}

fn routed(pool: &str, topology: &Topology, key: &[u8], format: Format) -> String {
    let why = topology.explain(key);
    let shard = why.shard.map(|shard| &topology.shards()[shard]);
    let place = match &why.place {
        None => None,
        Some(Place::Point(point)) => Some(("point", *point)),
        Some(Place::Slot(slot)) => Some(("slot", *slot)),
    };
    if format == Format::Json {
        let place = place.map_or(String::new(), |(kind, at)| format!("\"{kind}\":{at},"));
        let owner = shard.map_or("\"shard\":null".to_owned(), |shard| {
            format!(
                "\"shard\":{},\"address\":{}",
                json(shard.name.as_bytes()),
                json(shard.address.to_string().as_bytes())
            )
        });
        return format!(
            "{{\"pool\":{},\"key\":{},\"hashed\":{},\"by_tag\":{},\"hash\":{},{place}{owner}}}\n",
            json(pool.as_bytes()),
            json(key),
            json(why.hashed),
            why.by_tag,
            why.hash
        );
    }
    let nobody = if topology.is_cluster() { "who owns the slot" } else { "any shard" };
    let owner = shard.map_or(nobody.to_owned(), |shard| format!("{} ({})", shard.name, shard.address));
    let part = if why.by_tag { format!("tag {}", why.hashed.escape_ascii()) } else { "whole key".to_owned() };
    let place = place.map_or(String::new(), |(kind, at)| format!(", {kind} {at}"));
    format!(
        "{pool}: {} -> {owner}: {part}, {} {}{place}\n",
        key.escape_ascii(),
        topology.key_hash(),
        why.hash
    )
}

fn show_ring(ring: &Ring) -> anyhow::Result<()> {
    let config = config::load(&ring.file.config)?;
    let mut text = String::new();
    for (name, topology) in topologies(&config, &ring.output)? {
        let width = topology.shards().iter().map(|shard| shard.name.len()).max().unwrap_or(0);
        for share in topology.shares() {
            let shard = &topology.shards()[share.shard];
            text.push_str(&match ring.output.format {
                Format::Json => format!(
                    "{{\"pool\":{},\"shard\":{},\"address\":{},\"weight\":{},\"points\":{},\"share\":{}}}\n",
                    json(name.as_bytes()),
                    json(shard.name.as_bytes()),
                    json(shard.address.to_string().as_bytes()),
                    shard.weight,
                    share.points,
                    share.share
                ),
                Format::Text => format!(
                    "{name}: {:width$}  {:6.2} %  {:5} points  weight {}  {}\n",
                    shard.name,
                    share.share * 100.0,
                    share.points,
                    shard.weight,
                    shard.address
                ),
            });
        }
    }
    print(&text)
}

/// The pools that are asked for.
fn topologies<'c>(config: &'c Config, output: &Output) -> anyhow::Result<Vec<(&'c str, Topology)>> {
    let wanted = |pool: &&config::Pool| output.pool.as_ref().is_none_or(|name| *name == pool.name);
    let found: Vec<_> = config.pools.iter().filter(wanted).collect();
    if found.is_empty() {
        let names: Vec<_> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
        let wanted = output.pool.as_deref().unwrap_or_default();
        anyhow::bail!("there is no pool {wanted:?}; the file has {}", names.join(", "));
    }
    found.into_iter().map(|pool| Ok((pool.name.as_str(), pool.topology()?))).collect()
}

/// A JSON string. Bytes that are no UTF-8 are shown as U+FFFD.
fn json(bytes: &[u8]) -> String {
    crate::json::quoted(&String::from_utf8_lossy(bytes))
}

/// To standard output; a reader that has seen enough is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
