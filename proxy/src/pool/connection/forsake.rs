//! What nobody waits for any more at a shard connection: requests whose client has gone, or that have timed out.
//!
//! What was not written is dropped, with the prelude that was for it alone. What was written will be answered, but is not
//! kept: it would not be sent anywhere again.

use std::ops::Range;

use super::Connection;
use crate::pool::ticket::Ticket;
use crate::protocol::Protocol;

/// A connection that holds less is of no interest to who looks for memory.
const FORSAKEN_MIN: usize = 64 * 1024;

/// Parts of an output that are dropped, in order.
struct Parts {
    dropped: Vec<Range<usize>>,
    at: usize,
}

impl Parts {
    /// The first message begins there.
    fn at(at: usize) -> Self {
        Self { dropped: Vec::new(), at }
    }

    /// The next message.
    fn pass(&mut self, length: u64, drops: bool) {
        let start = self.at;
        self.at += length as usize;
        match self.dropped.last_mut() {
            _ if !drops => {}
            Some(last) if last.end == start => last.end = self.at,
            _ => self.dropped.push(start..self.at),
        }
    }
}

impl<P: Protocol> Connection<P> {
    /// Whether the shard is asked for nothing but what is forsaken, and bytes are held for it nevertheless: a response, or a
    /// request of which a part is written. What is wanted and not written can go on with the next connection.
    pub fn is_forsaken(&self) -> bool {
        // What is asked on a feed is for those that listen, and there is no ticket of theirs.
        if !self.is_made() || self.is_ours() {
            return false;
        }
        let written = self.in_flight.len() - self.unwritten();
        let wanted = self.in_flight.iter().position(|ticket| ticket.client().is_some());
        let held = match wanted {
            None => self.bytes(),
            Some(first) if first >= written && self.may_move() => {
                let unwritten_bytes: u64 =
                    self.in_flight.iter().skip(written).map(|ticket| ticket.length).sum();
                self.output.len() - unwritten_bytes as usize + self.rest.memory()
            }
            Some(_) => return false,
        };
        held >= FORSAKEN_MIN && written > 0
    }

    /// Requests that are not wanted any more: those of which no byte was written are dropped, the responses to the others
    /// find nobody.
    pub fn forsake(&mut self, is_unwanted: impl Fn(&Ticket<P>) -> bool) {
        let written = self.in_flight.len() - self.unwritten();
        let unwritten_bytes: u64 = self.in_flight.iter().skip(written).map(|ticket| ticket.length).sum();
        // From the last to the first: a prelude goes with the request behind it, or it would be taken for the next one's.
        let mut drops = vec![false; self.in_flight.len()];
        let mut drops_prelude = false;
        let mut unkept = vec![false; self.in_flight.len()];
        for (place, ticket) in self.in_flight.iter_mut().enumerate().rev() {
            if ticket.is_prelude() {
                drops[place] = std::mem::take(&mut drops_prelude);
            } else if ticket.loads().is_none() && is_unwanted(ticket) {
                let is_asked = ticket.asks && place == written;
                drops[place] = place > written || (place == written && !is_asked);
                drops_prelude = drops[place] && ticket.asks;
                if !drops[place] {
                    ticket.forsake();
                }
                // Nobody would see that it is sent again.
                unkept[place] = place < written && !ticket.unkept;
            }
        }
        let mut from_output = Parts::at(self.output.len() - unwritten_bytes as usize);
        let mut from_kept = Parts::at(0);
        for (place, ticket) in self.in_flight.iter_mut().enumerate() {
            if !ticket.unkept {
                from_kept.pass(ticket.length, drops[place] || unkept[place]);
            }
            ticket.unkept |= unkept[place];
            if place >= written {
                from_output.pass(ticket.length, drops[place]);
            }
        }
        if let Some(kept) = &mut self.kept
            && !from_kept.dropped.is_empty()
        {
            kept.remove(&from_kept.dropped);
        }
        if from_output.dropped.is_empty() {
            return;
        }
        self.output.remove(&from_output.dropped);
        let mut drops = drops.into_iter();
        let in_flight_bytes = &mut self.in_flight_bytes;
        self.in_flight.retain(|ticket| {
            let drops = drops.next() == Some(true);
            if drops {
                *in_flight_bytes -= ticket.length;
            }
            !drops
        });
        self.count_again();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Piece;
    use crate::pool::ClientId;
    use crate::pool::members::MemberIndex;
    use crate::pool::policy::Policy;
    use crate::pool::ticket::Whom;
    use crate::protocol::resp::Resp;
    use crate::protocol::resp::session::Settings;
    use crate::time::Time;

    const CLIENT: ClientId = ClientId { index: 0, generation: 1 };

    struct Bench {
        connection: Connection<Resp>,
        random: u64,
    }

    impl Bench {
        fn new(keeps: bool) -> Self {
            let lane = Resp::lane(&Resp::session(&Settings::default()));
            let connection = Connection::new(1, MemberIndex::default(), lane, Policy::shared(None), keeps);
            Self { connection, random: 0x9e37_79b9_7f4a_7c15 }
        }

        /// A request that is this text.
        fn submit(&mut self, text: &str, change: impl FnOnce(&mut Ticket<Resp>)) {
            let mut ticket = Ticket::prelude(Time::default());
            (ticket.whom, ticket.reads) = (Whom::Client(CLIENT), false);
            change(&mut ticket);
            self.connection.expired += usize::from(ticket.expired);
            self.connection.submit(ticket, Piece::Copied(text.as_bytes()), Time::default());
        }

        fn unwritten(&self) -> String {
            let output = &self.connection.output;
            String::from_utf8(output.first(output.len()).to_vec()).expect("text")
        }

        fn below(&mut self, bound: usize) -> usize {
            self.random =
                self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.random >> 33) as usize % bound
        }
    }

