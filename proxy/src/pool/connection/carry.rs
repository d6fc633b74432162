//! What goes on with the next connection, where one is lost.

use super::Connection;
use crate::protocol::Protocol;

impl<P: Protocol> Connection<P> {
    /// How many tickets, counted from the last, go on with the next connection: those of which no byte was written. Where scripts
    /// were written that a transaction needs, and it was not, it does not go on without them: one of its requests would not be
    /// executed, and the others would.
    pub(super) fn carried(&self) -> usize {
        let count = self.unwritten();
        let first = self.in_flight.len() - count;
        if first == 0 || self.in_flight[first - 1].loads().is_none() {
            return count;
        }
        let loads = self.in_flight.iter().skip(first).take_while(|ticket| ticket.loads().is_some()).count();
        let is_block = self.in_flight.get(first + loads).is_some_and(|ticket| ticket.is_block());
        if is_block { count - loads - 1 } else { count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Piece;
    use crate::failure::ShardFailure;
    use crate::pool::members::MemberIndex;
    use crate::pool::policy::Policy;
    use crate::pool::ticket::{Ticket, Whom};
    use crate::protocol::resp::Resp;
    use crate::protocol::resp::session::Settings;
    use crate::scripts::Mark;
    use crate::time::Time;

    /// Two scripts and what needs them, and a request behind it; so many bytes are written. How many tickets are lost with the
    /// connection, and what goes on.
    fn lost(is_block: bool, written: usize) -> (usize, String) {
        let lane = Resp::lane(&Resp::session(&Settings::default()));
        let mut connection =
            Connection::<Resp>::new(1, MemberIndex::default(), lane, Policy::shared(None), false);
        connection.up();
        let mut submit =
            |ticket, text: &str| connection.submit(ticket, Piece::Copied(text.as_bytes()), Time::default());
        for place in 0..2 {
            submit(Ticket::loader(Mark { place, number: 1 }, Time::default()), "load ");
        }
        let other = Ticket { whom: Whom::Nobody, ..Ticket::prelude(Time::default()) };
        let expected = if is_block { Resp::end_block(1, &mut Vec::new()) } else { other.expected };
        submit(Ticket { expected, ..other }, "run ");
        submit(other, "next ");
        connection.output.advance(written);
        let (lost, _) = connection.closed(&ShardFailure::Closed, true, 0, 0, Time::default());
        let output = connection.output.first(connection.output.len());
        (lost.len(), String::from_utf8(output.to_vec()).expect("text"))
    }

    #[test]
    fn a_transaction_does_not_go_on_without_its_scripts() {
        for (is_block, written, expected) in [
            (true, 0, (0, "load load run next ")),
            (true, 1, (3, "next ")),
            (true, 5, (3, "next ")),
            (true, 10, (3, "next ")),
            (true, 11, (3, "next ")),
            (true, 15, (4, "")),
            // It is asked again once its shard says that it lacks the script.
            (false, 5, (1, "load run next ")),
            (false, 10, (2, "run next ")),
        ] {
            let (count, output) = lost(is_block, written);
            assert_eq!((count, &output[..]), expected, "{is_block} {written}");
        }
    }
}
