//! One user: what lets it in, and what it may do.
//!
//! A request is judged by its row and by the same key specs that say where it goes, before anything of it goes anywhere.

use std::fmt;

use super::password::Hash;
use super::patterns::{ChannelNames, Keys, Need};
use super::rules::{CommandRules, RuleError};
use crate::protocol::channels::Kind;
use crate::protocol::resp::command::{Access, Command, Find, Handling, KeySpec, access, flag};

/// Rules that belong together: commands, with these keys and channels.
#[derive(Clone, PartialEq)]
pub struct Selector {
    pub(super) commands: CommandRules,
    pub(super) keys: Keys,
    pub(super) channels: ChannelNames,
}

impl Default for Selector {
    fn default() -> Self {
        Self { commands: CommandRules::none(), keys: Keys::NONE, channels: ChannelNames::NONE }
    }
}

/// A user.
#[derive(Clone, PartialEq)]
pub struct User {
    /// Its name.
    pub name: Box<str>,
    /// It may come in.
    pub is_on: bool,
    /// It needs no password.
    pub needs_none: bool,
    pub(super) passwords: Vec<Hash>,
    /// The first is what is not in parentheses.
    pub(super) selectors: Vec<Selector>,
}

/// What a user may not do, the graver the later: what is said of several selectors is the gravest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Denied {
    /// The command.
    Command,
    /// To use the key that is this argument.
    Key(usize),
    /// To use the channel that is this argument.
    Channel(usize),
    /// To have keys read that nobody names: this option of SORT.
    Pattern(&'static str),
}

impl Selector {
    fn is_all(&self) -> bool {
        self.commands.is_all() && self.keys.all && self.channels.all
    }

    fn check<'a>(
        &self,
        command: &Command<'_>,
        args: usize,
        arg: &impl Fn(usize) -> &'a [u8],
    ) -> Result<(), Denied> {
        let first = (args > 1).then(|| arg(1));
        if !command.flags.has(flag::NO_AUTH) && !self.commands.allows(command, first) {
            return Err(Denied::Command);
        }
        if !self.keys.all {
            self.check_keys(command, args, arg)?;
        }
        let channels = match command.handling {
            Handling::Listen(kind, true) => Some((1..args, kind == Kind::Pattern)),
            Handling::ToChannel => Some((1..args.min(2), false)),
            _ => None,
        };
        if let Some((mut places, is_pattern)) = channels.filter(|_| !self.channels.all)
            && let Some(place) = places.find(|&place| !self.channels.allow(arg(place), is_pattern))
        {
            return Err(Denied::Channel(place));
        }
        Ok(())
    }

    fn check_keys<'a>(
        &self,
        command: &Command<'_>,
        args: usize,
        arg: &impl Fn(usize) -> &'a [u8],
    ) -> Result<(), Denied> {
        for spec in command.specs() {
            // Where they cannot be found the request is refused for that.
            let Ok(places) = spec.positions(args, arg) else { continue };
            let need = match spec.access.has(access::VARIABLE_FLAGS) {
                true => varying(command, args, arg),
                false => of_access(spec.access),
            };
            for place in places {
                if !self.keys.allow(arg(place), need) {
                    return Err(Denied::Key(place));
                }
            }
        }
        if let Some(option) =
            command.options_of_patterns(args, arg).find(|_| !self.keys.allow_all(Need::READ))
        {
            return Err(Denied::Pattern(option));
        }
        Ok(())
    }

    /// Memory it holds.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.commands.bytes() + self.keys.bytes() + self.channels.bytes()
    }
}

/// What becomes of keys of such a spec.
#[inline]
fn of_access(spec: Access) -> Need {
    let is_read = spec.has(access::ACCESS);
    let is_written = spec.has(access::INSERT) || spec.has(access::UPDATE) || spec.has(access::DELETE);
    match (is_read, is_written) {
        (false, false) => Need::NOTHING,
        (true, false) => Need::READ,
        (false, true) => Need::WRITE,
        (true, true) => Need::BOTH,
    }
}

/// What becomes of the key of a request where that depends on the other arguments.
fn varying<'a>(command: &Command<'_>, args: usize, arg: &impl Fn(usize) -> &'a [u8]) -> Need {
    match command.reads_and_writes(args, arg) {
        (true, false) => Need::READ,
        (false, _) => Need::WRITE,
        (true, true) => Need::BOTH,
    }
}

