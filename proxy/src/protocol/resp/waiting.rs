//! Commands that wait for data: for how long they do, and what is said where their time ends sooner.
//!
//! Texts are Redis' own, because clients compare them.

use std::time::Duration;

use super::command::{Command, Handling, TimeoutPlace, Trial, index};
use super::decode::{RequestDecoder, RequestLimits};
use super::{Resp, encode, session};
use crate::protocol::RequestBounds;
use crate::protocol::waiting::{Interruption, Waiting};

/// Redis reads no float that has so many characters.
const FLOAT_MAX: usize = 5 * 1024;

/// Where a timeout stands, and in which unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Timeout {
    Seconds(usize),
    Milliseconds(usize),
}

/// The timeout of a request, if its command waits for data.
fn timeout_of(command: &Command, words: &[&[u8]]) -> Option<Timeout> {
    match command.handling {
        Handling::Block(TimeoutPlace::First) => Some(Timeout::Seconds(1)),
        Handling::Block(TimeoutPlace::Last | TimeoutPlace::BehindEnds) => {
            Some(Timeout::Seconds(words.len() - 1))
        }
        _ => command.waits(words.len(), |index| words[index]).map(Timeout::Milliseconds),
    }
}

/// Whether the request waits for data, and for how long at most; `None` for ever.
pub fn patience(command: &Command, words: &[&[u8]]) -> Result<Option<Option<Duration>>, &'static str> {
    let is_end = |word: &[u8]| word.eq_ignore_ascii_case(b"left") || word.eq_ignore_ascii_case(b"right");
    let Some(timeout) = timeout_of(command, words) else { return Ok(None) };
    if command.handling == Handling::Block(TimeoutPlace::BehindEnds) {
        let ends = &words[words.len() - 3..words.len() - 1];
        if !ends.iter().all(|word| is_end(word)) {
            return Err("ERR syntax error");
        }
    }
    if command.handling == Handling::Block(TimeoutPlace::First) {
        behind_keys(command, words)?;
    }
    let millis = match timeout {
        Timeout::Seconds(at) => match seconds(words[at])? {
            Some(millis) => millis,
            None => return Ok(Some(None)),
        },
        Timeout::Milliseconds(at) => match words.get(at) {
            Some(word) => session::number(word).ok_or("ERR timeout is not an integer or out of range")?,
            // The shard knows what it means.
            None => 0,
        },
    };
    match u64::try_from(millis) {
        Ok(0) => Ok(Some(None)),
        Ok(millis) => Ok(Some(Some(Duration::from_millis(millis)))),
        Err(_) => Err("ERR timeout is negative"),
    }
}

/// Whether all versions of the server read the timeout of the request alike.
pub fn is_plain(command: &Command, words: &[&[u8]]) -> bool {
    match timeout_of(command, words) {
        Some(Timeout::Seconds(at)) => matches!(seconds(words[at]), Ok(Some(_))),
        Some(Timeout::Milliseconds(at)) => at < words.len(),
        None => false,
    }
}

/// What stands behind a number of keys, as the server looks at it before the timeout: from which end, and how many elements.
fn behind_keys(command: &Command, words: &[&[u8]]) -> Result<(), &'static str> {
    const WRONG: &str = "ERR syntax error";
    let Some(Trial::Elements(_, ends)) = command.trial else { return Ok(()) };
    let Some(last) = command.key_positions(words.len(), |index| words[index]).ok().and_then(Iterator::last)
    else {
        return Ok(());
    };
    let mut behind = words[last + 1..].iter();
    let end = behind.next().ok_or(WRONG)?;
    if !ends.iter().any(|known| end.eq_ignore_ascii_case(known.as_bytes())) {
        return Err(WRONG);
    }
    let Some(option) = behind.next() else { return Ok(()) };
    let count = behind.next().filter(|_| option.eq_ignore_ascii_case(b"COUNT")).ok_or(WRONG)?;
    if session::number(count).is_none_or(|count: i64| count < 1) {
        return Err("ERR count should be greater than 0");
    }
    if behind.next().is_some() { Err(WRONG) } else { Ok(()) }
}

