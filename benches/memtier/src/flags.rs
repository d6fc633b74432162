//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Puts the same load on memstore and its peers, in turn, and compares them.
#[derive(Clone, Debug, Parser)]
#[command(name = "benches/memtier/run", version)]
pub struct Flags {
    /// Workloads, separated by commas, or all
    #[arg(long, default_value = "small-p1,small-p16,small-p100,mget-20")]
    pub workloads: String,
    /// Proxies, separated by commas, or all that are installed
    #[arg(long, default_value = "all")]
    pub proxies: String,
    /// Times each proxy is measured under each workload; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: u16,
    /// Seconds of load per measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub seconds: u16,
    /// Shards behind each proxy
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    pub shards: u8,
    /// Threads of the proxies that let one choose; nutcracker has one
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    pub workers: u8,
    /// Threads of the load generator; half of the CPUs unless told
    #[arg(long)]
    pub threads: Option<usize>,
    /// The load generator; auto takes memtier_benchmark when there is one
    #[arg(long, value_enum, default_value_t = Driver::Auto)]
    pub driver: Driver,
    /// Requests per second of the fixed-rate workloads; half of nutcracker's maximum unless told
    #[arg(long, value_parser = positive)]
    pub rate: Option<f64>,
    /// Folder for the JSON and the pictures
    #[arg(long, default_value = "benches/memtier/results")]
    pub out: PathBuf,
    /// The memstore binary; the one beside this program unless told
    #[arg(long)]
    pub memstore: Option<PathBuf>,
    /// Print the workloads and the proxies, and end
    #[arg(long)]
    pub list: bool,
}

/// A load generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// memtier_benchmark when there is one, else our own
    Auto,
    /// memtier_benchmark
    Memtier,
    /// Our own
    Own,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("a number above zero is needed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, clap::Error> {
        Flags::try_parse_from(std::iter::once("run").chain(line.split_whitespace()))
    }

    #[test]
    fn flags_are_read() {
        let flags = parse("--rounds 5 --seconds 6 --driver own --rate 2e4 --proxies direct").unwrap();
        assert_eq!((flags.rounds, flags.seconds, flags.driver), (5, 6, Driver::Own));
        assert_eq!((flags.rate, flags.proxies.as_str()), (Some(20_000.0), "direct"));
    }

    #[test]
    fn defaults_name_workloads_that_exist() {
        let flags = parse("").unwrap();
        crate::workload::Workload::select(&flags.workloads).unwrap();
        crate::proxy::ProxyKind::select(&flags.proxies).unwrap();
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for line in ["--rounds 0", "--seconds 0", "--shards 0", "--rate 0", "--rate NaN", "--driver ab"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
