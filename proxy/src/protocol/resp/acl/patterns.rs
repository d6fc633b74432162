//! Patterns of keys and channels that a user may use.

use std::fmt;

use crate::protocol::glob::{self, Pattern};

/// What may become of a key, as a set of bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Need(u8);

impl Need {
    /// Nothing of its value is told or changed: EXISTS.
    pub const NOTHING: Self = Self(0);
    /// Its value is told.
    pub const READ: Self = Self(1);
    /// It is changed.
    pub const WRITE: Self = Self(2);
    /// Both.
    pub const BOTH: Self = Self(3);

    /// And this.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether this covers all of the other.
    #[inline]
    fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A pattern of keys or channels; it may be as long as one likes, and so may what is held against it.
#[derive(Clone)]
pub(super) struct Name {
    text: Box<[u8]>,
    form: Form,
}

#[derive(Clone)]
enum Form {
    /// All that begin like the text, but for its last byte, an asterisk.
    Beginning,
    /// The text itself.
    Literal,
    Other(Pattern),
}

impl Name {
    pub fn new(text: &[u8]) -> Self {
        let literal = glob::beginning(text).len();
        let form = match &text[literal..] {
            b"" => Form::Literal,
            b"*" => Form::Beginning,
            _ => Form::Other(Pattern::of_any_length(text)),
        };
        Self { text: text.into(), form }
    }

    #[inline]
    pub fn matches(&self, name: &[u8]) -> bool {
        match &self.form {
            Form::Beginning => name.starts_with(&self.text[..self.text.len() - 1]),
            Form::Literal => *name == *self.text,
            Form::Other(pattern) => pattern.matches(name),
        }
    }

    /// Whether it is this very text.
    pub fn is(&self, text: &[u8]) -> bool {
        *self.text == *text
    }

    fn bytes(&self) -> usize {
        let read = if let Form::Other(pattern) = &self.form { pattern.bytes() } else { 0 };
        size_of::<Self>() + self.text.len() + read
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&String::from_utf8_lossy(&self.text))
    }
}

/// Keys that may be used.
#[derive(Clone, PartialEq)]
pub(super) struct Keys {
    pub all: bool,
    patterns: Vec<(Name, Need)>,
}

impl Keys {
    pub const NONE: Self = Self { all: false, patterns: Vec::new() };

    pub fn set_all(&mut self) {
        *self = Self { all: true, patterns: Vec::new() };
    }

    pub fn add(&mut self, pattern: &[u8], may: Need) {
        match self.patterns.iter_mut().find(|(known, _)| known.is(pattern)) {
            Some((_, known)) => *known = known.and(may),
            None => self.patterns.push((Name::new(pattern), may)),
        }
    }

    /// Whether that may become of the key.
    #[inline]
    pub fn allow(&self, key: &[u8], need: Need) -> bool {
        self.all || self.patterns.iter().any(|(pattern, may)| may.covers(need) && pattern.matches(key))
    }

    /// Whether that may become of every key.
    pub fn allow_all(&self, need: Need) -> bool {
        self.all || self.patterns.iter().any(|(pattern, may)| may.covers(need) && pattern.is(b"*"))
    }

    pub fn bytes(&self) -> usize {
        self.patterns.iter().map(|(pattern, _)| pattern.bytes() + size_of::<Need>()).sum()
    }
}

/// As a server of Redis shows them.
impl fmt::Display for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.all {
            return formatter.write_str("~*");
        }
        for (place, (pattern, may)) in self.patterns.iter().enumerate() {
            let sign = match *may {
                Need::READ => "%R~",
                Need::WRITE => "%W~",
                _ => "~",
            };
            write!(formatter, "{}{sign}{pattern}", if place == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// Channels that may be used.
#[derive(Clone, PartialEq)]
pub(super) struct ChannelNames {
    pub all: bool,
    patterns: Vec<Name>,
}

impl ChannelNames {
    pub const NONE: Self = Self { all: false, patterns: Vec::new() };

    pub fn set_all(&mut self) {
        *self = Self { all: true, patterns: Vec::new() };
    }

    pub fn add(&mut self, pattern: &[u8]) {
        if !self.patterns.iter().any(|known| known.is(pattern)) {
            self.patterns.push(Name::new(pattern));
        }
    }

    /// Whether the channel may be used, or the pattern, which has to be the very one of the rule.
    pub fn allow(&self, name: &[u8], is_pattern: bool) -> bool {
        let allows = |known: &Name| if is_pattern { known.is(name) } else { known.matches(name) };
        self.all || self.patterns.iter().any(allows)
    }

    pub fn bytes(&self) -> usize {
        self.patterns.iter().map(Name::bytes).sum()
    }
}

/// As a server of Redis shows them.
impl fmt::Display for ChannelNames {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.all {
            return formatter.write_str("&*");
        }
        for (place, pattern) in self.patterns.iter().enumerate() {
            write!(formatter, "{}&{pattern}", if place == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}
