//! What a driver tells: the control thread what has happened to shards, the log what peers say that
//! they should not.

use std::time::Duration;

use shard_discovery::Shard;

use super::Driver;
use crate::pool::time::Time;
use crate::pool::{Failed, ShardEvent};
use crate::protocol::{Malformed, Protocol};
use crate::worker::Report;
use crate::worker::log_limit::warn_limited;

impl<P: Protocol> Driver<P> {
    /// Before the clients are closed: the log is to say who they were.
    pub(super) fn log_malformed(&mut self) {
        for (id, Malformed(reason)) in self.pool.take_malformed() {
            let client = self.address_of(id);
            warn_limited!(pool = %self.pool.name(), %client, %reason, "client sent what is no request");
        }
        for id in self.pool.take_wrong_passwords() {
            let client = self.address_of(id);
            warn_limited!(pool = %self.pool.name(), %client, "client sent a wrong password");
        }
    }

    pub(super) fn log_complaints(&mut self) {
        for (index, words) in self.pool.take_complaints() {
            let Shard { name, address, .. } = self.pool.shard_of(index);
            warn_limited!(
                pool = %self.pool.name(), shard = %name, %address, reason = %words,
                "the shard does not want the proxy's requests"
            );
        }
    }

    pub(super) fn report(&mut self) {
        if !self.pool.has_events() {
            return;
        }
        let pool = self.setup.pool;
        if self.pool.take_stale() {
            // A full channel has other reasons in it to ask.
            let _ = self.setup.reports.try_send(Report::Stale { pool });
        }
        let instant = |time: Time| self.setup.start + Duration::from_micros(time.micros());
        for ShardEvent { shard, failure } in self.pool.take_events() {
            let report = match failure {
                None => Report::Recovered { pool, shard },
                Some(Failed { failure, blame, began, at }) => {
                    Report::Failed { pool, shard, failure, blame, time: instant(began)..instant(at) }
                }
            };
            // A full channel means that the control thread knows of failures enough.
            let _ = self.setup.reports.try_send(report);
        }
    }
}
