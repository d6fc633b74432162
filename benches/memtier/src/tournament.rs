//! Proxies in turn: for each workload, for each round, each proxy once, so that what changes on the machine
//! meanwhile meets all of them. Every measurement gets a fresh process and freshly filled keys.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::client;
use crate::generator::{Load, Pace};
use crate::idle;
use crate::measurement::{IdleMemory, Measurement, Outcome};
use crate::memtier;
use crate::process::Nursery;
use crate::protocol::Protocol;
use crate::proxy::{Proxy, ProxyKind, Setup};
use crate::shard::Shard;
use crate::usage::{Cpu, Memory, machine_busy};
use crate::workload::{Mix, Workload};

/// What to measure, and how.
pub struct Plan {
    /// Under which loads.
    pub workloads: Vec<Workload>,
    /// Whom, in the order of their turns.
    pub proxies: Vec<ProxyKind>,
    /// How often.
    pub rounds: usize,
    /// For how long each.
    pub seconds: u64,
    /// Shards behind each proxy, where the workload does not say.
    pub shards: usize,
    /// Threads of the proxies that let one choose.
    pub workers: usize,
    /// Threads of the load generator.
    pub threads: usize,
    /// memtier_benchmark, when it is the generator.
    pub memtier: Option<PathBuf>,
    /// The memstore binary.
    pub memstore: PathBuf,
    /// Requests per second of the fixed-rate workloads; measured when it is not told.
    pub rate: Option<f64>,
}

/// A plan being carried out, and what came of it.
pub struct Tournament {
    plan: Plan,
    nursery: Nursery,
    /// All of one protocol, that of the workload.
    shards: Vec<Shard>,
    /// What was measured so far.
    pub measurements: Vec<Measurement>,
    /// What went wrong, a sentence each.
    pub failures: Vec<String>,
    /// The rates of the fixed-rate workloads, once they are known.
    pub rates: BTreeMap<&'static str, f64>,
    out_of_the_race: Vec<(ProxyKind, Protocol)>,
}

impl Tournament {
    /// One of which nothing is started yet.
    pub fn new(plan: Plan, nursery: Nursery) -> Tournament {
        Tournament {
            plan,
            nursery,
            shards: Vec::new(),
            measurements: Vec::new(),
            failures: Vec::new(),
            rates: BTreeMap::new(),
            out_of_the_race: Vec::new(),
        }
    }

    /// Measures all there is to measure. `watch` is told each result as it comes.
    pub fn run(&mut self, mut watch: impl FnMut(&Measurement)) {
        for workload in self.plan.workloads.clone() {
            if let Err(failure) = self.start_shards(&workload) {
                self.fail(format!("{}: no shards: {failure:#}", workload.name));
                continue;
            }
            if workload.mix == Mix::FixedRate
                && let Err(failure) = self.find_rate(&workload)
            {
                self.fail(format!("{}: no rate: {failure:#}; --rate gives one", workload.name));
                continue;
            }
            self.measure_all(&workload, &mut watch);
        }
    }

    fn measure_all(&mut self, workload: &Workload, watch: &mut impl FnMut(&Measurement)) {
        let mut broken: Vec<ProxyKind> = Vec::new();
        for kind in self.plan.proxies.clone() {
            if !kind.speaks(workload.protocol) {
                let server = workload.protocol.server();
                self.fail(format!(
                    "{} is skipped under {}: it has no pools of {server}",
                    kind.name(),
                    workload.name
                ));
                broken.push(kind);
            }
        }
        for round in 0..self.plan.rounds {
            for kind in self.plan.proxies.clone() {
                if broken.contains(&kind) || self.out_of_the_race.contains(&(kind, workload.protocol)) {
                    continue;
                }
                let proxy = match self.start(kind, workload.protocol) {
                    Ok(proxy) => proxy,
                    Err(failure) => {
                        let server = workload.protocol.server();
                        self.fail(format!("{} is skipped before {server}: {failure:#}", kind.name()));
                        self.out_of_the_race.push((kind, workload.protocol));
                        continue;
                    }
                };
                match self.measure(kind, &proxy, workload, round) {
                    Ok(measurement) => {
                        watch(&measurement);
                        self.measurements.push(measurement);
                    }
                    Err(failure) => {
                        let ended = match proxy.process.exited() {
                            Some(status) => {
                                format!(" (it ended with {status}: {})", proxy.process.last_words())
                            }
                            None => String::new(),
                        };
                        self.fail(format!(
                            "{} is skipped under {}: {failure:#}{ended}",
                            kind.name(),
                            workload.name
                        ));
                        broken.push(kind);
                    }
                }
            }
        }
    }

    fn fail(&mut self, sentence: String) {
        eprintln!("{sentence}");
        self.failures.push(sentence);
    }

