//! RESP, the protocol of Redis and Valkey.
//!
//! [`Resp::plan`] is the way of every request: its row in the command table says whether it is answered here, refused,
//! forwarded or split. No command is named here; what only the proxy itself can say is in [`session`] and the files
//! beside it.

use std::time::Duration;

use crate::buffer::Output;
use crate::protocol::channels::{Listening, Voice};
use crate::protocol::strangers::Stranger;
use crate::protocol::{
    ClientRow, Facts, Found, Greeting, Malformed, Owners, Part, Plan, Progress, Protocol, Question, Redirect,
    Request, RequestBounds, Route, ShardIdentity, Spread, first_line,
};
use command::{Command, Feature, Handling, Merge, TimeoutPlace, WrongArity, category, flag};
use decode::{RequestDecoder, RequestLimits, ResponseDecoder};
use session::{ReplyMode, Session, Settings};
use transaction::Ruling;

mod channels;
#[rustfmt::skip]
pub mod command;
pub mod decode;
pub mod encode;
mod glob;
pub mod identity;
pub mod local;
pub mod redirect;
pub mod session;
pub mod split;
mod transaction;
mod waiting;

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
}

/// How a client wants to be answered.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Manner {
    /// Nothing is said, because of CLIENT REPLY.
    pub silent: bool,
}

impl Protocol for Resp {
    type Settings = Settings;
    type Session = Session;
    type Lane = Lane;
    type RequestDecoder = RequestDecoder;
    type ResponseDecoder = ResponseDecoder;
    type Merge = Merge;
    type Manner = Manner;
    // RESP values say themselves what they are; whose they are they do not.
    type Expected = ();

