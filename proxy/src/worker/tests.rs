//! A worker as it runs: its loop, on a thread of its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use shard_discovery::{Address, DistributionKind, KeyHash, Shard, Topology};

use super::*;
use crate::config::{self, Surroundings};
use crate::hot::HotKeys;
use crate::mailboxes::Mailboxes;
use crate::metrics::Counters;
use crate::monitor::Monitors;
use crate::net::socket::Socket;
use crate::scripts::Scripts;
use crate::slow::SlowLog;

const TEXT: &str =
    "p:\n  listen: 127.0.0.1:9\n  redis: true\n  hash: fnv1a_64\n  servers: ['127.0.0.1:1:1 shard']\n";
const HOUR: u64 = 3600;

/// By so many seconds the system's clock was set forward.
static FORWARD: AtomicU64 = AtomicU64::new(0);

fn system_clock() -> SystemTime {
    SystemTime::now() + Duration::from_secs(FORWARD.load(Relaxed))
}

/// Seconds from 1970, as the client is told.
fn told(client: &mut BufReader<UnixStream>) -> u64 {
    client.get_mut().write_all(b"TIME\r\n").expect("the worker reads");
    let mut lines = [(); 5].map(|()| String::new());
    lines.iter_mut().for_each(|line| assert!(client.read_line(line).expect("a line") > 0));
    lines[2].trim_end().parse().unwrap_or_else(|_| panic!("{lines:?}"))
}

#[test]
fn time_follows_a_system_clock_that_is_set() {
    let around = Surroundings { read_file: &|path| std::fs::read_to_string(path), environment: &|_| None };
    let mut config = config::parse(TEXT, Path::new("memstore.yml"), &around).expect("a configuration");
    let shard = Shard::new(Address::Tcp { host: "127.0.0.1".into(), port: 1 }, 1, Some("shard".into()));
    let topology = Topology::new(vec![shard], DistributionKind::Ketama, KeyHash::Fnv1a64, None);
    let alarm = alarm().expect("a descriptor");
    let (door, pools) = PoolSender::new(&alarm);
    let (orders, obeyed) = door.orders();
    door.open(PoolSetup {
        number: 0,
        config: config.pools.remove(0).into(),
        learnt: Learnt::default(),
        topology: Arc::new(topology.expect("one shard")),
        counters: Counters::of_workers(1, 1).remove(0),
        scripts: Arc::new(Scripts::new(&Account::new(usize::MAX))),
        slow: Arc::new(SlowLog::new(&Account::new(usize::MAX))),
        denied: Arc::default(),
        mailboxes: Arc::new(Mailboxes::new(1, &Account::new(usize::MAX))),
        hot: Arc::new(HotKeys::new(1, &Account::new(usize::MAX))),
        monitors: Arc::new(Monitors::new(&Account::new(usize::MAX))),
        orders: obeyed,
        memory_max: usize::MAX,
    });
    let worker = spawn(WorkerSetup {
        number: 0,
        count: 1,
        seed: 1,
        pools,
        alarm: alarm.clone(),
        alarms: vec![alarm],
        account: Account::new(usize::MAX),
        counters: Arc::default(),
        reports: mpsc::channel(16).0,
        system_clock,
    });
    let give = |order| {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(orders.send(order))
    };
    let (theirs, ours) = UnixStream::pair().expect("descriptors");
    theirs.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    ours.set_nonblocking(true).expect("a socket");
    give(Order::Serve(Socket::from(ours)));
    let mut client = BufReader::new(theirs);
    let begin = Instant::now();
    let before = told(&mut client);
    FORWARD.store(HOUR, Relaxed);
    while told(&mut client) < before + HOUR {
        assert!(begin.elapsed() < Duration::from_secs(10), "it stays {HOUR} s behind");
    }
    FORWARD.store(0, Relaxed);
    while told(&mut client) >= before + HOUR {
        assert!(begin.elapsed() < Duration::from_secs(10), "it stays {HOUR} s ahead");
    }
    drop(client);
    give(Order::Drain { limit: Duration::ZERO });
    worker.expect("a thread").join().expect("no panic");
}

/// Which of three workers are asked.
fn asked(filter: &ClientFilter) -> Vec<usize> {
    (0..3).filter(|&worker| may_have(filter, worker, 3)).collect()
}

#[test]
fn only_workers_that_can_have_a_client_are_asked_about_it() {
    let of =
        |ids: &[u64]| ClientFilter { ids: Some(ids.iter().copied().collect()), ..ClientFilter::default() };
    assert_eq!(asked(&of(&[5])), [1]);
    assert_eq!(asked(&of(&[0, 1, 6, 9])), [0, 2]);
    assert_eq!(asked(&ClientFilter::default()), [0, 1, 2]);
    assert_eq!(asked(&ClientFilter { none: true, ..ClientFilter::default() }), [0; 0]);
}
