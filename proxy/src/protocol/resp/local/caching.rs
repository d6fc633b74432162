//! CLIENT TRACKING, CACHING, TRACKINGINFO and GETREDIR. What is wrong is found in the order of the server, and said in its words.

use bytes::Bytes;

use crate::protocol::caching::Receiver;
use crate::protocol::resp::caching::{Sought, Told, Tracking};
use crate::protocol::resp::command::Merge;
use crate::protocol::resp::session::{Session, number};
use crate::protocol::resp::{Resp, encode, transaction};
use crate::protocol::{ClientFilter, Deed, Facts, Plan, Question, Route};

const SYNTAX_ERROR: &str = "ERR syntax error";
const NO_SUCH_CLIENT: &str = "ERR The client ID you want redirect to does not exist";
const NOT_TRACKING: &str = "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled";

/// Prefixes of one client, and bytes of one: nobody needs as many, and each changed key is held against all of them.
const PREFIXES_MAX: usize = 64;
const PREFIX_MAX: usize = 1024;

/// The options behind ON or OFF.
#[derive(Default)]
struct Options<'w> {
    bcast: bool,
    optin: bool,
    optout: bool,
    noloop: bool,
    prefixes: Vec<&'w [u8]>,
    receiver: Option<u64>,
}

/// Why options are not taken.
enum Refusal {
    /// They are wrong.
    Words(String),
    /// It has to be known first whether the client with this number is there.
    Seek(i64),
}

impl From<&str> for Refusal {
    fn from(words: &str) -> Self {
        Self::Words(words.into())
    }
}

impl<'w> Options<'w> {
    fn read(mut words: &[&'w [u8]], sought: Option<&Sought>) -> Result<Self, Refusal> {
        let mut options = Self::default();
        while let [option, rest @ ..] = words {
            words = rest;
            match (&option.to_ascii_lowercase()[..], rest) {
                (b"redirect", [id, rest @ ..]) => {
                    words = rest;
                    if options.receiver.is_some() {
                        return Err("ERR A client can only redirect to a single other client".into());
                    }
                    let number = number(id).ok_or("ERR value is not an integer or out of range")?;
                    // Before what else is wrong.
                    match sought.filter(|sought| sought.number == number).map(|sought| &sought.is_there) {
                        Some(Ok(true)) => options.receiver = u64::try_from(number).ok(),
                        Some(Ok(false)) => return Err(NO_SUCH_CLIENT.into()),
                        Some(Err(words)) => return Err(Refusal::Words(format!("ERR {words}"))),
                        None => return Err(Refusal::Seek(number)),
                    }
                }
                (b"prefix", [prefix, rest @ ..]) => {
                    words = rest;
                    options.prefixes.push(*prefix);
                }
                (b"bcast", _) => options.bcast = true,
                (b"optin", _) => options.optin = true,
                (b"optout", _) => options.optout = true,
                (b"noloop", _) => options.noloop = true,
                _ => return Err(SYNTAX_ERROR.into()),
            }
        }
        Ok(options)
    }

    /// What the client is told of from now on, if that goes with what it is told of so far.
    fn begin(&self, before: Option<&Tracking>) -> Result<Tracking, String> {
        if !self.bcast && !self.prefixes.is_empty() {
            return Err("ERR PREFIX option requires BCAST mode to be enabled".into());
        }
        if before.is_some_and(|before| before.prefixes.is_some() != self.bcast) {
            return Err(
                "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.".into(),
            );
        }
        if self.bcast && (self.optin || self.optout) {
            return Err("ERR OPTIN and OPTOUT are not compatible with BCAST".into());
        }
        if self.optin && self.optout {
            return Err("ERR You can't specify both OPTIN mode and OPTOUT mode".into());
        }
        let told = before.map(|before| before.told);
        if (self.optin && told == Some(Told::NotNamed)) || (self.optout && told == Some(Told::Named)) {
            return Err(
                "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode.".into(),
            );
        }
        let known = before.and_then(|before| before.prefixes.as_deref()).unwrap_or_default();
        let prefixes = self.bcast.then(|| self.prefixes_with(known)).transpose()?;
        let told = match (self.optin, self.optout) {
            (true, _) => Told::Named,
            (_, true) => Told::NotNamed,
            _ => Told::Read,
        };
        let receiver = self.receiver.map(Receiver::There);
        Ok(Tracking { told, noloop: self.noloop, prefixes, receiver })
    }

    /// The prefixes beside those that the client has named before, in order.
    fn prefixes_with(&self, known: &[Bytes]) -> Result<Box<[Bytes]>, String> {
        // Each is held against all others: that is for few.
        if self.prefixes.len() > PREFIXES_MAX {
            return Err(format!("ERR a client may name {PREFIXES_MAX} prefixes"));
        }
        for (at, prefix) in self.prefixes.iter().enumerate() {
            if let Some(other) = known.iter().find(|known| overlap(known, prefix)) {
                return Err(overlapping(prefix, "an existing prefix", other));
            }
            if let Some(other) = self.prefixes[at + 1..].iter().find(|other| overlap(other, prefix)) {
                return Err(overlapping(prefix, "another provided prefix", other));
            }
        }
        let given: &[&[u8]] = if self.prefixes.is_empty() { &[b""] } else { &self.prefixes };
        if given.iter().any(|prefix| prefix.len() > PREFIX_MAX) {
            return Err(format!("ERR prefixes are limited to {PREFIX_MAX} bytes"));
        }
        let given = given.iter().map(|prefix| Bytes::copy_from_slice(prefix));
        let mut all: Vec<Bytes> = known.iter().cloned().chain(given).collect();
        all.sort_unstable();
        all.dedup();
        if all.len() > PREFIXES_MAX {
            return Err(format!("ERR a client may name {PREFIXES_MAX} prefixes"));
        }
        Ok(all.into())
    }
}

/// Whether one of them begins with the other.
fn overlap(one: &[u8], other: &[u8]) -> bool {
    let common = one.len().min(other.len());
    one[..common] == other[..common]
}

fn overlapping(prefix: &[u8], with: &str, other: &[u8]) -> String {
    let [prefix, other] = [prefix, other].map(shown);
    format!(
        "ERR Prefix '{prefix}' overlaps with {with} '{other}'. Prefixes for a single client must not overlap."
    )
}

/// As a server says it, which ends words at a zero.
fn shown(word: &[u8]) -> String {
    let end = word.iter().position(|&byte| byte == 0).unwrap_or(word.len()).min(PREFIX_MAX);
    String::from_utf8_lossy(&word[..end]).into_owned()
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
    let sought = session.names.as_ref().and_then(|names| names.sought.as_deref());
    let wanted = Options::read(&all[3..], sought).and_then(|options| match is_on {
        true => options.begin(session.tracking()).map(Some).map_err(Refusal::Words),
        false if all[2].eq_ignore_ascii_case(b"off") => Ok(None),
        false => Err(SYNTAX_ERROR.into()),
    });
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(Refusal::Seek(_)) if !facts.quiet => return Route::WhenQuiet,
        Err(Refusal::Seek(number)) => {
            session.names_mut().sought = Some(Box::new(Sought { number, is_there: Ok(false) }));
            return Route::AskFirst(Box::new(receiver_question(number)));
        }
        Err(Refusal::Words(words)) => {
            forget_sought(session);
            encode::error(out, &words);
            return Route::Answer;
        }
    };
    if wanted.is_some()
        && let Some(words) = refusal(facts)
    {
        forget_sought(session);
        encode::error(out, &words);
        return Route::Answer;
    }
    let changes_lane = |session: &Session| {
        let kind = |tracking: Option<&Tracking>| {
            tracking.map(|tracking| (tracking.prefixes.is_some(), tracking.receiver.is_some()))
        };
        kind(wanted.as_ref()) != kind(session.tracking())
    };
    if session.mode.may_watch() && changes_lane(session) {
        forget_sought(session);
        transaction::refuse_change("client tracking", session, out);
        return Route::Answer;
    }
    if wanted.as_ref() != session.tracking() {
        if !facts.quiet {
            return Route::WhenQuiet;
        }
        session.names_mut().tracking = wanted.map(Box::new);
    }
    forget_sought(session);
    encode::simple(out, "OK");
    Route::Answer
}

