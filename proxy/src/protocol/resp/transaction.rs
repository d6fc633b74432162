//! What becomes of requests behind a MULTI, which is refused: a transaction must not be executed in part.
//!
//! A client that has sent its transaction at once cannot take back what follows MULTI. One that waits for the reply to
//! MULTI is told that there is none, and goes on with requests that mean something else. Both look alike where the
//! network cuts what a client sent behind MULTI: its next request comes after the error was written, as that of a client
//! that has read it. What tells them apart is what comes next. So that request is held until the client is silent for
//! long. If EXEC or DISCARD has come by then it was a transaction, else it is served.
//!
//! What holds therefore: a transaction is executed in part only if its client pauses within it for
//! [`Silence::Long`](crate::protocol::Silence), and has not waited for the reply to MULTI. A client that waits has its next
//! request held for as long, once.

use super::Resp;
use super::command::Command;
use super::command::index::lookup;
use super::decode::{RequestDecoder, RequestLimits};
use crate::protocol::{Facts, RequestBounds, Silence};

/// Bytes of requests that are held; whoever sends more does not wait for replies.
const HELD_MAX: usize = 16 * 1024;

/// Whether MULTI was refused, and how sure it is that what follows belongs to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transaction {
    /// It was not.
    None,
    /// It was, and nothing stood behind it.
    Refused,
    /// It was, and what follows is part of the transaction until that ends.
    Pipelined,
    /// It speaks RESP2 and listens to channels, so it cannot begin one.
    Listening,
}

/// What is to be done with a request.
pub enum Ruling {
    /// It is no part of a transaction, or ends it.
    Serve,
    /// It is to be held.
    Wait,
    /// It is part of a transaction: the reply.
    Refuse(String),
}

impl Transaction {
    /// MULTI is refused. `heard`: its client will be told.
    pub fn refused(&mut self, heard: bool, facts: &Facts<'_, Resp>) {
        let is_first = match self {
            Self::None => true,
            Self::Refused => facts.delivered,
            Self::Pipelined | Self::Listening => false,
        };
        *self = if is_first && heard && facts.behind.is_empty() { Self::Refused } else { Self::Pipelined };
    }

    /// The client can say nothing but what is about channels from now on, or can again.
    pub fn listens(&mut self, to_something: bool) {
        if to_something {
            *self = Self::Listening;
        } else if *self == Self::Listening {
            *self = Self::None;
        }
    }

    /// The transaction is over. Whether there was one.
    pub fn left(&mut self) -> bool {
        std::mem::replace(self, Self::None) != Self::None
    }

    /// Judges a request of the client.
    pub fn rule(&mut self, command: &Command, facts: &Facts<'_, Resp>) -> Ruling {
        if matches!(self, Self::None | Self::Listening)
            || command.begins_transaction()
            || command.leaves_transaction()
        {
            return Ruling::Serve;
        }
        if *self == Self::Refused {
            let (next, ruling) = Self::settle(facts);
            *self = next;
            if let Some(ruling) = ruling {
                return ruling;
            }
        }
        Ruling::Refuse(format!(
            "ERR '{}' was not executed: it is part of a transaction, and transactions are not supported yet",
            command.words()
        ))
    }

    /// What follows the refusal of a MULTI that nothing stood behind, as far as that is known by now.
    fn settle(facts: &Facts<'_, Resp>) -> (Self, Option<Ruling>) {
        if !facts.delivered || facts.behind.len() > HELD_MAX {
            return (Self::Pipelined, None);
        }
        let behind = if facts.silence == Silence::Short { Behind::Unfinished } else { look(facts.behind) };
        match behind {
            Behind::Requests => (Self::None, Some(Ruling::Serve)),
            Behind::Unfinished if facts.silence != Silence::Final => (Self::Refused, Some(Ruling::Wait)),
            Behind::Unfinished | Behind::End => (Self::Pipelined, None),
        }
    }
}

/// What stands behind a request.
enum Behind {
    /// The end of a transaction, or what is no request.
    End,
    /// Requests and the beginning of one, or what there may be more of at once.
    Unfinished,
    /// Requests, if anything.
    Requests,
}

fn look(mut behind: &[u8]) -> Behind {
    let bounds = RequestBounds { bytes: u64::MAX, arguments: usize::MAX };
    let limits = RequestLimits { bounds, authenticated: true };
    while !behind.is_empty() {
        let mut decoder = RequestDecoder::default();
        match decoder.decode(behind, limits) {
            Err(_) => return Behind::End,
            Ok(None) => return Behind::Unfinished,
            Ok(Some(length)) => {
                let (request, rest) = behind.split_at(length);
                let name = decoder.head(0, decoder.canonical(request));
                if name.and_then(lookup).is_some_and(|command| command.leaves_transaction()) {
                    return Behind::End;
                }
                behind = rest;
            }
        }
    }
    Behind::Requests
}
