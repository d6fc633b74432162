//! The command line: a file for each verb, or for those that belong together; `common` is what they share.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::{Hooks, log};
use ask::Ask;
use await_ring::AwaitRing;
use check::Check;
use cluster::ClusterCommand;
use commands::Commands;
use hot::Hot;
use manual::{Completions, Man};
use monitor::Monitor;
use nutcracker::Nutcracker;
use plan::Plan;
use route::{Ring, Route};
use serve::Serve;
use settings::Settings;
use status::StatusOf;
use top::Top;
use try_out::Try;

mod ask;
mod await_ring;
mod check;
mod cluster;
mod commands;
mod common;
mod connect;
mod hot;
mod manual;
mod monitor;
mod nutcracker;
mod plain;
mod plan;
mod report;
mod route;
mod serve;
mod settings;
mod status;
mod terminal;
mod top;
mod try_out;

/// A sharding proxy for Redis, Valkey and memcached, and a drop-in replacement for Twemproxy.
#[derive(Parser)]
#[command(name = "memstore", version, after_long_help = EXIT_CODES)]
struct CommandLine {
    /// Only to say what nutcracker's users should write instead.
    #[arg(short = 'c', hide = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What the process ends with; docs/admin.md has the same as a table.
const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  failure; check: the configuration has mistakes, or a shard is not usable; status: a shard does not serve or a pool does not listen; ready, alive: the proxy is not
  2  the command line is wrong
  3  reload: applied, but changed settings need a restart
  4  plan --fail-above: more keys move than that
  5  status: the proxy cannot be queried";

#[derive(Subcommand)]
enum Command {
    /// Run the proxy
    Serve(Serve),
    /// Run the proxy with nutcracker's flags; also used if the program is invoked as nutcracker
    #[command(disable_version_flag = true)]
    Nutcracker(Nutcracker),
    /// Check a configuration: report every error and warning with file, line and column; exit 1 on errors
    Check(Check),
    /// Show which shard owns a key, with hash tag, hash, and point or slot
    Route(Route),
    /// Show the share of keys of each shard
    Ring(Ring),
    /// Show which keys move between shards when one configuration replaces another
    Plan(Plan),
    /// Create, repair and resize a Redis Cluster
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Write a value through an address, read it back, and delete it; exit 1 on failure
    Try(Try),
    /// Wait until no proxy uses shards other than those in a list
    AwaitRing(AwaitRing),
    /// Print all settings as a Markdown table, or as a JSON schema for editors
    Settings(Settings),
    /// Print what becomes of every command of Redis and Valkey, as Markdown tables or JSON
    Commands(Commands),
    /// Print what a shell needs to complete the command line
    Completions(Completions),
    /// Write the man pages
    Man(Man),
    /// Show the state of a running proxy, its pools and their shards; exit 1 if a shard does not serve, 5 if the proxy cannot be queried
    Status(StatusOf),
    /// Show a running proxy live: requests, errors and latencies of its shards, per second
    Top(Top),
    /// Drain a running proxy: it stops accepting clients, answers pending requests, and exits
    Drain(Ask),
    /// Reload the configuration of a running proxy; exit 1 if that fails, 3 if changed settings need a restart
    Reload(Ask),
    /// Check the readiness of a running proxy; exit 1 if it is not ready
    Ready(Ask),
    /// Check the liveness of a running proxy; exit 1 if it makes no progress
    Alive(Ask),
    /// Show the slow logs of a running proxy, as JSON
    Slow(Ask),
    /// Show which keys a running proxy sees used most, and the largest requests and replies
    Hot(Hot),
    /// Show the requests of a running proxy as they are served, in the format of redis-cli monitor
    Monitor(Monitor),
}

/// Runs the command that the command line asks for.
pub fn run() -> ExitCode {
    let (command, words) = nutcracker::arguments(CommandLine::command(), std::env::args_os());
    let matches = command.get_matches_from(words);
    let line = CommandLine::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let done = match line.command {
        Some(Command::Serve(asked)) => {
            let asked = match matches.subcommand_matches("serve") {
                Some(matches) => asked.with_origins(matches),
                None => asked,
            };
            success(serve::serve(asked, Hooks::default()))
        }
        Some(Command::Nutcracker(nutcracker)) => nutcracker.run(),
        Some(Command::Check(asked)) => check::check(&asked),
        Some(Command::Route(asked)) => success(route::route(&asked)),
        Some(Command::Ring(asked)) => success(route::ring(&asked)),
        Some(Command::Plan(asked)) => plan::plan(&asked),
        Some(Command::Cluster(asked)) => success(cluster::run(asked)),
        Some(Command::Try(asked)) => success(try_out::try_out(&asked)),
        Some(Command::AwaitRing(asked)) => success(await_ring::await_ring(&asked)),
        Some(Command::Settings(asked)) => success(settings::settings(&asked)),
        Some(Command::Commands(asked)) => success(commands::commands(&asked)),
        Some(Command::Completions(asked)) => success(manual::completions(&asked, CommandLine::command())),
        Some(Command::Man(asked)) => success(manual::man(&asked, CommandLine::command())),
        Some(Command::Status(asked)) => status::status(&asked),
        Some(Command::Top(asked)) => success(top::top(&asked)),
        Some(Command::Drain(asked)) => ask::ask("POST", "/drain", &asked),
        Some(Command::Reload(asked)) => ask::ask("POST", "/reload", &asked),
        Some(Command::Ready(asked)) => ask::ask("GET", "/ready", &asked),
        Some(Command::Alive(asked)) => ask::ask("GET", "/alive", &asked),
        Some(Command::Slow(asked)) => ask::ask("GET", "/slow", &asked),
        Some(Command::Hot(asked)) => hot::hot(&asked),
        Some(Command::Monitor(asked)) => monitor::monitor(&asked),
        None => {
            let file = line.config.unwrap_or_else(|| "FILE".into());
            Err(anyhow::anyhow!(
                "a subcommand is required, for example: memstore serve -c {}",
                file.display()
            ))
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
