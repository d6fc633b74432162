//! How clients leave: one after the other before the process ends, all that remain when it does, and each with what it is
//! owed.

use super::sockets::ids;
use super::{Driver, SWEEP};
use crate::pool::{ClientId, Parting};
use crate::protocol::Protocol;
use crate::time::Time;

impl<P: Protocol> Driver<P> {
    /// Which clients are to go after their next reply, of 1024.
    pub(super) fn share_to_go(&self, now: Time) -> u32 {
        match self.retiring {
            _ if self.drain_until.is_some() => 1024,
            None => 0,
            Some((since, within)) => {
                let passed = now.since(since).as_secs_f64() / within.as_secs_f64().max(0.001);
                (passed * 1024.0).min(1024.0) as u32
            }
        }
    }

    /// Clients that are idle or old, or take too long, go when there is nothing of them that was not read: what has come is
    /// answered first. One that is old and goes on asking goes with a reply, so that it hears of both at once.
    pub(super) fn part_with_due(&mut self, now: Time) {
        let mut due = Vec::new();
        self.pool.sweep_clients(now, &mut due);
        for (id, why) in due {
            let Some(client) = self.clients.get_mut(id.index as usize) else { continue };
            client.leaving |= why == Parting::Aged;
            let is_between = why != Parting::Aged || self.pool.is_quiet(id, now);
            if is_between && !client.socket.has_unread() {
                self.pool.part_with(id, why, now);
            }
        }
    }

    /// What was read is answered; what has come and was not read is read once more. A client of which there is still more
    /// goes as soon as that is answered.
    pub(super) fn drain(&mut self, now: Time, until: Time) {
        if self.drain_until.is_some() {
            self.drain_until = Some(until);
            return;
        }
        for index in 0..self.clients.places() {
            self.read_client(index, now);
            if let Some(client) = self.clients.get(index)
                && !client.socket.has_unread()
            {
                self.pool.part_with(client.id(index), Parting::Drained, now);
            }
        }
        self.refuse_questions();
        self.drain_until = Some(until);
        self.next_sweep = Some(now.plus(SWEEP));
    }

    /// Those that never stop asking are read no more.
    pub(super) fn drain_others(&mut self, now: Time) {
        for id in ids(&self.clients) {
            self.pool.part_with(id, Parting::Drained, now);
        }
    }

