//! How much of this thread's time each peer may take for documents that cost some: with many shards the metrics are long,
//! and whoever asks for them in a loop is to take no core from the workers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A peer may have one in so many seconds.
const SHARE: u32 = 20;
/// Time that a peer may take at once, after it has asked for nothing long enough.
const BURST: Duration = Duration::from_millis(500);
/// Longest time that an answer is held back; who would have to wait longer is refused.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Peers that are remembered.
const PEERS_MAX: usize = 1024;

/// What each peer has taken.
#[derive(Default)]
pub struct Shares(Mutex<HashMap<Option<IpAddr>, Share>>);

#[derive(Clone, Copy)]
struct Share {
    /// By then it has paid for what it took.
    paid: Instant,
    /// What the last document cost.
    last: Duration,
}

impl Shares {
    /// How long the peer has to wait for a document, and what is taken to be its cost until that is known: that of the last
    /// one. An error is in how long it may ask again.
    pub fn enter(&self, peer: Option<IpAddr>, now: Instant) -> Result<(Duration, Duration), Duration> {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= PEERS_MAX {
            peers.retain(|_, share| share.paid > now);
        }
        if peers.len() >= PEERS_MAX && !peers.contains_key(&peer) {
            return Err(WAIT_MAX);
        }
        let share = peers.entry(peer).or_insert(Share { paid: now, last: Duration::ZERO });
        share.paid = share.paid.max(now);
        let wait = (share.paid - now).saturating_sub(BURST * SHARE);
        if wait > WAIT_MAX {
            return Err(wait);
        }
        share.paid += share.last * SHARE;
        Ok((wait, share.last))
    }

    /// What it has cost in truth, instead of what was taken.
    pub fn spent(&self, peer: Option<IpAddr>, taken: Duration, cost: Duration) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = peers.get_mut(&peer) {
            let paid = share.paid + cost * SHARE;
            share.paid = paid.checked_sub(taken * SHARE).unwrap_or(paid);
            share.last = cost;
        }
    }
}

/// Requests that a connection may make at once, and the pause between two beyond that: also what costs little costs
/// something.
const REQUESTS_BURST: u32 = 20;
const REQUESTS_PAUSE: Duration = Duration::from_millis(50);

/// When a connection may make its next request.
pub struct Pace(Instant);

impl Pace {
    /// Of a new connection.
    pub fn new(now: Instant) -> Self {
        Self(now)
    }

    /// How long a request that has come now has to wait.
    pub fn wait(&mut self, now: Instant) -> Duration {
        self.0 = self.0.max(now) + REQUESTS_PAUSE;
        (self.0 - now).saturating_sub(REQUESTS_PAUSE * REQUESTS_BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Duration = Duration::from_millis(10);

    /// Asks over so many connections for a minute; how many documents it was given, and how often it was refused.
    fn ask(shares: &Shares, peer: Option<IpAddr>, connections: usize, begin: Instant) -> (u32, u32) {
        let (mut given, mut refused) = (0, 0);
        let mut free = vec![begin; connections];
        loop {
            let next = free.iter_mut().min().expect("some");
            if *next > begin + Duration::from_secs(60) {
                return (given, refused);
            }
            match shares.enter(peer, *next) {
                Ok((wait, taken)) => {
                    shares.spent(peer, taken, COST);
                    given += 1;
                    *next += wait + COST;
                }
                Err(wait) => {
                    refused += 1;
                    *next += wait.max(COST);
                }
            }
        }
    }

    #[test]
    fn a_peer_has_its_share_however_many_connections_it_has() {
        let begin = Instant::now();
        let shares = Shares::default();
        let flood = Some(IpAddr::from([127, 0, 0, 1]));
        let (given, refused) = ask(&shares, flood, 1, begin);
        assert!((250..400).contains(&given) && refused == 0, "{given} given, {refused} refused");
        let (given, refused) = ask(&shares, flood, 64, begin + Duration::from_secs(600));
        assert!((250..400).contains(&given) && refused > 0, "{given} given, {refused} refused");
        // Nobody else has to wait for that.
        assert_eq!(
            shares.enter(None, begin + Duration::from_secs(660)),
            Ok((Duration::ZERO, Duration::ZERO))
        );
    }

    #[test]
    fn peers_that_have_paid_are_forgotten() {
        let (begin, shares) = (Instant::now(), Shares::default());
        for number in 0..3 * PEERS_MAX as u32 {
            let peer = Some(IpAddr::from(number.to_be_bytes()));
            assert!(shares.enter(peer, begin + COST * number * SHARE).is_ok());
            shares.spent(peer, Duration::ZERO, COST);
        }
    }

    #[test]
    fn a_connection_that_asks_in_a_loop_is_slowed_down() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        let mut now = begin;
        for _ in 0..1000 {
            now += pace.wait(now);
        }
        assert!(now - begin >= Duration::from_secs(45), "{:?}", now - begin);
        assert_eq!(pace.wait(now + Duration::from_secs(10)), Duration::ZERO);
    }
}
