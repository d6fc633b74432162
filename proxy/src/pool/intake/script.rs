//! What a shard says that does not know a script which it was sent.

use super::Intake;
use crate::pool::ClientId;
use crate::pool::client::Pause;
use crate::pool::rerun::{Doubt, Inquiry, Rerun};
use crate::pool::ticket::Ticket;
use crate::protocol::{Protocol, Refused, Scripted};
use crate::scripts::{Digest, Mark};
use crate::time::Time;

impl<P: Protocol> Intake<'_, P> {
    /// The response at hand is an error, and its request names a script that the shard was sent. Where it says that it does not know
    /// that, it is asked whether that is so, and the request is asked once more if it is, unless its client has asked for
    /// something since, which may have been executed.
    pub(super) fn is_run_again(&mut self, response: &[u8]) -> bool {
        if !P::is_unknown_script(response) {
            return false;
        }
        let Some(ticket) = self.connection.in_flight().front().copied() else { return false };
        let Some(id) = ticket.client() else { return false };
        let Some(activity) = self.clients.activity_mut(id) else { return false };
        let is_newest = activity.replies.is_newest(ticket.number);
        let named = activity.named.as_mut().filter(|named| is_newest && named.number == ticket.number);
        let script = named.as_ref().and_then(|named| named.again());
        let (Some(named), Some(script)) = (named, script) else {
            self.inquire(id, ticket.since);
            return false;
        };
        let Some(mark) = self.context.scripts.find(&script) else { return false };
        let loaded = self.connection.loaded.get_or_insert_default();
        if loaded.is_coming(mark) {
            // It was found meanwhile that the shard lacks it: it is sent it behind this request.
            let named = activity.named.take().expect("just seen");
            self.redirects.unscripted.push(Rerun { at: self.at, ticket, named });
        } else {
            self.redirects.question = self.redirects.question.wrapping_add(1);
            let question = self.redirects.question;
            named.doubt = Some(Doubt { question, reply: response.into(), ticket });
            // Nothing is to overtake it.
            activity.paused = Some(Pause::UntilQuiet);
            loaded.ask(question, vec![mark]);
            let asking = Ticket::inquirer(id, question, ticket.since);
            let request = P::ask_scripts(&[script]);
            self.redirects.inquiries.push(Inquiry { at: self.at, ticket: asking, request });
        }
        self.connection.answered();
        self.responses += 1;
        self.response_bytes += response.len() as u64;
        self.start = self.end;
        true
    }

    /// The response at hand is that to a transaction.
    pub(super) fn is_of_block(&mut self, response: &[u8]) {
        let Some(&Ticket { since, .. }) = self.connection.in_flight().front() else { return };
        let Some(id) = self.connection.in_flight().front().and_then(Ticket::client) else { return };
        let has_named = self.clients.activity_mut(id).is_some_and(|activity| activity.named.is_some());
        if has_named && P::has_unknown_script(response) {
            self.inquire(id, since);
        }
    }

    /// The shard, or a script, has told this client that it does not know a script, and nothing is to be sent again: the shard is
    /// asked for those that the client has named, so that it is sent them again where it lacks one.
    fn inquire(&mut self, id: ClientId, since: Time) {
        let Some(loaded) = &mut self.connection.loaded else { return };
        let named = self.clients.activity_mut(id).and_then(|activity| activity.named.as_ref());
        let scripts = named.map_or(&[][..], |named| &named.scripts);
        let find = |script: &Digest| Some((self.context.scripts.find(script)?, *script));
        let asked = scripts.iter().filter_map(find).filter(|&(mark, _)| loaded.is_worth_asking(mark));
        let (marks, scripts): (Vec<_>, Vec<_>) = asked.unzip();
        if marks.is_empty() {
            return;
        }
        self.redirects.question = self.redirects.question.wrapping_add(1);
        let question = self.redirects.question;
        loaded.ask(question, marks);
        let ticket = Ticket::inquirer(id, question, since);
        self.redirects.inquiries.push(Inquiry { at: self.at, ticket, request: P::ask_scripts(&scripts) });
    }

    /// The shard says which of the scripts it knows that it was asked for, because of what this client was told.
    pub(super) fn hear_of_scripts(&mut self, id: ClientId, question: u32, response: &[u8]) {
        self.start = self.end;
        let loaded = self.connection.loaded.get_or_insert_default();
        let marks = loaded.heard(question).unwrap_or_default();
        let known = P::scripts_known(response, marks.len()).unwrap_or_default();
        let lacking = || marks.iter().zip(&known).filter(|(_, known)| !**known).map(|(&mark, _)| mark);
        // Somebody has made it forget all.
        if lacking().any(|mark| loaded.has(mark) && !loaded.is_coming(mark)) {
            loaded.clear();
        }
        // What it knows by now it may have lacked before: another connection has brought it since. Where the script cannot have said so
        // itself the shard has.
        let is_brought = || match marks[..] {
            [mark] if known == [true] => {
                self.context.scripts.load(mark).is_some_and(|load| P::is_mute(&load))
            }
            _ => false,
        };
        let is_lacking = lacking().next().is_some() || is_brought();
        let activity = self.clients.activity_mut(id).filter(|_| is_lacking);
        let doubt = activity.and_then(|activity| {
            let named = activity.named.as_mut()?;
            let replies = &activity.replies;
            let is_meant =
                |doubt: &mut Doubt<P>| doubt.question == question && replies.is_newest(doubt.ticket.number);
            let doubt = named.doubt.take_if(is_meant)?;
            Some((doubt.ticket, activity.named.take()?))
        });
        match doubt {
            Some((ticket, named)) => self.redirects.unscripted.push(Rerun { at: self.at, ticket, named }),
            None => self.clients.answer_doubt(id, question),
        }
    }

    /// The shard has not taken a script. What is in flight behind it and may name it is not asked again, nor taken for a sign that
    /// the shard has forgotten others.
    pub(super) fn script_is_refused(&mut self, mark: Mark, refused: Refused) {
        let Some(loaded) = &mut self.connection.loaded else { return };
        if refused == Refused::ForNow {
            return loaded.remove(mark);
        }
        loaded.refuse(mark);
        let (clients, scripts) = (&mut *self.clients, &self.context.scripts);
        self.connection.doubt(|ticket| {
            let activity = ticket.client().and_then(|id| clients.activity_mut(id));
            let named = activity.and_then(|activity| activity.named.as_ref());
            let named = named.filter(|named| named.number == ticket.number);
            let script = named.and_then(|named| named.scripts.last());
            ticket.scripted == Scripted::Loaded
                && script.is_none_or(|script| scripts.find(script) == Some(mark))
        });
        if refused == Refused::Everywhere {
            self.context.scripts.forget_one(mark);
        }
    }
}
