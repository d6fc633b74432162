//! Kinds of settings: what may be written, in words, as a value, and as a schema. A row of the table has one, so what is shown to
//! people, what is accepted and what a default is read by cannot disagree.

use std::fmt;
use std::time::Duration;

use super::mistake::did_you_mean;
use super::value::{boolean, duration, number, percent, size};

/// What may be written as the value of a setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number from the first to the second.
    Whole(u64, u64),
    /// A share of a whole, such as `80%`.
    Percent,
    /// A number with a unit of time; a bare number is milliseconds.
    Duration,
    /// The same, but not 0.
    Positive,
    /// A duration, or `none` or 0 for no limit.
    Limit,
    /// A number of bytes, with or without a unit.
    Size,
    /// This, or -1 for nothing.
    Off(&'static Kind),
    /// This, or the word `auto`.
    Auto(&'static Kind),
    /// Any string; what it has to look like, in words. Its reader judges it.
    Text(&'static str),
    /// The same, and nobody is ever shown what was written.
    Secret(&'static str),
    /// A list or mapping, in words.
    Node(&'static str),
}

/// What was written, as its kind understands it.
pub enum Written {
    /// A truth value.
    Flag(bool),
    /// A number: so many, or so many bytes, or so many in a hundred.
    Number(u64),
    /// A duration.
    Duration(Duration),
    /// A word out of the list.
    Word(&'static str),
    /// `none`, `auto` or -1.
    Nothing,
}

impl Kind {
    /// What this text means; an error says what is allowed.
    ///
    /// # Panics
    /// Texts and nodes have readers of their own.
    pub fn read(self, text: &str) -> Result<Written, String> {
        match self {
            Self::Flag => boolean(text).map(Written::Flag),
            Self::Word(words) => match words.iter().find(|word| **word == text) {
                Some(word) => Ok(Written::Word(word)),
                None => {
                    let meant = did_you_mean(text, words.iter().copied());
                    Err(format!("allowed are {}{meant}", words.join(", ")))
                }
            },
            Self::Whole(least, most) => number(text, least, most).map(Written::Number),
            Self::Percent => percent(text).map(|percent| Written::Number(percent.into())),
            Self::Duration => duration(text).map(Written::Duration),
            Self::Positive => match duration(text)? {
                Duration::ZERO => Err("it has to be more than 0".into()),
                duration => Ok(Written::Duration(duration)),
            },
            Self::Limit if text == "none" => Ok(Written::Nothing),
            Self::Limit => match duration(text) {
                Ok(Duration::ZERO) => Ok(Written::Nothing),
                Ok(duration) => Ok(Written::Duration(duration)),
                Err(allowed) => Err(format!("{allowed}; none or 0 is no limit")),
            },
            Self::Size => size(text).map(Written::Number),
            Self::Off(_) if text == "-1" => Ok(Written::Nothing),
            Self::Off(kind) => kind.read(text).map_err(|allowed| format!("{allowed}, or -1")),
            Self::Auto(_) if text == "auto" => Ok(Written::Nothing),
            Self::Auto(kind) => kind.read(text).map_err(|allowed| format!("{allowed}, or auto")),
            Self::Text(_) | Self::Secret(_) | Self::Node(_) => unreachable!("it has a reader of its own"),
        }
    }
}

/// What may be written, as people are shown it.
impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => formatter.write_str("true false"),
            Self::Word(words) => formatter.write_str(&words.join(" ")),
            Self::Whole(least, most) => write!(formatter, "{least} to {most}"),
            Self::Percent => formatter.write_str("0% to 100%"),
            Self::Duration => formatter.write_str("duration"),
            Self::Positive => formatter.write_str("duration above 0"),
            Self::Limit => formatter.write_str("duration or none"),
            Self::Size => formatter.write_str("size"),
            Self::Off(kind) => write!(formatter, "{kind}, -1"),
            Self::Auto(kind) => write!(formatter, "{kind}, auto"),
            Self::Text(words) | Self::Secret(words) | Self::Node(words) => formatter.write_str(words),
        }
    }
}

/// A value of the configuration that some kind of setting has.
pub trait Value: Sized {
    /// None where the kind of the setting is another one.
    fn of(written: Written) -> Option<Self>;
}

impl Value for bool {
    fn of(written: Written) -> Option<Self> {
        if let Written::Flag(flag) = written { Some(flag) } else { None }
    }
}

impl Value for Duration {
    fn of(written: Written) -> Option<Self> {
        if let Written::Duration(duration) = written { Some(duration) } else { None }
    }
}

impl Value for &'static str {
    fn of(written: Written) -> Option<Self> {
        if let Written::Word(word) = written { Some(word) } else { None }
    }
}

impl<T: Value> Value for Option<T> {
    fn of(written: Written) -> Option<Self> {
        if let Written::Nothing = written { Some(None) } else { T::of(written).map(Some) }
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {
        $(impl Value for $number {
            fn of(written: Written) -> Option<Self> {
                if let Written::Number(number) = written { number.try_into().ok() } else { None }
            }
        })*
    };
}

numbers!(u8 u16 u32 u64 usize);
