//! The generator against a real redis-server, for a fraction of a second each.

use std::time::Duration;

use memstore_bench::client;
use memstore_bench::generator::{Load, Pace};
use memstore_bench::measurement::Outcome;
use memstore_bench::process::{Nursery, find_program};
use memstore_bench::shard::Shard;
use memstore_bench::workload::Workload;

/// Nothing on a machine without redis-server.
fn drive(name: &str, pace: Pace) -> Option<Outcome> {
    if find_program("redis-server").is_none() {
        eprintln!("skipped: redis-server is not on PATH");
        return None;
    }
    let nursery = Nursery::new().expect("a scratch folder");
    let shard = Shard::start(&nursery, "shard").expect("a shard");
    let workload = Workload::select(name).expect("a workload").remove(0);
    client::fill(shard.port, &workload).expect("keys");
    let duration = Duration::from_millis(300);
    let load = Load { port: shard.port, workload: &workload, pace, duration, threads: 2 };
    let outcome = load.run().expect("an outcome");
    assert_eq!((outcome.errors, outcome.misses, outcome.unanswered), (0, 0, 0), "{outcome:?}");
    assert!(outcome.elapsed >= duration.mul_f64(0.9) && outcome.requests > 0, "{outcome:?}");
    assert!(0.0 < outcome.p50_us && outcome.p50_us <= outcome.p99_us && outcome.p99_us <= outcome.p999_us);
    Some(outcome)
}

#[test]
fn a_closed_loop_keeps_every_client_busy() {
    for name in ["small-p1", "small-p100", "value-64k", "mget-20"] {
        let Some(outcome) = drive(name, Pace::Closed) else { return };
        assert!(outcome.requests > 100, "{name}: {outcome:?}");
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let Some(outcome) = drive("rate", Pace::Open(5000.0)) else { return };
    // 1,500 are due; Poisson arrivals spread by the root of that, 39.
    assert!((1300..1700).contains(&outcome.requests), "{outcome:?}");
}
