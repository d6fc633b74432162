//! Split requests: the fragments that go to the shards, and the reply their responses make together.
//!
//! An error in any fragment is the reply to the whole request: leaving out a key that may be there would be a lie.

use std::sync::Arc;

use bytes::Bytes;
use memchr::memchr;

use super::decode::RequestDecoder;
use super::encode;
use super::response;
use super::totals;
use super::words::words;
use crate::buffer::{Output, SHARE_MIN};
use crate::protocol::{Owners, Part};

/// How the responses to the fragments of a request become one reply.
#[derive(Debug)]
pub enum Merge {
    /// The values in the order of the request's keys, one END.
    Values {
        /// The request's line.
        line: Box<[u8]>,
        /// Where its keys stand: start and length.
        keys: Box<[(u32, u32)]>,
    },
    /// The lowest version.
    Version,
    /// OK if all say so, else the first error.
    AllOk,
    /// RESET if all say so, else the first error.
    AllReset,
    /// The statistics of all shards, each name with its shard's in front.
    Stats,
    /// Those of all shards as one server would have them.
    Totals,
    /// The same, behind what the proxy counts itself: these lines.
    General(Box<[u8]>),
    /// Items of all shards, so many at most.
    Items(usize),
}

/// Longest statistics of single servers; what is made of them has a name in front of each line.
const STATS_MAX: usize = 16 << 20;
/// Longest that are added up, for which some ten times as much is needed meanwhile. Those of a server have at most 1 MiB: `stats sizes` of
/// one with items of all sizes.
const TOTALS_MAX: usize = 4 << 20;

/// Writes the fragments; `owners` names the fragment of each key.
pub fn split(
    merge: &Merge,
    decoder: &RequestDecoder,
    canonical: &[u8],
    owners: &[u32],
    fragments: &mut [Vec<u8>],
) {
    let line = decoder.line(canonical);
    match merge {
        Merge::Values { keys, .. } => {
            let start = keys.first().map_or(line.len(), |&(start, _)| start as usize);
            for (index, word) in words(&line[..start]).enumerate() {
                for fragment in &mut *fragments {
                    if index == 0 {
                        fragment.clear();
                    } else {
                        fragment.push(b' ');
                    }
                    fragment.extend_from_slice(word);
                }
            }
            for (&key, &owner) in keys.iter().zip(owners) {
                let fragment = &mut fragments[owner as usize];
                fragment.push(b' ');
                fragment.extend_from_slice(text(line, key));
            }
            for fragment in fragments {
                fragment.extend_from_slice(b"\r\n");
            }
        }
        Merge::Version | Merge::AllOk | Merge::AllReset => {
            for fragment in fragments {
                fragment.clear();
                fragment.extend_from_slice(canonical);
            }
        }
        Merge::Stats | Merge::Totals | Merge::General(_) | Merge::Items(_) => {
            let named = if matches!(merge, Merge::Stats) { 2 } else { 1 };
            for fragment in fragments {
                fragment.clear();
                fragment.extend_from_slice(b"stats");
                for word in words(line).skip(named) {
                    fragment.push(b' ');
                    fragment.extend_from_slice(word);
                }
                fragment.extend_from_slice(b"\r\n");
            }
        }
    }
}

/// Bytes of responses that are kept until all servers have answered. Values are the client's own wish, and count as its replies.
pub fn parts_max(merge: &Merge) -> usize {
    match merge {
        Merge::Values { .. } | Merge::Version | Merge::AllOk | Merge::AllReset => usize::MAX,
        Merge::Stats | Merge::Items(_) => STATS_MAX,
        Merge::Totals | Merge::General(_) => TOTALS_MAX,
    }
}

/// Whether a response cannot be the one to this fragment.
pub fn is_odd(merge: &Merge, owners: &Owners, fragment: u32, response: &[u8]) -> bool {
    let Merge::Values { line, keys } = merge else { return false };
    if response::is_error(response) {
        return false;
    }
    let mut rest = response;
    for &key in owners.keys_of(fragment) {
        rest = &rest[value_of(text(line, keys[key as usize]), rest).unwrap_or(0)..];
    }
    rest != b"END\r\n"
}

/// A key of the line.
fn text(line: &[u8], (start, length): (u32, u32)) -> &[u8] {
    &line[start as usize..][..length as usize]
}

/// The length of the value that `rest` begins with, if it is that of the key.
fn value_of(key: &[u8], rest: &[u8]) -> Option<usize> {
    if !rest.strip_prefix(b"VALUE ")?.strip_prefix(key)?.starts_with(b" ") {
        return None;
    }
    let newline = memchr(b'\n', rest)?;
    let length = response::value_length(&rest[..newline - 1], 3).ok()?;
    Some(newline + 1 + length as usize + 2)
}

