//! What one client has told us, and the commands that change it: HELLO, AUTH, SELECT, RESET and their like.
//!
//! Texts of replies and errors are Redis' own, because clients compare them.

use std::sync::Arc;

use super::acl::file::{DEFAULT, Users};
use super::acl::login::{Login, Proof};
use super::acl::password::Hash;
use super::acl::user::User;
use super::caching::{Sought, ToldBy, Tracking};
use super::command::{Command, Feature, flag};
use super::facade::Facade;
use super::mode::Mode;
use crate::protocol::caching::Receiver;
use crate::secret::Secret;

/// What all clients of a pool share.
#[derive(Clone, Default)]
pub struct Settings {
    /// What clients have to say before anything else, and what is said to the shards.
    pub password: Option<Secret>,
    /// The one before it, while it is being changed.
    pub previous: Option<Secret>,
    /// The user that is named to the shards beside the password.
    pub user: Option<String>,
    /// Users beside that: those of the file. A user `default` there is what clients are who have not said who they are.
    pub users: Option<Arc<Users>>,
    /// Clients stay when the password changes that they were let in with.
    pub keeps_revoked: bool,
    /// The database clients start in.
    pub db: u32,
    /// Databases that SELECT may choose from.
    pub databases: u32,
    /// The shards may have others, from which clients are kept: [`is_confined`].
    pub confined: bool,
    /// A shard that hangs is waited for without a limit, because the pool has no `timeout`.
    pub waits_without_limit: bool,
    /// What INFO and CONFIG say about the listener.
    pub port: u16,
    /// The shards know no RESP3, so clients cannot have it.
    pub resp2_only: bool,
    /// A shard does not tell of changed keys, for this reason, so clients cannot be told of them.
    pub untracked: Option<Arc<str>>,
    /// There is one shard, which is no cluster: what concerns all shards concerns it alone.
    pub one_shard: bool,
    /// KEYS is refused where there are several shards.
    pub refuses_keys: bool,
    /// SAVE and its like go to all shards, where there are several.
    pub saves_all_shards: bool,
    /// Where scripts without keys run, where there are several shards.
    pub keyless: Keyless,
    /// SLOWLOG is about the logs of the shards, and not about the proxy's own.
    pub slow_log_of_shards: bool,
    /// What CONFIG GET says of the slow log: from how many microseconds on a request is slow, -1 for none, and how many entries there
    /// may be.
    pub slow_log: (i64, usize),
    /// The proxy poses as a cluster to its clients.
    pub facade: Option<Arc<Facade>>,
    /// Clients may watch the requests of all clients (MONITOR).
    pub monitor: bool,
}

/// Where scripts without keys run.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub enum Keyless {
    /// Nowhere.
    #[default]
    Refuse,
    /// Where the empty key is.
    Any,
    /// On this shard, by its place in the topology.
    On(usize),
    /// On the shard with this name, which there is not.
    Missing(String),
}

/// Databases of a server that nobody has configured otherwise.
pub const DATABASES_USUAL: u32 = 16;

impl Settings {
    /// Whether clients can work in the database.
    pub fn has_database(&self, db: u32) -> bool {
        if self.db > 0 { db == self.db } else { db < self.databases }
    }
}

/// Whether clients who start in this database and may choose from so many, by what is configured, are kept from others that the shards may
/// have. A cluster has but one.
pub fn is_confined(db: u32, databases: u32, is_cluster: bool) -> bool {
    db > 0 || !is_cluster && databases < DATABASES_USUAL
}

/// One client's state.
#[derive(Debug)]
pub struct Session {
    /// The database its requests go to.
    pub db: u32,
    /// It speaks RESP3.
    pub resp3: bool,
    /// Whether it has said the password, or how often a wrong one.
    pub(super) access: Access,
    /// Whether it wants to hear replies, and may keep them.
    pub reply_mode: ReplyMode,
    /// How its commands are taken.
    pub mode: Mode,
    /// Names it gave itself, and what else few clients have.
    pub names: Option<Box<Names>>,
}

