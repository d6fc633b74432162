//! What a client may say now. Most say what they like; where its mode is another one, every command is judged here first.
//!
//! A mode is what the commands of a client mean to it, so it stands in its session; what a client waits for is the business of
//! the pool.

use super::command::{Command, Feature, Handling, Local};

/// How the commands of a client are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Each by itself, as it comes.
    Ordinary,
    /// The same, but WATCH was refused: the transaction that it was to guard will not be executed.
    Unguarded,
    /// It speaks RESP2 and listens to channels: it can say nothing but what is about those.
    Listening {
        /// It was [`Mode::Unguarded`] before, and will be again.
        is_unguarded: bool,
    },
    /// Between MULTI and EXEC: they are queued.
    Queueing,
    /// The same, where one was refused: the transaction will not be executed.
    Spoiled,
}

impl Mode {
    /// Between MULTI and EXEC.
    pub fn is_queueing(self) -> bool {
        matches!(self, Self::Queueing | Self::Spoiled)
    }

    /// The client can say nothing but what is about channels.
    pub fn is_listening(self) -> bool {
        matches!(self, Self::Listening { .. })
    }

    /// The client can say nothing but what is about channels from now on, or can again.
    pub fn listens(&mut self, to_something: bool) {
        match self {
            Self::Queueing | Self::Spoiled => {}
            Self::Ordinary if to_something => *self = Self::Listening { is_unguarded: false },
            Self::Unguarded if to_something => *self = Self::Listening { is_unguarded: true },
            Self::Listening { is_unguarded } if !to_something => {
                *self = if *is_unguarded { Self::Unguarded } else { Self::Ordinary };
            }
            Self::Ordinary | Self::Unguarded | Self::Listening { .. } => {}
        }
    }
}

/// What becomes of a command between MULTI and EXEC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Within {
    /// It is done at once, as outside.
    Done,
    /// It is queued, and the proxy itself answers it once the transaction is executed.
    Answered,
    /// Where it is sent to a shard outside, it is queued.
    AsOutside,
    /// It is queued for a shard though it is refused outside: it does not wait here.
    Sent,
    /// It is refused in these words, and the transaction goes on.
    Nested(&'static str),
    /// It is refused for this reason, and the transaction with it.
    Refused(&'static str),
}

const STATE: &str = "it would change the state of the connection; send it before MULTI";
const ASKED: &str = "all threads of the proxy have to be asked; send it before MULTI or after EXEC";

impl Within {
    /// What becomes of this one.
    pub fn of(command: &Command) -> Self {
        match command.handling {
            Handling::Answer(local) => match local {
                Local::Exec | Local::Discard | Local::Reset | Local::Quit => Self::Done,
                Local::Multi => Self::Nested("ERR MULTI calls can not be nested"),
                Local::Hello
                | Local::Auth
                | Local::Select
                | Local::Readonly
                | Local::Readwrite
                | Local::Asking
                | Local::ClientReply
                | Local::ClientNoEvict
                | Local::ClientNoTouch => Self::Refused(STATE),
                Local::ClientInfo | Local::ClientList | Local::ClientKill | Local::ClientUnblock => {
                    Self::Refused(ASKED)
                }
                Local::Ping
                | Local::Echo
                | Local::Time
                | Local::Unwatch
                | Local::Role
                | Local::Info
                | Local::Lolwut
                | Local::Command
                | Local::Cluster
                | Local::Help
                | Local::ClientId
                | Local::ClientGetname
                | Local::ClientSetname
                | Local::ClientSetinfo
                | Local::ConfigGet => Self::Answered,
            },
            Handling::Later(Feature::Watch) => Self::Nested("ERR WATCH inside MULTI is not allowed"),
            Handling::Later(Feature::Wait) => Self::Sent,
            Handling::Listen(..) => Self::Refused(STATE),
            Handling::Forward
            | Handling::ToChannel
            | Handling::Block(_)
            | Handling::Split(_)
            | Handling::Later(_)
            | Handling::Refuse(_)
            | Handling::Container => Self::AsOutside,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_that_nothing_guards_is_not_executed_after_listening_either() {
        for before in [Mode::Ordinary, Mode::Unguarded] {
            let mut mode = before;
            for to_something in [false, true, true] {
                mode.listens(to_something);
            }
            assert!(mode.is_listening());
            mode.listens(false);
            assert_eq!(mode, before);
        }
    }
}
