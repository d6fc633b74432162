//! Where a RESP message ends.
//!
//! Both decoders remember where they stood: a value of 100 MB is not scanned again at every read. They build no
//! tree of values; the request decoder keeps the places of the first arguments, the response decoder only counts
//! how many values are missing, so nesting costs neither stack nor memory.
//!
//! Strict where a shard is strict: whatever this accepts, Redis reads the same way, or a client could shift the
//! replies of a shared shard connection. Source of limits and error texts: `processMultibulkBuffer` and
//! `processInlineBuffer` as Redis 7.0 answers them on the wire.

use memchr::memchr;

use crate::protocol::strangers::Stranger;
use crate::protocol::{Malformed, Progress, RequestBounds};

/// Longest header line or inline command, as in Redis (`PROTO_INLINE_MAX_SIZE`).
const LINE_MAX: usize = 64 * 1024;
/// Longest bulk string of a request, as in Redis (`proto-max-bulk-len`).
pub const BULK_MAX: u64 = 512 * 1024 * 1024;
/// What is spoken here.
const OWN: &str = "the protocol of Redis";
/// What a client may send before AUTH, as in Redis.
const UNAUTHENTICATED_ARGUMENTS_MAX: i64 = 10;
const UNAUTHENTICATED_BULK_MAX: i64 = 16384;
/// How many arguments are remembered by their place; the rest is walked again where it is needed.
const HEAD: usize = 4;

/// The place of an argument's bytes, counted from the start of its request.
#[derive(Clone, Copy, Default, Debug)]
struct Span {
    start: usize,
    length: usize,
}

/// Decodes one request at a time; once complete, it knows the request's arguments.
#[derive(Default, Debug)]
pub struct RequestDecoder {
    /// Bytes of the request understood so far.
    scanned: usize,
    /// Arguments announced; 0 between requests.
    arguments: usize,
    /// Arguments complete so far.
    complete: usize,
    /// Payload announced by the last `$`, still to come in full (with its CRLF).
    payload: Option<usize>,
    head: [Span; HEAD],
    /// An inline command in array form, which is what shards are sent.
    rewritten: Vec<u8>,
}

/// What [`RequestDecoder::decode`] is held to.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// The largest request.
    pub bounds: RequestBounds,
    /// Before AUTH only small requests are read, as in Redis.
    pub authenticated: bool,
}

impl RequestDecoder {
    /// Looks for the end of the request that `input` starts with. Returns its length, or `None` if it goes on
    /// beyond `input`; call again with the same bytes and more.
    #[inline(always)]
    pub fn decode(&mut self, input: &[u8], limits: RequestLimits) -> Result<Option<usize>, Malformed> {
        match self.decode_short(input, limits.bounds) {
            Some(length) => Ok(Some(length)),
            None => self.decode_any(input, limits),
        }
    }

    /// The way of nearly all requests: few and short arguments that are all there. Whatever else `input` is, or may be when
    /// more of it has come, is left to [`Self::decode_any`].
    #[inline(always)]
    fn decode_short(&mut self, input: &[u8], bounds: RequestBounds) -> Option<usize> {
        if self.arguments != 0 || input.first() != Some(&b'*') {
            return None;
        }
        let (count, mut at) = short_number(input, 1)?;
        if count == 0 || count > bounds.arguments {
            return None;
        }
        for span in self.head.get_mut(..count)? {
            if input.get(at) != Some(&b'$') {
                return None;
            }
            let (length, start) = short_number(input, at + 1)?;
            *span = Span { start, length };
            at = start + length + 2;
            if input.get(at - 2..at) != Some(b"\r\n") {
                return None;
            }
        }
        if at as u64 > bounds.bytes {
            return None;
        }
        self.scanned = at;
        self.arguments = count;
        self.complete = count;
        Some(at)
    }

