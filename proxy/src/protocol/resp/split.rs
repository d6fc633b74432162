//! Split requests: the fragments that go to the shards, and the reply their responses make together.
//!
//! Each fragment has the request's own command name and the bytes of its arguments as they came. An error in any
//! fragment is the reply to the whole request: a nil or a smaller sum would be a lie.

use bytes::{Buf as _, Bytes, BytesMut};

use super::command::Merge;
use super::decode::{RequestDecoder, ResponseDecoder};
use super::{encode, parameters, pubsub, reports, sections, usage, whole};
use crate::buffer::{Output, SHARE_MIN};
use crate::protocol::{Owners, Part};

/// Arguments of one key: itself, and for MSET its value.
pub fn step(merge: Merge) -> usize {
    match merge {
        Merge::AllOk => 2,
        _ => 1,
    }
}

/// Writes the fragments; `owners` names the fragment of each key.
pub fn split(
    merge: Merge,
    decoder: &RequestDecoder,
    canonical: &[u8],
    owners: &[u32],
    fragments: &mut [Vec<u8>],
) {
    if let Merge::Counts(kind) = merge {
        return pubsub::split_counts(kind, decoder, canonical, owners, fragments);
    }
    if owners.is_empty() {
        // The same is asked of all.
        for fragment in fragments {
            match merge {
                Merge::Sections(wanted) => sections::write(wanted, fragment),
                Merge::Own(..) => whole::write_own(decoder, canonical, fragment),
                _ => {
                    fragment.clear();
                    fragment.extend_from_slice(canonical);
                }
            }
        }
        return;
    }
    let step = step(merge);
    let mut arguments = decoder.arguments(canonical);
    let Some(name) = arguments.next() else { return };
    let mut counts = vec![0; fragments.len()];
    for &owner in owners {
        counts[owner as usize] += 1;
    }
    for (fragment, count) in fragments.iter_mut().zip(counts) {
        fragment.clear();
        encode::array(fragment, 1 + count * step);
        fragment.extend_from_slice(name.encoded);
    }
    for &owner in owners {
        let fragment = &mut fragments[owner as usize];
        for argument in arguments.by_ref().take(step) {
            fragment.extend_from_slice(argument.encoded);
        }
    }
}

/// Whether a response cannot be the one to this fragment.
pub fn is_odd(merge: Merge, owners: &Owners, fragment: u32, response: &[u8]) -> bool {
    if encode::is_error(response) {
        return false;
    }
    match merge {
        Merge::Transaction if encode::is_null_array(response) => false,
        Merge::Array | Merge::Transaction => {
            let mut head = Vec::new();
            encode::array(&mut head, owners.keys_of(fragment).len());
            !response.starts_with(&head)
        }
        Merge::Sum => whole::integer(response).is_none(),
        Merge::AllOk | Merge::AllReset => response != b"+OK\r\n",
        Merge::Counts(_) | Merge::Union | Merge::Most => {
            pubsub::is_odd(merge, owners.keys_of(fragment).len(), response)
        }
        Merge::Page(_) | Merge::ScanEnd(_) | Merge::Own(..) => false,
        Merge::Least | Merge::Keys | Merge::Every | Merge::Same | Merge::AnyDone | Merge::Any(_) => {
            whole::is_odd(merge, response)
        }
        Merge::Modules
        | Merge::Log(_)
        | Merge::History
        | Merge::Latest
        | Merge::Texts
        | Merge::Sections(_) => reports::is_odd(merge, response),
        Merge::Parameters | Merge::MemoryStats | Merge::Histogram => reports::is_odd(merge, response),
    }
}

