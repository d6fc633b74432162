//! The medians as text for a terminal.

use crate::measurement::{Figure, Measurement, REFERENCE, idle_of, median_of, ratio_of};
use crate::picture::short;

const HEAD: [&str; 11] = [
    "workload", "proxy", "req/s", "x", "p50 us", "p99 us", "p99.9 us", "CPU us", "user+sys", "x", "peak MiB",
];
const IDLE_HEAD: [&str; 6] = ["workload", "proxy", "connected", "after PING", "after GET", "after close"];

/// All medians, one line per workload and proxy, with ratios to the reference.
pub fn table(all: &[Measurement]) -> String {
    let (mut loaded, mut idle) = (Vec::new(), Vec::new());
    for (workload, proxy) in pairs(all) {
        let names = [workload.to_owned(), proxy.to_owned()];
        match idle_of(all, workload, proxy) {
            Some(memory) => {
                let columns =
                    [memory.connected, memory.after_ping, memory.after_get, memory.after_close].map(bytes);
                idle.push(names.into_iter().chain(columns).collect());
            }
            None => loaded.push(names.into_iter().chain(columns(all, workload, proxy)).collect()),
        }
    }
    let mut text = String::new();
    if !loaded.is_empty() {
        text += &aligned(&HEAD, &loaded);
        text += &format!("x: ratio to {REFERENCE} of the same round, median over the rounds\n");
    }
    if !idle.is_empty() {
        text += &format!("\nbytes per idle client\n{}", aligned(&IDLE_HEAD, &idle));
    }
    text
}

/// What spoils a run's figures, a sentence each.
pub fn remarks(all: &[Measurement]) -> Vec<String> {
    /// Of CPUs. An idle machine has its daemons and its clock.
    const OTHERS_MAX: f64 = 0.1;
    let mut remarks = Vec::new();
    for run in all {
        let Some(outcome) = &run.outcome else { continue };
        let round = run.round + 1;
        let counts =
            [(outcome.errors, "errors"), (outcome.misses, "misses"), (outcome.unanswered, "unanswered")];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            remarks.push(format!("{}, {}, round {round}: {count} {what}", run.workload, run.proxy));
        }
        if run.other_cpus > OTHERS_MAX {
            let others = format!("other programs kept {:.1} CPUs busy", run.other_cpus);
            remarks.push(format!("{}, {}, round {round}: {others}", run.workload, run.proxy));
        }
    }
    remarks
}

/// Workloads and proxies as they were first met.
pub fn pairs(all: &[Measurement]) -> Vec<(&'static str, &'static str)> {
    let mut pairs = Vec::new();
    for run in all {
        if !pairs.contains(&(run.workload, run.proxy)) {
            pairs.push((run.workload, run.proxy));
        }
    }
    pairs
}

fn columns(all: &[Measurement], workload: &str, proxy: &str) -> [String; 9] {
    let value = |figure| median_of(all, workload, proxy, figure);
    let shown = |figure| value(figure).map_or("-".to_owned(), short);
    let ratio =
        |figure| ratio_of(all, workload, proxy, figure).map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
    [
        value(Figure::Throughput).map_or("-".to_owned(), |rate| format!("{rate:.0}")),
        ratio(Figure::Throughput),
        shown(Figure::P50),
        shown(Figure::P99),
        shown(Figure::P999),
        shown(Figure::Cpu),
        format!("{}+{}", shown(Figure::CpuUser), shown(Figure::CpuSystem)),
        ratio(Figure::Cpu),
        shown(Figure::MemoryPeak),
    ]
}

fn bytes(count: f64) -> String {
    format!("{count:.0}")
}

/// Names to the left, numbers to the right.
fn aligned(head: &[&str], rows: &[Vec<String>]) -> String {
    const NAMES: usize = 2;
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].len());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[&str]| {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            line += &if column < NAMES { format!("{cell:<width$}  ") } else { format!("{cell:>width$}  ") };
        }
        line.trim_end().to_owned() + "\n"
    };
    let rows = rows.iter().map(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
    line(head) + &rows.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::tests::run;

    #[test]
    fn a_table_has_medians_and_ratios() {
        let all = [run("nutcracker", 0, 1000), run("memstore", 0, 1500), run("memstore", 1, 1700)];
        let expected = "\
workload  proxy       req/s     x  p50 us  p99 us  p99.9 us  CPU us   user+sys     x  peak MiB
small-p1  nutcracker   1000  1.00     300     900      1500    2.00  0.50+1.50  1.00      8.00
small-p1  memstore     1600  1.50     300     900      1500    2.00  0.50+1.50  1.00      8.00
x: ratio to nutcracker of the same round, median over the rounds
";
        assert_eq!(table(&all), expected);
    }

    #[test]
    fn spoiled_runs_are_named() {
        let mut spoiled = run("memstore", 1, 10);
        spoiled.outcome.as_mut().unwrap().misses = 3;
        spoiled.other_cpus = 0.74;
        let expected = [
            "small-p1, memstore, round 2: 3 misses",
            "small-p1, memstore, round 2: other programs kept 0.7 CPUs busy",
        ];
        assert_eq!(remarks(&[run("memstore", 0, 10), spoiled]), expected);
    }
}
