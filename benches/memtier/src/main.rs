//! The command: flags in, a table, a JSON file and a picture out.
//! Exit code 1 tells that something could not be measured, 2 that nothing could.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use serde_json::{Map, json};

use memstore_bench::flags::{Driver, Flags};
use memstore_bench::measurement::{Figure, Measurement};
use memstore_bench::process::{Nursery, find_program};
use memstore_bench::protocol::Protocol;
use memstore_bench::proxy::ProxyKind;
use memstore_bench::report::{self, Circumstances};
use memstore_bench::table::{remarks, table};
use memstore_bench::tournament::{Plan, Tournament};
use memstore_bench::workload::{WORKLOADS, Workload};
use memstore_bench::{machine, memtier};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn main() -> ExitCode {
    let flags = Flags::parse();
    if flags.list {
        list();
        return ExitCode::SUCCESS;
    }
    match run(&flags) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("{failure:#}");
            ExitCode::from(2)
        }
    }
}

fn list() {
    println!("workloads");
    for workload in WORKLOADS {
        println!("  {:<13} {}", workload.name, workload.about);
    }
    println!("proxies");
    for kind in ProxyKind::ALL {
        println!("  {}", kind.name());
    }
}

/// Whether all there was to measure was measured.
fn run(flags: &Flags) -> Result<bool> {
    let plan = plan(flags)?;
    raise_open_files(&plan.workloads);
    let nursery = Nursery::new()?;
    let at_interrupt = nursery.clone();
    ctrlc::set_handler(move || {
        at_interrupt.close();
        std::process::exit(130);
    })
    .context("no handler for Ctrl-C")?;

    let whole = compare(flags, plan, nursery.clone());
    // The handler keeps it for as long as the process lives, so dropping would not remove its folder.
    nursery.close();
    whole
}

fn compare(flags: &Flags, plan: Plan, nursery: Nursery) -> Result<bool> {
    let mut around = circumstances(flags, &plan);
    let mut tournament = Tournament::new(plan, nursery);
    tournament.run(|measurement| println!("{}", progress(measurement)));
    around.settings["rate_per_second"] = json!(tournament.rates);

    println!("\n{}", table(&tournament.measurements));
    for (workload, rate) in &tournament.rates {
        println!("{workload}: {rate:.0} requests per second");
    }
    let remarks = remarks(&tournament.measurements);
    remarks.iter().for_each(|remark| println!("distrust {remark}"));
    tournament.failures.iter().for_each(|failure| println!("{failure}"));
    if tournament.measurements.is_empty() {
        bail!("nothing was measured");
    }
    for file in report::write(&flags.out, &tournament.measurements, &tournament.failures, &around)? {
        println!("{}", file.display());
    }
    Ok(tournament.failures.is_empty())
}

fn plan(flags: &Flags) -> Result<Plan> {
    let workloads = Workload::select(&flags.workloads).map_err(|complaint| anyhow!(complaint))?;
    let for_memtier = workloads.iter().any(Workload::is_for_memtier);
    let memtier = match (flags.driver, memtier::find()) {
        (Driver::Own, _) => None,
        _ if !for_memtier => None,
        (Driver::Auto | Driver::Memtier, Some(program)) => Some(program),
        (Driver::Memtier, None) => bail!("{}", memtier::INSTALL),
        (Driver::Auto, None) => {
            eprintln!("{}; until then our own generator stands in", memtier::INSTALL);
            None
        }
    };
    let memstore = match &flags.memstore {
        Some(file) => file.clone(),
        None => beside_this_program("memstore")?,
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Plan {
        workloads,
        proxies: ProxyKind::select(&flags.proxies).map_err(|complaint| anyhow!(complaint))?,
        rounds: flags.rounds.into(),
        seconds: flags.seconds.into(),
        shards: flags.shards.into(),
        workers: flags.workers.into(),
        threads: flags.threads.unwrap_or(cpus / 2).max(1),
        memtier,
        memstore,
        rate: flags.rate,
    })
}

fn beside_this_program(name: &str) -> Result<PathBuf> {
    Ok(std::env::current_exe().context("this program has no path")?.with_file_name(name))
}

/// Proxies inherit the limit, and need a file for each client too.
fn raise_open_files(workloads: &[Workload]) {
    const WANTED: u64 = 65_536;
    const BESIDES_CLIENTS: u64 = 200;
    // Only root may raise the hard limit.
    let wanted = Rlimit { current: Some(WANTED), maximum: Some(WANTED) };
    if setrlimit(Resource::Nofile, wanted).is_err() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let current = maximum.map_or(Some(WANTED), |most| Some(most.min(WANTED)));
        let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
    }
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    for workload in workloads.iter().filter(|workload| workload.clients as u64 + BESIDES_CLIENTS > limit) {
        eprintln!("{} wants more than the {limit} open files allowed: ulimit -n 30000", workload.name);
    }
}

fn circumstances(flags: &Flags, plan: &Plan) -> Circumstances {
    let mut versions = Map::new();
    let mut version = |name: &str, program: Option<PathBuf>, flag: &str| {
        let found = program.and_then(|program| machine::version(&program, flag));
        versions.insert(name.to_owned(), found.into());
    };
    for protocol in Protocol::ALL {
        if plan.workloads.iter().any(|workload| workload.protocol == protocol) {
            version(protocol.server(), find_program(protocol.server()), "--version");
        }
    }
    version("memtier_benchmark", plan.memtier.clone(), "--version");
    for kind in plan.proxies.iter().filter(|kind| **kind != ProxyKind::Direct) {
        let flag = if *kind == ProxyKind::Nutcracker { "-V" } else { "--version" };
        version(kind.name(), kind.program(&plan.memstore).ok(), flag);
    }
    let driver = if plan.memtier.is_some() { "memtier" } else { "own" };
    Circumstances {
        date: machine::date(),
        machine: machine::describe(),
        versions,
        command_line: std::env::args().collect(),
        settings: json!({
            "driver": driver,
            "rounds": flags.rounds,
            "seconds": flags.seconds,
            "shards": flags.shards,
            "workers": flags.workers,
            "generator_threads": plan.threads,
        }),
    }
}

fn progress(measurement: &Measurement) -> String {
    let Measurement { workload, proxy, round, .. } = measurement;
    let result =
        match (measurement.figure(Figure::Throughput), measurement.figure(Figure::Cpu), measurement.idle) {
            (Some(rate), Some(cpu), _) => format!("{rate:.0} req/s, {cpu:.2} us CPU per request"),
            (_, _, Some(idle)) => format!("{:.0} bytes per idle client", idle.after_get),
            _ => "nothing".to_owned(),
        };
    format!("{workload}, round {}, {proxy}: {result}", round + 1)
}
