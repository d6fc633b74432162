//! The command line: `memstore serve`, `check`, `route`, `ring`, `settings`, and what asks a running proxy.

use std::ffi::OsString;
use std::io::{BufRead as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use shard_discovery::{Place, Topology};

use crate::Hooks;
use crate::admin;
use crate::check::{Check, check, surprises};
use crate::cluster::arguments::{self, Cluster};
use crate::config::{self, Config, LogFormat, SideListen, process, value};
use crate::log;
use crate::nutcracker::{self, Nutcracker};
use crate::plan;
use crate::trial::{self, AwaitRing, Try};

/// How long a proxy may take to answer a question.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The same for what changes it: a reload waits for new shards.
const CHANGE_LIMIT: Duration = Duration::from_secs(120);

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
    /// Run the proxy with nutcracker's flags; a program that is called nutcracker does so by itself
    #[command(disable_version_flag = true)]
    Nutcracker(Nutcracker),
    /// Check a configuration: report every error and warning with file, line and column; exit 1 on errors
    Check(Check),
    /// Show which shard owns a key, and why: hash tag, hash, point or slot
    Route(Route),
    /// Show the share of the keys that each shard owns
    Ring(Ring),
    /// Show which keys move between shards when one configuration replaces another
    Plan(Plan),
    /// Create a Redis Cluster, heal it, and resize it
    #[command(subcommand)]
    Cluster(Cluster),
    /// Write a value through an address, read it back, and remove it; exit 1 if that does not work
    Try(Try),
    /// Wait until no proxy uses a shard that is not in a given list
    AwaitRing(AwaitRing),
    /// Print all settings: a table in Markdown, or a JSON schema by which an editor checks the configuration
    Settings(Settings),
    /// Drain a running proxy: it accepts no more clients, answers what it has read, and ends
    Drain(Ask),
    /// Reload the configuration of a running proxy; exit 1 if that fails, 3 if changed settings need a restart
    Reload(Ask),
    /// Check whether a running proxy can serve clients; exit 1 if not
    Ready(Ask),
    /// Check whether a running proxy makes progress; exit 1 if not
    Alive(Ask),
}

