//! What goes on with the next connection, where one is lost: the shard that is found then may lack the scripts that it was sent on the
//! last one.

use super::Connection;
use crate::buffer::Output;
use crate::pool::block::NAMED_MAX;
use crate::pool::ticket::Ticket;
use crate::protocol::{Protocol, Scripted};
use crate::scripts::{Mark, Scripts};

impl<P: Protocol> Connection<P> {
    /// Scripts that are named by what goes on are sent before all of it, where they do not go on themselves: without them one
    /// request of a transaction would not be executed, and the others would. At most all that are known. Returns how many.
    pub fn carry_scripts(&mut self, scripts: &Scripts) -> u64 {
        let Some(since) = self.in_flight.front().map(|ticket| ticket.since) else { return 0 };
        let missing = self.missing_scripts(scripts);
        let loads: Vec<_> = missing.iter().filter_map(|&mark| Some((mark, scripts.load(mark)?))).collect();
        for (mark, load) in loads.iter().rev() {
            let length = load.len() as u64;
            self.in_flight_bytes += length;
            self.in_flight.push_front(Ticket { length, ..Ticket::loader(*mark, since) });
        }
        let put_before = |output: &mut Output| {
            let behind = std::mem::take(output);
            loads.iter().for_each(|(_, load)| output.share(load.clone()));
            output.append(behind);
        };
        if !loads.is_empty() {
            put_before(&mut self.output);
            self.kept.iter_mut().for_each(|kept| put_before(kept));
            self.watched += if self.watched > 0 { loads.len() } else { 0 };
        }
        loads.len() as u64
    }

    /// Those that the next shard has to be sent.
    fn missing_scripts(&mut self, scripts: &Scripts) -> Vec<Mark> {
        let mut missing = Vec::new();
        let names = |ticket: &Ticket<P>| ticket.is_block() || ticket.scripted == Scripted::Loaded;
        if !self.in_flight.iter().any(names) {
            return missing;
        }
        let requests = self.output.first(self.output.len());
        let loaded = self.loaded.get_or_insert_default();
        let mut start = 0;
        for ticket in &self.in_flight {
            let end = start + ticket.length as usize;
            if let Some(mark) = ticket.loads() {
                loaded.add(mark);
            } else if names(ticket) {
                let named = P::scripts_named(&requests[start..end], NAMED_MAX);
                for mark in named.iter().filter_map(|script| scripts.find(script)) {
                    if !loaded.has(mark) {
                        loaded.add(mark);
                        missing.push(mark);
                    }
                }
            }
            start = end;
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Account;
    use crate::buffer::Piece;
    use crate::failure::ShardFailure;
    use crate::pool::members::MemberIndex;
    use crate::pool::policy::Policy;
    use crate::pool::ticket::Whom;
    use crate::protocol::Scripting as _;
    use crate::protocol::resp::Resp;
    use crate::protocol::resp::session::Settings;
    use crate::time::Time;

    const RUN: &str = "*3\r\n$7\r\nEVALSHA\r\n$40\r\ne0e1f9fabfc9d4800c877a703b823ac0578ff8db\r\n$1\r\n0\r\n";
    /// The script that it names.
    const LOAD: &str = "*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$8\r\nreturn 1\r\n";
    const BEGIN: &str = "*1\r\n$5\r\nMULTI\r\n";
    const END: &str = "*1\r\n$4\r\nEXEC\r\n";
    const NEXT: &str = "*1\r\n$4\r\nPING\r\n";

    /// Of these requests so many are written as their connection is lost: what the next one is sent.
    fn carried(requests: &[&str], written: usize, keeps: bool) -> String {
        let scripts = Scripts::new(&Account::new(1 << 30));
        scripts.remember(b"return 1", Resp::load_script);
        let digest = Resp::scripts_named(RUN.as_bytes(), 1)[0];
        let mark = scripts.find(&digest).expect("it was shown");
        let lane = Resp::lane(&Resp::session(&Settings::default()));
        let mut connection =
            Connection::<Resp>::new(1, MemberIndex::default(), lane, Policy::shared(None), keeps);
        connection.up();
        for &request in requests {
            let mut ticket = Ticket { whom: Whom::Nobody, ..Ticket::prelude(Time::default()) };
            match request {
                LOAD => ticket = Ticket::loader(mark, Time::default()),
                RUN => ticket.scripted = Scripted::Loaded,
                NEXT => {}
                _ => ticket.expected = Resp::end_block(1, &mut Vec::new()),
            }
            connection.submit(ticket, Piece::Copied(request.as_bytes()), Time::default());
        }
        connection.output.advance(written);
        connection.closed(&ShardFailure::Closed, true, 0, 0, Time::default());
        connection.carry_scripts(&scripts);
        assert!(connection.is_in_step());
        let output = connection.output.first(connection.output.len());
        let output = String::from_utf8(output.to_vec()).expect("text");
        assert_eq!(connection.loaded.is_some_and(|loaded| loaded.has(mark)), output.contains(LOAD));
        output
    }

    #[test]
    fn what_names_a_script_does_not_go_on_without_it() {
        let block = &[BEGIN, RUN, END].concat()[..];
        let behind = |requests: &[&str]| requests.concat();
        for keeps in [false, true] {
            let carried = |requests: &[&str], written| carried(requests, written, keeps);
            assert_eq!(carried(&[LOAD, block, NEXT], 0), behind(&[LOAD, block, NEXT]));
            for written in [1, LOAD.len()] {
                assert_eq!(carried(&[LOAD, block, NEXT], written), behind(&[LOAD, block, NEXT]));
                assert_eq!(carried(&[LOAD, NEXT, RUN, block], written), behind(&[LOAD, NEXT, RUN, block]));
            }
            assert_eq!(carried(&[LOAD, block, NEXT], LOAD.len() + 1), NEXT);
            assert_eq!(carried(&[block, block], 1), behind(&[LOAD, block]));
            assert_eq!(carried(&[NEXT, LOAD, RUN, block], 0), behind(&[NEXT, LOAD, RUN, block]));
            assert_eq!(carried(&[NEXT, RUN, LOAD, RUN], 0), behind(&[LOAD, NEXT, RUN, LOAD, RUN]));
        }
    }
}
