//! Wire protocols: where a message ends, what it is called, which keys it names, and what the proxy itself says.
//!
//! [`Protocol`] is all that the rest of the proxy knows of a protocol. Nothing here knows a socket, a clock, a shard's
//! address or the configuration: bytes come in, decisions and bytes go out.

use std::fmt::Debug;
use std::hash::Hash;

use crate::buffer::Output;
use crate::privacy::Privacy;

use caching::{Broadcast, Caching, Receiver};
use channels::{Channels, Voice};

pub use about::{About, Probed};
pub use clients::{ClientFilter, ClientRow, Deed, Found, Ids, Question, Rows, Running};
pub use confirming::Confirming;
pub use decoder::{DecodeRequests, DecodeResponses};
pub use identity::{Greeting, NodeIds, ShardIdentity, is_called};
pub use monitoring::Monitoring;
pub use owners::{Owners, Part};
pub use request::{Facts, Plan, Request, RequestBounds};
pub use resp::acl;
pub use resp::command::handbook;
pub use response::{BlockOutcome, Progress, Redirect};
pub use route::Route;
pub use scripting::{Refused, Run, Scripted, Scripting};
pub use transfer::{Heard, Transfer, TransferKind, Transferred, Transferring};
pub use waiting::{Interruption, Waiting};
pub use watching::{Watched, Watching};
pub use wide::{Alone, Tracked, Tried, Wide};

mod about;
pub mod caching;
pub mod channels;
mod clients;
mod confirming;
mod decoder;
pub mod events;
pub mod figures;
pub mod glob;
mod identity;
pub mod memcache;
mod monitoring;
mod owners;
pub mod questions;
mod request;
pub mod resp;
mod response;
mod route;
pub mod scan;
mod scripting;
pub mod store;
mod strangers;
mod transfer;
mod waiting;
mod watching;
mod wide;

