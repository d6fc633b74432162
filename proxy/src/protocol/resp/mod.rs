//! RESP, the protocol of Redis and Valkey.
//!
//! [`Resp::plan`] is the way of every request: its row in the command table says whether it is answered here, refused,
//! forwarded or split. No command is named here; what only the proxy itself can say is in [`session`] and the files
//! beside it.

use crate::buffer::Output;
use crate::privacy::Privacy;
use crate::protocol::caching::{Broadcast, Receiver};
use crate::protocol::channels::{Kind, Voice};
use crate::protocol::scan::Step;
use crate::protocol::store::Store;
use crate::protocol::strangers::Stranger;
use crate::protocol::{
    BlockOutcome, ClientRow, Facts, Found, Greeting, Malformed, Owners, Part, Plan, Protocol, Question,
    Redirect, Request, Route, Scripted, ShardIdentity, Spread, Watched, first_line,
};
use caching::ToldBy;
use command::{Command, Handling, Merge, flag};
use decode::{RequestDecoder, ResponseDecoder};
pub use entering::is_needless_password;
use entering::{PROVEN, is_wrong_password};
use mode::Mode;
use session::{Session, Settings};

pub mod acl;
pub mod caching;
mod channels;
mod confirming;
#[rustfmt::skip]
pub mod command;
pub mod decode;
mod decoders;
pub mod encode;
mod entering;
pub mod facade;
pub mod identity;
pub mod local;
pub mod mode;
mod monitoring;
mod mute;
mod parameters;
mod plan;
mod pubsub;
mod queueing;
pub mod redirect;
mod reports;
mod rights;
mod scan;
mod scripting;
mod sections;
pub mod session;
mod shown;
mod slot;
pub mod split;
mod tracking;
mod transaction;
mod transfer;
mod usage;
mod waiting;
mod watching;
mod whole;
mod wide;

/// RESP2 and RESP3.
#[derive(Debug)]
pub enum Resp {}

/// Clients of one lane share shard connections.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Lane {
    /// The database selected on the connection.
    pub db: u32,
    /// RESP3 is spoken on it.
    pub resp3: bool,
    /// How shards tell of keys that were read there.
    pub told_by: ToldBy,
}

/// How a client wants to be answered.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Manner {
    /// Nothing is said, because of CLIENT REPLY.
    pub silent: bool,
    /// CLIENT CACHING has spoken of the request.
    pub named: bool,
}

/// Which responses a request can have. RESP values say themselves what they are; whose they are they do not.
#[derive(Clone, Copy, Default, Debug)]
pub struct Expected {
    /// It is a transaction of so many commands, and one more: MULTI and each of them are answered before EXEC is.
    preceding: u32,
}

impl Protocol for Resp {
    type Settings = Settings;
    type Session = Session;
    type Lane = Lane;
    type RequestDecoder = RequestDecoder;
    type ResponseDecoder = ResponseDecoder;
    type Merge = Merge;
    type Manner = Manner;
    type Expected = Expected;

