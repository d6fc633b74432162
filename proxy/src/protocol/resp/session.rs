//! What one client has told us, and the commands that change it: HELLO, AUTH, SELECT, RESET and their like.
//!
//! Texts of replies and errors are Redis' own, because clients compare them.

use super::commands::{Command, Feature, Local, flag};
use super::transaction::Transaction;
use super::{Resp, Words, client_command, command_reply, encode, info};
use crate::protocol::{Facts, Plan, Route};

/// The version of Redis whose commands and replies the proxy speaks.
pub const REDIS_VERSION: &str = "7.0.15";

/// What all clients of a pool share.
#[derive(Clone, Default)]
pub struct Settings {
    /// What clients have to say before anything else, and what is said to the shards.
    pub password: Option<Vec<u8>>,
    /// The one before it, while it is being changed.
    pub previous: Option<Vec<u8>>,
    /// The user that is named to the shards beside the password.
    pub user: Option<String>,
    /// Clients stay when the password changes that they were let in with.
    pub keeps_revoked: bool,
    /// The database clients start in.
    pub db: u32,
    /// Databases that SELECT may choose from.
    pub databases: u32,
    /// What INFO and CONFIG say about the listener.
    pub port: u16,
    /// The shards know no RESP3, so clients cannot have it.
    pub resp2_only: bool,
    /// There is one shard, which is no cluster: what concerns all shards concerns it alone.
    pub one_shard: bool,
}

/// Databases of a server that nobody has configured otherwise.
const DATABASES_USUAL: u32 = 16;

impl Settings {
    /// Whether clients can work in the database.
    pub fn has_database(&self, db: u32) -> bool {
        if self.db > 0 { db == self.db } else { db < self.databases }
    }

    /// Whether clients are kept from databases that the shards have.
    pub fn is_confined(&self) -> bool {
        self.db > 0 || self.databases < DATABASES_USUAL
    }
}

/// One client's state.
#[derive(Debug)]
pub struct Session {
    /// The database its requests go to.
    pub db: u32,
    /// It speaks RESP3.
    pub resp3: bool,
    /// Whether it has said the password, or how often a wrong one.
    access: Access,
    /// Whether it wants to hear replies.
    pub reply_mode: ReplyMode,
    /// Whether it sent MULTI, which was refused.
    pub transaction: Transaction,
    /// Names it gave itself.
    pub names: Option<Box<Names>>,
}

/// How far a client has got with the password, and which one it has said. One byte, because every idle client has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Access(u8);

impl Access {
    /// None was asked for.
    const OPEN: Self = Self(255);
    /// It has said the password.
    const PRESENT: Self = Self(254);
    /// It has said the one before, which is good for some time still.
    const PREVIOUS: Self = Self(253);
    /// What let it in is not good any more, and it stays all the same.
    const KEPT: Self = Self(252);
    /// It has said nothing.
    const NONE: Self = Self(0);
    /// After so many wrong passwords further ones are answered slowly. Somebody who mistypes does not get there.
    const WRONG_MAX: u8 = 10;

    fn is_granted(self) -> bool {
        self.0 >= Self::KEPT.0
    }

    /// One more wrong password; true if there were many.
    fn deny(&mut self) -> bool {
        if self.is_granted() {
            return false;
        }
        self.0 = (self.0 + 1).min(Self::WRONG_MAX + 1);
        self.0 > Self::WRONG_MAX
    }
}

impl Settings {
    /// What a client that was let in under `before` has under these settings, or `None` if it is not to stay: what let it in
    /// is good no more.
    fn grants(&self, access: Access, before: &Self) -> Option<Access> {
        if self.password.is_none() {
            return Some(Access::OPEN);
        }
        let said = match access {
            Access::PRESENT => before.password.as_ref(),
            Access::PREVIOUS => before.previous.as_ref(),
            _ => None,
        };
        if said.is_some() && self.user == before.user {
            if said == self.password.as_ref() {
                return Some(Access::PRESENT);
            }
            if said == self.previous.as_ref() {
                return Some(Access::PREVIOUS);
            }
        }
        self.keeps_revoked.then_some(Access::KEPT)
    }
}

/// Names a client gave itself, for listings.
#[derive(Clone, Default, Debug)]
pub struct Names {
    /// CLIENT SETNAME.
    pub name: String,
    /// CLIENT SETINFO LIB-NAME.
    pub library: String,
    /// CLIENT SETINFO LIB-VER.
    pub library_version: String,
}

impl Names {
    /// Memory they hold.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.name.capacity() + self.library.capacity() + self.library_version.capacity()
    }
}

/// CLIENT REPLY: whether a client wants to hear replies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyMode {
    /// All of them.
    On,
    /// None.
    Off,
    /// Not the one to the next command.
    SkipNext,
    /// Not the one to the present command.
    SkipThis,
}

impl ReplyMode {
    /// The present command is taken.
    #[inline]
    pub fn command_done(&mut self) {
        *self = match *self {
            Self::SkipNext => Self::SkipThis,
            Self::SkipThis => Self::On,
            mode => mode,
        };
    }
}