impl User {
    /// A new one: it is off, and may do nothing.
    pub(super) fn new(name: &str) -> Self {
        let selectors = vec![Selector::default()];
        Self { name: name.into(), is_on: false, needs_none: false, passwords: Vec::new(), selectors }
    }

    /// Whether the password lets it in, if anything does.
    pub fn accepts(&self, password: Option<&Hash>) -> bool {
        let is_right = password.is_some_and(|password| password.is_among(&self.passwords));
        self.is_on && (self.needs_none || is_right)
    }

    /// Whether it may do everything.
    pub fn is_unrestricted(&self) -> bool {
        self.selectors.iter().any(Selector::is_all)
    }

    /// Whether a request of this row, whose one key is this, is certainly allowed. If it is not [`Self::check`] says more.
    #[inline]
    pub fn allows_plainly(&self, row: &Command<'_>, key: &[u8]) -> bool {
        let need = match row.keys.first() {
            Some(KeySpec { access, .. }) if !access.has(access::VARIABLE_FLAGS) => of_access(*access),
            _ => Need::BOTH,
        };
        self.selectors.iter().any(|of| of.commands.allows_row(row) && of.keys.allow(key, need))
    }

    /// Whether a request of so many arguments, the name of the command included, is allowed.
    ///
    /// # Errors
    /// Says what is not.
    pub fn check<'a>(
        &self,
        command: &Command<'_>,
        args: usize,
        arg: impl Fn(usize) -> &'a [u8],
    ) -> Result<(), Denied> {
        let mut gravest = Denied::Command;
        for selector in &self.selectors {
            match selector.check(command, args, &arg) {
                Ok(()) => return Ok(()),
                Err(denied) => gravest = gravest.max(denied),
            }
        }
        Err(gravest)
    }

    /// Whether it may listen to this.
    pub fn may_listen(&self, kind: Kind, name: &[u8]) -> bool {
        self.selectors.iter().any(|selector| selector.channels.allow(name, kind == Kind::Pattern))
    }

    /// Whether it may do the same as the other.
    pub fn has_rules_of(&self, other: &Self) -> bool {
        self.selectors == other.selectors
    }

    /// Hashes of its passwords.
    pub fn hashes(&self) -> impl ExactSizeIterator<Item = String> {
        self.passwords.iter().map(Hash::digits)
    }

    /// What it may do, in the words of Redis: commands, keys and channels of each selector.
    pub fn selectors(&self) -> impl ExactSizeIterator<Item = [String; 3]> {
        self.selectors
            .iter()
            .map(|of| [of.commands.to_string(), of.keys.to_string(), of.channels.to_string()])
    }

    /// Memory it holds.
    pub fn bytes(&self) -> usize {
        let selectors: usize = self.selectors.iter().map(Selector::bytes).sum();
        size_of::<Self>() + self.name.len() + self.passwords.len() * size_of::<Hash>() + selectors
    }
}

/// Why a word is no rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WordError {
    /// It is none about commands.
    Command(RuleError),
    /// In these words.
    Other(&'static str),
}

impl User {
    /// One word of the file, which is no selector in parentheses.
    pub(super) fn add(&mut self, word: &str) -> Result<(), WordError> {
        let root = &mut self.selectors[0];
        match (&*word.to_ascii_lowercase(), word.as_bytes()) {
            ("on", _) => self.is_on = true,
            ("off", _) => self.is_on = false,
            ("nopass", _) => (self.needs_none, self.passwords) = (true, Vec::new()),
            ("resetpass", _) => (self.needs_none, self.passwords) = (false, Vec::new()),
            ("reset", _) => *self = Self::new(&self.name),
            ("clearselectors", _) => self.selectors.truncate(1),
            // Of what RESTORE is sent a server judges itself.
            ("sanitize-payload" | "skip-sanitize-payload", _) => {}
            (_, [sign @ (b'>' | b'#' | b'<' | b'!'), secret @ ..]) => {
                let hash = match sign {
                    b'>' | b'<' => {
                        Hash::of(secret).ok_or(WordError::Other("the password is longer than 4096 bytes"))?
                    }
                    _ => Hash::read(secret).ok_or(WordError::Other(
                        "the hash of a password is its SHA-256, 64 hexadecimal digits in lower case",
                    ))?,
                };
                if matches!(sign, b'<' | b'!') {
                    let place = self.passwords.iter().position(|known| *known == hash);
                    let missing =
                        WordError::Other("the user does not have the password that is to be removed");
                    self.passwords.remove(place.ok_or(missing)?);
                } else {
                    self.needs_none = false;
                    if !self.passwords.contains(&hash) {
                        self.passwords.push(hash);
                    }
                }
            }
            _ => root.add(word)?,
        }
        Ok(())
    }
}