    /// The limit of the drain has passed.
    pub(super) fn close_remaining(&mut self, now: Time) {
        let ids: Vec<ClientId> = ids(&self.clients).collect();
        if !ids.is_empty() {
            tracing::warn!(
                pool = %self.pool.name(),
                clients = ids.len(),
                "drain_limit reached; closing clients with unanswered requests"
            );
        }
        for id in ids {
            self.close_client(id, None, now);
        }
        self.lingering.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::worker::Order;
    use crate::worker::driver::PASS_BYTES_MAX;
    use crate::worker::driver::rig::{Rig, heard, say};

    const SECOND: Duration = Duration::from_secs(1);

    /// What comes while the worker is about to close the client was sent to a client that was not closed.
    #[test]
    fn a_client_that_is_to_go_is_answered_what_was_not_read_yet() {
        for policy in ["age", "idle", "request"] {
            let mut rig = Rig::new(16, |limits| match policy {
                "age" => limits.client_age_max = Some(2 * SECOND),
                "idle" => limits.client_idle_timeout = Some(2 * SECOND),
                _ => limits.client_request_timeout = Some(2 * SECOND),
            });
            let mut client = rig.client();
            let (first, rest) = if policy == "request" { ("PI", "NG\r\n") } else { ("", "PING\r\n") };
            say(&mut client, first);
            rig.passes();
            say(&mut client, rest);
            rig.blind_pass(2 * SECOND);
            rig.passes();
            let expected = if policy == "age" { "+PONG\r\n|" } else { "+PONG\r\n" };
            assert_eq!(heard(&mut client), expected, "{policy}");
            // Nothing keeps one that asks for nothing.
            say(&mut client, first);
            rig.passes();
            rig.blind_pass(2 * SECOND);
            assert_eq!(heard(&mut client), "|", "{policy}");
        }
    }

    #[test]
    fn an_old_client_that_goes_on_asking_goes_with_a_reply() {
        let mut rig = Rig::new(16, |limits| limits.client_age_max = Some(2 * SECOND));
        let mut client = rig.client();
        say(&mut client, "GET a\r\n");
        rig.passes();
        let mut shard = rig.shard();
        rig.passes();
        assert_eq!(heard(&mut shard), "*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
        say(&mut client, "GET b\r\n");
        rig.blind_pass(2 * SECOND);
        assert_eq!(heard(&mut client), "");
        say(&mut shard, "+a\r\n");
        rig.passes();
        assert_eq!(heard(&mut client), "+a\r\n", "it has asked for more");
        assert_eq!(heard(&mut shard), "*2\r\n$3\r\nGET\r\n$1\r\nb\r\n");
        say(&mut shard, "+b\r\n");
        rig.passes();
        assert_eq!(heard(&mut client), "+b\r\n|");
    }

    /// Who is let go during the grace has been answered all that it has sent: what came in the meantime is read first.
    #[test]
    fn a_client_does_not_go_while_something_of_it_is_unread() {
        let mut rig = Rig::new(16, |_| {});
        let mut client = rig.client();
        say(&mut client, "GET a\r\n");
        rig.passes();
        let mut shard = rig.shard();
        rig.passes();
        rig.order(Order::Retire { within: SECOND });
        rig.blind_pass(2 * SECOND);
        say(&mut shard, "+a\r\n");
        rig.pass_while(|| say(&mut client, "GET b\r\n"));
        assert_eq!(heard(&mut client), "+a\r\n");
        rig.passes();
        say(&mut shard, "+b\r\n");
        rig.passes();
        assert_eq!(heard(&mut client), "+b\r\n|");
    }

    /// A client is not read while it has too much in flight; what it has sent until then was sent before the drain.
    #[test]
    fn a_drain_answers_what_clients_have_sent_that_were_not_read() {
        let mut rig = Rig::new(16, |limits| limits.in_flight_max = 1);
        let mut client = rig.client();
        say(&mut client, "GET a\r\n");
        rig.passes();
        let mut shard = rig.shard();
        rig.passes();
        say(&mut client, "GET b\r\n");
        rig.passes();
        say(&mut client, "GET c\r\n");
        rig.passes();
        assert_eq!(heard(&mut shard), "*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
        rig.order(Order::Drain { limit: 10 * SECOND });
        rig.passes();
        for name in ["b", "c"] {
            say(&mut shard, "+v\r\n");
            rig.passes();
            assert_eq!(heard(&mut shard), format!("*2\r\n$3\r\nGET\r\n$1\r\n{name}\r\n"));
        }
        say(&mut shard, "+v\r\n");
        rig.passes();
        assert_eq!(heard(&mut client), "+v\r\n+v\r\n+v\r\n|");
    }

    /// They send as fast as they can and are of no use: what they may take of a pass is what everybody shares.
    #[test]
    fn connections_that_are_only_to_be_closed_hold_nobody_up() {
        let mut rig = Rig::new(16, |_| {});
        let mut lingering: Vec<_> = (0..60).map(|_| rig.client()).collect();
        lingering.iter_mut().for_each(|client| say(client, "QUIT\r\n"));
        rig.passes();
        let flood = "x".repeat(128 * 1024);
        for client in &mut lingering {
            assert_eq!(heard(client), "+OK\r\n|");
            say(client, &flood);
        }
        let mut before = rig.driver.lingering.unread();
        assert_eq!(before, lingering.len() * flood.len());
        let mut passes = 0;
        while before > 0 {
            rig.pass();
            passes += 1;
            let left = rig.driver.lingering.unread();
            assert!(before - left <= PASS_BYTES_MAX, "{} bytes in one pass", before - left);
            let passes_max = lingering.len() * flood.len() / PASS_BYTES_MAX + 2;
            assert!(passes <= passes_max, "{left} bytes are left");
            before = left;
        }
    }

    /// Others have read so much in the pass already, and will have in the next one.
    #[test]
    fn one_has_its_turn_in_every_pass() {
        let mut rig = Rig::new(16, |_| {});
        let mut client = rig.client();
        say(&mut client, "QUIT\r\n");
        rig.passes();
        assert_eq!(heard(&mut client), "+OK\r\n|");
        say(&mut client, &"x".repeat(128 * 1024));
        let before = rig.driver.lingering.unread();
        for _ in 0..3 {
            rig.driver.passed = PASS_BYTES_MAX;
            rig.pass();
        }
        assert!(rig.driver.lingering.unread() < before);
    }

    /// Clients that end are many, and what they take of a pass is a system call.
    #[test]
    fn whoever_has_nothing_left_to_be_read_takes_nobodys_turn() {
        let mut rig = Rig::new(16, |_| {});
        let mut ended: Vec<_> = (0..8).map(|_| rig.client()).collect();
        rig.passes();
        rig.driver.passed = PASS_BYTES_MAX;
        for client in &mut ended {
            say(client, "PING\r\n");
            client.shutdown(std::net::Shutdown::Write).expect("it is connected");
        }
        rig.pass();
        assert_eq!(rig.driver.again.len(), ended.len(), "their ends are read later");
        rig.driver.passed = PASS_BYTES_MAX;
        rig.pass();
        assert_eq!(ended.iter_mut().map(heard).collect::<Vec<_>>(), vec!["+PONG\r\n|"; 8]);
    }

    #[test]
    fn a_drain_ends_though_a_client_never_stops() {
        let mut rig = Rig::new(16, |_| {});
        let mut client = rig.client();
        rig.passes();
        // Half a request is always there.
        say(&mut client, "PING\r\nPI");
        rig.order(Order::Drain { limit: 10 * SECOND });
        rig.passes();
        say(&mut client, "NG\r\nPI");
        rig.blind_pass(2 * SECOND);
        rig.passes();
        assert!(heard(&mut client).ends_with('|'));
    }
}