/// A protocol spoken by clients and shards alike.
pub trait Protocol:
    Caching
    + Channels
    + Confirming
    + Monitoring
    + Scripting
    + Transferring
    + Waiting
    + Watching
    + Wide
    + Sized
    + 'static
{
    /// What all clients of a pool share: password, databases.
    type Settings: 'static;
    /// What one client has told us: who it is, its database, its protocol version.
    type Session: 'static;
    /// Clients of one lane share shard connections; others must not (another database or protocol version).
    type Lane: Copy + Eq + Hash + Debug + 'static;
    /// Decoder of requests; once a request is complete it knows its arguments.
    type RequestDecoder: DecodeRequests<Self::Session>;
    /// Decoder of responses.
    type ResponseDecoder: DecodeResponses;
    /// How the responses to the fragments of a split request are joined.
    type Merge: Debug + 'static;
    /// How a client wants one request to be answered: what it does not want to hear, what it takes a failure for.
    type Manner: Copy + Default + Debug + 'static;
    /// Which responses a request can have.
    type Expected: Copy + Default + Debug + 'static;

    /// What it is called in documents and messages.
    const NAME: &'static str;
    /// Kinds of commands that requests are counted by; the first is of what is none of the others.
    const FAMILIES: &'static [&'static str];
    /// The last reply to a client that is one too many.
    const TOO_MANY_CLIENTS: &'static [u8];
    /// What a shard that is well answers at once; see [`Self::probed`].
    const PROBE: &'static [u8];

    /// A client has connected.
    fn session(settings: &Self::Settings) -> Self::Session;

    /// Which shard connections the client's requests use.
    fn lane(session: &Self::Session) -> Self::Lane;

    /// The lane that the client's session asks for cannot be had: it stays in this one.
    fn keep_lane(session: &mut Self::Session, lane: Self::Lane);

    /// How the client reads what it hears.
    #[inline]
    fn voice(_session: &Self::Session) -> Voice {
        0
    }

    /// Whether the client has asked to be told of changes of keys that it has read. It may not be able to hear of them.
    fn tracks(_session: &Self::Session) -> bool {
        false
    }

    /// Whether it is told of them.
    fn hears_changes(_session: &Self::Session) -> bool {
        false
    }

    /// Of what all shards are to tell the client, whatever it has read.
    fn broadcast(_session: &Self::Session) -> Option<Broadcast<'_>> {
        None
    }

    /// Who is told of that in the client's stead.
    fn receiver(_session: &Self::Session) -> Option<Receiver> {
        None
    }

    /// That one is not there any more: what the client is told, if it can hear it.
    fn receiver_is_lost(_session: &mut Self::Session, _lost: u64, _out: &mut Vec<u8>) {}

    /// What another client is told so, in the words of this one, which is told it in its stead; nothing if it cannot hear it.
    fn tell_for_another(_session: &Self::Session, _told: &[u8], _out: &mut Vec<u8>) {}

    /// What the client has asked about others before its request is served ([`Route::AskFirst`]) is known, or why it is not. The request is
    /// planned again.
    fn found(_session: &mut Self::Session, _question: &Question, _found: Result<&Found, &str>) {}

    /// Whether the client may keep what it hears in reply to a request that is answered so, and is to be told once that changes.
    fn may_keep(_session: &Self::Session, _manner: Self::Manner) -> bool {
        false
    }

    /// The client listens to something from now on, or to nothing.
    fn listens(_session: &mut Self::Session, _to_something: bool) {}

    /// The settings were those of `before` and are those of `now`. Whether what let the client in is good no more, and it is
    /// not to stay.
    fn is_revoked(_session: &mut Self::Session, _before: &Self::Settings, _now: &Self::Settings) -> bool {
        false
    }

    /// The name of the user that the client is; empty where there are none.
    fn user(_session: &Self::Session) -> &str {
        ""
    }

    /// Whether there are rules that say what the client may do.
    fn has_rules(_session: &Self::Session) -> bool {
        false
    }

    /// Whether the client may listen to this.
    fn may_listen(_session: &Self::Session, _kind: channels::Kind, _name: &[u8]) -> bool {
        true
    }

    /// Whether the client may send this request, of which it has sent the like before, to shards of which so much is known.
    fn may_send(_session: &Self::Session, _request: &[u8], _store: &store::Store) -> bool {
        true
    }

    /// Decides what is to be done with the complete request. The session changes only where the request is answered at
    /// once: a request that has to wait is planned again.
    fn plan(
        request: Request<'_, Self>,
        session: &mut Self::Session,
        facts: &Facts<'_, Self>,
        plan: &mut Plan<Self>,
    ) -> Route<Self::Merge>;

    /// The request that was planned last is taken: it is answered or on its way.
    #[inline]
    fn taken(_session: &mut Self::Session) {}

    /// Writes the fragments of a split request. `owners` names, for each key of the request in order, the fragment
    /// it belongs to, and nothing if the same goes to every shard; `fragments` holds one output for each fragment, or one for all.
    fn split(merge: &Self::Merge, request: Request<'_, Self>, owners: &[u32], fragments: &mut [Vec<u8>]);

    /// Whether even a shard that owns all keys of such a request is sent a fragment, because it is asked something else than
    /// what the request says.
    fn is_rewritten(_merge: &Self::Merge) -> bool {
        false
    }

    /// How the response to a step of a scan is read; says which responses it has, too. None where there are no scans.
    fn scan(_step: scan::Step, _plan: &mut Plan<Self>) -> Option<Self::Merge> {
        None
    }

    /// Whether a request that goes to every shard is done if any of them does it; else by all or none, as far as it is known.
    fn is_done_by_any(_merge: &Self::Merge) -> bool {
        false
    }

    /// Bytes of responses that are kept to be joined; if there are more, [`Self::overlong`] is the reply.
    fn parts_max(_merge: &Self::Merge) -> usize {
        usize::MAX
    }

    /// The reply where the responses together are too long.
    fn overlong(_merge: &Self::Merge, _reply: &mut Vec<u8>) {}

    /// Joins the responses of all fragments into one reply. True if that is a refusal of the proxy itself.
    fn merge(merge: Self::Merge, owners: &Owners, parts: Vec<Part>, reply: &mut Output) -> bool;

    /// Writes what begins a block: requests that a shard executes together, or none of them.
    fn begin_block(_out: &mut Vec<u8>) {}

    /// Writes what ends it. Which responses a block of so many requests has.
    fn end_block(_requests: u32, _out: &mut Vec<u8>) -> Self::Expected {
        Self::Expected::default()
    }

    /// So many responses come before the one that somebody waits for.
    #[inline]
    fn preceding(_expected: Self::Expected) -> u32 {
        0
    }

    /// Whether one of those, the first or a later one, says that what was sent is taken; none if it cannot be one.
    fn is_taken(_is_first: bool, _response: &[u8]) -> Option<bool> {
        None
    }

    /// What the last response, which begins so, says of the block.
    fn outcome(_expected: Self::Expected, _response: &[u8]) -> BlockOutcome {
        BlockOutcome::Odd
    }

    /// The reply to a block that was not executed, because of this error.
    fn refuse_block(_reason: &[u8], _reply: &mut Vec<u8>) {}

    /// Writes what stands before the replies to so many requests of a block.
    fn head_of_block(_requests: usize, _out: &mut Vec<u8>) {}

    /// The reply to a request whose keys do not belong with those of its block, or among themselves.
    fn spread_block(spread: Spread, _is_one_request: bool) -> &'static str {
        Self::spread_keys(spread)
    }

    /// Whether the client's requests are queued, to be executed together.
    #[inline]
    fn has_block(_session: &Self::Session) -> bool {
        false
    }

    /// What the client has queued will not be executed.
    fn spoil_block(_session: &mut Self::Session) {}

    /// What the client has queued is on its way, or answered.
    fn leave_block(_session: &mut Self::Session) {}

    /// What has become of keys that the client watches, or wanted to.
    fn watched(_session: &mut Self::Session, _news: Watched) {}

    /// Whether keys may be watched for the client: it has not said that it needs that no more.
    fn may_watch(_session: &Self::Session) -> bool {
        false
    }

    /// Whether the request asks for keys to be watched.
    fn is_watch(_request: Request<'_, Self>) -> bool {
        false
    }

    /// Whether a response that begins so can be the one to such a request. If it is not, whatever comes on the connection
    /// may be somebody else's.
    #[inline]
    fn fits(_expected: Self::Expected, _beginning: &[u8]) -> bool {
        true
    }

    /// Whether a response cannot be the one to this fragment.
    fn is_odd(merge: &Self::Merge, owners: &Owners, fragment: u32, response: &[u8]) -> bool;

    /// Writes what a new shard connection of the lane has to say first. The shard is a replica that is only read from, or
    /// not; it is asked who it is where that is to be known and the protocol has a question for it.
    fn greeting(
        settings: &Self::Settings,
        lane: Self::Lane,
        is_replica: bool,
        identity: Option<&ShardIdentity>,
        out: &mut Vec<u8>,
    ) -> Greeting;

    /// Writes what tells a shard that it is only read from, as a replica, from now on, or that it is not; that brings one
    /// response of its own.
    fn replica(_is_replica: bool, _out: &mut Vec<u8>) {}

    /// The reply to a request that cannot be split and whose keys do not belong together.
    fn spread_keys(spread: Spread) -> &'static str;

    /// What all names begin with that a shard makes of this pattern.
    fn pattern_beginning(pattern: &[u8]) -> &[u8] {
        pattern
    }

    /// The reply to a request with a pattern of keys that may be on other shards than its keys; with `has_tags` hash tags keep keys
    /// together in the pool.
    fn foreign_pattern(_request: &[u8], _pattern: &[u8], _has_tags: bool) -> String {
        String::new()
    }

    /// What a node of a cluster says when it has not executed the request because another one is to be asked, or later.
    fn redirect(_response: &[u8]) -> Option<Redirect<'_>> {
        None
    }

    /// Writes what goes before a request that [`Redirect::Ask`] sends elsewhere; it brings one response of its own.
    fn asking(_out: &mut Vec<u8>) {}

    /// What a response begins with that [`Self::redirect`] or [`Self::is_complaint`] knows.
    const ERROR: u8;

    /// What a response says that tells an error.
    fn error(response: &[u8]) -> Option<&[u8]> {
        response.strip_prefix(&[Self::ERROR])
    }

    /// Whether the response, whatever was asked, says that the shard does not want the proxy: not without a password, not
    /// with these rights, not one connection more.
    fn is_complaint(response: &[u8]) -> bool;

    /// Judges one response to the greeting; an error carries the shard's words. A number says that with it the first so many
    /// responses are there, also those that the shard has not given.
    fn greeted(settings: &Self::Settings, response: &[u8]) -> Result<Option<usize>, String>;

    /// Judges what the shard says of who it is. Where that leaves something open a further question is written to `out`, whose
    /// response is the next to be judged. An error says who it is instead, or why that is not known.
    fn identified(_identity: &mut ShardIdentity, _response: &[u8], _out: &mut Vec<u8>) -> Result<(), String> {
        Ok(())
    }

    /// Whether a server that refuses in these words has to run to its end first what a client has asked of it.
    fn is_busy(_words: &str) -> bool {
        false
    }

    /// Judges what has come in response to [`Self::PROBE`]: None where there is more to come; an error is in the shard's words.
    fn probed(response: &[u8]) -> Option<Result<(), String>>;

    /// Whether a reply that begins so is kept from the client. Nothing is known of it yet if the beginning is empty.
    fn is_withheld(manner: Self::Manner, beginning: &[u8]) -> bool;

    /// Whether a split request is served by those shards that can; else by all or none. A failure then has to be
    /// something that can be merged.
    fn is_served_partly(manner: Self::Manner) -> bool;

    /// The reply to a request that could not be served; `words` name the shard and the reason.
    fn failure(manner: Self::Manner, words: &str, reply: &mut Vec<u8>);

    /// Which of its databases a shard is asked for in this lane.
    fn database(_lane: Self::Lane) -> u32 {
        0
    }

    /// Whether clients of this lane are told of changes of keys that they have read.
    fn is_told(_lane: Self::Lane) -> bool {
        false
    }

    /// Whether shards tell of those on the connections of this lane, on which they were read.
    fn registers(_lane: Self::Lane) -> bool {
        false
    }

    /// The lane that is the same but for that.
    fn untold_lane(lane: Self::Lane) -> Self::Lane {
        lane
    }

    /// The lane in which a shard tells of keys that have changed.
    fn tracking_lane(lane: Self::Lane) -> Self::Lane {
        lane
    }

    /// The reply to a request that has waited for data, in this lane, until its time was over.
    fn nothing_came(_lane: Self::Lane, _reply: &mut Vec<u8>) {}

    /// The reply to a request that there is no room for, and the last one to a client that has to go for the same reason.
    fn out_of_memory(reply: &mut Vec<u8>);

    /// What is shown of a request that begins so, where it is told of: its words, no secrets, keys as they may be shown.
    fn shown(head: &[u8], privacy: Privacy) -> Vec<Box<[u8]>>;

    /// What the client calls itself, which user it is, and where it may have said in which trace it is, as far as that is told.
    fn names(_session: &Self::Session, _settings: &Self::Settings) -> [String; 3] {
        Default::default()
    }

    /// Bytes that the session holds beside itself.
    #[inline]
    fn session_bytes(_session: &Self::Session) -> usize {
        0
    }

    /// Bytes that are remembered to join the responses.
    fn merge_bytes(_merge: &Self::Merge) -> usize {
        0
    }

    /// The reply to `input`, which is no request; the connection ends after it.
    fn malformed(reason: &Malformed, input: &[u8], reply: &mut Vec<u8>);

    /// One client as listings show it.
    fn list(client: &ClientRow<'_>, session: &Self::Session, line: &mut String);

    /// The reply to a [`Question`] about clients: those of the whole process that it names.
    fn answer(
        question: &Question,
        session: &Self::Session,
        settings: &Self::Settings,
        found: &Found,
        reply: &mut Output,
    );
}

/// The first line of a response; None before its end.
fn first_line(response: &[u8]) -> Option<&[u8]> {
    let end = response.iter().position(|&byte| byte == b'\n')?;
    Some(response[..end].trim_ascii_end())
}

/// Bytes that no peer should send, in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed(pub String);

/// Why keys do not belong together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spread {
    /// They are on several shards.
    Shards,
    /// They are in several slots of a cluster.
    Slots,
    /// They are on several shards, and have a part in braces in common that the pool does not look at.
    IgnoredTag,
}