impl Session {
    /// A client has just connected.
    pub fn new(settings: &Settings) -> Self {
        Self {
            db: settings.db,
            resp3: false,
            access: if settings.password.is_none() { Access::OPEN } else { Access::NONE },
            reply_mode: ReplyMode::On,
            transaction: Transaction::None,
            names: None,
        }
    }

    /// It has said the password, or none is asked for.
    #[inline]
    pub fn is_authenticated(&self) -> bool {
        self.access.is_granted()
    }

    /// The settings are others from now on. True if the client is not to stay.
    pub fn is_revoked(&mut self, before: &Settings, now: &Settings) -> bool {
        if !self.access.is_granted() {
            if now.password.is_none() {
                self.access = Access::OPEN;
            }
            return false;
        }
        let granted = now.grants(self.access, before);
        self.access = granted.unwrap_or(self.access);
        granted.is_none()
    }

    /// Nothing about the client asks for more than its command's row.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.is_authenticated()
            && self.transaction == Transaction::None
            && matches!(self.reply_mode, ReplyMode::On | ReplyMode::Off)
    }

    /// Whether the password comes before this command.
    pub fn lacks_password(&self, command: &Command, settings: &Settings) -> bool {
        settings.password.is_some() && !self.is_authenticated() && !command.flags.has(flag::NO_AUTH)
    }

    /// The reply to a command whose time has not come.
    pub fn not_yet(&mut self, command: &Command, feature: Feature, facts: &Facts<'_, Resp>) -> String {
        if feature == Feature::Transaction {
            if command.begins_transaction() {
                // Who does not hear replies cannot wait for one.
                self.transaction.refused(self.reply_mode == ReplyMode::On, facts);
            } else if command.leaves_transaction()
                && self.transaction.left()
                && command.executes_transaction()
            {
                return "EXECABORT Transaction discarded because of previous errors.".into();
            }
        }
        not_yet(command, feature)
    }

    fn names_mut(&mut self) -> &mut Names {
        self.names.get_or_insert_default()
    }
}

/// The reply to a command that needs what the proxy cannot do yet.
pub fn not_yet(command: &Command, feature: Feature) -> String {
    format!("ERR '{}' is refused: {}", command.words(), feature.refusal())
}