    #[inline(never)]
    fn decode_any(&mut self, input: &[u8], limits: RequestLimits) -> Result<Option<usize>, Malformed> {
        if self.arguments == 0 {
            match input.first() {
                None => return Ok(None),
                Some(b'*') => {}
                Some(_) => return self.decode_inline(input),
            }
            let Some((count, end)) = number(input, 1)
                .map_err(|fault| fault.of("too big mbulk count string", "invalid multibulk length"))?
            else {
                return Ok(None);
            };
            if count > i64::from(i32::MAX) {
                return Err(Malformed("invalid multibulk length".into()));
            }
            if count > UNAUTHENTICATED_ARGUMENTS_MAX && !limits.authenticated {
                return Err(Malformed("unauthenticated multibulk length".into()));
            }
            // A bound that nobody reaches may be beyond what is counted here.
            if count > i64::try_from(limits.bounds.arguments).unwrap_or(i64::MAX) {
                return Err(Malformed(format!(
                    "request has {count} arguments, more than arguments_max ({})",
                    limits.bounds.arguments
                )));
            }
            self.scanned = end;
            if count <= 0 {
                return Ok(Some(end));
            }
            self.arguments = count as usize;
        }
        while self.complete < self.arguments {
            let length = match self.payload {
                Some(length) => length,
                None => {
                    match input.get(self.scanned) {
                        None => return Ok(None),
                        Some(b'$') => {}
                        Some(&other) => {
                            let other = if other.is_ascii_control() { ' ' } else { other as char };
                            return Err(Malformed(format!("expected '$', got '{other}'")));
                        }
                    }
                    let Some((length, end)) = number(input, self.scanned + 1)
                        .map_err(|fault| fault.of("too big bulk count string", "invalid bulk length"))?
                    else {
                        return Ok(None);
                    };
                    if length < 0 || length as u64 > BULK_MAX {
                        return Err(Malformed("invalid bulk length".into()));
                    }
                    if length > UNAUTHENTICATED_BULK_MAX && !limits.authenticated {
                        return Err(Malformed("unauthenticated bulk length".into()));
                    }
                    if end as u64 + length as u64 + 2 > limits.bounds.bytes {
                        return Err(Malformed(format!(
                            "request is larger than request_bytes_max ({} bytes)",
                            limits.bounds.bytes
                        )));
                    }
                    self.scanned = end;
                    self.payload = Some(length as usize);
                    length as usize
                }
            };
            let end = self.scanned + length;
            match input.get(end..end + 2) {
                None => return Ok(None),
                Some(b"\r\n") => {}
                // Redis skips these two bytes unseen; a shard that does not would lose step with us.
                Some(_) => return Err(Malformed("expected CRLF after a bulk string".into())),
            }
            if let Some(span) = self.head.get_mut(self.complete) {
                *span = Span { start: self.scanned, length };
            }
            self.payload = None;
            self.complete += 1;
            self.scanned = end + 2;
        }
        Ok(Some(self.scanned))
    }

    /// An inline command: words on a line, quoted as in `redis-cli`. It is rewritten as an array.
    fn decode_inline(&mut self, input: &[u8]) -> Result<Option<usize>, Malformed> {
        if let Some(stranger) = Stranger::of_bytes(input) {
            return Err(Malformed(stranger.sentence(OWN)));
        }
        if input[0] == 0x80 {
            // memcached's binary protocol: its header is answered when it is whole, wherever it was cut.
            return Ok(None);
        }
        let Some(newline) = input[self.scanned..].iter().position(|&byte| byte == b'\n') else {
            self.scanned = input.len();
            if input.len() > LINE_MAX {
                return Err(Malformed("too big inline request".into()));
            }
            return Ok(None);
        };
        let newline = self.scanned + newline;
        if newline > LINE_MAX {
            return Err(Malformed("too big inline request".into()));
        }
        let line = input[..newline].strip_suffix(b"\r").unwrap_or(&input[..newline]);
        let memcached = || Stranger::is_memcached(line).then_some(Stranger::Memcached);
        // A browser that was lured here must not get to its next line, nor anybody else.
        if let Some(stranger) = Stranger::of_line(line).or_else(memcached) {
            return Err(Malformed(stranger.sentence(OWN)));
        }
        let words = inline_words(line).ok_or_else(|| Malformed("unbalanced quotes in request".into()))?;
        // As Redis does, quoted or not.
        if words
            .first()
            .is_some_and(|word| word.eq_ignore_ascii_case(b"post") || word.eq_ignore_ascii_case(b"host:"))
        {
            return Err(Malformed(Stranger::Http.sentence(OWN)));
        }
        self.scanned = newline + 1;
        self.arguments = words.len();
        self.complete = words.len();
        self.rewritten.clear();
        super::encode::array(&mut self.rewritten, words.len());
        for (index, word) in words.iter().enumerate() {
            super::encode::bulk(&mut self.rewritten, word);
            if let Some(span) = self.head.get_mut(index) {
                *span = Span { start: self.rewritten.len() - 2 - word.len(), length: word.len() };
            }
        }
        Ok(Some(self.scanned))
    }