/// How far a client has got with the password, and which one it has said. One byte, because every idle client has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Access(u8);

impl Access {
    /// None was asked for.
    pub const OPEN: Self = Self(255);
    /// It has said the password.
    pub const PRESENT: Self = Self(254);
    /// It has said the one before, which is good for some time still.
    pub const PREVIOUS: Self = Self(253);
    /// What let it in is not good any more, and it stays all the same.
    const KEPT: Self = Self(252);
    /// It has said nothing.
    const NONE: Self = Self(0);
    /// After so many wrong passwords further ones are answered slowly. Somebody who mistypes does not get there.
    const WRONG_MAX: u8 = 10;

    /// It is a user of the file who may do everything.
    const FREE_USER: Self = Self(251);
    /// It is a user of the file, whose rules say what it may do.
    const USER: Self = Self(250);

    #[inline]
    fn is_granted(self) -> bool {
        self.0 >= Self::USER.0
    }

    /// It may do everything.
    #[inline]
    fn is_free(self) -> bool {
        self.0 >= Self::FREE_USER.0
    }

    /// One more wrong password; true if there were many.
    pub fn deny(&mut self) -> bool {
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
        if self.lets_everybody_in() {
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

    /// Clients need not say who they are, and may do everything.
    fn lets_everybody_in(&self) -> bool {
        self.password.is_none() && self.default_user().is_none()
    }

    /// What clients are who have not said who they are, if the file says so.
    pub fn default_user(&self) -> Option<&Arc<User>> {
        self.users.as_ref()?.find(DEFAULT.as_bytes())
    }

    /// A client that has not said who it is comes in all the same, as this user.
    fn default_login(&self) -> Option<Login> {
        let user = self.default_user()?.clone();
        Some(Login { user, by: Proof::Nothing }).filter(Login::is_good)
    }
}

/// Names a client gave itself, for listings, and what it has asked for that only some do.
#[derive(Clone, Default, Debug)]
pub struct Names {
    /// CLIENT SETNAME.
    pub name: String,
    /// CLIENT SETINFO LIB-NAME.
    pub library: String,
    /// CLIENT SETINFO LIB-VER.
    pub library_version: String,
    /// CLIENT SETINFO TRACEPARENT.
    pub trace: String,
    /// It is to be told of changes of keys that it has read (CLIENT TRACKING).
    pub tracking: Option<Box<Tracking>>,
    /// What was asked for a request of that kind, before it is served.
    pub sought: Option<Box<Sought>>,
    /// Which user of the file it is.
    pub login: Option<Login>,
}

impl Names {
    /// Memory they hold.
    pub fn bytes(&self) -> usize {
        let texts = self.name.capacity()
            + self.library.capacity()
            + self.library_version.capacity()
            + self.trace.capacity();
        size_of::<Self>() + texts + self.tracking.as_ref().map_or(0, |tracking| tracking.bytes())
    }
}

/// What CLIENT REPLY and CLIENT CACHING have said of the commands to come. One byte, because every idle client has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyMode(u8);

impl ReplyMode {
    /// All replies are heard.
    pub const ON: Self = Self(0);
    /// None is.
    pub const OFF: Self = Self(1);
    /// Not the one to the next command.
    const SKIP_NEXT: u8 = 2;
    /// Not the one to the present command.
    const SKIP_THIS: u8 = 3;
    const REPLY: u8 = 3;
    /// CLIENT CACHING speaks of the next command.
    const NAMED_NEXT: u8 = 4;
    /// It speaks of the present one.
    const NAMED_THIS: u8 = 8;

    /// Nothing is said of single commands.
    #[inline]
    pub fn is_plain(self) -> bool {
        self.0 <= Self::OFF.0
    }

    /// Whether the reply to the present command is kept from the client.
    #[inline]
    pub fn silences(self) -> bool {
        self.0 & 1 == 1
    }

    /// Whether it is for its own sake alone.
    pub fn skips_this(self) -> bool {
        self.0 & Self::REPLY == Self::SKIP_THIS
    }

    /// Whether no reply is heard until that is said.
    pub fn is_off(self) -> bool {
        self.0 & Self::REPLY == Self::OFF.0
    }

    /// Replies are heard from now on, or not.
    pub fn set(&mut self, mode: Self) {
        self.0 = self.0 & !Self::REPLY | mode.0;
    }

    /// The reply to the next command is not heard.
    pub fn skip_next(&mut self) {
        self.set(Self(Self::SKIP_NEXT));
    }

    /// CLIENT CACHING speaks of the next command.
    pub fn name_next(&mut self) {
        self.0 |= Self::NAMED_NEXT;
    }

    /// Whether it speaks of the present one.
    pub fn is_named(self) -> bool {
        self.0 & Self::NAMED_THIS != 0
    }

    /// The present command is taken.
    #[inline]
    pub fn command_done(&mut self) {
        if !self.is_plain() {
            self.next();
        }
    }

    #[cold]
    fn next(&mut self) {
        let reply = match self.0 & Self::REPLY {
            Self::SKIP_NEXT => Self::SKIP_THIS,
            Self::SKIP_THIS => Self::ON.0,
            reply => reply,
        };
        let is_next = self.0 & Self::NAMED_NEXT != 0;
        self.0 = reply | if is_next { Self::NAMED_THIS } else { 0 };
    }
}

impl Session {
    /// A client has just connected.
    pub fn new(settings: &Settings) -> Self {
        let mut session = Self {
            db: settings.db,
            resp3: false,
            access: if settings.lets_everybody_in() { Access::OPEN } else { Access::NONE },
            reply_mode: ReplyMode::ON,
            mode: Mode::Ordinary,
            names: None,
        };
        if let Some(login) = settings.default_login() {
            session.enter(login);
        }
        session
    }

    /// It is this user of the file from now on.
    pub fn enter(&mut self, login: Login) {
        self.access = if login.user.is_unrestricted() { Access::FREE_USER } else { Access::USER };
        self.names_mut().login = Some(login);
    }

    /// It is let in by the password of the pool.
    pub(super) fn enter_by(&mut self, access: Access) {
        self.access = access;
        if let Some(names) = &mut self.names {
            names.login = None;
        }
    }

    /// The user of the file that it is.
    pub fn login(&self) -> Option<&Login> {
        self.names.as_ref()?.login.as_ref()
    }

    /// The name of the user that it is.
    pub fn user_name<'s>(&'s self, settings: &'s Settings) -> &'s str {
        match self.login() {
            Some(login) => &login.user.name,
            None => settings.user.as_deref().unwrap_or(DEFAULT),
        }
    }

    /// The user whose rules its requests are judged by; none where it may do everything, or nothing.
    #[inline]
    pub fn restricted(&self) -> Option<&User> {
        if self.access != Access::USER {
            return None;
        }
        self.login().map(|login| &*login.user)
    }

    /// It has said the password, or none is asked for.
    #[inline]
    pub fn is_authenticated(&self) -> bool {
        self.access.is_granted()
    }

    /// The settings are others from now on. True if the client is not to stay.
    pub fn is_revoked(&mut self, before: &Settings, now: &Settings) -> bool {
        if let Some(login) = self.login().cloned() {
            return self.is_revoked_user(&login, now);
        }
        if !self.access.is_granted() {
            if now.lets_everybody_in() {
                self.access = Access::OPEN;
            } else if let Some(login) = now.default_login() {
                self.enter(login);
            }
            return false;
        }
        // Those that were let in by the password of the pool are the default user, if the file has one by now.
        if let Some(user) = now.default_user() {
            let said = match self.access {
                Access::PRESENT => before.password.as_ref(),
                Access::PREVIOUS => before.previous.as_ref(),
                _ => None,
            };
            let hash = said.and_then(|said| Hash::of(said.expose().as_bytes()));
            let login = Login { user: user.clone(), by: hash.map_or(Proof::Nothing, Proof::Password) };
            let is_to_go = !login.is_good() && !now.keeps_revoked;
            self.enter(login);
            return is_to_go;
        }
        let granted = now.grants(self.access, before);
        self.access = granted.unwrap_or(self.access);
        granted.is_none()
    }

    /// The same of a user of the file. It is what the file says of it from now on; who is gone, goes.
    fn is_revoked_user(&mut self, login: &Login, now: &Settings) -> bool {
        let Some(login) = now.users.as_ref().and_then(|users| login.under(users)) else {
            if now.lets_everybody_in() && &*login.user.name == DEFAULT {
                self.enter_by(Access::OPEN);
                return false;
            }
            return true;
        };
        let is_to_go = !login.is_good() && !now.keeps_revoked;
        self.enter(login);
        is_to_go
    }

    /// Nothing about the client asks for more than its command's row.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.access.is_free() && self.mode == Mode::Ordinary && self.reply_mode.is_plain()
    }

    /// The same, but for the rules of this user.
    #[inline]
    pub fn plain_but_for_rules(&self) -> Option<&User> {
        if self.mode != Mode::Ordinary || !self.reply_mode.is_plain() {
            return None;
        }
        self.restricted()
    }

    /// Whether the password comes before this command.
    pub fn lacks_password(&self, command: &Command) -> bool {
        !self.is_authenticated() && !command.flags.has(flag::NO_AUTH)
    }

    /// The names it gave itself.
    pub fn names_mut(&mut self) -> &mut Names {
        self.names.get_or_insert_default()
    }
}

impl Session {
    /// What the client has asked to be told of.
    pub fn tracking(&self) -> Option<&Tracking> {
        self.names.as_ref()?.tracking.as_deref()
    }

