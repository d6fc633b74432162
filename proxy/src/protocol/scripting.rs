//! Scripts and functions that shards run for clients, as far as the pool has to know.

use crate::scripts::{Digest, LibraryChange};

/// Whether a request runs a script or function: its errors may be words of its own then, said after it has done something.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Scripted {
    /// It does not.
    #[default]
    No,
    /// It does.
    Yes,
    /// It does, and names a script that its shard should know.
    Loaded,
    /// It does not, but a module does it, which may let its client wait without a word: a shard that hangs looks the same.
    Module,
}

impl Scripted {
    /// Whether it runs one.
    #[inline]
    pub fn is_script(self) -> bool {
        matches!(self, Self::Yes | Self::Loaded)
    }
}

/// What a request runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Run {
    /// The script whose text stands in the request.
    Text {
        /// Where.
        start: usize,
        /// How many bytes.
        length: usize,
    },
    /// The script of this digest.
    Named(Digest),
    /// Something that only shards know.
    Unknown,
}

/// What a shard means that has not taken a script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It takes nothing for the moment.
    ForNow,
    /// It does not take it from us.
    Here,
    /// It is no script, for any shard.
    Everywhere,
}

/// How a protocol speaks of scripts. A protocol that has none says nothing.
pub trait Scripting {
    /// The request after which a shard knows the script of this text.
    fn load_script(_text: &[u8]) -> Vec<u8> {
        Vec::new()
    }

    /// What a shard means whose response to that is this error.
    fn script_refused(_response: &[u8]) -> Refused {
        Refused::ForNow
    }

    /// Whether a shard that executes this request forgets the scripts that it knows.
    fn forgets_scripts(_request: &[u8]) -> bool {
        false
    }

    /// What this request changes about libraries of functions.
    fn library_change(_request: &[u8]) -> Option<LibraryChange<'_>> {
        None
    }

    /// Whether this is what shards say that do not know the script which a request has named, and have not executed it then. A script
    /// may say the same after it has done something.
    fn is_unknown_script(_response: &[u8]) -> bool {
        false
    }

    /// Whether the script of this request, as [`Self::load_script`] makes it, never says that itself, as far as its text tells.
    fn is_mute(_load: &[u8]) -> bool {
        false
    }

    /// Whether one of the responses to the requests of a block, which are in this one, says that.
    fn has_unknown_script(_response: &[u8]) -> bool {
        false
    }

    /// The request that asks a shard which of these scripts it knows.
    fn ask_scripts(_scripts: &[Digest]) -> Vec<u8> {
        Vec::new()
    }

    /// Which of so many scripts a shard knows that responds so to that, in their order; `None` if it does not say.
    fn scripts_known(_response: &[u8], _count: usize) -> Option<Vec<bool>> {
        None
    }

    /// The scripts that these requests, one behind the other, name, at most so many of them.
    fn scripts_named(_requests: &[u8], _most: usize) -> Vec<Digest> {
        Vec::new()
    }
}