    /// Starts the shards of a workload, unless it is those that run; others end.
    fn start_shards(&mut self, workload: &Workload) -> Result<()> {
        let (protocol, count) = (workload.protocol, workload.shards.unwrap_or(self.plan.shards));
        if self.shards.len() == count && self.shards.iter().any(|shard| shard.protocol == protocol) {
            return Ok(());
        }
        self.shards.clear();
        self.shards = (0..count)
            .map(|number| Shard::start(&self.nursery, &format!("shard{number}"), protocol))
            .collect::<Result<_>>()?;
        Ok(())
    }

    fn start(&self, kind: ProxyKind, protocol: Protocol) -> Result<Proxy> {
        for shard in &self.shards {
            shard.empty()?;
        }
        kind.start(&Setup {
            nursery: &self.nursery,
            protocol,
            shards: &self.shards,
            workers: self.plan.workers,
            memstore: &self.plan.memstore,
        })
    }

    fn measure(
        &self,
        kind: ProxyKind,
        proxy: &Proxy,
        workload: &Workload,
        round: usize,
    ) -> Result<Measurement> {
        client::fill(proxy.port, workload)?;
        let before = self.sample(proxy)?;
        let (outcome, idle) = self.load(proxy, workload)?;
        let after = self.sample(proxy)?;
        Ok(Measurement {
            workload: workload.name,
            proxy: kind.name(),
            round,
            outcome,
            cpu_user: after.proxy.user.saturating_sub(before.proxy.user),
            cpu_system: after.proxy.system.saturating_sub(before.proxy.system),
            memory_peak_bytes: Memory::of(proxy.process.pid)?.peak_bytes,
            other_cpus: after.others_since(&before),
            idle,
        })
    }

    fn sample(&self, proxy: &Proxy) -> Result<Sample> {
        let of_proxy = Cpu::of(proxy.process.pid)?;
        // memtier has been waited for when this is asked, so it counts as a child of ours.
        let us = Cpu::of(std::process::id())?;
        let mut ours = of_proxy.user + of_proxy.system + us.user + us.system + us.children;
        for shard in &self.shards {
            let cpu = Cpu::of(shard.process.pid)?;
            ours += cpu.user + cpu.system;
        }
        Ok(Sample { proxy: of_proxy, ours, machine: machine_busy()?, taken: Instant::now() })
    }

    fn load(&self, proxy: &Proxy, workload: &Workload) -> Result<(Option<Outcome>, Option<IdleMemory>)> {
        let outcome = match (workload.mix, &self.plan.memtier) {
            (Mix::Idle, _) => return Ok((None, Some(idle::measure(proxy, workload)?))),
            (Mix::FixedRate, _) => {
                let rate = self.rates.get(workload.name).context("no rate yet")?;
                self.own(proxy, workload, Pace::Open(*rate))?
            }
            (_, Some(program)) if workload.is_for_memtier() => {
                let (seconds, threads) = (self.plan.seconds, self.plan.threads);
                memtier::run(&self.nursery, program, proxy.port, workload, seconds, threads)?
            }
            (Mix::SetGet | Mix::MultiGet(_) | Mix::Churn(_), _) => self.own(proxy, workload, Pace::Closed)?,
        };
        if outcome.requests == 0 {
            bail!("not one reply came");
        }
        Ok((Some(outcome), None))
    }

    fn own(&self, proxy: &Proxy, workload: &Workload, pace: Pace) -> Result<Outcome> {
        let duration = Duration::from_secs(self.plan.seconds);
        Load { port: proxy.port, workload, pace, duration, threads: self.plan.threads }.run()
    }

    /// Half of what nutcracker reaches with the same clients in a closed loop: a rate all proxies can keep,
    /// at which their latency is worth comparing.
    fn find_rate(&mut self, workload: &Workload) -> Result<()> {
        if self.rates.contains_key(workload.name) {
            return Ok(());
        }
        let rate = match self.plan.rate {
            Some(rate) => rate,
            None => {
                let nutcracker = self
                    .start(ProxyKind::Nutcracker, workload.protocol)
                    .context("nutcracker's maximum sets it")?;
                client::fill(nutcracker.port, workload)?;
                let maximum = self.own(&nutcracker, workload, Pace::Closed)?.throughput();
                (maximum / 2.0).round()
            }
        };
        self.rates.insert(workload.name, rate);
        Ok(())
    }
}

/// CPU used up to a moment.
struct Sample {
    proxy: Cpu,
    /// By the proxy, the shards and the generator.
    ours: Duration,
    /// By everything.
    machine: Duration,
    taken: Instant,
}

impl Sample {
    /// How many CPUs programs that are none of ours kept busy.
    fn others_since(&self, before: &Sample) -> f64 {
        let everything = self.machine.saturating_sub(before.machine);
        let others = everything.saturating_sub(self.ours.saturating_sub(before.ours));
        others.as_secs_f64() / (self.taken - before.taken).as_secs_f64().max(1e-9)
    }
}
