//! PUBSUB over several shards, as if it were one server: who listens to what, all proxies and their clients taken together.
//!
//! A worker subscribes once to a channel for all its clients, and to names beside it that say how many those are
//! ([`Channels::tally`]). So the owner of the channel is asked for all of them, and the numbers are added up: each subscription to
//! the channel itself is one listener, of a worker or of somebody who speaks to the shard directly, and each of those to the name
//! of a bit is as many more as the bit is worth. What a worker tells of a client that leaves may come some moments later.

use super::command::Merge;
use super::decode::RequestDecoder;
use super::{Resp, encode, identity};
use crate::buffer::Output;
use crate::protocol::channels::{Channels, Kind, TALLY_BITS};
use crate::protocol::{Owners, Part};

/// Longest question for numbers: each channel becomes [`NAMES`].
pub const CHANNELS_MAX: usize = 1_000;
pub const BYTES_MAX: usize = 128 * 1024;

/// Longest list of channels, those included that several shards have: to sort it takes a worker some milliseconds.
const LISTED_MAX: usize = 50_000;

/// Names that are asked for each channel.
const NAMES: usize = 1 + TALLY_BITS as usize;

/// Writes for each shard the question for those channels that it owns.
pub fn split_counts(
    kind: Kind,
    decoder: &RequestDecoder,
    canonical: &[u8],
    owners: &[u32],
    fragments: &mut [Vec<u8>],
) {
    let words = decoder.arguments(canonical);
    let (heads, channels): (Vec<_>, Vec<_>) = words.enumerate().partition(|&(place, _)| place < 2);
    for (number, fragment) in fragments.iter_mut().enumerate() {
        let count = owners.iter().filter(|&&owner| owner as usize == number).count();
        fragment.clear();
        encode::array(fragment, heads.len() + count * NAMES);
        heads.iter().for_each(|(_, word)| fragment.extend_from_slice(word.encoded));
    }
    for (&owner, (_, channel)) in owners.iter().zip(channels) {
        let fragment = &mut fragments[owner as usize];
        fragment.extend_from_slice(channel.encoded);
        for bit in 0..TALLY_BITS {
            encode::bulk(fragment, &Resp::tally(kind, channel.value, bit));
        }
    }
}

/// Whether a response cannot be the one to such a question.
pub fn is_odd(merge: Merge, channels: usize, response: &[u8]) -> bool {
    match merge {
        Merge::Union => !response.starts_with(b"*"),
        Merge::Most => number(response).is_none(),
        _ => counts(response).is_none_or(|counts| counts.len() != channels),
    }
}

/// Whether the shards have more names than are listed.
pub fn is_too_long(parts: &[Part]) -> bool {
    let counts = parts.iter().filter_map(|part| Some(array(&part.bytes)?.0));
    counts.fold(0, usize::saturating_add) > LISTED_MAX
}

/// The reply to who asks for so many.
pub fn refuse_long(reply: &mut Output) {
    let words = format!("ERR the shards have more than {LISTED_MAX} channels; ask with a pattern");
    encode::error(reply.tail(), &words);
}

/// Joins the responses. The shard whose response is none, if there is one.
pub fn merge<'p>(
    merge: Merge,
    owners: &Owners,
    parts: &'p [Part],
    reply: &mut Output,
) -> Result<(), &'p Part> {
    match merge {
        Merge::Union => {
            let mut names = Vec::new();
            for part in parts {
                names.append(&mut elements(&part.bytes).ok_or(part)?);
            }
            // They are no channels of anybody.
            names.retain(|name| Kind::ALL.into_iter().all(|kind| Resp::tallied(kind, name).is_none()));
            names.sort_unstable();
            names.dedup();
            encode::array(reply.tail(), names.len());
            names.into_iter().for_each(|name| encode::bulk(reply.tail(), name));
        }
        Merge::Most => {
            let mut most = 0;
            for part in parts {
                most = most.max(number(&part.bytes).ok_or(part)?.0);
            }
            encode::integer(reply.tail(), most);
        }
        _ => {
            let mut parts_counts = Vec::new();
            for part in parts {
                parts_counts.push(counts(&part.bytes).ok_or(part)?.into_iter());
            }
            encode::array(reply.tail(), 2 * owners.of_keys().len());
            for &owner in owners.of_keys() {
                let part = &parts[owner as usize];
                let (channel, count) = parts_counts[owner as usize].next().ok_or(part)?;
                encode::bulk(reply.tail(), channel);
                encode::integer(reply.tail(), count);
            }
        }
    }
    Ok(())
}

/// How many listen to each of the channels that a shard was asked for.
fn counts(response: &[u8]) -> Option<Vec<(&[u8], i64)>> {
    let (count, mut rest) = array(response)?;
    let mut counts = Vec::new();
    for _ in 0..(count % (2 * NAMES) == 0).then_some(count / (2 * NAMES))? {
        let (channel, behind) = identity::string(rest)?;
        let (mut sum, behind) = number(behind)?;
        rest = behind;
        for bit in 0..TALLY_BITS {
            let (_, behind) = identity::string(rest)?;
            let (subscriptions, behind) = number(behind)?;
            rest = behind;
            sum = sum.saturating_add(subscriptions.saturating_mul(1 << bit));
        }
        counts.push((channel, sum));
    }
    Some(counts)
}

fn elements(response: &[u8]) -> Option<Vec<&[u8]>> {
    let (count, mut rest) = array(response)?;
    let mut elements = Vec::new();
    for _ in 0..count {
        let (element, behind) = identity::string(rest)?;
        elements.push(element);
        rest = behind;
    }
    Some(elements)
}

/// How many elements an array has, and what comes behind its first line.
fn array(response: &[u8]) -> Option<(usize, &[u8])> {
    let (line, rest) = line(response)?;
    Some((std::str::from_utf8(line.strip_prefix(b"*")?).ok()?.parse().ok()?, rest))
}

/// A number that is not negative, and what comes behind it.
fn number(response: &[u8]) -> Option<(i64, &[u8])> {
    let (line, rest) = line(response)?;
    let number = std::str::from_utf8(line.strip_prefix(b":")?).ok()?.parse().ok()?;
    (number >= 0).then_some((number, rest))
}

fn line(response: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', response)?;
    Some((response[..end].strip_suffix(b"\r")?, &response[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_answer_is_not_taken_for_one() {
        let mut good = Vec::new();
        encode::array(&mut good, 2 * NAMES);
        for (place, count) in [2, 1, 3].into_iter().chain(std::iter::repeat(0)).take(NAMES).enumerate() {
            encode::bulk(&mut good, format!("name {place}").as_bytes());
            encode::integer(&mut good, count);
        }
        assert_eq!(counts(&good), Some(vec![(&b"name 0"[..], 2 + 1 + 2 * 3)]));
        for end in 0..good.len() {
            assert_eq!(counts(&good[..end]), None);
        }
        for odd in [
            "*0\r\n",
            "*2\r\n$1\r\na\r\n:1\r\n",
            ":1\r\n",
            "*-1\r\n",
            "*99999999999999999999\r\n",
            "+OK\r\n",
            "",
        ] {
            assert!(is_odd(Merge::Counts(Kind::Channel), 1, odd.as_bytes()), "{odd:?}");
        }
        for odd in ["+OK\r\n", "", ":1\r\n"] {
            assert!(is_odd(Merge::Union, 0, odd.as_bytes()), "{odd:?}");
        }
        for odd in [":-1\r\n", "+1\r\n", "*0\r\n", ":", ""] {
            assert!(is_odd(Merge::Most, 0, odd.as_bytes()), "{odd:?}");
        }
    }
}