    /// Bytes the request is known to need beyond the `received` ones; 0 if that is not known yet.
    pub fn missing(&self, received: usize) -> usize {
        self.payload.map_or(0, |length| (self.scanned + length + 2).saturating_sub(received))
    }

    /// Forgets the request: the next one begins.
    pub fn reset(&mut self) {
        self.scanned = 0;
        self.arguments = 0;
        self.complete = 0;
        self.payload = None;
        if self.rewritten.capacity() > 0 {
            self.rewritten = Vec::new();
        }
    }

    /// Number of arguments of the complete request, the command's name included.
    pub fn argument_count(&self) -> usize {
        self.arguments
    }

    /// The complete request as an array of bulk strings. `input` is what [`Self::decode`] was given, cut at its end.
    pub fn canonical<'b>(&'b self, input: &'b [u8]) -> &'b [u8] {
        if self.rewritten.is_empty() { input } else { &self.rewritten }
    }

    /// Whether the request came as an inline command.
    pub fn is_rewritten(&self) -> bool {
        !self.rewritten.is_empty()
    }

    /// One of the first arguments, by place; `None` beyond those remembered or announced.
    pub fn head<'b>(&self, index: usize, canonical: &'b [u8]) -> Option<&'b [u8]> {
        let span = self.head[..self.arguments.min(HEAD)].get(index)?;
        Some(&canonical[span.start..span.start + span.length])
    }

    /// Where one of the first arguments stands in the canonical request: start and length.
    #[inline]
    pub fn place(&self, index: usize) -> Option<(usize, usize)> {
        let span = self.head[..self.arguments.min(HEAD)].get(index)?;
        Some((span.start, span.length))
    }

    /// All arguments of the complete request, each with its encoded form.
    pub fn arguments<'b>(&self, canonical: &'b [u8]) -> Arguments<'b> {
        let start = canonical.iter().position(|&byte| byte == b'\n').map_or(canonical.len(), |at| at + 1);
        Arguments { canonical, at: start }
    }
}

/// One argument of a request.
#[derive(Clone, Copy, Debug)]
pub struct Argument<'b> {
    /// The bytes it stands for.
    pub value: &'b [u8],
    /// Its bulk string, `$length` and final CRLF included.
    pub encoded: &'b [u8],
}

/// Walks the arguments of a request that was found complete.
#[derive(Clone, Debug)]
pub struct Arguments<'b> {
    canonical: &'b [u8],
    at: usize,
}

impl<'b> Iterator for Arguments<'b> {
    type Item = Argument<'b>;

    #[inline]
    fn next(&mut self) -> Option<Argument<'b>> {
        let rest = &self.canonical[self.at..];
        let mut length = 0;
        let mut start = 1;
        // The decoder has seen these digits and their CRLF.
        while let Some(digit) = rest.get(start).filter(|byte| byte.is_ascii_digit()) {
            length = length * 10 + usize::from(digit - b'0');
            start += 1;
        }
        start += 2;
        let encoded = rest.get(..start + length + 2)?;
        self.at += encoded.len();
        Some(Argument { value: &encoded[start..start + length], encoded })
    }
}

/// Decodes one response at a time, counting the values that are still missing.
#[derive(Default, Debug)]
pub struct ResponseDecoder {
    /// Values still to come; 0 between responses.
    values: u64,
    /// Payload bytes still to come of the current bulk string, its CRLF included.
    payload: u64,
    /// A line has begun and not ended; however long it is, it is passed on as it comes.
    line: bool,
    /// Set by the first byte: a push is no response to any request.
    push: bool,
}

