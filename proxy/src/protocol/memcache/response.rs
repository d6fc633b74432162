//! Where a response of memcached's text protocol ends, and whether its request can have it.
//!
//! Source: memcached's `doc/protocol.txt`, and memcached 1.6.18 on the wire where that is silent.

use memchr::memchr;

use super::commands::{Answers, LINE_MAX, VALUE_MAX};
use crate::protocol::{Malformed, Progress};

/// No word that a response begins with is longer.
const WORD_MAX: usize = 32;
/// Longest line before a value, far above what servers send.
const VALUE_LINE_MAX: usize = 8 * 1024;

/// Decodes responses.
#[derive(Default, Debug)]
pub struct ResponseDecoder {
    /// Lines of a list have come: it goes on until its END.
    list: bool,
    /// Bytes of a value that are still to come, with the line end after it.
    value: u64,
    /// The line at hand goes on, and ends the response or not.
    line: Option<Line>,
}

/// A line that ends a response, or does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Line {
    Last,
    OfList,
}

impl ResponseDecoder {
    /// Understands as much of `unread` as it can.
    pub fn decode(&mut self, unread: &[u8]) -> Result<Progress, Malformed> {
        let mut length = 0;
        let complete = loop {
            if self.value > 0 {
                let most = usize::try_from(self.value - 2).unwrap_or(usize::MAX);
                let taken = most.min(unread.len() - length);
                length += taken;
                self.value -= taken as u64;
                if self.value > 2 || unread.len() - length < 2 {
                    break false;
                }
                if unread[length..length + 2] != *b"\r\n" {
                    return Err(Malformed("expected CRLF after a value".into()));
                }
                length += 2;
                self.value = 0;
                if !self.list {
                    break true;
                }
            }
            let rest = &unread[length..];
            let Some(newline) = memchr(b'\n', rest) else {
                length += self.begin_long_line(rest)?;
                break false;
            };
            if let Some(line) = self.line.take() {
                if rest[..newline].last() != Some(&b'\r') {
                    return Err(Malformed("expected CRLF after a line".into()));
                }
                length += newline + 1;
                if line == Line::Last {
                    break true;
                }
                continue;
            }
            let Some(line) = rest[..newline].strip_suffix(b"\r") else {
                return Err(Malformed("expected CRLF after a line".into()));
            };
            length += newline + 1;
            if line.starts_with(b"VALUE ") {
                self.list = true;
                self.value = value_length(line, 3)? + 2;
            } else if line.starts_with(b"STAT ") || line.starts_with(b"ITEM ") {
                self.list = true;
            } else if line.starts_with(b"VA ") && !self.list {
                self.value = value_length(line, 1)? + 2;
            } else if line == b"END" || is_error(line) || (!self.list && is_word(line)) {
                break true;
            } else {
                return Err(unexpected(line));
            }
        };
        if complete {
            self.list = false;
        }
        Ok(Progress { length, complete, push: false })
    }

    /// A line whose end has not come: how much of it is understood. A long one is passed on as a value is.
    fn begin_long_line(&mut self, rest: &[u8]) -> Result<usize, Malformed> {
        if self.line.is_none() {
            if rest.len() < LINE_MAX {
                return Ok(0);
            }
            if rest.starts_with(b"VALUE ") || rest.starts_with(b"VA ") {
                if rest.len() > VALUE_LINE_MAX {
                    return Err(Malformed("a line without end before a value".into()));
                }
                return Ok(0);
            }
            let is_of_list = rest.starts_with(b"STAT ");
            if !rest[..WORD_MAX].contains(&b' ') {
                return Err(unexpected(rest));
            }
            if !is_of_list && (self.list || !is_word(rest)) && !is_error(rest) {
                return Err(unexpected(rest));
            }
            self.list |= is_of_list;
            self.line = Some(if is_of_list { Line::OfList } else { Line::Last });
        }
        // CR is looked at together with what follows it.
        Ok(rest.len() - usize::from(rest.last() == Some(&b'\r')))
    }

    /// Bytes of the value at hand that are still to come.
    pub fn missing(&self) -> u64 {
        self.value
    }
}

/// Whether the line looks like memcached's: it begins with a word in upper case or with a number.
fn is_word(line: &[u8]) -> bool {
    line.first().is_some_and(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

fn unexpected(line: &[u8]) -> Malformed {
    let start = String::from_utf8_lossy(&line[..line.len().min(32)]).into_owned();
    Malformed(format!("unexpected line {start:?}"))
}

/// Whether a line tells an error: it begins with one of memcached's words for that.
pub fn is_error(line: &[u8]) -> bool {
    let is_word = |word: &&[u8]| {
        line.strip_prefix(*word).is_some_and(|rest| matches!(rest.first(), None | Some(b' ' | b'\r')))
    };
    [&b"ERROR"[..], b"CLIENT_ERROR", b"SERVER_ERROR"].iter().any(is_word)
}

/// Whether a response that begins so can be one of these.
#[inline]
pub fn fits(expected: Answers, response: &[u8]) -> bool {
    let end = response.iter().position(|byte| matches!(byte, b' ' | b'\r')).unwrap_or(response.len());
    let word = &response[..end];
    expected.words().contains(&word)
        || (expected == Answers::Number && !word.is_empty() && word.iter().all(u8::is_ascii_digit))
        || is_error(response)
}

/// The length of the value that follows the line: its word at `index`, where words have one space between them.
#[inline]
pub fn value_length(line: &[u8], index: usize) -> Result<u64, Malformed> {
    let mut rest = line;
    for _ in 0..index {
        rest = memchr(b' ', rest).map_or(&[][..], |space| &rest[space + 1..]);
    }
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, after) = rest.split_at(digits.min(LENGTH_DIGITS_MAX));
    let length = digits.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0'));
    if digits.is_empty() || !matches!(after.first(), None | Some(b' ')) || length > VALUE_MAX {
        return Err(Malformed("invalid length of a value".into()));
    }
    Ok(length)
}

/// More digits than the length of a value ever has, and fewer than overflow.
const LENGTH_DIGITS_MAX: usize = 18;
