//! RENAME, RENAMENX and COPY over several shards: DUMP and PTTL where the value is, RESTORE where it is to be, and DEL.
//!
//! What DUMP says is understood by servers of the same version and later ones, of the same family at least; others say so.
//! Source: <https://redis.io/docs/latest/commands/restore/>.

use std::ops::Range;

use bytes::Bytes;

use super::command::index;
use super::decode::RequestDecoder;
use super::session::number;
use super::waiting::words_of;
use super::{Resp, encode};
use crate::protocol::{Heard, Protocol, Spread, Transfer, TransferKind, Transferred, Transferring};

/// What is said of a response that cannot be the one to what was asked.
const ODD: &[u8] = b"an unexpected response";

/// The words of a response that is an error, or of one that is none of those that there can be.
fn refused<T>(response: &[u8]) -> Heard<'_, T> {
    match response.strip_prefix(b"-") {
        Some(words) => Heard::Refused(words.trim_ascii_end()),
        None => Heard::Refused(ODD),
    }
}

impl Transferring for Resp {
    fn transfer(request: &[u8], database: u32) -> Option<Result<Transfer, String>> {
        let mut decoder = RequestDecoder::default();
        let words = words_of(&mut decoder, request)?;
        let row = index::lookup(words[0])?;
        let kind = row.transfers?;
        let (source, destination) = (words.get(1)?, words.get(2)?);
        let mut replaces = kind == TransferKind::Renames;
        let mut options = words[3..].iter();
        while let Some(option) = options.next() {
            match options.as_slice().first() {
                _ if option.eq_ignore_ascii_case(b"REPLACE") => replaces = true,
                Some(named) if option.eq_ignore_ascii_case(b"DB") => {
                    if number(named) != Some(i64::from(database)) {
                        let words =
                            "ERR '{}' to another database is refused where the keys are on several shards";
                        return Some(Err(words.replace("{}", row.name)));
                    }
                    options.next();
                }
                _ => return Some(Err("ERR syntax error".into())),
            }
        }
        let (source, destination) = (Bytes::copy_from_slice(source), Bytes::copy_from_slice(destination));
        Some(Ok(Transfer { name: row.name, kind, replaces, source, destination }))
    }

    fn untransferred(spread: Spread) -> String {
        let why = Self::spread_keys(spread).trim_end();
        format!(
            "{why}; with rename_across_shards the proxy copies the value to the other shard, though not atomically\r\n"
        )
    }

    fn ask_lifetime(source: &[u8], out: &mut Vec<u8>) {
        encode::request(out, &[b"PTTL", source]);
    }