/// Seconds as Redis reads them, in milliseconds. `None` where it depends on its version what it makes of them: the shard is to
/// say that.
fn seconds(word: &[u8]) -> Result<Option<i64>, &'static str> {
    let text = std::str::from_utf8(word).ok().filter(|text| text.len() < FLOAT_MAX);
    let number = text.and_then(float).filter(|number| !number.is_nan());
    let number = number.ok_or("ERR timeout is not a float or out of range")?;
    let millis = (number * 1000.0).ceil();
    // It reads more digits than there are here: what is nothing here may be something there, or too little.
    let is_nothing = number == 0.0 && text.is_some_and(|text| text.contains(['p', 'P', 'e', 'E']));
    let is_known = !is_nothing && millis.abs() < i64::MAX as f64;
    Ok(is_known.then_some(millis as i64))
}

/// A number as the C library reads it: also in hexadecimal.
fn float(text: &str) -> Option<f64> {
    let (sign, plain) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    let Some(digits) = plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X")) else {
        return text.parse().ok();
    };
    let (digits, power) = match digits.split_once(['p', 'P']) {
        // What is too large for it is as good as endless.
        Some((digits, power)) => (digits, exponent(power)?),
        None => (digits, 0),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let mut number = 0.0;
    for digit in whole.chars().chain(part.chars()) {
        number = number * 16.0 + f64::from(digit.to_digit(16)?);
    }
    let power = power.saturating_sub(4 * i32::try_from(part.len()).ok()?);
    Some(sign * number * f64::from(power).exp2())
}

/// A power of two: a number with or without its sign.
fn exponent(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(if text.starts_with('-') { i32::MIN / 2 } else { i32::MAX / 2 }))
}

/// The words of a request in the form that shards are sent.
pub fn words_of<'b>(decoder: &'b mut RequestDecoder, request: &'b [u8]) -> Option<Vec<&'b [u8]>> {
    // The decoder counts in 64 bits with a sign.
    let bounds = RequestBounds { bytes: u64::MAX, arguments: i64::MAX as usize };
    let limits = RequestLimits { bounds, authenticated: true };
    decoder.decode(request, limits).ok().flatten()?;
    Some(decoder.arguments(request).map(|argument| argument.value).collect())
}

impl Waiting for Resp {
    fn ask_peer(out: &mut Vec<u8>) -> usize {
        encode::request(out, &[b"CLIENT", b"ID"]);
        1
    }

    fn peer(response: &[u8]) -> Option<i64> {
        session::number(response.strip_prefix(b":")?.trim_ascii_end())
    }

    fn unblock(peer: i64, with_error: bool, out: &mut Vec<u8>) {
        let how: &[u8] = if with_error { b"ERROR" } else { b"TIMEOUT" };
        encode::request(out, &[b"CLIENT", b"UNBLOCK", peer.to_string().as_bytes(), how]);
    }

    fn interruption(response: &[u8]) -> Option<Interruption> {
        let words = response.strip_prefix(b"-UNBLOCKED ")?;
        if words.starts_with(b"client unblocked via CLIENT UNBLOCK") {
            return Some(Interruption::Asked);
        }
        // In the words of each version: a primary has become a replica.
        const CHANGED: &[u8] = b"instance state changed";
        words.windows(CHANGED.len()).any(|part| part == CHANGED).then_some(Interruption::Changed)
    }

    fn unblocked(reply: &mut Vec<u8>) {
        encode::error(reply, "UNBLOCKED client unblocked via CLIENT UNBLOCK");
    }

    /// What `$` and `+` mean is another entry by then, and those in between would be missed.
    fn wait_again(request: &[u8], left: Option<Duration>, out: &mut Vec<u8>) -> bool {
        let mut decoder = RequestDecoder::default();
        let Some(mut words) = words_of(&mut decoder, request) else { return false };
        let Some(command) = index::lookup(words[0]) else { return false };
        let Some(timeout) = timeout_of(command, &words) else { return false };
        let (Timeout::Seconds(at) | Timeout::Milliseconds(at)) = timeout;
        if at >= words.len() || matches!(timeout, Timeout::Milliseconds(_)) && names_latest(&words) {
            return false;
        }
        let left = left.map(|left| {
            // None at all would mean for ever.
            let millis = left.as_millis().max(1);
            match timeout {
                Timeout::Seconds(_) => format!("{}.{:03}", millis / 1000, millis % 1000),
                Timeout::Milliseconds(_) => millis.to_string(),
            }
        });
        if let Some(left) = &left {
            words[at] = left.as_bytes();
        }
        encode::request(out, &words);
        true
    }