/// Joins the responses of all fragments.
pub fn merge(merge: Merge, owners: &Owners, parts: Vec<Part>, reply: &mut Output) {
    match merge {
        Merge::Values { line, keys } => merge_values(&line, &keys, owners, parts, reply),
        Merge::Version => {
            let lowest = parts
                .iter()
                .filter(|part| part.bytes.starts_with(b"VERSION "))
                .min_by_key(|part| version_numbers(&part.bytes));
            match (lowest, parts.first()) {
                (Some(part), _) | (None, Some(part)) => reply.copy(&part.bytes),
                (None, None) => {}
            }
        }
        Merge::AllOk => merge_alike(b"OK\r\n", &parts, reply),
        Merge::AllReset => merge_alike(b"RESET\r\n", &parts, reply),
        Merge::Stats => merge_stats(parts, reply),
        Merge::Totals => totals::merge(&parts, reply),
        Merge::General(own) => totals::merge_with_own(&own, &parts, reply),
        Merge::Items(most) => merge_items(most, &parts, reply),
    }
}

fn merge_values(line: &[u8], keys: &[(u32, u32)], owners: &Owners, parts: Vec<Part>, reply: &mut Output) {
    let well_ended = |part: &&Part| part.bytes.starts_with(b"VALUE ") || part.bytes == b"END\r\n"[..];
    if let Some(odd) = parts.iter().find(|part| !well_ended(part)) {
        return if response::is_error(&odd.bytes) {
            reply.copy(&odd.bytes)
        } else {
            encode::odd_part(reply.tail(), &odd.shard)
        };
    }
    // A part that breaks off with an error has no END.
    if let Some(odd) = parts.iter().find(|part| !part.bytes.ends_with(b"END\r\n")) {
        return encode::odd_part(reply.tail(), &odd.shard);
    }
    let mut merged = Output::default();
    let shards: Vec<Arc<str>> = parts.iter().map(|part| part.shard.clone()).collect();
    let mut values: Vec<Values> = parts.into_iter().map(Values::new).collect();
    for (&key, &owner) in keys.iter().zip(owners.of_keys()) {
        values[owner as usize].move_value_of(text(line, key), &mut merged);
    }
    if let Some(odd) = values.iter().position(|values| values.rest() != b"END\r\n") {
        return encode::odd_part(reply.tail(), &shards[odd]);
    }
    merged.copy(b"END\r\n");
    reply.append(merged);
}

/// The values of one part that have not been used yet.
struct Values {
    bytes: Bytes,
    used: usize,
}

impl Values {
    fn new(part: Part) -> Self {
        Self { bytes: part.bytes.freeze(), used: 0 }
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    /// If the next value is that of the key it goes to the reply; else the key was missed.
    fn move_value_of(&mut self, key: &[u8], reply: &mut Output) {
        let Some(length) = value_of(key, self.rest()) else { return };
        let end = self.used + length;
        if end - self.used < SHARE_MIN {
            reply.copy(&self.bytes[self.used..end]);
        } else {
            reply.share(self.bytes.slice(self.used..end));
        }
        self.used = end;
    }
}

fn merge_stats(parts: Vec<Part>, reply: &mut Output) {
    for part in &parts {
        let name = &part.shard;
        for line in part.bytes[..].split(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            match line.strip_prefix(b"STAT ") {
                Some(rest) => {
                    let out = reply.tail();
                    out.extend_from_slice(b"STAT ");
                    out.extend(name.bytes().map(|byte| if byte == b' ' { b'_' } else { byte }));
                    out.push(b':');
                    out.extend_from_slice(rest);
                    out.extend_from_slice(b"\r\n");
                }
                None if response::is_error(line) => {
                    encode::stat(reply.tail(), &format!("{name}:error"), String::from_utf8_lossy(line));
                }
                // END, or what a shard says instead of a list.
                None => {}
            }
        }
    }
    reply.copy(b"END\r\n");
}

/// What all are to say, else the first error.
fn merge_alike(word: &[u8], parts: &[Part], reply: &mut Output) {
    match parts.iter().find(|part| part.bytes != *word) {
        Some(part) if response::is_error(&part.bytes) || part.bytes.starts_with(b"MEMLIMIT_") => {
            reply.copy(&part.bytes);
        }
        Some(part) => encode::odd_part(reply.tail(), &part.shard),
        None => reply.copy(word),
    }
}

/// Without those of one of them there are none, as of statistics.
fn merge_items(most: usize, parts: &[Part], reply: &mut Output) {
    if let Some(odd) = parts.iter().find(|part| !part.bytes.ends_with(b"END\r\n")) {
        return if response::is_error(&odd.bytes) {
            reply.copy(&odd.bytes)
        } else {
            encode::odd_part(reply.tail(), &odd.shard)
        };
    }
    let lines = parts.iter().flat_map(|part| part.bytes[..].split_inclusive(|&byte| byte == b'\n'));
    for line in lines.filter(|line| line.starts_with(b"ITEM ")).take(most) {
        reply.copy(line);
    }
    reply.copy(b"END\r\n");
}

/// The numbers in a version, for comparing.
fn version_numbers(line: &[u8]) -> Vec<u64> {
    let digits = line.split(|byte| !byte.is_ascii_digit());
    digits.filter_map(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).collect()
}