/// Joins the responses of all fragments.
pub fn merge(merge: Merge, owners: &Owners, mut parts: Vec<Part>, reply: &mut Output) {
    if merge == Merge::Every && parts.iter().any(|part| !encode::is_error(&part.bytes)) {
        parts.retain(|part| !encode::is_error(&part.bytes));
    }
    if merge == Merge::AnyDone {
        return whole::merge_any_done(&parts, reply);
    }
    if merge == Merge::Modules {
        return reports::merge_modules(parts, reply);
    }
    let is_told = match merge {
        Merge::Texts => true,
        Merge::Own(first, count) => {
            return parts
                .first()
                .into_iter()
                .for_each(|part| sections::of_one((first, count), &part.bytes, reply));
        }
        // What is known without shards that do not answer is told.
        Merge::Parameters | Merge::Sections(_) if whole::has_own(merge, &mut parts) => true,
        _ => false,
    };
    if let Some(failed) = parts.iter().find(|part| encode::is_error(&part.bytes) && !is_told) {
        // Of all shards, some may have done what others have not.
        let is_of_all = owners.of_keys().is_empty();
        return match merge {
            Merge::AllOk | Merge::Same if is_of_all => whole::fail(&failed.bytes, &parts, reply),
            _ => {
                // What all say, as where there is one shard only, is about the request.
                let is_told = is_of_all && parts.iter().any(|part| part.bytes != failed.bytes);
                fail(&failed.bytes, &failed.shard, is_told || merge == Merge::AllOk, reply);
            }
        };
    }
    let unexpected = match merge {
        Merge::Array | Merge::Transaction => return merge_arrays(owners, parts, reply),
        Merge::Sum => {
            let mut sum = 0i64;
            let unexpected = parts.iter().find(|part| match whole::integer(&part.bytes) {
                Some(count) => {
                    sum = sum.saturating_add(count);
                    false
                }
                None => true,
            });
            if unexpected.is_none() {
                encode::integer(reply.tail(), sum);
            }
            unexpected
        }
        Merge::AllOk | Merge::AllReset => {
            let unexpected = parts.iter().find(|part| part.bytes != b"+OK\r\n"[..]);
            if unexpected.is_none() {
                encode::simple(reply.tail(), "OK");
            }
            unexpected
        }
        Merge::Counts(_) | Merge::Union | Merge::Most => pubsub::merge(merge, owners, &parts, reply).err(),
        Merge::Keys => return whole::merge_keys(parts, reply),
        // They are joined elsewhere.
        Merge::Page(_) | Merge::ScanEnd(_) | Merge::Own(..) | Merge::Modules => parts.first(),
        Merge::Parameters => parameters::merge(&parts, reply).err(),
        Merge::Sections(wanted) => sections::merge(wanted, &parts, reply).err(),
        Merge::MemoryStats => usage::merge_stats(&parts, reply).err(),
        Merge::Histogram => usage::merge_histogram(&parts, reply).err(),
        Merge::Least | Merge::Every | Merge::Same | Merge::AnyDone | Merge::Any(_) => {
            whole::merge(merge, &parts, reply).err()
        }
        Merge::Log(_) | Merge::History | Merge::Latest | Merge::Texts => {
            reports::merge(merge, &parts, reply).err()
        }
    };
    if let Some(part) = unexpected {
        whole::refuse(&part.shard, reply);
    }
}

/// The elements of all arrays in the order of the request's keys.
fn merge_arrays(owners: &Owners, parts: Vec<Part>, reply: &mut Output) {
    let mut elements = Vec::with_capacity(parts.len());
    let mut head = Vec::new();
    for (fragment, part) in parts.into_iter().enumerate() {
        head.clear();
        encode::array(&mut head, owners.keys_of(fragment as u32).len());
        if !part.bytes.starts_with(&head) {
            return whole::refuse(&part.shard, reply);
        }
        let mut bytes = part.bytes;
        bytes.advance(head.len());
        elements.push(if bytes.len() < SHARE_MIN {
            Elements::Small(bytes, 0)
        } else {
            Elements::Large(bytes.freeze())
        });
    }
    encode::array(reply.tail(), owners.of_keys().len());
    for &owner in owners.of_keys() {
        elements[owner as usize].move_next(reply);
    }
}

/// The elements of one array that have not been used yet.
enum Elements {
    /// To be copied; so many bytes are used.
    Small(BytesMut, usize),
    /// Some of them may be worth sharing.
    Large(Bytes),
}

impl Elements {
    fn move_next(&mut self, reply: &mut Output) {
        let length = |rest: &[u8]| {
            ResponseDecoder::default().decode(rest).expect("a complete response was decoded before").length
        };
        match self {
            Self::Small(bytes, used) => {
                let end = *used + length(&bytes[*used..]);
                reply.copy(&bytes[*used..end]);
                *used = end;
            }
            Self::Large(bytes) => {
                let length = length(bytes);
                reply.share(bytes.split_to(length));
            }
        }
    }
}

/// The error of one fragment is the error of the request, word for word. Where others may have succeeded, or any shard may be the
/// one, it says whose it is.
fn fail(error: &[u8], shard: &str, tells_whose: bool, reply: &mut Output) {
    let named = error.starts_with(b"-ERR shard ");
    if tells_whose && error.first() == Some(&b'-') && !named {
        reply.copy(error.strip_suffix(b"\r\n").unwrap_or(error));
        reply.copy(format!(" (shard {shard})\r\n").as_bytes());
    } else {
        reply.copy(error);
    }
}

/// The reply that these responses of `shard-1`, `shard-2` … become.
#[cfg(test)]
pub fn joined(merge: Merge, responses: &[&str]) -> String {
    let part = |(number, response): (usize, &&str)| {
        let mut part = Part::new(format!("shard-{}", number + 1).into());
        part.bytes.extend_from_slice(response.as_bytes());
        part
    };
    let parts: Vec<_> = responses.iter().enumerate().map(part).collect();
    let mut reply = Output::default();
    self::merge(merge, &Owners::new(&[], parts.len()), parts, &mut reply);
    String::from_utf8(reply.first(reply.len()).to_vec()).expect("UTF-8")
}
