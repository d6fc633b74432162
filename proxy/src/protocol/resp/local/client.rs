//! CLIENT: what a client may know and say of itself and of others.
//!
//! LIST, INFO and KILL concern clients of all workers, so they are put as a [`Question`] to the whole process.

use std::fmt::Write as _;

use super::caching;
use crate::buffer::Output;
use crate::protocol::caching::Receiver;
use crate::protocol::events::Flags;
use crate::protocol::resp::acl::file::{DEFAULT, Users};
use crate::protocol::resp::command::Merge;
use crate::protocol::resp::command::index::lookup;
use crate::protocol::resp::mode::Mode;
use crate::protocol::resp::session::{LONG_NAME, Names, ReplyMode, Session, client_name, number};
use crate::protocol::resp::{Resp, encode, identity, whole};
use crate::protocol::{ClientFilter, ClientRow, Deed, Facts, Found, Plan, Question, Route, Running};

/// How the answer to a question is said.
const LIST: u8 = 0;
const INFO: u8 = 1;
/// `CLIENT KILL address`: OK, or an error if nobody was there.
const KILLED_ONE: u8 = 2;
/// `CLIENT KILL` with filters: how many.
const KILLED_COUNT: u8 = 3;
/// `CLIENT UNBLOCK`: 1, or 0 if it was not blocked.
const UNBLOCKED: u8 = 4;
/// `CONFIG SET`: OK.
const SET: u8 = 5;

const SYNTAX_ERROR: &str = "ERR syntax error";