    /// Who is told in its stead.
    pub fn receiver(&self) -> Option<Receiver> {
        self.tracking()?.receiver
    }

    /// Whether it, or whoever is told in its stead, can hear of changes: a client that speaks RESP2 is never told anything between replies.
    pub fn hears_changes(&self) -> bool {
        self.tracking().is_some_and(|tracking| self.resp3 || tracking.receiver.is_some())
    }

    /// How shards tell of what it may have kept.
    pub fn told_by(&self) -> ToldBy {
        match self.tracking().filter(|_| self.hears_changes()) {
            None => ToldBy::Nobody,
            // Shards tell nothing on connections of RESP2.
            Some(tracking) if tracking.prefixes.is_some() || !self.resp3 => ToldBy::AllShards,
            Some(_) => ToldBy::ItsShard,
        }
    }

    /// Whether the client may keep what it hears in reply to a request, of which CLIENT CACHING has spoken or not.
    pub fn may_keep(&self, is_named: bool) -> bool {
        self.hears_changes() && self.tracking().is_some_and(|tracking| tracking.keeps(is_named))
    }
}

/// The reply to a command that needs what the proxy cannot do yet.
pub fn not_yet(command: &Command, feature: Feature) -> String {
    format!("ERR '{}' is refused: {}", command.words(), feature.refusal())
}

const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";
/// A decimal number as Redis reads it.
pub fn number(word: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(word).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits.len() == 1 || !digits.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

/// Longest name of a client. Redis has no limit, but then a name is memory that nobody has accounted for.
const NAME_MAX: usize = 64 * 1024;
/// What a client hears whose name is too long.
pub const LONG_NAME: &str = "ERR Client names are limited to 65536 bytes.";

/// A name that a client gives itself, or why it cannot have it. What Redis allows: no blanks, no control characters.
pub fn client_name(word: &[u8]) -> Result<String, &'static str> {
    if word.len() > NAME_MAX {
        return Err(LONG_NAME);
    }
    let is_printable = word.iter().all(|byte| (b'!'..=b'~').contains(byte));
    if is_printable { Ok(String::from_utf8_lossy(word).into_owned()) } else { Err(BAD_NAME) }
}