impl ResponseDecoder {
    /// Understands as much of `unread` as it can; what it has understood it need not see again.
    pub fn decode(&mut self, unread: &[u8]) -> Result<Progress, Malformed> {
        let mut at = 0;
        if self.values == 0 {
            let Some(first) = unread.first() else {
                return Ok(Progress { length: 0, complete: false, push: false });
            };
            self.values = 1;
            self.push = *first == b'>';
        }
        loop {
            if self.payload > 0 {
                let available = (unread.len() - at) as u64;
                // The last two bytes are looked at together: they must be CRLF.
                if available < self.payload {
                    let taken = available.min(self.payload.saturating_sub(2));
                    self.payload -= taken;
                    return Ok(self.progress(at + taken as usize, false));
                }
                let end = at + self.payload as usize;
                if &unread[end - 2..end] != b"\r\n" {
                    return Err(Malformed("bulk string without CRLF at its end".into()));
                }
                self.payload = 0;
                self.values -= 1;
                at = end;
            }
            if self.line {
                let rest = &unread[at..];
                let Some(newline) = memchr(b'\n', rest) else {
                    // CR is looked at together with what follows it.
                    let taken = rest.len() - usize::from(rest.last() == Some(&b'\r'));
                    return Ok(self.progress(at + taken, false));
                };
                if newline == 0 || rest[newline - 1] != b'\r' {
                    return Err(Malformed("line without CR".into()));
                }
                self.line = false;
                self.values -= 1;
                at += newline + 1;
            }
            if self.values == 0 {
                return Ok(self.progress(at, true));
            }
            let Some(&kind) = unread.get(at) else { return Ok(self.progress(at, false)) };
            match kind {
                b'$' | b'*' | b'%' | b'~' | b'|' | b'>' | b'=' | b'!' => {
                    let Some((count, end)) =
                        number(unread, at + 1).map_err(|fault| fault.of("line too long", "bad number"))?
                    else {
                        return Ok(self.progress(at, false));
                    };
                    at = end;
                    match kind {
                        b'$' | b'*' if count == -1 => self.values -= 1,
                        _ if count < 0 => return Err(Malformed("negative length".into())),
                        b'$' | b'=' | b'!' => self.payload = count as u64 + 2,
                        b'%' => self.expect(2 * count as u64)?,
                        // An attribute comes before the value it describes.
                        b'|' => self.expect(2 * count as u64 + 1)?,
                        _ => self.expect(count as u64)?,
                    }
                }
                b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {
                    self.line = true;
                    at += 1;
                }
                other => return Err(Malformed(format!("unknown type {:?}", char::from(other)))),
            }
        }
    }

    /// Payload bytes the current bulk string still needs; what the next read should have room for.
    pub fn missing(&self) -> u64 {
        self.payload
    }

    /// The current value is an aggregate of `count` values.
    fn expect(&mut self, count: u64) -> Result<(), Malformed> {
        self.values = (self.values - 1)
            .checked_add(count)
            .filter(|&values| values < 1 << 48)
            .ok_or_else(|| Malformed("too many values".into()))?;
        Ok(())
    }

    fn progress(&self, length: usize, complete: bool) -> Progress {
        Progress { length, complete, push: self.push }
    }
}

enum NumberFault {
    TooLong,
    Invalid,
}

impl NumberFault {
    fn of(self, too_long: &str, invalid: &str) -> Malformed {
        Malformed(match self {
            Self::TooLong => too_long.into(),
            Self::Invalid => invalid.into(),
        })
    }
}

/// The number that starts at `at` and ends in CRLF, and where the next line begins. `None` if CRLF has not come yet.
/// As strict as Redis' `string2ll`: no plus, no leading zeros, no blanks. Judged only once the line is complete or too
/// long for a number, so that it does not matter where the bytes were cut.
#[inline]
fn number(input: &[u8], at: usize) -> Result<Option<(i64, usize)>, NumberFault> {
    let line = &input[at.min(input.len())..];
    let negative = line.first() == Some(&b'-');
    let digits = usize::from(negative);
    let mut value: i64 = 0;
    let mut end = digits;
    while let Some(digit @ b'0'..=b'9') = line.get(end)
        && end < NUMBER_MAX
    {
        value = value.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
        end += 1;
    }
    match line.get(end..end + 2) {
        Some(b"\r\n") if end < NUMBER_MAX => {}
        _ => return unfinished_number(line),
    }
    let length = end - digits;
    if length == 0 || (length > 1 && line[digits] == b'0') || (negative && value == 0) {
        return Err(NumberFault::Invalid);
    }
    Ok(Some((if negative { -value } else { value }, at + end + 2)))
}

