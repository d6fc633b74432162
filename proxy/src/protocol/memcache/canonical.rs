//! The canonical form of a request: how shards are sent it, whatever the client wrote.
//!
//! What servers of different age may read differently, and every wish to get no reply, is not in it.

use super::commands::{Command, Everywhere, Handling, Meta};
use super::words::{Words, number, unsigned, words};

/// The line of a request that is to be served.
pub(super) struct Line<'w> {
    pub command: &'static Command,
    pub words: &'w Words,
    /// Its last word asks for no reply.
    pub noreply: bool,
    /// It asks for no reply, by a word or a flag.
    pub is_quiet: bool,
}

impl Line<'_> {
    /// Whether it is not in canonical form.
    #[inline]
    pub fn is_unusual(&self, input: &[u8]) -> bool {
        if self.is_quiet || self.words.is_indented() {
            return true;
        }
        let word = |index: usize| self.words.place(index).map_or(&[][..], |place| &input[place]);
        match self.command.handling {
            Handling::Value => {
                self.words.count != self.command.words_min
                    || !(2..self.command.words_min).all(|index| is_plain(word(index)))
                    || !is_plain_time(word(3))
            }
            Handling::Meta(Meta::Set) => !is_plain(word(2)),
            Handling::Everywhere(Everywhere::Version) => self.words.count > 1,
            _ => false,
        }
    }

    /// The request in canonical form, and the words of its line. `value` is what follows the line, with its line end.
    pub fn rewrite(&self, input: &[u8], value: Option<&[u8]>) -> (Vec<u8>, Words) {
        let (kept, flags_first) = match self.command.handling {
            Handling::Value => (self.command.words_min, usize::MAX),
            Handling::Meta(Meta::Set) => (usize::MAX, 3),
            Handling::Meta(_) => (usize::MAX, 2),
            Handling::Everywhere(Everywhere::Version) => (1, usize::MAX),
            _ => (self.words.count - usize::from(self.noreply), usize::MAX),
        };
        let value = value.unwrap_or_default();
        let mut out = Vec::with_capacity(self.words.line_end + 2 + value.len());
        for (index, word) in words(&input[..self.words.line_end]).enumerate().take(kept) {
            if index >= flags_first && word[0] == b'q' {
                continue;
            }
            if index > 0 {
                out.push(b' ');
            }
            let is_number = match self.command.handling {
                Handling::Value => index >= 2,
                Handling::Meta(Meta::Set) => index == 2,
                _ => false,
            };
            match (is_number, index) {
                (false, _) => out.extend_from_slice(word),
                // memcached keeps the lower 32 bits of an expiration time.
                (true, 3) => out.extend((number(word).unwrap_or(0) as i32).to_string().bytes()),
                (true, _) => out.extend(unsigned(word).unwrap_or(0).to_string().bytes()),
            }
        }
        let line = Words::of(&out);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(value);
        (out, line)
    }
}

/// Whether every server reads the number in the same way: newer ones count digits, and zeros in front are some.
#[inline]
fn is_plain(word: &[u8]) -> bool {
    word.iter().all(u8::is_ascii_digit) && (word.len() == 1 || word[0] != b'0')
}

/// Whether it certainly fits 32 bits.
#[inline]
fn is_plain_time(word: &[u8]) -> bool {
    word.len() < 10 || (word.len() == 10 && word[0] == b'1')
}