    const NAME: &'static str = "redis";
    const FAMILIES: &'static [&'static str] = &command::FAMILIES;
    const TOO_MANY_CLIENTS: &'static [u8] = b"-ERR max number of clients reached\r\n";
    const PROBE: &'static [u8] = b"*1\r\n$4\r\nPING\r\n";

    fn session(settings: &Settings) -> Session {
        Session::new(settings)
    }

    #[inline]
    fn lane(session: &Session) -> Lane {
        Lane { db: session.db, resp3: session.resp3, told_by: session.told_by() }
    }

    fn keep_lane(session: &mut Session, lane: Lane) {
        (session.db, session.resp3) = (lane.db, lane.resp3);
        tracking::keep_told_by(session, lane.told_by);
    }

    fn tracks(session: &Session) -> bool {
        session.tracking().is_some()
    }

    fn hears_changes(session: &Session) -> bool {
        session.hears_changes()
    }

    fn may_keep(session: &Session, manner: Manner) -> bool {
        session.may_keep(manner.named)
    }

    fn broadcast(session: &Session) -> Option<Broadcast<'_>> {
        tracking::broadcast(session)
    }

    fn receiver(session: &Session) -> Option<Receiver> {
        session.receiver()
    }

    fn receiver_is_lost(session: &mut Session, lost: u64, out: &mut Vec<u8>) {
        tracking::receiver_is_lost(session, lost, out);
    }

    fn tell_for_another(session: &Session, told: &[u8], out: &mut Vec<u8>) {
        tracking::tell_for_another(session, told, out);
    }

    fn found(session: &mut Session, _question: &Question, found: Result<&Found, &str>) {
        tracking::found(session, found);
    }

    fn is_told(lane: Lane) -> bool {
        lane.told_by != ToldBy::Nobody
    }

    fn registers(lane: Lane) -> bool {
        lane.told_by == ToldBy::ItsShard
    }

    fn untold_lane(lane: Lane) -> Lane {
        Lane { told_by: ToldBy::Nobody, ..lane }
    }

    #[inline]
    fn voice(session: &Session) -> Voice {
        if session.resp3 { channels::RESP3 } else { channels::RESP2 }
    }

    fn listens(session: &mut Session, to_something: bool) {
        session.mode.listens(to_something && !session.resp3);
    }

    fn is_revoked(session: &mut Session, before: &Settings, now: &Settings) -> bool {
        session.is_revoked(before, now)
    }

    fn user(session: &Session) -> &str {
        session.login().map_or(acl::file::DEFAULT, |login| &login.user.name)
    }

    fn has_rules(session: &Session) -> bool {
        session.restricted().is_some()
    }

    fn may_listen(session: &Session, kind: Kind, name: &[u8]) -> bool {
        session.restricted().is_none_or(|user| user.may_listen(kind, name))
    }

    fn may_send(session: &Session, request: &[u8], store: &Store) -> bool {
        rights::may_send(session, request, store)
    }

    #[inline(always)]
    fn plan(
        Request { decoder, canonical }: Request<'_, Self>,
        session: &mut Session,
        facts: &Facts<'_, Self>,
        plan: &mut Plan<Self>,
    ) -> Route<Merge> {
        let Some(name) = decoder.head(0, canonical) else {
            // An empty request is one all the same to CLIENT REPLY SKIP.
            return Route::Ignore;
        };
        plan.manner.silent = session.reply_mode.silences();
        let row = command::index::lookup(name);
        plan.family = row.map_or(0, |row| row.family);
        // The way of most requests, kept short.
        if let Some(command) = row
            && matches!(command.handling, Handling::Forward)
            && command.single_key > 0
            && session.is_plain()
            && command.accepts(decoder.argument_count())
            && let Some((start, length)) = decoder.place(command.single_key as usize)
        {
            plan.reads = command.flags.has(flag::READONLY);
            plan.keys.push((start, length));
            return Route::Forward;
        }
        let words = Words { decoder, canonical };
        if session.reply_mode.is_named() {
            plan.manner.named = true;
            if caching::outlasts(row, session.mode) {
                session.reply_mode.name_next();
            }
        }
        let route = plan_others(row, &words, session, facts, plan);
        if matches!(route, Route::Answer) && plan.reply.first() == Some(&b'-') {
            facts.counters.refused.add(1);
        }
        route
    }

    fn probed(response: &[u8]) -> Option<Result<(), String>> {
        let line = first_line(response)?;
        Some(match line.first() {
            Some(b'+' | b'$') => Ok(()),
            _ => Err(String::from_utf8_lossy(line.strip_prefix(b"-").unwrap_or(line)).into_owned()),
        })
    }

    #[inline]
    fn taken(session: &mut Session) {
        session.reply_mode.command_done();
    }

    fn split(
        merge: &Merge,
        Request { decoder, canonical }: Request<'_, Self>,
        owners: &[u32],
        fragments: &mut [Vec<u8>],
    ) {
        match *merge {
            Merge::Page(page) => {
                fragments.iter_mut().for_each(|out| scan::write(page, decoder, canonical, out));
            }
            Merge::ScanEnd(_) => fragments.iter_mut().for_each(scan::write_end),
            merge => split::split(merge, decoder, canonical, owners, fragments),
        }
    }

    fn is_rewritten(merge: &Merge) -> bool {
        matches!(merge, Merge::Counts(_) | Merge::Parameters | Merge::Sections(_) | Merge::Own(..))
    }

    fn scan(step: Step, plan: &mut Plan<Self>) -> Option<Merge> {
        Some(match step {
            Step::Page(page) => {
                plan.expected = Expected { preceding: scan::COMMANDS + 1 };
                Merge::Page(page)
            }
            Step::End { owned } => Merge::ScanEnd(owned),
        })
    }

    fn is_done_by_any(merge: &Merge) -> bool {
        matches!(
            merge,
            Merge::AnyDone | Merge::Modules | Merge::Every | Merge::Parameters | Merge::Sections(_)
        )
    }

    fn parts_max(merge: &Merge) -> usize {
        whole::parts_max(*merge)
    }

    fn overlong(merge: &Merge, reply: &mut Vec<u8>) {
        whole::refuse_long(*merge, reply);
    }

    fn merge(merge: Merge, owners: &Owners, parts: Vec<Part>, reply: &mut Output) -> bool {
        match merge {
            Merge::Transaction => transaction::merge(owners, parts, reply),
            Merge::Page(page) => return scan::merge(page, parts, reply),
            Merge::ScanEnd(owned) if !parts.iter().any(|part| encode::is_error(&part.bytes)) => {
                return scan::end(owned, &parts, reply);
            }
            Merge::Union if pubsub::is_too_long(&parts) => {
                pubsub::refuse_long(reply);
                return true;
            }
            merge => split::merge(merge, owners, parts, reply),
        }
        false
    }

    fn is_odd(merge: &Merge, owners: &Owners, fragment: u32, response: &[u8]) -> bool {
        match merge {
            Merge::Page(_) => !encode::is_error(response) && scan::is_odd(response),
            merge => split::is_odd(*merge, owners, fragment, response),
        }
    }

    fn greeting(
        settings: &Settings,
        lane: Lane,
        is_replica: bool,
        identity: Option<&ShardIdentity>,
        out: &mut Vec<u8>,
    ) -> Greeting {
        entering::greeting(settings, lane, is_replica, identity, out)
    }

    fn spread_keys(spread: Spread) -> &'static str {
        match spread {
            Spread::Slots => "-CROSSSLOT Keys in request don't hash to the same slot\r\n",
            Spread::Shards => "-CROSSSLOT Keys in request don't hash to the same shard\r\n",
            Spread::IgnoredTag => {
                "-CROSSSLOT Keys in request don't hash to the same shard: this pool does not use braces as \
                 hash tags; set hash_tag to \"{}\"\r\n"
            }
        }
    }

    fn pattern_beginning(pattern: &[u8]) -> &[u8] {
        plan::beginning(pattern)
    }

    fn foreign_pattern(request: &[u8], pattern: &[u8], has_tags: bool) -> String {
        plan::foreign_pattern(request, pattern, has_tags)
    }

    fn redirect(response: &[u8]) -> Option<Redirect<'_>> {
        redirect::redirect(response)
    }

    fn begin_block(out: &mut Vec<u8>) {
        transaction::write_begin(out);
    }

    fn end_block(requests: u32, out: &mut Vec<u8>) -> Expected {
        transaction::write_end(out);
        Expected { preceding: requests + 1 }
    }

    #[inline]
    fn preceding(expected: Expected) -> u32 {
        expected.preceding
    }

    fn is_taken(is_first: bool, response: &[u8]) -> Option<bool> {
        transaction::is_taken(is_first, response)
    }

    fn outcome(expected: Expected, response: &[u8]) -> BlockOutcome {
        transaction::outcome(expected.preceding - 1, response)
    }

    fn refuse_block(reason: &[u8], reply: &mut Vec<u8>) {
        transaction::refuse(reason, reply);
    }

    fn head_of_block(requests: usize, out: &mut Vec<u8>) {
        encode::array(out, requests);
    }

    fn spread_block(spread: Spread, is_one_request: bool) -> &'static str {
        transaction::spread_keys(spread, is_one_request)
    }

    #[inline]
    fn has_block(session: &Session) -> bool {
        session.mode == Mode::Queueing
    }

    fn spoil_block(session: &mut Session) {
        if session.mode.is_queueing() {
            session.mode = Mode::Spoiled;
        }
    }

    fn leave_block(session: &mut Session) {
        session.mode = Mode::Ordinary;
    }

    fn watched(session: &mut Session, news: Watched) {
        session.mode.watched(news);
    }

    fn may_watch(session: &Session) -> bool {
        session.mode.may_watch()
    }

    fn is_watch(Request { decoder, canonical }: Request<'_, Self>) -> bool {
        let row = decoder.head(0, canonical).and_then(command::index::lookup);
        row.is_some_and(|row| row.handling == Handling::Watch)
    }

    fn asking(out: &mut Vec<u8>) {
        encode::request(out, &[b"ASKING"]);
    }

    /// Not said on connections for writes: a primary that has become a replica would run scripts there instead of naming
    /// the new one.
    fn replica(is_replica: bool, out: &mut Vec<u8>) {
        encode::request(out, &[if is_replica { b"READONLY" } else { b"READWRITE" }]);
    }

    const ERROR: u8 = b'-';

    fn is_complaint(response: &[u8]) -> bool {
        const COMPLAINTS: [&[u8]; 5] =
            [b"-NOAUTH ", b"-WRONGPASS ", b"-NOPERM ", b"-DENIED ", b"-ERR max number of clients"];
        COMPLAINTS.iter().any(|complaint| response.starts_with(complaint))
    }

    fn greeted(settings: &Settings, response: &[u8]) -> Result<Option<usize>, String> {
        let has_proof = settings.password.is_some() && settings.previous.is_some();
        match response {
            [b'-', words @ ..] if settings.previous.is_some() && is_wrong_password(words) => Ok(None),
            [b'-', words @ ..] if !is_needless_password(words) => {
                Err(String::from_utf8_lossy(words).trim_end().to_owned())
            }
            // Redis 7.2 to 8.6 and Valkey 8 do not answer a wrong password while another reply waits to be written: PONG, or
            // the map of HELLO, tells that both passwords are behind us.
            [b'+', b'P', ..] | [b'%' | b'*', ..] if has_proof => Ok(Some(PROVEN)),
            _ => Ok(None),
        }
    }

    fn identified(identity: &mut ShardIdentity, response: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        identity::judge(identity, response, out)
    }

    fn is_busy(words: &str) -> bool {
        words.starts_with("BUSY ")
    }

    #[inline]
    fn is_withheld(manner: Manner, _beginning: &[u8]) -> bool {
        manner.silent
    }

    fn is_served_partly(_manner: Manner) -> bool {
        false
    }

    fn failure(_manner: Manner, words: &str, reply: &mut Vec<u8>) {
        encode::error(reply, &format!("ERR {words}"));
    }

    fn database(lane: Lane) -> u32 {
        lane.db
    }

    fn tracking_lane(lane: Lane) -> Lane {
        Lane { resp3: true, told_by: ToldBy::Nobody, ..lane }
    }

    fn nothing_came(lane: Lane, reply: &mut Vec<u8>) {
        encode::null_array(reply, lane.resp3);
    }

    fn out_of_memory(reply: &mut Vec<u8>) {
        encode::error(reply, "OOM the proxy has reached memory_max; send less at a time, and read replies");
    }

    fn shown(head: &[u8], privacy: Privacy) -> Vec<Box<[u8]>> {
        shown::words(head, privacy)
    }

    fn names(session: &Session, settings: &Settings) -> [String; 3] {
        let names = session.names.as_deref();
        let name = names.map_or("", |names| &names.name);
        let user = session.user_name(settings);
        let trace = names.map(|names| names.trace.as_str()).filter(|trace| !trace.is_empty());
        [name, user, trace.unwrap_or(name)].map(shown::name)
    }

    #[inline]
    fn session_bytes(session: &Session) -> usize {
        session.names.as_ref().map_or(0, |names| names.bytes())
    }

    fn malformed(reason: &Malformed, input: &[u8], reply: &mut Vec<u8>) {
        if input.first() == Some(&b'*') || !Stranger::reply(input, &reason.0, reply) {
            encode::error(reply, &format!("ERR Protocol error: {}", reason.0));
        }
    }

    fn list(client: &ClientRow<'_>, session: &Session, line: &mut String) {
        if client.asks.and_then(local::cluster::word_of).is_some() {
            line.push_str(&client.local_address.to_string());
        } else {
            local::client::list(client, session, line);
        }
    }

    fn answer(
        question: &Question,
        session: &Session,
        settings: &Settings,
        found: &Found,
        reply: &mut Output,
    ) {
        match local::cluster::word_of(question.form) {
            Some(word) => {
                let facade = settings.facade.as_deref();
                local::cluster::tell(word, facade, &found.text, session.resp3, reply.tail());
            }
            None => local::client::answer(question, session, found, reply),
        }
    }
}