/// A number of up to four digits and its CRLF, with the place behind them; `None` for everything else.
#[inline(always)]
fn short_number(input: &[u8], at: usize) -> Option<(usize, usize)> {
    let digit = |at: usize| {
        input.get(at).map(|byte| usize::from(byte.wrapping_sub(b'0'))).filter(|&digit| digit < 10)
    };
    let mut value = digit(at)?;
    let mut end = at + 1;
    // Nothing follows a leading zero.
    while value > 0
        && end < at + 4
        && let Some(next) = digit(end)
    {
        value = value * 10 + next;
        end += 1;
    }
    (input.get(end..end + 2) == Some(b"\r\n")).then_some((value, end + 2))
}

/// Longest number that is read: no length has more digits, and so many cannot overflow.
const NUMBER_MAX: usize = 19;

/// A line that is no number as far as it has come: is it wrong, or not all there?
#[cold]
fn unfinished_number(line: &[u8]) -> Result<Option<(i64, usize)>, NumberFault> {
    match line.iter().take(LINE_MAX + 1).position(|&byte| byte == b'\r') {
        None if line.len() > LINE_MAX => Err(NumberFault::TooLong),
        None => Ok(None),
        // The byte behind CR decides, once it has come.
        Some(end) if end + 1 == line.len() => Ok(None),
        Some(_) => Err(NumberFault::Invalid),
    }
}

/// Splits an inline command into words, with the quoting of Redis' `sdssplitargs`: double quotes know `\n \r \t \b
/// \a \xHH`, single quotes only `\'`. `None` if the quotes are not balanced.
fn inline_words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        while let [first, tail @ ..] = rest {
            if !is_space(*first) {
                break;
            }
            rest = tail;
        }
        // A NUL ends the line for Redis, which reads it as a C string.
        if rest.first().is_none_or(|&byte| byte == 0) {
            return Some(words);
        }
        let mut word = Vec::new();
        loop {
            match rest {
                [b'"', tail @ ..] => {
                    rest = double_quoted(tail, &mut word)?;
                    break;
                }
                [b'\'', tail @ ..] => {
                    rest = single_quoted(tail, &mut word)?;
                    break;
                }
                // Fewer bytes end a word than may stand between words.
                [byte, tail @ ..] if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0) => {
                    word.push(*byte);
                    rest = tail;
                }
                _ => break,
            }
        }
        words.push(word);
    }
}

fn double_quoted<'l>(mut rest: &'l [u8], word: &mut Vec<u8>) -> Option<&'l [u8]> {
    loop {
        match rest {
            [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
                word.push(digit(high)? * 16 + digit(low)?);
                rest = tail;
            }
            [b'\\', escaped, tail @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = tail;
            }
            [b'"', tail @ ..] => return after_quote(tail),
            [byte, tail @ ..] => {
                word.push(*byte);
                rest = tail;
            }
            [] => return None,
        }
    }
}

fn single_quoted<'l>(mut rest: &'l [u8], word: &mut Vec<u8>) -> Option<&'l [u8]> {
    loop {
        match rest {
            [b'\\', b'\'', tail @ ..] => {
                word.push(b'\'');
                rest = tail;
            }
            [b'\'', tail @ ..] => return after_quote(tail),
            [byte, tail @ ..] => {
                word.push(*byte);
                rest = tail;
            }
            [] => return None,
        }
    }
}

/// A closing quote must be followed by a blank or the end.
fn after_quote(rest: &[u8]) -> Option<&[u8]> {
    rest.first().is_none_or(|&byte| is_space(byte)).then_some(rest)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}
