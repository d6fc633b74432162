//! What has become of each element, and what may have been lost.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use super::Trade;
use super::servers::{Client, Server};

/// What has become of all.
#[derive(Default)]
pub struct Ledger {
    /// Ports of proxies that do not end yet.
    pub doors: Mutex<Vec<u16>>,
    pub received: Mutex<Vec<usize>>,
    pub excuses: Mutex<Vec<Excuse>>,
    /// Elements that arrived, and of which it is not known whether they were removed.
    pub unsure: AtomicUsize,
    /// Connections of consumers, some of which wait for ever.
    pub lines: Mutex<Vec<Option<Client>>>,
    pub is_over: AtomicBool,
}

/// A request that may have taken an element which its client was not given: that hung up, or was told of an error.
pub struct Excuse {
    /// A bit for each key that it has named.
    pub keys: u32,
    /// All that it has taken was there by then, if that is known.
    pub until: Option<Instant>,
    pub is_failure: bool,
}

impl Excuse {
    fn explains(&self, key: usize, put: Instant) -> bool {
        self.keys & 1 << key != 0 && self.until.is_none_or(|until| put <= until)
    }
}

impl Ledger {
    pub fn receive(&self, element: usize) {
        self.received.lock().expect("unbroken").push(element);
    }

    pub fn excuse(&self, keys: u32, until: Option<Instant>, is_failure: bool) {
        self.excuses.lock().expect("unbroken").push(Excuse { keys, until, is_failure });
    }

    /// The consumer has this connection from now on.
    pub fn line(&self, consumer: usize, client: &Client) {
        let mut lines = self.lines.lock().expect("unbroken");
        if lines.len() <= consumer {
            lines.resize_with(consumer + 1, || None);
        }
        lines[consumer] = Some(client.twin());
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Relaxed)
    }
}

/// Consumers end with it, also where the test fails.
pub struct Closing<'l>(pub &'l Ledger);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        // Who comes later looks whether it is over once its line is known.
        self.0.is_over.store(true, Relaxed);
        if let Ok(mut lines) = self.0.lines.lock() {
            lines.iter_mut().flatten().for_each(|line| line.finish_with(b""));
        }
    }
}

/// Elements as they were sent, in the order of their numbers.
#[derive(Default)]
pub struct Sent {
    /// Whether they are there for certain.
    pub is_put: Vec<bool>,
    /// When those from this one on were sent.
    since: Vec<(usize, Instant)>,
}

impl Sent {
    /// Those from now on.
    pub fn begin(&mut self, element: usize) {
        self.since.push((element, Instant::now()));
    }

    fn when(&self, element: usize) -> Instant {
        let after = self.since.partition_point(|&(first, _)| first <= element);
        self.since[after - 1].1
    }
}

/// Each has arrived once, but for those that were on their way to somebody who was not there any more.
pub fn balance(trade: Trade, ledger: Ledger, sent: &Sent, shards: &[Server]) {
    let elements = sent.is_put.len();
    let received = ledger.received.into_inner().expect("unbroken");
    let mut arrived = vec![0; elements];
    received.iter().for_each(|&element| arrived[element] += 1);
    let twice = (0..elements).find(|&element| arrived[element] > 1);
    assert_eq!(twice, None, "an element came twice");
    let is_kept = kept(trade, elements, shards);
    let of = |is: &dyn Fn(usize) -> bool| (0..elements).filter(|&element| is(element)).collect::<Vec<_>>();
    let lost = of(&|element| sent.is_put[element] && arrived[element] == 0 && !is_kept[element]);
    let both = of(&|element| arrived[element] == 1 && is_kept[element]).len();
    let excuses = ledger.excuses.into_inner().expect("unbroken");
    let failed = excuses.iter().filter(|excuse| excuse.is_failure).count();
    let (hung_up, unsure) = (excuses.len() - failed, ledger.unsure.load(Relaxed));
    println!(
        "{} sent, {} received, {} lost, {} kept, {hung_up} hung up, {failed} failed, {unsure} unsure",
        sent.is_put.iter().filter(|&&is_put| is_put).count(),
        received.len(),
        lost.len(),
        of(&|element| is_kept[element]).len()
    );
    assert!(both <= unsure, "{both} are still there, {unsure} were not removed for certain");
    if !trade.may_lose() {
        assert!(lost.is_empty(), "{} are lost, of them e{}", lost.len(), lost[0]);
    }
    assert!(lost.len() <= excuses.len(), "{} lost, {hung_up} hung up, {failed} failed", lost.len());
    for &element in &lost {
        let (key, put) = (trade.key(element), sent.when(element));
        assert!(excuses.iter().any(|excuse| excuse.explains(key, put)), "e{element} was lost for nobody");
    }
}

/// Elements that have been moved to a consumer and not been removed from there.
fn kept(trade: Trade, elements: usize, shards: &[Server]) -> Vec<bool> {
    let mut is_kept = vec![false; elements];
    for shard in shards {
        let mut client = shard.connect();
        for name in trade.lists_of_consumers() {
            let list = client.tell(&format!("LRANGE {name} 0 -1"));
            for element in list.lines().filter_map(|line| line.strip_prefix('e')) {
                let element: usize = element.parse().expect("a number");
                assert!(!is_kept[element], "e{element} was moved twice");
                is_kept[element] = true;
            }
        }
    }
    is_kept
}
