//! CLIENT TRACKING, CACHING, TRACKINGINFO and GETREDIR. What is wrong is found in the order of the server, and said in its words.

use crate::protocol::resp::caching::{Told, Tracking};
use crate::protocol::resp::command::Merge;
use crate::protocol::resp::session::{Session, number};
use crate::protocol::resp::{Resp, encode, transaction};
use crate::protocol::{Facts, Plan, Route};

const SYNTAX_ERROR: &str = "ERR syntax error";
const NO_SUCH_CLIENT: &str = "ERR The client ID you want redirect to does not exist";
const NOT_TRACKING: &str = "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled";

/// The options behind ON or OFF.
#[derive(Default)]
struct Options {
    bcast: bool,
    optin: bool,
    optout: bool,
    noloop: bool,
    prefixes: usize,
}

impl Options {
    fn read(mut words: &[&[u8]]) -> Result<Self, &'static str> {
        let mut options = Self::default();
        while let [option, rest @ ..] = words {
            words = rest;
            match (&option.to_ascii_lowercase()[..], rest) {
                (b"redirect", [id, ..]) => {
                    number(id).ok_or("ERR value is not an integer or out of range")?;
                    // Clients of other workers and other replicas of the proxy cannot be reached.
                    return Err(NO_SUCH_CLIENT);
                }
                (b"prefix", [_, rest @ ..]) => {
                    words = rest;
                    options.prefixes += 1;
                }
                (b"bcast", _) => options.bcast = true,
                (b"optin", _) => options.optin = true,
                (b"optout", _) => options.optout = true,
                (b"noloop", _) => options.noloop = true,
                _ => return Err(SYNTAX_ERROR),
            }
        }
        Ok(options)
    }

    /// What the client is told of from now on, if that goes with what it is told of so far.
    fn begin(&self, before: Option<&Tracking>) -> Result<Tracking, &'static str> {
        if !self.bcast && self.prefixes > 0 {
            return Err("ERR PREFIX option requires BCAST mode to be enabled");
        }
        if self.bcast && before.is_some() {
            return Err(
                "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.",
            );
        }
        if self.bcast && (self.optin || self.optout) {
            return Err("ERR OPTIN and OPTOUT are not compatible with BCAST");
        }
        if self.optin && self.optout {
            return Err("ERR You can't specify both OPTIN mode and OPTOUT mode");
        }
        let told = before.map(|before| before.told);
        if (self.optin && told == Some(Told::NotNamed)) || (self.optout && told == Some(Told::Named)) {
            return Err(
                "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode.",
            );
        }
        if self.bcast {
            return Err("ERR CLIENT TRACKING with BCAST is not supported yet");
        }
        let told = match (self.optin, self.optout) {
            (true, _) => Told::Named,
            (_, true) => Told::NotNamed,
            _ => Told::Read,
        };
        Ok(Tracking { told, noloop: self.noloop })
    }
}

/// `CLIENT TRACKING ON|OFF [REDIRECT id] [PREFIX prefix ...] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]`
pub fn track(
    all: &[&[u8]],
    session: &mut Session,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Route<Merge> {
    let out = &mut plan.reply;
    let is_on = all[2].eq_ignore_ascii_case(b"on");
    let wanted = Options::read(&all[3..]).and_then(|options| match is_on {
        true => options.begin(session.tracking()).map(Some),
        false if all[2].eq_ignore_ascii_case(b"off") => Ok(None),
        false => Err(SYNTAX_ERROR),
    });
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(words) => {
            encode::error(out, words);
            return Route::Answer;
        }
    };
    if wanted.is_some()
        && let Some(words) = refusal(facts)
    {
        encode::error(out, &words);
        return Route::Answer;
    }
    if wanted.is_some() != session.tracking().is_some() && session.mode.may_watch() {
        transaction::refuse_change("client tracking", session, out);
        return Route::Answer;
    }
    if wanted.as_ref() != session.tracking() {
        if !facts.quiet {
            return Route::WhenQuiet;
        }
        session.names_mut().tracking = wanted.map(Box::new);
    }
    encode::simple(out, "OK");
    Route::Answer
}

/// Why no client can be told of changes here.
fn refusal(facts: &Facts<'_, Resp>) -> Option<String> {
    if facts.settings.resp2_only {
        return Some(
            "ERR CLIENT TRACKING is refused: shards without RESP3 cannot tell of changed keys".into(),
        );
    }
    let words = facts.settings.untracked.as_ref()?;
    Some(format!("ERR CLIENT TRACKING is refused: {words}"))
}

/// `CLIENT CACHING YES|NO`
pub fn name_next(word: &[u8], session: &mut Session, out: &mut Vec<u8>) {
    let Some(told) = session.tracking().map(|tracking| tracking.told) else {
        return encode::error(out, NOT_TRACKING);
    };
    let wrong = if word.eq_ignore_ascii_case(b"yes") {
        (told != Told::Named)
            .then_some("ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.")
    } else if word.eq_ignore_ascii_case(b"no") {
        (told != Told::NotNamed)
            .then_some("ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.")
    } else {
        Some(SYNTAX_ERROR)
    };
    if let Some(words) = wrong {
        return encode::error(out, words);
    }
    session.reply_mode.name_next();
    encode::simple(out, "OK");
}

/// `CLIENT GETREDIR`
pub fn redirection(session: &Session, out: &mut Vec<u8>) {
    encode::integer(out, redirected_to(session));
}

/// The client that is told instead: 0 for none, -1 where the client has not asked for anything.
pub fn redirected_to(session: &Session) -> i64 {
    if session.tracking().is_some() { 0 } else { -1 }
}

/// `CLIENT TRACKINGINFO`
pub fn info(session: &Session, out: &mut Vec<u8>) {
    let tracking = session.tracking();
    let mut flags = vec![if tracking.is_some() { "on" } else { "off" }];
    let is_named = session.reply_mode.is_named();
    match tracking.map(|tracking| tracking.told) {
        Some(Told::Named) => flags.extend(["optin"].into_iter().chain(is_named.then_some("caching-yes"))),
        Some(Told::NotNamed) => flags.extend(["optout"].into_iter().chain(is_named.then_some("caching-no"))),
        Some(Told::Read) | None => {}
    }
    if tracking.is_some_and(|tracking| tracking.noloop) {
        flags.push("noloop");
    }
    encode::map(out, session.resp3, 3);
    encode::bulk(out, b"flags");
    encode::set(out, session.resp3, flags.len());
    flags.iter().for_each(|flag| encode::bulk(out, flag.as_bytes()));
    encode::bulk(out, b"redirect");
    encode::integer(out, redirected_to(session));
    encode::bulk(out, b"prefixes");
    encode::array(out, 0);
}
