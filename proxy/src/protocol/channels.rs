//! Channels, as far as the pool has to know them: what a client wants to hear of, and what a shard says of it.
//!
//! A protocol without channels keeps what stands here.

/// How many bits a tally has: see [`Channels::tally`]. A worker has fewer clients than that is.
pub const TALLY_BITS: u32 = 20;

/// What a name is the name of. Each kind has names of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A channel.
    Channel,
    /// A pattern that the names of channels match.
    Pattern,
    /// A channel of a shard: messages to it are on the shard that owns its name, and on no other.
    Sharded,
}

impl Kind {
    /// How many there are.
    pub const COUNT: usize = 3;
    /// Each of them, at its place.
    pub const ALL: [Self; Self::COUNT] = [Self::Channel, Self::Pattern, Self::Sharded];

    /// In a list that has one for each.
    #[inline]
    pub fn place(self) -> usize {
        self as usize
    }

    /// Whether a name of it may be published to.
    pub fn is_channel(self) -> bool {
        self != Self::Pattern
    }

    /// Whether a client is told the number of both kinds in one.
    pub fn counts_with(self, other: Self) -> bool {
        (self == Self::Sharded) == (other == Self::Sharded)
    }
}

/// A name is listened to, or no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listening {
    /// What it is the name of.
    pub kind: Kind,
    /// It is.
    pub on: bool,
}

/// What a shard says on a connection that listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told<'b> {
    /// A message, because this name is listened to.
    Message(Kind, &'b [u8]),
    /// This was asked, and is so from here on.
    Done(Listening, &'b [u8]),
    /// What was asked is not done, in these words.
    Refused(&'b [u8]),
    /// It is alive, which was asked.
    Alive,
    /// Nothing that belongs there.
    Odd,
}

/// How a client reads what it hears; a number that only its protocol knows.
pub type Voice = u8;

/// How a protocol speaks of channels.
pub trait Channels {
    /// Writes what tells a shard that the name is listened to, or no more; that brings one response.
    fn listen(_change: Listening, _name: &[u8], _out: &mut Vec<u8>) {}

    /// Writes what asks a shard for a sign of life on a connection that listens; that brings one response.
    fn ask_for_life(_out: &mut Vec<u8>) {}

    /// The name that stands for 2 to the power of `bit` listeners to the channel, of its kind and at home where that is.
    fn tally(_kind: Kind, _channel: &[u8], _bit: u32) -> Vec<u8> {
        Vec::new()
    }

    /// The channel that such a name counts for, if it is one.
    fn tallied(_kind: Kind, _name: &[u8]) -> Option<&[u8]> {
        None
    }

    /// Whether names of this kind may be those of messages that each shard makes of its own.
    fn is_of_each_shard(_kind: Kind, _name: &[u8]) -> bool {
        false
    }

    /// The channel of a message.
    fn channel_of(_message: &[u8]) -> Option<&[u8]> {
        None
    }

    /// Reads what a shard says on a connection that listens.
    fn told(_response: &[u8]) -> Told<'_> {
        Told::Odd
    }

    /// How such a message begins for a client, and how many bytes of it that is instead of: the rest is the same for all.
    fn beginning(_voice: Voice) -> (&'static [u8], usize) {
        (b"", 0)
    }

    /// Writes what tells a client that it listens to the name or does so no more, and to how many it does then. No name: it
    /// has listened to none of them.
    fn acknowledge(
        _change: Listening,
        _name: Option<&[u8]>,
        _count: usize,
        _voice: Voice,
        _out: &mut Vec<u8>,
    ) {
    }
}
