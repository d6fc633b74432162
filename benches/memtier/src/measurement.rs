//! What one run of a load against one proxy gave, and how several runs become one figure.

use std::time::Duration;

/// What a generator saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Replies that came.
    pub requests: u64,
    /// How long the load lasted.
    pub elapsed: Duration,
    /// Half of the replies came within this many microseconds.
    pub p50_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// 999 of 1000.
    pub p999_us: f64,
    /// Error replies.
    pub errors: u64,
    /// GETs that found nothing, though all keys were filled in.
    pub misses: u64,
    /// Requests whose reply did not come in time.
    pub unanswered: u64,
}

impl Outcome {
    /// Replies per second.
    pub fn throughput(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// A proxy's memory with many clients that do nothing: bytes per client, above what it held with none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct IdleMemory {
    /// How many clients there were.
    pub clients: usize,
    /// Once all are connected.
    pub connected: f64,
    /// Once each has had a PING answered.
    pub after_ping: f64,
    /// Once each has had a GET answered.
    pub after_get: f64,
    /// Once all have gone.
    pub after_close: f64,
}

/// A figure of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Replies per second.
    Throughput,
    /// Median latency.
    P50,
    /// 99th percentile of latency.
    P99,
    /// 99.9th percentile of latency.
    P999,
    /// User CPU microseconds of the proxy per request.
    CpuUser,
    /// System CPU microseconds of the proxy per request.
    CpuSystem,
    /// Their sum.
    Cpu,
    /// The most memory the proxy ever held, in MiB.
    MemoryPeak,
}

impl Figure {
    /// Every figure, in the order of the table's columns.
    pub const ALL: [Figure; 8] = [
        Figure::Throughput,
        Figure::P50,
        Figure::P99,
        Figure::P999,
        Figure::Cpu,
        Figure::CpuUser,
        Figure::CpuSystem,
        Figure::MemoryPeak,
    ];

    /// Its name in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Figure::Throughput => "throughput_per_second",
            Figure::P50 => "p50_us",
            Figure::P99 => "p99_us",
            Figure::P999 => "p999_us",
            Figure::Cpu => "cpu_us_per_request",
            Figure::CpuUser => "cpu_user_us_per_request",
            Figure::CpuSystem => "cpu_system_us_per_request",
            Figure::MemoryPeak => "memory_peak_mib",
        }
    }
}

/// One proxy under one workload in one round.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// The workload's name.
    pub workload: &'static str,
    /// The proxy's name.
    pub proxy: &'static str,
    /// Counted from zero.
    pub round: usize,
    /// What the generator saw. Nothing for idle clients.
    pub outcome: Option<Outcome>,
    /// User CPU the process spent while the load lasted.
    pub cpu_user: Duration,
    /// System CPU likewise.
    pub cpu_system: Duration,
    /// The most memory it ever held.
    pub memory_peak_bytes: u64,
    /// How many CPUs all else on the machine kept busy meanwhile: neither proxy, shards nor generator.
    pub other_cpus: f64,
    /// Only for idle clients.
    pub idle: Option<IdleMemory>,
}

impl Measurement {
    /// This figure, when the run has it.
    pub fn figure(&self, figure: Figure) -> Option<f64> {
        let outcome = self.outcome.as_ref()?;
        let per_request = |cpu: Duration| cpu.as_secs_f64() * 1e6 / outcome.requests.max(1) as f64;
        Some(match figure {
            Figure::Throughput => outcome.throughput(),
            Figure::P50 => outcome.p50_us,
            Figure::P99 => outcome.p99_us,
            Figure::P999 => outcome.p999_us,
            Figure::CpuUser => per_request(self.cpu_user),
            Figure::CpuSystem => per_request(self.cpu_system),
            Figure::Cpu => per_request(self.cpu_user + self.cpu_system),
            Figure::MemoryPeak => self.memory_peak_bytes as f64 / f64::from(1 << 20),
        })
    }
}

/// The proxy others are held against.
pub const REFERENCE: &str = "nutcracker";

/// The middle value; between the two middle ones when their number is even.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(if sorted.len() % 2 == 1 { upper } else { (sorted[sorted.len() / 2 - 1] + upper) / 2.0 })
}

/// The median over the rounds.
pub fn median_of(all: &[Measurement], workload: &str, proxy: &str, figure: Figure) -> Option<f64> {
    median(of(all, workload, proxy).filter_map(|run| run.figure(figure)))
}

/// The median of the ratios to the reference, each within one round: a machine that was slow for a round
/// slows both sides of that round's ratio.
pub fn ratio_of(all: &[Measurement], workload: &str, proxy: &str, figure: Figure) -> Option<f64> {
    let ratios = of(all, workload, proxy).filter_map(|run| {
        let reference =
            of(all, workload, REFERENCE).find(|other| other.round == run.round)?.figure(figure)?;
        (reference > 0.0).then_some(run.figure(figure)? / reference)
    });
    median(ratios)
}

/// The median over the rounds of what idle clients cost, each column by itself.
pub fn idle_of(all: &[Measurement], workload: &str, proxy: &str) -> Option<IdleMemory> {
    let runs: Vec<IdleMemory> = of(all, workload, proxy).filter_map(|run| run.idle).collect();
    let column = |pick: fn(&IdleMemory) -> f64| median(runs.iter().map(pick));
    Some(IdleMemory {
        clients: runs.first()?.clients,
        connected: column(|idle| idle.connected)?,
        after_ping: column(|idle| idle.after_ping)?,
        after_get: column(|idle| idle.after_get)?,
        after_close: column(|idle| idle.after_close)?,
    })
}

fn of<'a>(
    all: &'a [Measurement],
    workload: &'a str,
    proxy: &'a str,
) -> impl Iterator<Item = &'a Measurement> {
    all.iter().filter(move |run| run.workload == workload && run.proxy == proxy)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A run with this throughput and 2 µs of CPU per request.
    pub(crate) fn run(proxy: &'static str, round: usize, throughput: u64) -> Measurement {
        let outcome = Outcome {
            requests: throughput,
            elapsed: Duration::from_secs(1),
            p50_us: 300.0,
            p99_us: 900.0,
            p999_us: 1500.0,
            ..Outcome::default()
        };
        Measurement {
            workload: "small-p1",
            proxy,
            round,
            outcome: Some(outcome),
            cpu_user: Duration::from_micros(throughput / 2),
            cpu_system: Duration::from_micros(throughput * 3 / 2),
            memory_peak_bytes: 8 << 20,
            other_cpus: 0.0,
            idle: None,
        }
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0]), Some(3.0));
        assert_eq!(median([9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn cpu_is_counted_per_request() {
        let run = run("memstore", 0, 1000);
        assert_eq!(run.figure(Figure::CpuUser), Some(0.5));
        assert_eq!(run.figure(Figure::Cpu), Some(2.0));
        assert_eq!(run.figure(Figure::MemoryPeak), Some(8.0));
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // Round 1 was twice as slow for everybody; the ratio of medians would say 1.5.
        let all = [
            run("nutcracker", 0, 100),
            run("memstore", 0, 200),
            run("nutcracker", 1, 50),
            run("memstore", 1, 100),
            run("memstore", 2, 900),
        ];
        assert_eq!(ratio_of(&all, "small-p1", "memstore", Figure::Throughput), Some(2.0));
        assert_eq!(median_of(&all, "small-p1", "memstore", Figure::Throughput), Some(200.0));
        assert_eq!(ratio_of(&all, "small-p1", "direct", Figure::Throughput), None);
    }
}