/// What is known of another client was for the request at hand.
fn forget_sought(session: &mut Session) {
    if let Some(names) = &mut session.names {
        names.sought = None;
    }
}

/// Whether the client with this number is there, which may be told in the stead of others from then on.
fn receiver_question(number: i64) -> Question {
    let ids = Some(u64::try_from(number).ok().into_iter().filter(|&number| number > 0).collect());
    let filter = ClientFilter { ids, ..ClientFilter::default() };
    Question { filter, deed: Deed::Receive, form: 0 }
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
    match session.receiver() {
        Some(Receiver::There(number) | Receiver::Lost(number)) => number as i64,
        None if session.tracking().is_some() => 0,
        None => -1,
    }
}

/// `CLIENT TRACKINGINFO`
pub fn info(session: &Session, out: &mut Vec<u8>) {
    let tracking = session.tracking();
    let mut flags = vec![if tracking.is_some() { "on" } else { "off" }];
    flags.extend(tracking.and_then(|tracking| tracking.prefixes.as_ref()).map(|_| "bcast"));
    let is_named = session.reply_mode.is_named();
    match tracking.map(|tracking| tracking.told) {
        Some(Told::Named) => flags.extend(["optin"].into_iter().chain(is_named.then_some("caching-yes"))),
        Some(Told::NotNamed) => flags.extend(["optout"].into_iter().chain(is_named.then_some("caching-no"))),
        Some(Told::Read) | None => {}
    }
    if tracking.is_some_and(|tracking| tracking.noloop) {
        flags.push("noloop");
    }
    if matches!(session.receiver(), Some(Receiver::Lost(_))) {
        flags.push("broken_redirect");
    }
    let prefixes = tracking.and_then(|tracking| tracking.prefixes.as_deref()).unwrap_or_default();
    encode::map(out, session.resp3, 3);
    encode::bulk(out, b"flags");
    encode::set(out, session.resp3, flags.len());
    flags.iter().for_each(|flag| encode::bulk(out, flag.as_bytes()));
    encode::bulk(out, b"redirect");
    encode::integer(out, redirected_to(session));
    encode::bulk(out, b"prefixes");
    encode::array(out, prefixes.len());
    prefixes.iter().for_each(|prefix| encode::bulk(out, prefix));
}