/// Answers a command that the proxy itself answers.
pub fn answer(
    local: Local,
    words: &Words<'_>,
    session: &mut Session,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Route<super::commands::Merge> {
    let all = words.to_vec();
    let out = &mut plan.reply;
    match local {
        Local::Ping => match all[1..] {
            [] => encode::simple(out, "PONG"),
            [message] => encode::bulk(out, message),
            // COMMAND says that any number is right, the server does not.
            _ => encode::error(out, "ERR wrong number of arguments for 'ping' command"),
        },
        Local::Echo => encode::bulk(out, all[1]),
        Local::Time => {
            encode::array(out, 2);
            encode::bulk(out, (facts.unix_micros / 1_000_000).to_string().as_bytes());
            encode::bulk(out, (facts.unix_micros % 1_000_000).to_string().as_bytes());
        }
        Local::Quit => {
            encode::simple(out, "OK");
            return Route::AnswerAndClose;
        }
        Local::Reset => {
            let fresh = Session::new(facts.settings);
            if !facts.quiet && (fresh.db != session.db || fresh.resp3 != session.resp3) {
                return Route::WhenQuiet;
            }
            // It ends CLIENT REPLY OFF, but SKIP was for this very reply.
            plan.manner.silent = session.reply_mode == ReplyMode::SkipThis;
            *session = fresh;
            encode::simple(out, "RESET");
        }
        Local::Hello => return hello(&all, session, facts, plan),
        Local::Auth => return authenticate(&all, session, facts.settings, out),
        Local::Select => match select(all[1], session, facts) {
            Ok(db) if db != session.db && !facts.quiet => return Route::WhenQuiet,
            Ok(db) => {
                session.db = db;
                encode::simple(out, "OK");
            }
            Err(reply) => encode::error(out, &reply),
        },
        Local::Command => command_reply::answer(&all, facts.settings.one_shard, session.resp3, out),
        Local::Help => {
            let container = super::commands::lookup(all[0]).expect("its subcommand was found");
            command_reply::help(container, facts.settings.one_shard, out);
        }
        Local::ClientId
        | Local::ClientInfo
        | Local::ClientList
        | Local::ClientKill
        | Local::ClientGetname
        | Local::ClientSetname
        | Local::ClientSetinfo
        | Local::ClientReply
        | Local::ClientNoEvict
        | Local::ClientNoTouch => return client_command::plan(local, &all, session, facts, plan),
        Local::Role => {
            encode::array(out, 3);
            encode::bulk(out, b"master");
            encode::integer(out, 0);
            encode::array(out, 0);
        }
        Local::ConfigGet => info::config(&all, session.resp3, facts, out),
        Local::Info => info::info(&all[1..], facts, session.resp3, out),
        Local::Readonly | Local::Readwrite => encode::simple(out, "OK"),
        Local::Cluster | Local::Asking => {
            encode::error(out, "ERR This instance has cluster support disabled");
        }
        Local::Lolwut => {
            let text = format!("memstore ver. {}\n", env!("CARGO_PKG_VERSION"));
            encode::bulk(out, text.as_bytes());
        }
    }
    Route::Answer
}

/// `HELLO [version [AUTH user password] [SETNAME name]]`
fn hello(
    all: &[&[u8]],
    session: &mut Session,
    facts: &Facts<'_, Resp>,
    plan: &mut Plan<Resp>,
) -> Route<super::commands::Merge> {
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
    if resp3 != session.resp3 && !facts.quiet {
        return Route::WhenQuiet;
    }
    if let Some((user, password)) = credentials {
        let Some(access) = access(user, password, facts.settings) else { return deny(session, out) };
        session.access = access;
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
    session.resp3 = resp3;
    encode::map(out, resp3, 7);
    for (key, value) in [("server", "redis"), ("version", info::version(facts))] {
        encode::bulk(out, key.as_bytes());
        encode::bulk(out, value.as_bytes());
    }
    encode::bulk(out, b"proto");
    encode::integer(out, if resp3 { 3 } else { 2 });
    encode::bulk(out, b"id");
    encode::integer(out, facts.client as i64);
    for (key, value) in [("mode", "standalone"), ("role", "master")] {
        encode::bulk(out, key.as_bytes());
        encode::bulk(out, value.as_bytes());
    }
    encode::bulk(out, b"modules");
    encode::array(out, 0);
    Route::Answer
}

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

/// A wrong password.
fn deny(session: &mut Session, out: &mut Vec<u8>) -> Route<super::commands::Merge> {
    encode::error(out, WRONG_PASSWORD);
    Route::Deny { slowly: session.access.deny() }
}

/// `AUTH password` and `AUTH user password`
fn authenticate(
    all: &[&[u8]],
    session: &mut Session,
    settings: &Settings,
    out: &mut Vec<u8>,
) -> Route<super::commands::Merge> {
    let granted = match all {
        [_, password] => {
            if settings.password.is_none() {
                encode::error(
                    out,
                    "ERR AUTH <password> called without any password configured for the default user. Are you sure \
                     your configuration is correct?",
                );
                return Route::Answer;
            }
            access(b"default", password, settings)
        }
        [_, user, password] => access(user, password, settings),
        _ => {
            encode::error(out, "ERR syntax error");
            return Route::Answer;
        }
    };
    let Some(granted) = granted else { return deny(session, out) };
    session.access = granted;
    encode::simple(out, "OK");
    Route::Answer
}

/// What these words are good for, if anything. Only the user `default` exists, and the one that the pool names to its shards.
/// Without a password of the pool everybody is `default`, as in Redis.
fn access(user: &[u8], password: &[u8], settings: &Settings) -> Option<Access> {
    let named = settings.user.as_ref().is_some_and(|known| known.as_bytes() == user);
    if user != b"default" && !named {
        return None;
    }
    let Some(expected) = &settings.password else { return Some(Access::OPEN) };
    // The time this takes must not tell how much of the password is right.
    let is = |expected: &Vec<u8>| {
        let differences = expected.iter().zip(password).fold(0, |sum, (a, b)| sum | (a ^ b));
        differences == 0 && expected.len() == password.len()
    };
    match (is(expected), settings.previous.as_ref().is_some_and(is)) {
        (true, _) => Some(Access::PRESENT),
        (false, true) => Some(Access::PREVIOUS),
        (false, false) => None,
    }
}

/// The database that SELECT means, if the client may have it.
fn select(word: &[u8], session: &Session, facts: &Facts<'_, Resp>) -> Result<u32, String> {
    let settings = facts.settings;
    let db = number(word).ok_or("ERR value is not an integer or out of range")?;
    let db = i32::try_from(db)
        .map_err(|_| "ERR value is out of range, value must between -2147483648 and 2147483647")?;
    let db = u32::try_from(db).ok().filter(|&db| db < settings.databases.max(settings.db + 1));
    match db {
        Some(db) if db == session.db => Ok(db),
        _ if settings.db > 0 => {
            Err(format!("ERR SELECT is refused: this pool stays in database {} (redis_db)", settings.db))
        }
        Some(db) => Ok(db),
        None => Err("ERR DB index is out of range".into()),
    }
}

/// A decimal number as Redis reads it.
pub(super) fn number(word: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(word).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits.len() == 1 || !digits.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

/// Longest name of a client. Redis has no limit, but then a name is memory that nobody has accounted for.
const NAME_MAX: usize = 64 * 1024;
pub(super) const LONG_NAME: &str = "ERR Client names are limited to 65536 bytes.";

/// A name that a client gives itself, or why it cannot have it. What Redis allows: no blanks, no control characters.
pub(super) fn client_name(word: &[u8]) -> Result<String, &'static str> {
    if word.len() > NAME_MAX {
        return Err(LONG_NAME);
    }
    let is_printable = word.iter().all(|byte| (b'!'..=b'~').contains(byte));
    if is_printable { Ok(String::from_utf8_lossy(word).into_owned()) } else { Err(BAD_NAME) }
}