    const NAME: &'static str = "redis";
    const FAMILIES: &'static [&'static str] = &command::FAMILIES;
    const TOO_MANY_CLIENTS: &'static [u8] = b"-ERR max number of clients reached\r\n";
    const PROBE: &'static [u8] = b"*1\r\n$4\r\nPING\r\n";

    fn session(settings: &Settings) -> Session {
        Session::new(settings)
    }

    #[inline]
    fn lane(session: &Session) -> Lane {
        Lane { db: session.db, resp3: session.resp3 }
    }

    fn keep_lane(session: &mut Session, Lane { db, resp3 }: Lane) {
        (session.db, session.resp3) = (db, resp3);
    }

    #[inline]
    fn voice(session: &Session) -> Voice {
        if session.resp3 { channels::RESP3 } else { channels::RESP2 }
    }

    fn listens(session: &mut Session, to_something: bool) {
        session.transaction.listens(to_something && !session.resp3);
    }

    fn is_revoked(session: &mut Session, before: &Settings, now: &Settings) -> bool {
        session.is_revoked(before, now)
    }

    #[inline]
    fn next_request(
        decoder: &mut RequestDecoder,
        session: &Session,
        input: &[u8],
        bounds: RequestBounds,
    ) -> Result<Option<usize>, Malformed> {
        decoder.decode(input, RequestLimits { bounds, authenticated: session.is_authenticated() })
    }

    fn arguments(decoder: &RequestDecoder) -> usize {
        decoder.argument_count()
    }

    fn request_missing(decoder: &RequestDecoder, received: usize) -> usize {
        decoder.missing(received)
    }

    #[inline]
    fn canonical<'b>(decoder: &'b RequestDecoder, input: &'b [u8]) -> &'b [u8] {
        decoder.canonical(input)
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
            && command.handling == Handling::Forward
            && command.single_key > 0
            && session.is_plain()
            && command.accepts(decoder.argument_count())
            && let Some((start, length)) = decoder.place(command.single_key as usize)
        {
            plan.reads = command.flags.has(flag::READONLY);
            plan.keys.push((start, length));
            return Route::Forward;
        }
        let route = plan_slowly(row, decoder, canonical, session, facts, plan);
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

    #[inline]
    fn is_between_requests(_decoder: &RequestDecoder) -> bool {
        true
    }

    #[inline]
    fn reset(decoder: &mut RequestDecoder) {
        decoder.reset();
    }

    fn split(
        merge: &Merge,
        Request { decoder, canonical }: Request<'_, Self>,
        owners: &[u32],
        fragments: &mut [Vec<u8>],
    ) {
        split::split(*merge, decoder, canonical, owners, fragments);
    }

    fn merge(merge: Merge, owners: &Owners, parts: Vec<Part>, reply: &mut Output) {
        split::merge(merge, owners, parts, reply);
    }

    #[inline]
    fn next_response(decoder: &mut ResponseDecoder, unread: &[u8]) -> Result<Progress, Malformed> {
        decoder.decode(unread)
    }

    fn is_odd(merge: &Merge, owners: &Owners, fragment: u32, response: &[u8]) -> bool {
        split::is_odd(*merge, owners, fragment, response)
    }

    fn response_missing(decoder: &ResponseDecoder) -> u64 {
        decoder.missing()
    }

    fn greeting(
        settings: &Settings,
        lane: Lane,
        is_replica: bool,
        identity: Option<&ShardIdentity>,
        out: &mut Vec<u8>,
    ) -> Greeting {
        let mut requests = 0;
        let user = settings.user.as_deref().unwrap_or("default");
        // The version is a client's choice: who the shard is comes before that.
        let greets = lane.resp3 && identity.is_none();
        // One of the two will do, and the request behind them shows whether it has.
        if let (Some(password), Some(previous)) = (&settings.password, &settings.previous) {
            for password in [previous.expose().as_bytes(), password.expose().as_bytes()] {
                match &settings.user {
                    Some(user) => encode::request(out, &[b"AUTH", user.as_bytes(), password]),
                    None => encode::request(out, &[b"AUTH", password]),
                }
            }
            let proof: &[&[u8]] = if greets { &[b"HELLO", b"3"] } else { &[b"PING"] };
            encode::request(out, proof);
            return entering(PROVEN, lane, is_replica, identity, out);
        }
        let password = settings.password.as_ref().map(|password| password.expose().as_bytes());
        match (password, greets) {
            (Some(password), true) => {
                encode::request(out, &[b"HELLO", b"3", b"AUTH", user.as_bytes(), password]);
                requests += 1;
            }
            (None, true) => {
                encode::request(out, &[b"HELLO", b"3"]);
                requests += 1;
            }
            (Some(password), false) => {
                match &settings.user {
                    Some(user) => encode::request(out, &[b"AUTH", user.as_bytes(), password]),
                    None => encode::request(out, &[b"AUTH", password]),
                }
                requests += 1;
            }
            (None, false) => {}
        }
        entering(requests, lane, is_replica, identity, out)
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

    fn redirect(response: &[u8]) -> Option<Redirect<'_>> {
        redirect::redirect(response)
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

    fn nothing_came(lane: Lane, reply: &mut Vec<u8>) {
        encode::null_array(reply, lane.resp3);
    }

    fn out_of_memory(reply: &mut Vec<u8>) {
        encode::error(reply, "OOM the proxy has reached memory_max; send less at a time, and read replies");
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
        local::client::list(client, session, line);
    }

    fn answer(question: &Question, session: &Session, found: &Found, reply: &mut Output) {
        local::client::answer(question, session, found, reply);
    }
}

/// Whether a shard says that the password is another one. In the words of Redis 6 and later, and of those before.
fn is_wrong_password(error: &[u8]) -> bool {
    error.starts_with(b"WRONGPASS") || error.starts_with(b"ERR invalid password")
}

/// Writes what follows once so many `requests` have let us in: who the shard is comes before all that a client may have
/// chosen, for another one may have no such database or version.
fn entering(
    requests: usize,
    lane: Lane,
    is_replica: bool,
    identity: Option<&ShardIdentity>,
    out: &mut Vec<u8>,
) -> Greeting {
    let mut behind = 0;
    if let Some(identity) = identity {
        identity::ask(identity, out);
        if lane.resp3 {
            encode::request(out, &[b"HELLO", b"3"]);
            behind += 1;
        }
    }
    if is_replica {
        Resp::replica(true, out);
        behind += 1;
    }
    if lane.db > 0 {
        encode::request(out, &[b"SELECT", lane.db.to_string().as_bytes()]);
        behind += 1;
    }
    let identity = identity.map(|_| behind + 1);
    Greeting { responses: requests + identity.unwrap_or(behind), identity }
}

/// Responses to two passwords and the request that shows whether one of them has been taken.
const PROVEN: usize = 3;

/// Whether a shard says that it wants no password: then it has nothing to hide from us. In the words of Redis 6 and later,
/// and of those before.
pub fn is_needless_password(error: &[u8]) -> bool {
    let words = String::from_utf8_lossy(error);
    words.contains("without any password configured") || words.contains("AUTH, but no password is set")
}

/// A reply of this size finds room whatever is held.
const ECHO_MAX: usize = 256 * 1024;

/// All but the plainest requests.
fn plan_slowly(
    row: Option<&'static Command>,
    decoder: &RequestDecoder,
    canonical: &[u8],
    session: &mut Session,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Route<Merge> {
    let arguments = Words { decoder, canonical };
    let Some(row) = row else { return refuse(plan, &unknown_command(&arguments)) };
    let command = match decoder.head(1, canonical) {
        Some(word) if !row.subcommands.is_empty() => match row.subcommand(word) {
            Some(command) => command,
            None => {
                local::command::unknown_subcommand(row.name, word, &mut plan.reply);
                return Route::Answer;
            }
        },
        None if row.handling == Handling::Container => {
            return refuse(plan, &WrongArity(row).to_string());
        }
        _ => row,
    };
    if !command.accepts(decoder.argument_count()) {
        return refuse(plan, &WrongArity(command).to_string());
    }
    if session.lacks_password(command, facts.settings) {
        return refuse(plan, "NOAUTH Authentication required.");
    }
    if let Some(route) = channels::rule(command, session, facts, plan) {
        return route;
    }
    match session.transaction.rule(command, facts) {
        Ruling::Serve => {}
        Ruling::Wait => return Route::WhenSilent,
        Ruling::Refuse(reply) => return refuse(plan, &reply),
    }
    if command.leaves_database.is_some() {
        let all = arguments.to_vec();
        if facts.settings.db == 0 {
            // Where no client could find it again. What is no number of a database for any server is refused by the server,
            // in its words.
            let beyond = i64::from(facts.settings.databases)..=i64::from(i32::MAX);
            let is_beyond = |word| session::number(word).is_some_and(|db| beyond.contains(&db));
            if command.databases_named(all.len(), |index| all[index]).any(is_beyond) {
                return refuse(plan, "ERR DB index is out of range");
            }
        } else if command.is_leaving_database(all.len(), |index| all[index]) {
            let reply = format!(
                "ERR '{}' is refused here: this pool is fixed to database {} (redis_db)",
                command.name, facts.settings.db
            );
            return refuse(plan, &reply);
        }
    }
    plan.reads = command.flags.has(flag::READONLY);
    plan.scripted = command.flags.has(flag::NOSCRIPT) && command.categories.has(category::SCRIPTING);
    match command.handling {
        // The reply may be as large as the request.
        Handling::Answer(_) if canonical.len() > ECHO_MAX.max(facts.account.room()) => Route::NoRoom,
        Handling::Answer(local) => local::answer(local, &arguments, session, facts, plan),
        Handling::Forward | Handling::Block(_) => match find_keys(command, &arguments, facts, plan) {
            Ok(None) => Route::Forward,
            Ok(Some(patience)) => Route::Wait(patience),
            Err(reply) => refuse(plan, &reply),
        },
        Handling::Split(merge) => {
            if !(decoder.argument_count() - 1).is_multiple_of(split::step(merge)) {
                return refuse(plan, &WrongArity(command).to_string());
            }
            let base = canonical.as_ptr() as usize;
            let keys = decoder.arguments(canonical).skip(1).step_by(split::step(merge));
            plan.keys.extend(keys.map(|key| (key.value.as_ptr() as usize - base, key.value.len())));
            Route::Split(merge)
        }
        Handling::Listen(kind, on) => {
            channels::name(arguments.iter().skip(1), canonical, plan);
            Route::Listen(Listening { kind, on })
        }
        Handling::ToChannel => {
            channels::name(arguments.iter().skip(1).take(1), canonical, plan);
            Route::Forward
        }
        Handling::Later(feature) if facts.settings.one_shard && feature.is_served_by_one_shard() => {
            if feature == Feature::WholeServer && facts.settings.is_confined() {
                let name = command.words();
                return refuse(
                    plan,
                    &format!(
                        "ERR '{name}' is refused: it affects databases outside of this pool (redis_db, databases)"
                    ),
                );
            }
            // The one that owns every key.
            plan.keys.push((0, 0));
            Route::Forward
        }
        Handling::Later(feature) => refuse(plan, &session.not_yet(command, feature, facts)),
        Handling::Refuse(reason) => {
            refuse(plan, &format!("ERR {} is refused: {reason}", command.words().to_ascii_uppercase()))
        }
        Handling::Container => refuse(plan, &unknown_command(&arguments)),
    }
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

/// Sets `plan.keys` to the places of the command's keys. Returns how long the request waits for data, if it does.
fn find_keys(
    command: &Command,
    words: &Words<'_>,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Result<Option<Option<Duration>>, String> {
    let all = words.to_vec();
    let base = words.canonical.as_ptr() as usize;
    // Where the timeout stands first the server looks at it last.
    let is_late = command.handling == Handling::Block(TimeoutPlace::First);
    let patience = if is_late { None } else { waiting::patience(command, &all)? };
    if !facts.settings.one_shard
        && let Some(position) = command.foreign_pattern(all.len(), |index| all[index])
    {
        let pattern = String::from_utf8_lossy(all[position]).into_owned();
        return Err(format!(
            "ERR '{}' is refused with the pattern '{pattern}': matching keys may be on other shards",
            command.name
        ));
    }
    match command.key_positions(all.len(), |index| all[index]) {
        Ok(positions) => {
            let places =
                positions.map(|position| (all[position].as_ptr() as usize - base, all[position].len()));
            plan.keys.extend(places);
        }
        // It executes nothing, and what it says depends on scripts that only it knows.
        Err(error) if error.is_judged_late() => {
            plan.keys.push((0, 0));
            return Ok(None);
        }
        Err(error) => return Err(error.text(command.name)),
    }
    if plan.keys.is_empty() {
        // Where any shard will do, and where there is one only: that of the empty key.
        if command.flags.has(flag::READONLY) || facts.counters.shards().len() == 1 {
            plan.keys.push((0, 0));
            return Ok(None);
        }
        return Err(format!(
            "ERR '{}' without a key cannot be routed to a shard; give it at least one key",
            command.name
        ));
    }
    Ok(if is_late { waiting::patience(command, &all)? } else { patience })
}

fn refuse(plan: &mut Plan<Resp>, text: &str) -> Route<Merge> {
    encode::error(&mut plan.reply, text);
    Route::Answer
}

/// As Redis words it: at most 128 bytes of the name and of the arguments.
fn unknown_command(words: &Words<'_>) -> String {
    const SHOWN_MAX: usize = 128;
    let mut words = words.iter();
    let name = words.next().unwrap_or_default();
    let mut shown = String::new();
    for word in words {
        if shown.len() >= SHOWN_MAX {
            break;
        }
        let room = SHOWN_MAX - shown.len();
        shown.push_str(&format!("'{}' ", String::from_utf8_lossy(&word[..word.len().min(room)])));
    }
    let name = String::from_utf8_lossy(&name[..name.len().min(SHOWN_MAX)]).into_owned();
    format!("ERR unknown command '{name}', with args beginning with: {shown}")
}

impl ReplyMode {
    /// Whether the reply to the present command is kept from the client.
    #[inline]
    pub fn silences(self) -> bool {
        matches!(self, ReplyMode::Off | ReplyMode::SkipThis)
    }
}
