//! Whose silence is waited for: clients whose request at hand depends on what they send next.

use std::collections::BTreeSet;

use super::SILENCE;
use super::client::{Activity, ClientId, Pause};
use crate::protocol::Protocol;
use crate::time::Time;

/// The clients whose silence is waited for, one entry each, and when to look at them.
#[derive(Default)]
pub(super) struct Silences(BTreeSet<(Time, ClientId)>);

impl Silences {
    /// What the client sends next decides what becomes of its request.
    pub fn listen<P: Protocol>(&mut self, activity: &mut Activity<P>, id: ClientId, now: Time) {
        activity.paused = Some(Pause::UntilSilent);
        if activity.silent_at.is_none() {
            self.listen_on(activity, id, now);
        }
    }

    /// It was looked at and is listened to for as long again.
    pub fn listen_on<P: Protocol>(&mut self, activity: &mut Activity<P>, id: ClientId, now: Time) {
        let at = now.plus(SILENCE);
        activity.silent_at = Some(at);
        self.0.insert((at, id));
    }

    /// Its silence is not waited for any more.
    pub fn listen_no_more<P: Protocol>(&mut self, activity: &mut Activity<P>, id: ClientId) {
        if let Some(at) = activity.silent_at.take() {
            self.0.remove(&(at, id));
        }
    }

    /// When somebody is to be looked at.
    pub fn due(&self) -> Option<Time> {
        self.0.first().map(|&(at, _)| at)
    }

    /// One that is to be looked at.
    pub fn take_due(&mut self, now: Time) -> Option<ClientId> {
        if self.due()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, id)| id)
    }
}
