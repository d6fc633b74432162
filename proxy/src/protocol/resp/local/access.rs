//! HELLO, AUTH and SELECT: who a client is, and what it speaks where.

use super::info;
use crate::protocol::caching::Caching;
use crate::protocol::resp::acl::file::DEFAULT;
use crate::protocol::resp::command::Merge;
use crate::protocol::resp::session::{Access, Session, Settings, client_name, number};
use crate::protocol::resp::{Resp, encode, rights, transaction};
use crate::protocol::{Facts, Plan, Route};

/// `HELLO [version [AUTH user password] [SETNAME name]]`
pub fn hello(
    all: &[&[u8]],
    session: &mut Session,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Route<Merge> {
    let out = &mut plan.reply;
    let mut resp3 = session.resp3;
    if let Some(version) = all.get(1) {
        resp3 = match number(version) {
            Some(2) => false,
            // As a server that does not know it answers: clients then go on with RESP2.
            Some(3) if facts.settings.resp2_only => {
                encode::error(out, "ERR unknown command 'HELLO', with args beginning with: '3' ");
                return Route::Answer;
            }
            Some(3) => true,
            Some(_) => {
                encode::error(out, "NOPROTO unsupported protocol version");
                return Route::Answer;
            }
            None => {
                encode::error(out, "ERR Protocol version is not an integer or out of range");
                return Route::Answer;
            }
        };
    }
    let mut credentials = None;
    let mut name = None;
    let mut rest = all.get(2..).unwrap_or_default();
    while let [option, tail @ ..] = rest {
        rest = match tail {
            [user, password, tail @ ..] if option.eq_ignore_ascii_case(b"AUTH") => {
                credentials = Some((*user, *password));
                tail
            }
            [chosen, tail @ ..] if option.eq_ignore_ascii_case(b"SETNAME") => {
                match client_name(chosen) {
                    Ok(chosen) => name = Some(chosen),
                    Err(reply) => {
                        encode::error(out, reply);
                        return Route::Answer;
                    }
                }
                tail
            }
            _ => {
                let option = String::from_utf8_lossy(option).into_owned();
                encode::error(out, &format!("ERR Syntax error in HELLO option '{option}'"));
                return Route::Answer;
            }
        };
    }
    if resp3 != session.resp3 && session.mode.may_watch() {
        transaction::refuse_change("hello", session, out);
        return Route::Answer;
    }
    if resp3 != session.resp3 && !facts.quiet {
        return Route::WhenQuiet;
    }
    if let Some((user, password)) = credentials
        && !admit(user, password, session, facts.settings)
    {
        rights::note_wrong_password(user, "hello", session, facts);
        return deny(session, out);
    }
    if !session.is_authenticated() {
        encode::error(
            out,
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> \
             <pass> option can be used to authenticate the client and select the RESP protocol version at the same \
             time",
        );
        return Route::Answer;
    }
    if let Some(name) = name {
        session.names_mut().name = name;
    }
    let heard_changes = session.hears_changes();
    session.resp3 = resp3;
    encode::map(out, resp3, 7);
    let (server, version) = info::kind(facts);
    for (key, value) in [("server", server), ("version", version)] {
        encode::bulk(out, key.as_bytes());
        encode::bulk(out, value.as_bytes());
    }
    encode::bulk(out, b"proto");
    encode::integer(out, if resp3 { 3 } else { 2 });
    encode::bulk(out, b"id");
    encode::integer(out, facts.client as i64);
    for (key, value) in [("mode", info::mode(facts)), ("role", "master")] {
        encode::bulk(out, key.as_bytes());
        encode::bulk(out, value.as_bytes());
    }
    encode::bulk(out, b"modules");
    encode::array(out, 0);
    if resp3 && !heard_changes && session.hears_changes() {
        // What has changed meanwhile it was not told.
        Resp::tell_changed(&[], out);
    }
    Route::Answer
}

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// A wrong password.
fn deny(session: &mut Session, out: &mut Vec<u8>) -> Route<Merge> {
    encode::error(out, WRONG_PASSWORD);
    Route::Deny { slowly: session.access.deny() }
}

/// `AUTH password` and `AUTH user password`
pub fn authenticate(
    all: &[&[u8]],
    session: &mut Session,
    facts: &Facts<'_, Resp>,
    out: &mut Vec<u8>,
) -> Route<Merge> {
    let settings = facts.settings;
    let (user, password) = match all {
        [_, password] => {
            let needs_none = match settings.default_user() {
                Some(user) => user.needs_none,
                None => settings.password.is_none(),
            };
            if needs_none {
                encode::error(
                    out,
                    "ERR AUTH <password> called without any password configured for the default user. Are you sure \
                     your configuration is correct?",
                );
                return Route::Answer;
            }
            (DEFAULT.as_bytes(), *password)
        }
        [_, user, password] => (*user, *password),
        _ => {
            encode::error(out, "ERR syntax error");
            return Route::Answer;
        }
    };
    if !admit(user, password, session, settings) {
        rights::note_wrong_password(user, "auth", session, facts);
        return deny(session, out);
    }
    encode::simple(out, "OK");
    Route::Answer
}

/// Whether these words let a client in. Those of the file are asked first.
fn admit(user: &[u8], password: &[u8], session: &mut Session, settings: &Settings) -> bool {
    if let Some(users) = &settings.users
        && (users.find(user).is_some() || user != DEFAULT.as_bytes() && settings.user.is_none())
    {
        let login = users.admit(user, password);
        let is_in = login.is_some();
        login.into_iter().for_each(|login| session.enter(login));
        return is_in;
    }
    let access = access(user, password, settings);
    access.into_iter().for_each(|access| session.enter_by(access));
    access.is_some()
}

/// What these words are good for where the file knows no such user, if anything. There are only the user `default`, and the one that the pool names to its shards.
/// Without a password of the pool everybody is `default`, as in Redis.
fn access(user: &[u8], password: &[u8], settings: &Settings) -> Option<Access> {
    let named = settings.user.as_ref().is_some_and(|known| known.as_bytes() == user);
    if user != DEFAULT.as_bytes() && !named {
        return None;
    }
    let Some(expected) = &settings.password else { return Some(Access::OPEN) };
    match (expected.is(password), settings.previous.as_ref().is_some_and(|previous| previous.is(password))) {
        (true, _) => Some(Access::PRESENT),
        (false, true) => Some(Access::PREVIOUS),
        (false, false) => None,
    }
}

/// The database that SELECT means, if the client may have it.
pub fn select(word: &[u8], session: &Session, facts: &Facts<'_, Resp>) -> Result<u32, String> {
    let settings = facts.settings;
    let db = number(word).ok_or("ERR value is not an integer or out of range")?;
    let db = i32::try_from(db)
        .map_err(|_| "ERR value is out of range, value must between -2147483648 and 2147483647")?;
    let db = u32::try_from(db).ok().filter(|&db| db < settings.databases.max(settings.db + 1));
    match db {
        Some(db) if db == session.db => Ok(db),
        _ if settings.db > 0 => {
            Err(format!("ERR SELECT is refused: this pool is fixed to database {} (redis_db)", settings.db))
        }
        Some(db) => Ok(db),
        None => Err("ERR DB index is out of range".into()),
    }
}
