//! What a client may say now. Most say what they like; where its mode is another one, every command is judged here first.
//!
//! A mode is what the commands of a client mean to it, so it stands in its session; what a client waits for is the business of
//! the pool.

use super::command::{ClusterWord, Command, Handling, Local};
use crate::protocol::Watched;

/// How the commands of a client are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Each by itself, as it comes.
    Ordinary,
    /// The same, but WATCH was refused: the transaction that it was to guard will not be executed.
    Unguarded,
    /// The same, and a shard watches keys for it.
    Watching,
    /// The same, but the shard does no more: the next transaction will not be executed, as if a key had changed.
    Lost,
    /// It speaks RESP2 and listens to channels: it can say nothing but what is about those.
    Listening {
        /// What it was before, and will be again.
        before: Before,
    },
    /// Between MULTI and EXEC: they are queued.
    Queueing,
    /// The same, where keys were watched, and are no more: the transaction will not be executed, as if one had changed.
    Doomed,
    /// The same, where one was refused: the transaction will not be executed, and that is an error.
    Spoiled,
}

/// The mode of a client outside of transactions and channels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // each is the mode of that name
pub enum Before {
    Ordinary,
    Unguarded,
    Watching,
    Lost,
}

impl From<Before> for Mode {
    fn from(before: Before) -> Self {
        match before {
            Before::Ordinary => Self::Ordinary,
            Before::Unguarded => Self::Unguarded,
            Before::Watching => Self::Watching,
            Before::Lost => Self::Lost,
        }
    }
}

impl Mode {
    /// Between MULTI and EXEC.
    pub fn is_queueing(self) -> bool {
        matches!(self, Self::Queueing | Self::Doomed | Self::Spoiled)
    }

    /// The client can say nothing but what is about channels.
    pub fn is_listening(self) -> bool {
        matches!(self, Self::Listening { .. })
    }

    /// The client can say nothing but what is about channels from now on, or can again.
    pub fn listens(&mut self, to_something: bool) {
        let before = match *self {
            Self::Ordinary => Before::Ordinary,
            Self::Unguarded => Before::Unguarded,
            Self::Watching => Before::Watching,
            Self::Lost => Before::Lost,
            Self::Listening { before } => before,
            Self::Queueing | Self::Doomed | Self::Spoiled => return,
        };
        *self = if to_something { Self::Listening { before } } else { before.into() };
    }

    /// What has become of keys that it watches, or wanted to.
    pub fn watched(&mut self, news: Watched) {
        *self = match (news, *self) {
            (Watched::Begun, Self::Ordinary) => Self::Watching,
            (Watched::Refused, Self::Ordinary | Self::Watching | Self::Lost) => Self::Unguarded,
            (Watched::Lost, Self::Ordinary | Self::Watching) => Self::Lost,
            (Watched::Lost, Self::Listening { before: Before::Watching }) => {
                Self::Listening { before: Before::Lost }
            }
            (Watched::Lost, Self::Queueing) => Self::Doomed,
            (_, mode) => mode,
        }
    }

    /// Whether a shard may watch keys for it: it has not said that it needs that no more.
    pub fn may_watch(self) -> bool {
        match self {
            Self::Watching
            | Self::Listening { before: Before::Watching }
            | Self::Queueing
            | Self::Spoiled => true,
            Self::Ordinary | Self::Unguarded | Self::Lost | Self::Listening { .. } | Self::Doomed => false,
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

const ELSEWHERE: &str = "it cannot be answered with the others; send it before MULTI or after EXEC";

/// Why what goes to several shards is not queued.
pub const SEVERAL: &str = "several shards have to be asked; send it before MULTI or after EXEC";

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
                | Local::ClientReply
                | Local::ClientTracking
                | Local::Monitor
                | Local::ClientCaching => Self::Refused(STATE),
                Local::ConfigSet | Local::ScriptKill | Local::FunctionKill => Self::Refused(SEVERAL),
                Local::ClientInfo | Local::ClientList | Local::ClientKill | Local::ClientUnblock => {
                    Self::Refused(ASKED)
                }
                Local::Cluster(word) if word.is_of_keys() || ClusterWord::OF_ADDRESS.contains(&word) => {
                    Self::Refused(ELSEWHERE)
                }
                Local::Cluster(_)
                | Local::Ping
                | Local::Echo
                | Local::Time
                | Local::Unwatch
                | Local::Role
                | Local::Info
                | Local::Lolwut
                | Local::Command
                | Local::Help
                | Local::ClientId
                | Local::ClientGetname
                | Local::ClientSetname
                | Local::ClientSetinfo
                | Local::ClientTrackinginfo
                | Local::ClientGetredir
                | Local::ClientNoEvict
                | Local::ClientNoTouch
                | Local::ClientUnpause
                | Local::Readonly
                | Local::Readwrite
                | Local::Asking
                | Local::AclWhoami
                | Local::AclUsers
                | Local::AclList
                | Local::AclGetuser
                | Local::AclCat
                | Local::AclDryrun
                | Local::AclLog
                | Local::SlowlogGet
                | Local::SlowlogLen
                | Local::SlowlogReset
                | Local::ConfigGet => Self::Answered,
            },
            Handling::Watch => Self::Nested("ERR WATCH inside MULTI is not allowed"),
            Handling::Confirm { .. } => Self::Sent,
            Handling::Listen(..) => Self::Refused(STATE),
            Handling::AskChannels(_) => Self::Refused(SEVERAL),
            Handling::Forward
            | Handling::ToChannel
            | Handling::Block(_)
            | Handling::Run(_)
            | Handling::Split(_)
            | Handling::ToAll(..)
            | Handling::Scan
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
        for before in [Mode::Ordinary, Mode::Unguarded, Mode::Watching, Mode::Lost] {
            let mut mode = before;
            for to_something in [false, true, true] {
                mode.listens(to_something);
            }
            assert!(mode.is_listening());
            mode.listens(false);
            assert_eq!(mode, before);
        }
    }

    #[test]
    fn what_is_watched_no_more_is_never_executed() {
        for (mode, after) in [
            (Mode::Watching, Mode::Lost),
            (Mode::Queueing, Mode::Doomed),
            (Mode::Spoiled, Mode::Spoiled),
            (Mode::Unguarded, Mode::Unguarded),
        ] {
            let mut mode = mode;
            mode.watched(Watched::Lost);
            assert_eq!(mode, after);
        }
        let mut mode = Mode::Watching;
        mode.listens(true);
        mode.watched(Watched::Lost);
        assert!(mode.is_listening() && !mode.may_watch());
        mode.listens(false);
        assert_eq!(mode, Mode::Lost);
        assert_eq!(size_of::<Mode>(), 1, "every idle client has one");
    }
}
