//! Where a request of memcached's text protocol ends.
//!
//! Strict where it has to be: whatever this accepts, memcached reads the same way, or a client could shift the replies
//! of a shared shard connection. What servers of different age may read differently (a word too many, `+1` for a
//! length, spaces in front) reaches them in its plain form only. Nobody but the proxy is asked to be silent: `noreply`
//! and the `q` flag are taken out, and every request on a shard connection has exactly one response.
//!
//! Source: memcached's `doc/protocol.txt`, and memcached 1.6.18 on the wire where that is silent.

use std::ops::Range;

use memchr::memchr;

use super::canonical::Line;
use super::commands::{self, Command, Everywhere, Handling, LINE_MAX, Meta, VALUE_MAX};
use super::meta::{self, Flags};
use super::words::{Words, number, unsigned, words};
use crate::protocol::Malformed;
use crate::protocol::strangers::Stranger;

/// Longest key as it is written, as in memcached (`KEY_MAX_LENGTH`).
const KEY_MAX: usize = 250;
/// From this length on the words of an unfinished line are counted.
const LONG_LINE_MIN: usize = 256 * 1024;

/// What is spoken here.
const OWN: &str = "memcached's text protocol";

/// As memcached says it.
pub const ERROR: &str = "ERROR";
/// As memcached says it.
pub const BAD_LINE: &str = "CLIENT_ERROR bad command line format";
const BAD_DATA: &str = "CLIENT_ERROR bad data chunk";
const TOO_LARGE: &str = "SERVER_ERROR object too large for cache";
const TOO_MANY_FLAGS: &str = "CLIENT_ERROR options flags too long";
const TOO_MANY_FLAGS_OF_GET: &str = "CLIENT_ERROR options flags are too long";
const BAD_EXPTIME: &str = "CLIENT_ERROR invalid exptime argument";

/// What has become of the request at hand.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is to be served.
    #[default]
    Good,
    /// It is answered with this line.
    Refused(&'static str),
    /// These are bytes of a value that was refused before.
    Swallowed,
}

/// Decodes one request at a time; once complete, it knows the request's words.
#[derive(Default, Debug)]
pub struct RequestDecoder {
    /// Bytes searched for the end of the line.
    scanned: usize,
    /// Bytes of an unfinished line whose words were last counted.
    counted: usize,
    /// Length of the whole request, once its line is complete.
    end: Option<usize>,
    /// The value that follows the line, without the line end after it.
    value: Option<Range<usize>>,
    verdict: Verdict,
    /// Bytes of a refused value that come after this request.
    swallow: u64,
    /// How many of them this request is.
    swallowed: u64,
    command: Option<&'static Command>,
    words: Words,
    /// The client wants no reply.
    pub noreply: bool,
    /// What the flags of a meta command ask for.
    pub flags: Flags,
    /// The request as shards are sent it, if it came otherwise.
    rewritten: Vec<u8>,
}

impl RequestDecoder {
    /// Looks for the end of the request that `input` starts with. Returns its length, or `None` if it goes on
    /// beyond `input`; call again with the same bytes and more.
    pub fn decode(&mut self, input: &[u8], request_bytes_max: u64) -> Result<Option<usize>, Malformed> {
        let end = match self.end {
            Some(end) => end,
            None if self.swallow > 0 => {
                let length = usize::try_from(self.swallow).unwrap_or(usize::MAX).min(input.len());
                self.verdict = Verdict::Swallowed;
                self.swallowed = length as u64;
                return Ok((length > 0).then_some(length));
            }
            // memcached's binary protocol: its header is answered when it is whole, wherever it was cut.
            None if input.first() == Some(&0x80) => {
                return match Stranger::of_bytes(input) {
                    Some(stranger) => Err(Malformed(stranger.sentence(OWN))),
                    None => Ok(None),
                };
            }
            None => {
                let newline = match memchr(b'\n', &input[self.scanned..]) {
                    Some(newline) => self.scanned + newline,
                    None => input.len(),
                };
                judge_length(input, newline, request_bytes_max)?;
                if newline == input.len() {
                    if let Some(stranger) = Stranger::of_bytes(input) {
                        return Err(Malformed(stranger.sentence(OWN)));
                    }
                    self.scanned = newline;
                    return Ok(None);
                }
                self.understand(input, newline, request_bytes_max)?;
                *self.end.insert(self.value.as_ref().map_or(newline + 1, |value| value.end + 2))
            }
        };
        if input.len() < end {
            return Ok(None);
        }
        if let Some(value) = &self.value
            && input[value.end..end] != *b"\r\n"
        {
            self.verdict = Verdict::Refused(BAD_DATA);
        }
        if self.rewritten.is_empty()
            && self.verdict == Verdict::Good
            && let Some(line) = self.read_line()
            && line.is_unusual(input)
        {
            let value = self.value.as_ref().map(|value| &input[value.start..end]);
            (self.rewritten, self.words) = line.rewrite(input, value);
        }
        Ok(Some(end))
    }