/// Asks the whole process, or refuses.
pub fn ask(
    question: Result<Question, String>,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Route<Merge> {
    match question {
        // One at a time of each client, so that a pipeline of them is no more than one.
        Ok(question) if !facts.quiet && !question.is_only_about(facts.client) => Route::WhenQuiet,
        Ok(question) => Route::Ask(Box::new(question)),
        Err(reply) => {
            encode::error(&mut plan.reply, &reply);
            Route::Answer
        }
    }
}

/// `CLIENT INFO`
pub fn own_question(own: u64) -> Question {
    let filter = ClientFilter { ids: Some([own].into_iter().collect()), ..ClientFilter::default() };
    Question { filter, deed: Deed::List, form: INFO }
}

/// `CLIENT GETNAME`
pub fn name(session: &Session, out: &mut Vec<u8>) {
    match session.names.as_ref().filter(|names| !names.name.is_empty()) {
        Some(names) => encode::bulk(out, names.name.as_bytes()),
        None => encode::null(out, session.resp3),
    }
}

/// `CLIENT SETNAME name`
pub fn set_name(name: &[u8], session: &mut Session, out: &mut Vec<u8>) {
    match client_name(name) {
        Ok(name) => {
            session.names.get_or_insert_default().name = name;
            encode::simple(out, "OK");
        }
        Err(reply) => encode::error(out, reply),
    }
}

/// `CLIENT SETINFO LIB-NAME|LIB-VER value`
pub fn set_info(option: &[u8], value: &[u8], session: &mut Session, out: &mut Vec<u8>) {
    let names = session.names.get_or_insert_default();
    let (what, field) = if option.eq_ignore_ascii_case(b"lib-name") {
        ("lib-name", &mut names.library)
    } else if option.eq_ignore_ascii_case(b"lib-ver") {
        ("lib-ver", &mut names.library_version)
    } else if option.eq_ignore_ascii_case(b"traceparent") {
        ("traceparent", &mut names.trace)
    } else {
        let option = String::from_utf8_lossy(option);
        return encode::error(out, &format!("ERR Unrecognized option '{option}'"));
    };
    match client_name(value) {
        Ok(value) => {
            *field = value;
            encode::simple(out, "OK");
        }
        Err(LONG_NAME) => encode::error(out, LONG_NAME),
        Err(_) => {
            encode::error(out, &format!("ERR {what} cannot contain spaces, newlines or special characters."));
        }
    }
}

/// `CLIENT NO-EVICT|NO-TOUCH ON|OFF`: nobody is evicted by name here, and keys are touched on the shards, where all clients look
/// alike.
pub fn on_or_off(word: &[u8], out: &mut Vec<u8>) {
    let known = word.eq_ignore_ascii_case(b"on") || word.eq_ignore_ascii_case(b"off");
    if known { encode::simple(out, "OK") } else { encode::error(out, SYNTAX_ERROR) }
}

/// `CLIENT REPLY ON|OFF|SKIP`
pub fn reply_mode(word: &[u8], session: &mut Session, plan: &mut Plan<Resp>) -> Route<Merge> {
    if word.eq_ignore_ascii_case(b"on") {
        session.reply_mode.set(ReplyMode::ON);
        plan.manner.silent = false;
        encode::simple(&mut plan.reply, "OK");
    } else if word.eq_ignore_ascii_case(b"off") {
        session.reply_mode.set(ReplyMode::OFF);
        plan.manner.silent = true;
    } else if word.eq_ignore_ascii_case(b"skip") {
        if !session.reply_mode.is_off() {
            session.reply_mode.skip_next();
        }
        plan.manner.silent = true;
    } else {
        encode::error(&mut plan.reply, SYNTAX_ERROR);
    }
    Route::Answer
}

/// `CLIENT LIST [TYPE normal|master|replica|pubsub] [ID id ...]`
pub fn list_question(words: &[&[u8]]) -> Result<Question, String> {
    let mut filter = ClientFilter::default();
    match words {
        [] => {}
        [option, kind] if option.eq_ignore_ascii_case(b"type") => of_type(kind, &mut filter)?,
        [option, ids @ ..] if option.eq_ignore_ascii_case(b"id") && !ids.is_empty() => {
            let ids = ids.iter().map(|id| number(id).ok_or("ERR Invalid client ID"));
            // Numbers below 1 are right here, they only belong to nobody.
            let ids = ids.filter_map(|id| id.map(|id| u64::try_from(id).ok()).transpose());
            filter.ids = Some(ids.collect::<Result<_, _>>()?);
        }
        _ => return Err(SYNTAX_ERROR.into()),
    }
    Ok(Question { filter, deed: Deed::List, form: LIST })
}

/// `CLIENT KILL address`, or with filters.
pub fn kill_question(words: &[&[u8]], own: u64, users: Option<&Users>) -> Result<Question, String> {
    if let [address] = words {
        let filter = ClientFilter {
            address: Some(String::from_utf8_lossy(address).into_owned()),
            ..ClientFilter::default()
        };
        return Ok(Question { filter, deed: Deed::Kill, form: KILLED_ONE });
    }
    let mut filter = ClientFilter { except: Some(own), ..ClientFilter::default() };
    for pair in words.chunks(2) {
        let [option, value] = pair else { return Err(SYNTAX_ERROR.into()) };
        let text = || String::from_utf8_lossy(value).into_owned();
        match &option.to_ascii_lowercase()[..] {
            b"id" => filter.ids = Some([client_id(value)?].into_iter().collect()),
            b"addr" => filter.address = Some(text()),
            b"laddr" => filter.local_address = Some(text()),
            b"type" => of_type(value, &mut filter)?,
            b"user" => {
                let is_known = users.is_some_and(|users| users.find(value).is_some());
                if !is_known && *value != DEFAULT.as_bytes() {
                    return Err(format!("ERR No such user '{}'", text()));
                }
                filter.user = Some(text());
            }
            b"maxage" => {
                let age = number(value).and_then(|age| u64::try_from(age).ok()).filter(|&age| age > 0);
                filter.age_min = Some(age.ok_or("ERR maxage is not an integer or out of range")?);
            }
            b"skipme" if value.eq_ignore_ascii_case(b"yes") => filter.except = Some(own),
            b"skipme" if value.eq_ignore_ascii_case(b"no") => filter.except = None,
            _ => return Err(SYNTAX_ERROR.into()),
        }
    }
    Ok(Question { filter, deed: Deed::Kill, form: KILLED_COUNT })
}

/// `CLIENT UNBLOCK id [TIMEOUT|ERROR]`
pub fn unblock_question(words: &[&[u8]]) -> Result<Question, String> {
    let with_error = match words {
        [_] => false,
        [_, how] if how.eq_ignore_ascii_case(b"timeout") => false,
        [_, how] if how.eq_ignore_ascii_case(b"error") => true,
        [_, _] => return Err("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR".into()),
        _ => return Err("ERR wrong number of arguments for 'client|unblock' command".into()),
    };
    let id = number(words[0]).ok_or("ERR value is not an integer or out of range")?;
    let ids = Some(u64::try_from(id).ok().into_iter().collect());
    let filter = ClientFilter { ids, ..ClientFilter::default() };
    Ok(Question { filter, deed: Deed::Unblock { with_error }, form: UNBLOCKED })
}

/// `CONFIG SET notify-keyspace-events flags`
pub fn notify_question(flags: Flags) -> Question {
    Question { filter: ClientFilter::default(), deed: Deed::Notify(flags), form: SET }
}

/// `SCRIPT KILL` and `FUNCTION KILL`
pub fn stop_question(what: Running, facts: &Facts<'_, Resp>) -> Result<Question, String> {
    if facts.settings.confined {
        let name = match what {
            Running::Script => "script",
            Running::Function => "function",
        };
        return Err(format!(
            "ERR '{name} kill' is refused: it affects databases outside of this pool (redis_db, databases)"
        ));
    }
    Ok(Question { filter: ClientFilter::default(), deed: Deed::Stop(what), form: SET })
}

fn client_id(word: &[u8]) -> Result<u64, String> {
    let id = number(word).and_then(|id| u64::try_from(id).ok()).filter(|&id| id > 0);
    id.ok_or_else(|| "ERR client-id should be greater than 0".to_owned())
}

/// Only clients of this type are meant. Those of the proxy are normal ones, or listen to channels.
fn of_type(kind: &[u8], filter: &mut ClientFilter) -> Result<(), String> {
    match &kind.to_ascii_lowercase()[..] {
        b"normal" => filter.listens = Some(false),
        b"pubsub" => filter.listens = Some(true),
        b"master" | b"replica" | b"slave" => filter.none = true,
        _ => return Err(format!("ERR Unknown client type '{}'", String::from_utf8_lossy(kind))),
    }
    Ok(())
}

/// One line of CLIENT LIST, with the fields of Redis 7.0 in their order and those that came later where it has them. What is not
/// known is 0, and the last command is only known of the client that asks and of those that wait for data, and is said to be the first of
/// those that listen: nothing is noted of each request.
pub fn list(client: &ClientRow<'_>, session: &Session, line: &mut String) {
    let [channels, patterns, sharded] = client.listens;
    let unnamed = Names::default();
    let names = session.names.as_deref().unwrap_or(&unnamed);
    let (flags, queued) = match session.mode {
        Mode::Ordinary | Mode::Unguarded | Mode::Watching | Mode::Listening { .. } => (["", ""], -1),
        Mode::Lost => (["", "d"], -1),
        Mode::Queueing | Mode::Spoiled => (["x", ""], client.queued as i64),
        Mode::Doomed => (["x", "d"], client.queued as i64),
    };
    let listens = if channels + patterns + sharded > 0 { "P" } else { "" };
    let blocked = if client.is_blocked { "b" } else { "" };
    let is_broken = matches!(session.receiver(), Some(Receiver::Lost(_)));
    let tracks = match session.tracking().map(|tracking| (is_broken, tracking.prefixes.is_some())) {
        Some((true, true)) => "tRB",
        Some((true, false)) => "tR",
        Some((false, true)) => "tB",
        Some((false, false)) => "t",
        None => "",
    };
    // In the order of the server.
    let flags = [listens, flags[0], blocked, tracks, flags[1]].concat();
    let command = match client.asks {
        Some(INFO) => "client|info",
        Some(_) => "client|list",
        None if client.is_blocked => client.waits.as_deref().and_then(command_of).unwrap_or("NULL"),
        // Of RESP3 they might have asked something else since. Tools look for them by this word.
        None if channels > 0 => "subscribe",
        None if patterns > 0 => "psubscribe",
        None if sharded > 0 => "ssubscribe",
        None => "NULL",
    };
    let _ = write!(
        line,
        "id={} addr={} laddr={} fd=0 name={} age={} idle={} flags={} db={} sub={channels} psub={patterns} ssub={sharded} ",
        client.id,
        client.address,
        client.local_address,
        names.name,
        client.age,
        client.idle,
        if flags.is_empty() { "N" } else { &flags },
        session.db,
    );
    let _ = write!(
        line,
        "multi={queued} watch={} qbuf={} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll={} omem={} tot-mem={} ",
        client.watched,
        client.input_bytes,
        client.in_flight,
        client.output_bytes,
        client.input_bytes + client.output_bytes,
    );
    let _ = writeln!(
        line,
        "events=r cmd={command} user={} redir={} resp={} lib-name={} lib-ver={}",
        client.user,
        caching::redirected_to(session),
        if session.resp3 { 3 } else { 2 },
        names.library,
        names.library_version
    );
}

/// What the command of this request is called.
fn command_of(request: &[u8]) -> Option<&'static str> {
    let (name, _) = identity::string(request.get(whole::head(request)?.1..)?)?;
    lookup(name).map(|row| row.name)
}

/// The reply to a question about clients.
pub fn answer(question: &Question, session: &Session, found: &Found, reply: &mut Output) {
    if let Some(words) = &found.refusal {
        return encode::error(reply.tail(), words);
    }
    match question.form {
        SET => encode::simple(reply.tail(), "OK"),
        KILLED_COUNT | UNBLOCKED => encode::integer(reply.tail(), found.count as i64),
        KILLED_ONE if found.count == 0 => encode::error(reply.tail(), "ERR No such client"),
        KILLED_ONE => encode::simple(reply.tail(), "OK"),
        _ => {
            encode::text_header(reply.tail(), session.resp3, found.text.len());
            reply.share(found.text.clone());
            reply.copy(b"\r\n");
        }
    }
}