    fn lifetime(response: &[u8]) -> Heard<'_, Option<u64>> {
        let Some(digits) = response.strip_prefix(b":") else { return refused(response) };
        match number(digits.trim_ascii_end()) {
            Some(-2) => Heard::Nothing,
            Some(-1) => Heard::Done(None),
            // None at all would be for ever where it is written.
            Some(millis) if millis >= 0 => Heard::Done(Some(millis.unsigned_abs().max(1))),
            _ => refused(response),
        }
    }

    fn ask_value(source: &[u8], out: &mut Vec<u8>) {
        encode::request(out, &[b"DUMP", source]);
    }

    fn value(response: &[u8]) -> Heard<'_, Range<usize>> {
        if matches!(response, b"$-1\r\n" | b"_\r\n") {
            return Heard::Nothing;
        }
        let head = response.iter().position(|&byte| byte == b'\n').filter(|_| response.starts_with(b"$"));
        match head {
            Some(end) if response.len() >= end + 3 => Heard::Done(end + 1..response.len() - 2),
            _ => refused(response),
        }
    }

    fn store(transfer: &Transfer, lifetime: Option<u64>, value: &[u8], out: &mut Vec<u8>) {
        let lifetime = lifetime.unwrap_or(0).to_string();
        let words: [&[u8]; 5] = [b"RESTORE", &transfer.destination, lifetime.as_bytes(), value, b"REPLACE"];
        encode::request(out, if transfer.replaces { &words[..] } else { &words[..4] });
    }

    fn stored(response: &[u8]) -> Heard<'_, ()> {
        match response {
            b"+OK\r\n" => Heard::Done(()),
            [b'-', words @ ..] if words.starts_with(b"BUSYKEY") => Heard::Nothing,
            _ => refused(response),
        }
    }

    fn why_unstored(words: &[u8]) -> &'static str {
        if words.starts_with(b"ERR DUMP payload version") || words.starts_with(b"ERR Bad data format") {
            ", which may run an older version of the server, or another one, than the shard that has the value"
        } else {
            ""
        }
    }

    fn remove(source: &[u8], out: &mut Vec<u8>) {
        encode::request(out, &[b"DEL", source]);
    }

    fn removed(response: &[u8]) -> Heard<'_, ()> {
        if response.starts_with(b":") { Heard::Done(()) } else { refused(response) }
    }

    fn transferred(transfer: &Transfer, outcome: Transferred, reply: &mut Vec<u8>) {
        match (transfer.kind, outcome) {
            (TransferKind::Renames, Transferred::Done) => encode::simple(reply, "OK"),
            (TransferKind::Renames | TransferKind::RenamesIfNew, Transferred::Missing) => {
                encode::error(reply, "ERR no such key");
            }
            (_, Transferred::Done) => encode::integer(reply, 1),
            (_, Transferred::Missing | Transferred::Occupied) => encode::integer(reply, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        encode::request(&mut out, words);
        out
    }

    fn of(words: &[&[u8]]) -> Option<Result<(bool, TransferKind), String>> {
        Some(Resp::transfer(&request(words), 3)?.map(|transfer| (transfer.replaces, transfer.kind)))
    }

    #[test]
    fn what_a_request_asks_for() {
        use TransferKind::*;
        assert_eq!(of(&[b"rename", b"a", b"b"]), Some(Ok((true, Renames))));
        assert_eq!(of(&[b"RENAMENX", b"a", b"b"]), Some(Ok((false, RenamesIfNew))));
        assert_eq!(of(&[b"COPY", b"a", b"b"]), Some(Ok((false, Copies))));
        assert_eq!(of(&[b"COPY", b"a", b"b", b"db", b"3", b"replace"]), Some(Ok((true, Copies))));
        assert!(of(&[b"COPY", b"a", b"b", b"DB", b"4"]).is_some_and(|transfer| transfer.is_err()));
        assert_eq!(of(&[b"COPY", b"a", b"b", b"DB"]), Some(Err("ERR syntax error".into())));
        assert_eq!(of(&[b"SMOVE", b"a", b"b", b"c"]), None);
    }

    #[test]
    fn a_value_that_is_about_to_expire_does_not_live_for_ever() {
        assert_eq!(Resp::lifetime(b":0\r\n"), Heard::Done(Some(1)));
        assert_eq!(Resp::lifetime(b":-1\r\n"), Heard::Done(None));
        assert_eq!(Resp::lifetime(b":-2\r\n"), Heard::Nothing);
        assert_eq!(Resp::lifetime(b"-NOPERM no\r\n"), Heard::Refused(b"NOPERM no"));
        assert_eq!(Resp::lifetime(b"+x\r\n"), Heard::Refused(ODD));
    }

    #[test]
    fn a_value_has_any_bytes() {
        for value in [&b""[..], b"\r\n", b"$-1\r\n", b"\x00\xff\n"] {
            let mut response = Vec::new();
            encode::bulk(&mut response, value);
            match Resp::value(&response) {
                Heard::Done(place) => assert_eq!(&response[place], value),
                heard => panic!("{heard:?}"),
            }
        }
        assert_eq!(Resp::value(b"$-1\r\n"), Heard::Nothing);
        assert_eq!(Resp::value(b"_\r\n"), Heard::Nothing);
        assert_eq!(Resp::value(b":1\r\n"), Heard::Refused(ODD));
    }
}