impl Selector {
    /// One word.
    pub(super) fn add(&mut self, word: &str) -> Result<(), WordError> {
        const KEYS: &str =
            "a pattern behind ~* or allkeys has no effect; put resetkeys before it, or leave ~* out";
        const CHANNELS: &str =
            "a pattern behind &* or allchannels has no effect; put resetchannels before it, or leave &* out";
        const DATABASES: &str = "the proxy has no rules for databases; leave it out, and give users pools of their own (redis_db)";
        match (&*word.to_ascii_lowercase(), word.as_bytes()) {
            ("allkeys" | "~*", _) => self.keys.set_all(),
            ("resetkeys", _) => self.keys = Keys::NONE,
            ("allchannels" | "&*", _) => self.channels.set_all(),
            ("resetchannels", _) => self.channels = ChannelNames::NONE,
            ("alldbs", _) => {}
            ("resetdbs", _) => return Err(WordError::Other(DATABASES)),
            (lower, _) if lower.starts_with("db=") => return Err(WordError::Other(DATABASES)),
            (_, [b'~' | b'%', ..]) if self.keys.all => return Err(WordError::Other(KEYS)),
            (_, [b'~', pattern @ ..]) => self.keys.add(pattern, Need::BOTH),
            (_, [b'%', rest @ ..]) => {
                const FORM: WordError =
                    WordError::Other("allowed are %R~pattern, %W~pattern and %RW~pattern");
                let end = rest.iter().position(|&byte| byte == b'~').ok_or(FORM)?;
                let may = match &*rest[..end].to_ascii_lowercase() {
                    b"r" => Need::READ,
                    b"w" => Need::WRITE,
                    b"rw" | b"wr" => Need::BOTH,
                    _ => return Err(FORM),
                };
                self.keys.add(&rest[end + 1..], may);
            }
            (_, [b'&', ..]) if self.channels.all => return Err(WordError::Other(CHANNELS)),
            (_, [b'&', pattern @ ..]) => self.channels.add(pattern),
            ("allcommands" | "nocommands", _) | (_, [b'+' | b'-', ..]) => {
                self.commands.add(word).map_err(WordError::Command)?;
            }
            _ => return Err(WordError::Other("it is no rule")),
        }
        Ok(())
    }
}

/// The line of the file that makes such a user, as a server of Redis writes it.
impl fmt::Display for User {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "user {} {}", self.name, if self.is_on { "on" } else { "off" })?;
        if self.needs_none {
            formatter.write_str(" nopass")?;
        }
        for hash in self.hashes() {
            write!(formatter, " #{hash}")?;
        }
        for (place, selector) in self.selectors.iter().enumerate() {
            formatter.write_str(if place == 0 { " " } else { " (" })?;
            let keys = selector.keys.to_string();
            write!(formatter, "{keys}{}", if keys.is_empty() { "" } else { " " })?;
            if !selector.channels.all {
                formatter.write_str("resetchannels ")?;
            }
            let channels = selector.channels.to_string();
            write!(formatter, "{channels}{}", if channels.is_empty() { "" } else { " " })?;
            write!(formatter, "{}{}", selector.commands, if place == 0 { "" } else { ")" })?;
        }
        Ok(())
    }
}

/// Without what lets it in.
impl fmt::Debug for User {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let selectors: Vec<_> = self.selectors().collect();
        write!(formatter, "User({:?} {} {} {selectors:?})", self.name, self.is_on, self.needs_none)
    }
}

impl Command<'_> {
    /// Where its keys stand when it is executed.
    fn specs(&self) -> impl Iterator<Item = &KeySpec> {
        self.executed_keys()
            .iter()
            .filter(|spec| !spec.access.has(access::NOT_KEY) && !matches!(spec.find, Find::Pattern))
    }
}
