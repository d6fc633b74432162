//! Both generators against real servers and proxies, for a moment each. What a machine lacks is left out.

use std::path::Path;
use std::time::Duration;

use memstore_bench::client;
use memstore_bench::generator::{Load, Pace};
use memstore_bench::measurement::Outcome;
use memstore_bench::memtier;
use memstore_bench::process::{Nursery, find_program};
use memstore_bench::protocol::Protocol;
use memstore_bench::proxy::{ProxyKind, Setup};
use memstore_bench::shard::Shard;
use memstore_bench::workload::Workload;

const LOAD: Duration = Duration::from_millis(300);

fn workload(name: &str) -> Workload {
    Workload::select(name).expect("a workload").remove(0)
}

/// Nothing on a machine without such a server.
fn shard(nursery: &Nursery, name: &str, protocol: Protocol) -> Option<Shard> {
    if find_program(protocol.server()).is_none() {
        eprintln!("skipped: {} is not on PATH", protocol.server());
        return None;
    }
    Some(Shard::start(nursery, name, protocol).expect("a shard"))
}

fn load(port: u16, workload: &Workload, pace: Pace) -> Outcome {
    Load { port, workload, pace, duration: LOAD, threads: 2 }.run().expect("an outcome")
}

fn check(outcome: &Outcome) {
    assert_eq!((outcome.errors, outcome.misses, outcome.unanswered), (0, 0, 0), "{outcome:?}");
    assert!(outcome.requests > 0, "{outcome:?}");
    assert!(0.0 < outcome.p50_us && outcome.p50_us <= outcome.p99_us && outcome.p99_us <= outcome.p999_us);
}

fn drive(name: &str, pace: Pace) -> Option<Outcome> {
    let nursery = Nursery::new().expect("a scratch folder");
    let workload = workload(name);
    let shard = shard(&nursery, "shard", workload.protocol)?;
    client::fill(shard.port, &workload).expect("keys");
    let outcome = load(shard.port, &workload, pace);
    check(&outcome);
    assert!(outcome.elapsed >= LOAD.mul_f64(0.9), "{outcome:?}");
    Some(outcome)
}

#[test]
fn a_closed_loop_keeps_every_client_busy() {
    for name in [
        "small-p1",
        "small-p100",
        "value-64k",
        "mget-20",
        "zipf-p16",
        "churn",
        "mc-small-p1",
        "mc-small-p16",
        "mc-value-4k",
        "mc-get-20",
    ] {
        let Some(outcome) = drive(name, Pace::Closed) else { continue };
        assert!(outcome.requests > 100, "{name}: {outcome:?}");
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    for name in ["rate", "mc-rate"] {
        let Some(outcome) = drive(name, Pace::Open(5000.0)) else { continue };
        // 1,500 are due; Poisson arrivals spread by the root of that, 39.
        assert!((1300..1700).contains(&outcome.requests), "{name}: {outcome:?}");
    }
}

#[test]
fn a_key_that_is_gone_is_a_miss() {
    for name in ["small-p16", "mget-20", "mc-small-p16", "mc-get-20"] {
        let nursery = Nursery::new().expect("a scratch folder");
        let workload = Workload { clients: 2, ..workload(name) };
        let Some(shard) = shard(&nursery, "shard", workload.protocol) else { continue };
        client::fill(shard.port, &workload).expect("keys");
        check(&load(shard.port, &workload, Pace::Closed));
        shard.empty().expect("an empty shard");
        // Until SETs bring the keys back.
        let outcome = load(shard.port, &workload, Pace::Closed);
        assert!(outcome.misses > 0, "{name}: {outcome:?}");
        assert_eq!((outcome.errors, outcome.unanswered), (0, 0), "{name}: {outcome:?}");
    }
}

#[test]
fn a_value_the_server_refuses_is_an_error() {
    let nursery = Nursery::new().expect("a scratch folder");
    // One byte more than memcached takes.
    let workload = Workload { value_bytes: (1 << 20) + 1, clients: 2, ..workload("mc-small-p1") };
    let Some(shard) = shard(&nursery, "shard", workload.protocol) else { return };
    let outcome = load(shard.port, &workload, Pace::Closed);
    assert!(outcome.errors > 0 && outcome.misses > 0 && outcome.unanswered == 0, "{outcome:?}");
    client::fill(shard.port, &workload).expect_err("a value too large");
}

#[test]
fn memtier_reads_what_was_filled_in() {
    let Some(program) = memtier::find() else {
        eprintln!("skipped: {}", memtier::INSTALL);
        return;
    };
    for name in ["small-p16", "mget-20", "mc-small-p1", "mc-small-p16", "mc-value-4k", "mc-get-20"] {
        let nursery = Nursery::new().expect("a scratch folder");
        let workload = workload(name);
        let Some(shard) = shard(&nursery, "shard", workload.protocol) else { continue };
        client::fill(shard.port, &workload).expect("keys");
        let outcome = memtier::run(&nursery, &program, shard.port, &workload, 1, 2).expect("an outcome");
        check(&outcome);
        assert!(outcome.requests > 100, "{name}: {outcome:?}");
    }
}

#[test]
fn a_pool_is_of_the_protocol_of_its_shards() {
    for kind in [ProxyKind::Nutcracker, ProxyKind::Direct, ProxyKind::Predixy, ProxyKind::Envoy] {
        if kind != ProxyKind::Direct && find_program(kind.name()).is_none() {
            eprintln!("skipped: {} is not on PATH", kind.name());
            continue;
        }
        for name in ["small-p16", "mget-20", "mc-small-p16", "mc-value-4k", "mc-get-20"] {
            let nursery = Nursery::new().expect("a scratch folder");
            let workload = workload(name);
            let protocol = workload.protocol;
            if !kind.speaks(protocol) {
                continue;
            }
            let shards: Option<Vec<Shard>> = ["shard0", "shard1", "shard2"]
                .map(|name| shard(&nursery, name, protocol))
                .into_iter()
                .collect();
            let Some(shards) = shards else { continue };
            let memstore = Path::new("");
            let setup = Setup { nursery: &nursery, protocol, shards: &shards, workers: 1, memstore };
            let proxy = kind.start(&setup).expect("a proxy");
            client::fill(proxy.port, &workload).expect("keys");
            check(&load(proxy.port, &workload, Pace::Closed));
        }
    }
}