    fn prelude(ticket: &mut Ticket<Resp>) {
        ticket.whom = Whom::Prelude;
    }

    fn late(ticket: &mut Ticket<Resp>) {
        ticket.expired = true;
    }

    #[test]
    fn what_was_sent_elsewhere_and_timed_out_is_not_sent_again() {
        let mut bench = Bench::new(true);
        bench.submit("first ", |_| {});
        bench.submit("asking ", prelude);
        bench.submit("late ", |ticket| {
            late(ticket);
            (ticket.tries, ticket.asks) = (1, true);
        });
        bench.submit("moved ", |ticket| {
            late(ticket);
            ticket.tries = 1;
        });
        bench.submit("asking ", prelude);
        bench.submit("second ", |ticket| (ticket.tries, ticket.asks) = (1, true));
        bench.connection.up();
        assert_eq!(bench.unwritten(), "first asking second ");
        assert_eq!(bench.connection.expired, 0);
        bench.connection.output.clear();
        let mut take_back = || bench.connection.take_back().expect("it is kept").1;
        assert_eq!([take_back(), take_back(), take_back()], ["first ", "asking ", "second "]);
    }

    /// The node has heard the prelude: what comes next is taken for what it was meant for.
    #[test]
    fn what_stands_behind_a_prelude_that_is_written_stays() {
        let mut bench = Bench::new(true);
        bench.connection.up();
        bench.submit("asking ", prelude);
        bench.submit("gone ", |ticket| (ticket.tries, ticket.asks) = (1, true));
        bench.submit("next ", |_| {});
        bench.connection.output.advance(3);
        bench.connection.forsake(|_| true);
        assert_eq!(bench.unwritten(), "ing gone ");
        assert!(bench.connection.in_flight.iter().all(|ticket| ticket.client().is_none()));
    }

    #[test]
    fn what_is_written_and_not_wanted_any_more_is_not_kept() {
        let mut bench = Bench::new(true);
        bench.connection.up();
        bench.submit(&"x".repeat(1_000_000), |_| {});
        bench.submit("wanted", |ticket| ticket.number = 1);
        bench.connection.output.clear();
        assert!(bench.connection.bytes() > 1_000_000);
        bench.connection.forsake(|ticket| ticket.number == 0);
        assert!(bench.connection.bytes() < 10_000, "{} bytes", bench.connection.bytes());
        assert!(bench.connection.take_back().is_none(), "it is not sent anywhere any more");
        bench.connection.answered();
        assert_eq!(bench.connection.take_back().expect("it is kept").1, "wanted");
    }

    /// Requests that were queued later may have been read earlier.
    #[test]
    fn a_write_that_timed_out_is_written_or_not_wherever_it_stands() {
        let mut bench = Bench::new(false);
        bench.connection.up();
        bench.submit("young ", |_| {});
        bench.submit("late ", late);
        bench.connection.output.advance(6);
        assert!(!bench.connection.has_written_expired(), "nothing of it is");
        bench.connection.output.advance(4);
        assert!(!bench.connection.has_written_expired(), "it is in part");
        bench.connection.output.advance(1);
        assert!(bench.connection.has_written_expired());
        bench.submit("late read ", |ticket| {
            late(ticket);
            ticket.reads = true;
        });
        assert!(bench.connection.has_written_expired(), "a read does no harm");
    }

    /// Whatever is written, answered and forsaken in between, what is left is what it was.
    #[test]
    fn requests_stay_whole_whatever_is_dropped_around_them() {
        let mut bench = Bench::new(true);
        bench.connection.up();
        // What the shard has heard, and all requests that were ever made, by their numbers.
        let (mut heard, mut made) = (String::new(), Vec::new());
        for number in 0..20_000_u32 {
            let text = format!("<{number}:{}>", "x".repeat(bench.below(9)));
            let asks = bench.below(5) == 0;
            if asks {
                bench.submit("<asking>", prelude);
            }
            bench.submit(&text, |ticket| (ticket.number, ticket.asks) = (number, asks));
            made.push(text);
            match bench.below(4) {
                0 => {
                    let count = bench.below(bench.connection.output.len() + 1);
                    heard.push_str(&bench.unwritten()[..count]);
                    bench.connection.output.advance(count);
                }
                1 => {
                    let chosen = bench.below(3) as u32;
                    bench.connection.forsake(|ticket| ticket.number % 3 == chosen);
                }
                _ => {}
            }
            while bench.connection.asked().is_some() && bench.below(3) > 0 {
                let front = *bench.connection.asked().expect("just seen");
                match bench.connection.take_back() {
                    Some((_, bytes)) if front.is_prelude() => assert_eq!(bytes, "<asking>"),
                    Some((ticket, bytes)) => assert_eq!(bytes, made[ticket.number as usize]),
                    None => assert!(front.unkept && bench.connection.answered().is_some()),
                }
            }
        }
        heard.push_str(&bench.unwritten());
        // Every request that was heard is whole, in order, and has its prelude before it, and no prelude stands alone.
        let mut last = None;
        let mut words = heard.split_inclusive('>').peekable();
        while let Some(word) = words.next() {
            if word == "<asking>" {
                assert!(words.peek().is_some_and(|next| *next != "<asking>"), "a prelude for nobody");
                continue;
            }
            let number: usize =
                word[1..].split(':').next().and_then(|digits| digits.parse().ok()).expect("a number");
            assert!(word == made[number] && last.is_none_or(|last| last < number), "{word} after {last:?}");
            last = Some(number);
        }
    }
}