/// The way of all but the plainest requests, and of what only the shards know. Apart, so that the plainest need no room for it.
#[inline(never)]
fn plan_others(
    row: Option<&'static Command<'static>>,
    words: &Words<'_>,
    session: &mut Session,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Route<Merge> {
    let head = |place| words.decoder.head(place, words.canonical);
    let learnt = match (row, head(0)) {
        (None, Some(name)) => facts.store.commands.find(name, head(1)),
        _ => None,
    };
    if let Some(command) = row
        && matches!(command.handling, Handling::Forward)
        && command.single_key > 0
        && let Some(user) = session.plain_but_for_rules()
        && command.accepts(words.count())
        && let Some((start, length)) = words.decoder.place(command.single_key as usize)
        && user.allows_plainly(command, &words.canonical[start..start + length])
    {
        plan.reads = command.flags.has(flag::READONLY);
        plan.keys.push((start, length));
        return Route::Forward;
    }
    let row = row.or(learnt.as_ref());
    if session.mode.is_queueing() {
        return queueing::plan_queued(row, words, session, facts, plan);
    }
    let route = plan::plan_slowly(row, words, session, facts, plan);
    if learnt.is_some() {
        plan.scripted = Scripted::Module;
    }
    route
}

/// The arguments of a request as words.
pub struct Words<'b> {
    decoder: &'b RequestDecoder,
    canonical: &'b [u8],
}

impl<'b> Words<'b> {
    /// How many there are, the command's name included.
    pub fn count(&self) -> usize {
        self.decoder.argument_count()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &'b [u8]> {
        self.decoder.arguments(self.canonical).map(|argument| argument.value)
    }

    /// All of them, for random access.
    pub fn to_vec(&self) -> Vec<&'b [u8]> {
        self.iter().collect()
    }
}