    /// The line is complete: what it asks for, and how long the value after it is.
    fn understand(&mut self, input: &[u8], newline: usize, request_bytes_max: u64) -> Result<(), Malformed> {
        let line = input[..newline].strip_suffix(b"\r").unwrap_or(&input[..newline]);
        self.words = Words::of(line);
        let length = match self.judge(line) {
            Ok(None) => return Ok(()),
            Ok(Some(length)) => length,
            Err(reply) => {
                // A browser that was lured here must not get to its next line, nor anybody else.
                let redis = || Stranger::is_redis(line).then_some(Stranger::Redis);
                let bytes = || Stranger::of_bytes(input);
                if let Some(stranger) = Stranger::of_line(line).or_else(redis).or_else(bytes) {
                    return Err(Malformed(stranger.sentence(OWN)));
                }
                self.verdict = Verdict::Refused(reply);
                return Ok(());
            }
        };
        let start = newline as u64 + 1;
        if start + length + 2 > request_bytes_max {
            self.verdict = Verdict::Refused(TOO_LARGE);
            self.swallow = length + 2;
            return Ok(());
        }
        self.value = Some(newline + 1..newline + 1 + length as usize);
        Ok(())
    }

    /// Judges the line; returns the length of the value that follows it, if one does, or the line to refuse it with.
    fn judge(&mut self, line: &[u8]) -> Result<Option<u64>, &'static str> {
        if self.words.foul {
            return Err(BAD_LINE);
        }
        let word = |index: usize| self.words.place(index).map_or(&[][..], |place| &line[place]);
        let count = self.words.count;
        let command = commands::lookup(word(0)).ok_or(ERROR)?;
        if count < command.words_min || count > command.words_max {
            return Err(ERROR);
        }
        self.command = Some(command);
        // Commands with `noreply` have few words.
        let is_noreply = |index: usize| word(index) == b"noreply";
        match command.handling {
            Handling::Keys { first } => {
                if self.words.longest > KEY_MAX && words(line).skip(first).any(|key| key.len() > KEY_MAX) {
                    return Err(BAD_LINE);
                }
                if first > 1 && number(word(1)).is_none() {
                    return Err(BAD_EXPTIME);
                }
                Ok(None)
            }
            Handling::Key => {
                // A key may be called so.
                self.noreply = count > 2 && is_noreply(count - 1);
                // Without the last word it would still ask for silence, and the server would keep it.
                let asks_twice = count > 3 && self.noreply && is_noreply(count - 2);
                if word(1).len() > KEY_MAX || asks_twice {
                    return Err(BAD_LINE);
                }
                // `incr k noreply` has nothing to add once the wish is taken out.
                if self.noreply && count == command.words_min { Err(ERROR) } else { Ok(None) }
            }
            Handling::Value => {
                self.noreply = is_noreply(count - 1);
                let flags = number(word(2)).filter(|flags| (0..=i64::from(u32::MAX)).contains(flags));
                let length = value_size(word(4));
                let unique = command.words_min < 6 || unsigned(word(5)).is_some();
                match length {
                    Some(length)
                        if word(1).len() <= KEY_MAX
                            && flags.is_some()
                            && number(word(3)).is_some()
                            && unique =>
                    {
                        Ok(Some(length))
                    }
                    _ => Err(BAD_LINE),
                }
            }
            Handling::Meta(meta) => {
                if count < 2 || word(1).len() > KEY_MAX {
                    return Err(BAD_LINE);
                }
                let flags_first = if meta == Meta::Set { 3 } else { 2 };
                let length = match meta {
                    Meta::Set => Some(value_size(word(2)).ok_or(BAD_LINE)?),
                    _ => None,
                };
                let judged = if count > meta::WORDS_MAX {
                    Err(if meta == Meta::Get { TOO_MANY_FLAGS_OF_GET } else { TOO_MANY_FLAGS })
                } else {
                    meta::judge(meta, words(line).skip(flags_first))
                };
                // Whatever is wrong with the flags: the value is never read as commands.
                self.flags = judged.inspect_err(|_| self.swallow = length.map_or(0, |length| length + 2))?;
                Ok(length)
            }
            Handling::Everywhere(Everywhere::AllOk) => {
                self.noreply = is_noreply(count - 1);
                if count > 2 && self.noreply && is_noreply(count - 2) { Err(BAD_LINE) } else { Ok(None) }
            }
            Handling::Everywhere(Everywhere::Version) | Handling::Answer(_) | Handling::Refuse(_) => Ok(None),
        }
    }

    /// The line, once it is understood.
    #[inline]
    fn read_line(&self) -> Option<Line<'_>> {
        let is_quiet = self.noreply || self.flags.quiet;
        self.command.map(|command| Line { command, words: &self.words, noreply: self.noreply, is_quiet })
    }

    /// Bytes the request is known to need beyond the `received` ones; 0 if that is not known yet.
    pub fn missing(&self, received: usize) -> usize {
        self.end.map_or(0, |end| end.saturating_sub(received))
    }

    /// Forgets the request: the next one begins.
    #[inline]
    pub fn reset(&mut self) {
        *self = Self { swallow: self.swallow - self.swallowed, ..Self::default() };
    }

    /// Whether the next byte begins a request, and is not to be swallowed.
    #[inline]
    pub fn is_between_requests(&self) -> bool {
        self.swallow == 0
    }

    /// What has become of the complete request.
    #[inline]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The row of the request's command.
    #[inline]
    pub fn command(&self) -> Option<&'static Command> {
        self.command
    }

    /// The complete request as shards are sent it. `input` is what [`Self::decode`] was given, cut at its end.
    #[inline]
    pub fn canonical<'b>(&'b self, input: &'b [u8]) -> &'b [u8] {
        if self.rewritten.is_empty() { input } else { &self.rewritten }
    }

    /// Words of a long line that has not ended yet, else 0: a line that has too many is not waited for. They are counted
    /// again only when it has doubled, so that each byte is looked at twice on average.
    #[inline]
    pub fn words_so_far(&mut self, input: &[u8]) -> usize {
        if self.end.is_some() || input.len() < LONG_LINE_MIN.max(2 * self.counted) {
            return 0;
        }
        self.counted = input.len();
        words(input).count()
    }

    /// Number of words in the canonical line.
    #[inline]
    pub fn word_count(&self) -> usize {
        self.words.count
    }

    /// Where one of the first words stands in the canonical request: start and length.
    #[inline]
    pub fn place(&self, index: usize) -> Option<(usize, usize)> {
        self.words.place(index).map(|place| (place.start, place.len()))
    }

    /// The canonical line, without its end.
    pub fn line<'b>(&self, canonical: &'b [u8]) -> &'b [u8] {
        &canonical[..self.words.line_end]
    }
}

/// Whether the line may be as long as it is; it ends at `newline`, or beyond `input` if that is as long.
fn judge_length(input: &[u8], newline: usize, request_bytes_max: u64) -> Result<(), Malformed> {
    if newline <= LINE_MAX {
        return Ok(());
    }
    let command = commands::lookup(words(&input[..LINE_MAX]).next().unwrap_or_default());
    if command.is_none_or(|command| command.handling != (Handling::Keys { first: 1 })) {
        return Err(Malformed(format!("line is longer than {LINE_MAX} bytes")));
    }
    if newline as u64 > request_bytes_max.min(u64::from(u32::MAX)) {
        return Err(Malformed(format!(
            "request is larger than request_bytes_max ({request_bytes_max} bytes)"
        )));
    }
    Ok(())
}

/// The length of a value.
fn value_size(word: &[u8]) -> Option<u64> {
    number(word)?.try_into().ok().filter(|&length| length <= VALUE_MAX)
}