    fn keys_of(request: &[u8], keys: &mut Vec<(usize, usize)>) {
        let mut decoder = RequestDecoder::default();
        let Some(words) = words_of(&mut decoder, request) else { return };
        let Some(command) = index::lookup(words[0]) else { return };
        let Ok(positions) = command.key_positions(words.len(), |index| words[index]) else { return };
        let base = request.as_ptr() as usize;
        keys.extend(positions.map(|at| (words[at].as_ptr() as usize - base, words[at].len())));
    }
}

/// Whether entries of streams are named by what is there when the request comes.
fn names_latest(words: &[&[u8]]) -> bool {
    words.iter().any(|word| matches!(*word, b"$" | b"+"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Vec<u8> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut request = Vec::new();
        encode::request(&mut request, &words);
        request
    }

    fn patience_of(line: &str) -> Result<Option<Option<Duration>>, &'static str> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        patience(index::lookup(words[0]).expect("a command"), &words)
    }

    #[test]
    fn timeouts_are_read_as_redis_reads_them() {
        const NO_FLOAT: &str = "ERR timeout is not a float or out of range";
        const NO_INTEGER: &str = "ERR timeout is not an integer or out of range";
        let millis = |millis| Ok(Some(Some(Duration::from_millis(millis))));
        for (line, expected) in [
            ("BLPOP k 1", millis(1000)),
            ("BLPOP k 0.0001", millis(1)),
            ("BLPOP k 1e1", millis(10_000)),
            ("BLPOP k .5", millis(500)),
            ("BLPOP a b 0", Ok(Some(None))),
            ("BLPOP k -0.0001", Ok(Some(None))),
            ("BLPOP k -1", Err("ERR timeout is negative")),
            // What is too large is negative to Redis 7.0, and out of range to later ones: they say so themselves.
            ("BLPOP k -inf", Ok(Some(None))),
            ("BLPOP k Infinity", Ok(Some(None))),
            ("BLPOP k 1e18", Ok(Some(None))),
            ("BLPOP k -1e18", Ok(Some(None))),
            ("BLPOP k 1e5000", Ok(Some(None))),
            ("BLPOP k 1e-5000", Ok(Some(None))),
            ("BLPOP k 0x1p16384", Ok(Some(None))),
            ("BLPOP k 0x1p-99999999999", Ok(Some(None))),
            ("BLPOP k 0x10", millis(16_000)),
            ("BLPOP k +0X1P-3", millis(125)),
            ("BLPOP k 0x.8", millis(500)),
            ("BLPOP k 0x1.p+1", millis(2000)),
            ("BLPOP k -0x1", Err("ERR timeout is negative")),
            ("BLPOP k 0x", Err(NO_FLOAT)),
            ("BLPOP k 0x.", Err(NO_FLOAT)),
            ("BLPOP k 0x1p", Err(NO_FLOAT)),
            ("BLPOP k 0x1p1q", Err(NO_FLOAT)),
            ("BLPOP k 0x1g", Err(NO_FLOAT)),
            ("BLPOP k 0x+1", Err(NO_FLOAT)),
            ("BLPOP k ++1", Err(NO_FLOAT)),
            ("BLPOP k infin", Err(NO_FLOAT)),
            ("BLPOP k nan", Err(NO_FLOAT)),
            ("BLPOP k 1s", Err(NO_FLOAT)),
            ("BLMPOP 2 1 k LEFT", millis(2000)),
            ("BZMPOP x 1 k MIN", Err(NO_FLOAT)),
            ("BZMPOP x 1 k LEFT", Err("ERR syntax error")),
            ("BLMPOP x 1 k LEFT COUNT", Err("ERR syntax error")),
            ("BLMPOP x 1 k LEFT COUNT 0", Err("ERR count should be greater than 0")),
            ("BLMPOP x 1 k left count 2", Err(NO_FLOAT)),
            ("BLMPOP x 1 k LEFT COUNT 2 x", Err("ERR syntax error")),
            ("BRPOPLPUSH a b 3", millis(3000)),
            ("BLMOVE a b LEFT RIGHT 1", millis(1000)),
            ("BLMOVE a b LEFT UP x", Err("ERR syntax error")),
            ("XREAD BLOCK 5 STREAMS k 0", millis(5)),
            ("XREAD BLOCK 5 BLOCK 7 STREAMS k 0", millis(7)),
            ("XREAD BLOCK 0 STREAMS k 0", Ok(Some(None))),
            ("XREAD BLOCK -1 STREAMS k 0", Err("ERR timeout is negative")),
            ("XREAD BLOCK 0.5 STREAMS k 0", Err(NO_INTEGER)),
            ("XREAD COUNT 1 STREAMS k 0", Ok(None)),
            ("XREAD STREAMS BLOCK 0", Ok(None)),
            ("XREAD NEWS 1 BLOCK 5 STREAMS k 0", Ok(Some(None))),
        ] {
            assert_eq!(patience_of(line), expected, "{line}");
        }
    }

    #[test]
    fn what_is_left_of_a_wait_is_asked_for_in_the_same_words() {
        let left = Some(Duration::from_micros(1_234_567));
        for (line, again) in [
            ("BLPOP a b 9", Some("BLPOP a b 1.234")),
            ("BLMPOP 9 1 k LEFT", Some("BLMPOP 1.234 1 k LEFT")),
            ("BLMOVE a b LEFT RIGHT 9", Some("BLMOVE a b LEFT RIGHT 1.234")),
            ("XREAD BLOCK 1 BLOCK 9 STREAMS k 0", Some("XREAD BLOCK 1 BLOCK 1234 STREAMS k 0")),
            (
                "XREADGROUP GROUP g c BLOCK 9000 STREAMS k >",
                Some("XREADGROUP GROUP g c BLOCK 1234 STREAMS k >"),
            ),
            ("XREAD BLOCK 9000 STREAMS k $", None),
            ("XREAD NEWS 1 BLOCK 5 STREAMS k 0", None),
            ("GET a", None),
        ] {
            let mut out = Vec::new();
            assert_eq!(Resp::wait_again(&request(line), left, &mut out), again.is_some(), "{line}");
            assert_eq!(out, again.map(request).unwrap_or_default(), "{line}");
        }
        let mut out = Vec::new();
        assert!(Resp::wait_again(&request("BLPOP a 9"), Some(Duration::ZERO), &mut out));
        assert_eq!(out, request("BLPOP a 0.001"), "not for ever");
        let mut out = Vec::new();
        assert!(Resp::wait_again(&request("BLPOP a 0"), None, &mut out));
        assert_eq!(out, request("BLPOP a 0"));
    }

    #[test]
    fn keys_are_found_again() {
        let found = |line: &str| {
            let (request, mut keys) = (request(line), Vec::new());
            Resp::keys_of(&request, &mut keys);
            let text =
                |(start, length): (usize, usize)| String::from_utf8_lossy(&request[start..start + length]);
            keys.into_iter().map(|place| text(place).into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(found("BLPOP one two 0"), "one two");
        assert_eq!(found("BLMPOP 0 2 one two LEFT"), "one two");
        assert_eq!(found("XREAD BLOCK 0 STREAMS one two 0 0"), "one two");
    }

    #[test]
    fn errors_that_end_a_wait_are_told_apart() {
        for (words, expected) in [
            ("client unblocked via CLIENT UNBLOCK", Some(Interruption::Asked)),
            (
                "force unblock from blocking operation, instance state changed (master -> replica?)",
                Some(Interruption::Changed),
            ),
            ("the stream key no longer exists", None),
        ] {
            assert_eq!(Resp::interruption(format!("-UNBLOCKED {words}\r\n").as_bytes()), expected);
        }
        assert_eq!(Resp::peer(b":77\r\n"), Some(77));
        assert_eq!(Resp::peer(b"+OK\r\n"), None);
    }
}