#[derive(Args)]
pub(crate) struct File {
    /// The configuration: a nutcracker.yml, or one with `pools:`
    #[arg(short = 'c', long = "config", value_name = "FILE", env = "MEMSTORE_CONFIG")]
    pub(crate) config: PathBuf,
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    file: File,
    /// Port of the statistics in Twemproxy's format; 0 for none
    #[arg(short = 's', long, value_name = "PORT", env = "MEMSTORE_STATS_PORT", value_parser = process::port)]
    stats_port: Option<u16>,
    /// Address that the statistics listen on
    #[arg(short = 'a', long, value_name = "ADDRESS", env = "MEMSTORE_STATS_ADDRESS")]
    stats_address: Option<String>,
    /// Port of the admin server: probes, metrics and the topology over HTTP; 0 for none
    #[arg(long, value_name = "PORT", env = "MEMSTORE_ADMIN_PORT", value_parser = process::port)]
    admin_port: Option<u16>,
    /// Address that the admin server listens on, or the path of a Unix socket
    #[arg(long, value_name = "ADDRESS", env = "MEMSTORE_ADMIN_ADDRESS")]
    admin_address: Option<String>,
    /// File with the token that changes over HTTP have to carry
    #[arg(long, value_name = "FILE", env = "MEMSTORE_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
    /// Number of worker threads, or auto
    #[arg(long, value_name = "COUNT", env = "MEMSTORE_WORKERS", value_parser = |text: &str| process::workers(text).map(Chosen))]
    workers: Option<Chosen<Option<usize>>>,
    /// Minimum log level: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", env = "MEMSTORE_LOG_LEVEL", value_parser = process::log_level)]
    log_level: Option<String>,
    /// Log format: text, json
    #[arg(long, value_name = "FORMAT", env = "MEMSTORE_LOG_FORMAT", value_parser = process::log_format)]
    log_format: Option<LogFormat>,
    /// How long new clients are still accepted after SIGTERM, such as 5s
    #[arg(long, value_name = "TIME", env = "MEMSTORE_DRAIN_GRACE", value_parser = value::duration)]
    drain_grace: Option<Duration>,
    /// How long a drain waits for clients to read their last replies and close, such as 30s
    #[arg(long, value_name = "TIME", env = "MEMSTORE_DRAIN_LIMIT", value_parser = value::duration)]
    drain_limit: Option<Duration>,
    /// Memory that all clients may use together, such as 512MiB, or auto
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
    /// The configuration that is in use
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// The configuration that is to replace it
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Only this pool
    #[arg(long)]
    pool: Option<String>,
    /// `-` reads keys from standard input, one a line; without it a sample of all possible keys is taken
    #[arg(value_parser = ["-"])]
    keys: Option<String>,
    /// Exit with 4 if more than this share of a pool's keys moves or is lost, in percent, or if that is not known
    #[arg(long, value_name = "PERCENT", value_parser = plan::percent)]
    fail_above: Option<f64>,
    /// For people, or one JSON object for each pool and line
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
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
    /// The proxy's admin address, or the path of its Unix socket
    #[arg(long, value_name = "HOST:PORT or /PATH", env = "MEMSTORE_ADMIN", default_value = "127.0.0.1:9121")]
    admin: String,
    /// File with the token of the admin server
    #[arg(long, value_name = "FILE", env = "MEMSTORE_ADMIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// What the proxy answers, for people, or as one JSON object
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Args)]
struct Output {
    /// Only this pool
    #[arg(long)]
    pool: Option<String>,
    /// For people, or one JSON object a line
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

/// Runs the command that the command line asks for.
pub fn run() -> ExitCode {
    let (command, words) = nutcracker::arguments(CommandLine::command(), std::env::args_os());
    let line =
        CommandLine::from_arg_matches(&command.get_matches_from(words)).unwrap_or_else(|error| error.exit());
    let done = match line.command {
        Some(Command::Serve(serve)) => success(start(serve, Hooks::default())),
        Some(Command::Nutcracker(nutcracker)) => nutcracker.run(),
        Some(Command::Check(asked)) => check(&asked),
        Some(Command::Route(route)) => success(show_route(&route)),
        Some(Command::Ring(ring)) => success(show_ring(&ring)),
        Some(Command::Plan(plan)) => show_plan(&plan),
        Some(Command::Cluster(cluster)) => success(arguments::run(cluster)),
        Some(Command::Try(asked)) => success(trial::try_out(&asked).and_then(|said| print(&said))),
        Some(Command::AwaitRing(asked)) => success(trial::await_ring(&asked).and_then(|said| print(&said))),
        Some(Command::Settings(asked)) => success(print(&match asked.format {
            SettingsFormat::Markdown => config::settings::markdown(),
            SettingsFormat::JsonSchema => config::json_schema::text(),
        })),
        Some(Command::Drain(ask)) => say("POST", "/drain", &ask),
        Some(Command::Reload(ask)) => say("POST", "/reload", &ask),
        Some(Command::Ready(ask)) => say("GET", "/ready", &ask),
        Some(Command::Alive(ask)) => say("GET", "/alive", &ask),
        None => {
            let file = line.config.unwrap_or_else(|| "FILE".into());
            Err(anyhow::anyhow!("say what to do, for example: memstore serve -c {}", file.display()))
        }
    };
    let code = done.unwrap_or_else(|error| {
        log::say(&format!("{error:#}"));
        ExitCode::FAILURE
    });
    log::flush();
    code
}

fn success(done: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    done.map(|()| ExitCode::SUCCESS)
}

/// Runs the proxy as `memstore serve` with these flags.
pub(crate) fn serve(flags: Vec<OsString>, hooks: Hooks) -> anyhow::Result<()> {
    let program = ["memstore".into(), "serve".into()];
    let line = CommandLine::try_parse_from(program.into_iter().chain(flags))?;
    match line.command {
        Some(Command::Serve(serve)) => start(serve, hooks),
        _ => unreachable!("the words say serve"),
    }
}

fn start(serve: Serve, hooks: Hooks) -> anyhow::Result<()> {
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

/// Asks a running proxy; prints what it says.
fn say(method: &str, path: &str, ask: &Ask) -> anyhow::Result<ExitCode> {
    let asked = || -> anyhow::Result<(u16, String)> {
        let token = ask.token_file.as_deref().map(config::Secret::of_file).transpose()?;
        let token = token.as_ref().map(config::Secret::expose);
        let limit = if method == "GET" { ANSWER_LIMIT } else { CHANGE_LIMIT };
        admin::ask(&ask.admin, method, path, token, limit)
            .with_context(|| format!("the proxy at {} cannot be asked", ask.admin))
    };
    let (status, body) = match asked() {
        Err(error) if ask.format == Format::Json => {
            let answer = serde_json::json!({"ok": false, "status": null, "answer": format!("{error:#}")});
            print(&format!("{answer}\n"))?;
            return Ok(ExitCode::FAILURE);
        }
        asked => asked?,
    };
    let is_success = (200..300).contains(&status);
    match ask.format {
        Format::Json => {
            let answer = serde_json::json!({"ok": is_success, "status": status, "answer": body.trim_end()});
            print(&format!("{answer}\n"))?;
        }
        Format::Text if is_success => print(&body)?,
        Format::Text => anyhow::bail!("{status}: {}", body.trim_end()),
    }
    Ok(match status {
        _ if !is_success => ExitCode::FAILURE,
        status if path == "/reload" && status == admin::RESTART_NEEDED.as_u16() => ExitCode::from(3),
        _ => ExitCode::SUCCESS,
    })
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

fn show_plan(asked: &Plan) -> anyhow::Result<ExitCode> {
    let (from, to) = (config::load(&asked.from)?, config::load(&asked.to)?);
    let keys = if asked.keys.is_some() { Some(keys_of_input()?) } else { None };
    let mut text = String::new();
    let mut is_above = false;
    let is_meant = |pool: &&config::Pool| asked.pool.as_ref().is_none_or(|name| *name == pool.name);
    let named = |config: &Config, name: &str| config.pools.iter().position(|pool| pool.name == name);
    let gone = from.pools.iter().filter(|pool| named(&to, &pool.name).is_none());
    for pool in to.pools.iter().chain(gone).filter(is_meant) {
        let [before, after] =
            [&from, &to].map(|config| named(config, &pool.name).map(|at| &config.pools[at]));
        let change = plan::Change::of(before, after, keys.as_deref())?;
        is_above |= asked.fail_above.is_some_and(|most| change.is_above(most));
        text.push_str(&match asked.format {
            Format::Text => change.text(&pool.name),
            Format::Json => format!("{}\n", change.json(&pool.name)),
        });
    }
    anyhow::ensure!(!text.is_empty(), "there is no such pool in either file");
    print(&text)?;
    Ok(if is_above { ExitCode::from(4) } else { ExitCode::SUCCESS })
}

fn routed(pool: &str, topology: &Topology, key: &[u8], format: Format) -> String {
    let why = topology.explain(key);
    // Twemproxy's crc16 has more bits than its name says; slots are taken from the 16 that Redis Cluster knows.
    let hash = if topology.is_cluster() { why.hash & 0xffff } else { why.hash };
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
            hash
        );
    }
    let nobody = if topology.is_cluster() { "who owns the slot" } else { "any shard" };
    let owner = shard.map_or(nobody.to_owned(), |shard| format!("{} ({})", shard.name, shard.address));
    let part = if why.by_tag { format!("tag {}", why.hashed.escape_ascii()) } else { "whole key".to_owned() };
    let place = place.map_or(String::new(), |(kind, at)| format!(", {kind} {at}"));
    format!("{pool}: {} -> {owner}: {part}, {} {}{place}\n", key.escape_ascii(), topology.key_hash(), hash)
}

fn show_ring(ring: &Ring) -> anyhow::Result<()> {
    let config = config::load(&ring.file.config)?;
    let wanted = |pool: &&config::Pool| ring.output.pool.as_ref().is_none_or(|name| *name == pool.name);
    for warning in config.pools.iter().filter(wanted).flat_map(surprises) {
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    let mut text = String::new();
    for (name, topology) in topologies(&config, &ring.output)? {
        if topology.is_cluster() {
            // Nothing is in the file; the nodes say it.
            text.push_str(&match ring.output.format {
                Format::Json => format!("{}\n", serde_json::json!({"pool": name, "cluster": true})),
                Format::Text => format!(
                    "{name}: a Redis Cluster, whose nodes assign its slots; a running proxy shows them: curl 127.0.0.1:9121/topology\n"
                ),
            });
            continue;
        }
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
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
