//! Clients under other settings: who is not to stay, and who loses what it has under way because its user may not do that any more.

use super::Pool;
use super::client::State;
use super::clients::{ClientId, Clients};
use super::private::Ending;
use crate::protocol::Protocol;
use crate::time::Time;

impl<P: Protocol> Pool<P> {
    /// Clients that were let in with a password that is not good any more from now on are closed, and so are those that listen to what
    /// their user may not listen to. What the user of others may not send any more is not executed.
    pub(super) fn close_revoked(&mut self, settings: &P::Settings, now: Time) {
        let (mut ending, mut judged) = (Vec::new(), Vec::new());
        let Clients { table, dirty, .. } = &mut self.clients;
        for (index, client) in table.iter_mut() {
            if client.state != State::Open {
                continue;
            }
            let id = ClientId { index: index as u32, generation: client.generation };
            let is_revoked = P::is_revoked(&mut client.session, &self.context.settings, settings);
            let may_listen = |(kind, name)| P::may_listen(&client.session, kind, name);
            if is_revoked || P::has_rules(&client.session) && !self.channels.of(id).all(may_listen) {
                self.context.counters.client_revoked.add(1);
                client.state = State::Finishing;
                dirty.mark(client, id.index);
                if client.activity.is_some() {
                    ending.push(id);
                }
            } else if client.activity.is_some() && P::has_rules(&client.session) {
                judged.push(id);
            }
        }
        for id in judged {
            self.spoil_forbidden_block(id);
            if self.waits_for_forbidden(id) {
                ending.push(id);
            }
        }
        ending.into_iter().for_each(|id| {
            self.end_wait(id, Ending::TimeOver, now);
        });
    }

    /// What the client has queued is not executed if its user may not send all of it.
    fn spoil_forbidden_block(&mut self, id: ClientId) {
        let Some(client) = self.clients.table.get_mut(id.index as usize) else { return };
        let Some(activity) = &mut client.activity else { return };
        let is_forbidden =
            |request: &[u8]| !P::may_send(&client.session, request, self.context.store.as_ref());
        if activity.block.as_ref().is_some_and(|block| block.each().any(is_forbidden)) {
            P::spoil_block(&mut client.session);
            activity.block = None;
        }
    }

    /// Whether a request of the client waits that its user may not send any more.
    fn waits_for_forbidden(&self, id: ClientId) -> bool {
        let Some(client) = self.clients.get(id) else { return false };
        let connections = &self.router.connections;
        let at_one = || connections.get(client.activity.as_ref()?.private?)?.newest_kept();
        let request = self.wide.get(id).map(|wait| wait.request.clone()).or_else(at_one);
        request.is_some_and(|request| !P::may_send(&client.session, &request, self.context.store.as_ref()))
    }
}
