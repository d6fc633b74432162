//! CONFIG GET over the shards: what the proxy says itself stays, and beside it stands what the shards agree on.
//!
//! Where shards have different values there is none that holds for all of them, so it is left out, but for those of which one is right for
//! the pool as a whole: [`JOINED`], which are left out where a shard does not answer. In other things that one has no say.

use std::collections::HashMap;

use super::encode;
use super::identity::string;
use super::reports::{NAMES_MAX, pairs};
use crate::buffer::Output;
use crate::protocol::Part;
use crate::protocol::events::Flags;
use crate::protocol::store::loss;

/// What shards have, and clients of the proxy do not: where shards are listened to, and how many connections they take.
const OF_CONNECTIONS: [&[u8]; 5] = [b"bind", b"maxclients", b"tls-port", b"unixsocket", b"unixsocketperm"];

/// How different values of a parameter become one.
type Join = fn(&[u8], &[u8]) -> Option<Vec<u8>>;

/// Parameters that have one for all shards where their values differ.
const JOINED: [(&[u8], Join); 5] = [
    // Data are safe only if they are on all of them.
    (b"appendonly", |_, _| Some(b"no".to_vec())),
    (b"maxmemory", limits),
    (b"maxmemory-policy", |one, two| {
        let rank = |policy| std::str::from_utf8(policy).map_or(0, loss);
        Some(if rank(two) > rank(one) { two.to_vec() } else { one.to_vec() })
    }),
    (b"notify-keyspace-events", |one, two| {
        Some(Flags::of(one)?.with(Flags::of(two)?).to_string().into_bytes())
    }),
    (b"save", |_, _| Some(Vec::new())),
];

/// 0 stands for none.
fn limits(one: &[u8], two: &[u8]) -> Option<Vec<u8>> {
    let number = |text| std::str::from_utf8(text).ok()?.parse::<u64>().ok();
    let sum = match (number(one)?, number(two)?) {
        (0, _) | (_, 0) => 0,
        (one, two) => one.saturating_add(two),
    };
    Some(sum.to_string().into_bytes())
}

/// The names and values of a response.
fn texts(response: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let text = |value| string(value).map(|(text, _)| text);
    pairs(response)?.into_iter().map(|(name, value)| Some((text(name)?, text(value)?))).collect()
}

/// What the proxy has said itself is the last part. The shard whose response is none, if there is one.
pub fn merge<'p>(parts: &'p [Part], reply: &mut Output) -> Result<(), &'p Part> {
    let Some((own, shards)) = parts.split_last() else { return Ok(()) };
    let mut all = texts(&own.bytes).ok_or(own)?;
    let ours = all.len();
    let mut values: Vec<Option<Vec<u8>>> = Vec::new();
    let mut places: HashMap<&[u8], usize> =
        all.iter().enumerate().map(|(place, (name, _))| (*name, place)).collect();
    for shard in shards.iter().filter(|shard| !encode::is_error(&shard.bytes)) {
        for (name, value) in texts(&shard.bytes).ok_or(shard)? {
            let place = *places.entry(name).or_insert(all.len());
            // The first are ours.
            let Some(place) = place.checked_sub(ours) else { continue };
            match values.get_mut(place) {
                None => {
                    all.push((name, value));
                    values.push(Some(value.to_vec()));
                }
                Some(known) => {
                    if let Some(before) = known.take() {
                        *known = if before == value { Some(before) } else { join(name, &before, value) };
                    }
                }
            }
        }
    }
    let is_complete = !shards.iter().any(|shard| encode::is_error(&shard.bytes));
    let joined =
        all[ours..].iter().zip(&values).filter_map(|((name, _), value)| Some((*name, value.as_deref()?)));
    let joined = joined.filter(|(name, _)| is_for_clients(name) && (is_complete || joining(name).is_none()));
    let told: Vec<(&[u8], &[u8])> = all[..ours].iter().copied().chain(joined).collect();
    encode::map(reply.tail(), own.bytes.starts_with(b"%"), told.len());
    for (name, value) in told {
        encode::bulk(reply.tail(), name);
        encode::bulk(reply.tail(), value);
    }
    Ok(())
}

fn joining(name: &[u8]) -> Option<Join> {
    JOINED.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, join)| *join)
}

fn join(name: &[u8], one: &[u8], two: &[u8]) -> Option<Vec<u8>> {
    joining(name)?(one, two)
}

/// Whether clients of the proxy are told of it: what lets somebody in at the shards is none of their business.
fn is_for_clients(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    let is_secret = memchr::memmem::find(&name, b"pass").is_some()
        || memchr::memmem::find(&name, b"secret").is_some()
        || [&b"auth"[..], b"user"].iter().any(|end| name.ends_with(end));
    name.len() <= NAMES_MAX && !is_secret && !OF_CONNECTIONS.contains(&&*name)
}

#[cfg(test)]
mod tests {
    use super::super::command::Merge;
    use super::super::split::joined;
    use super::*;

    fn reply(pairs: &[(&str, &str)]) -> String {
        let mut out = Vec::new();
        encode::map(&mut out, false, pairs.len());
        pairs.iter().for_each(|(name, value)| {
            encode::bulk(&mut out, name.as_bytes());
            encode::bulk(&mut out, value.as_bytes());
        });
        String::from_utf8(out).expect("text")
    }

    fn merged(shards: &[&str], own: &str) -> String {
        joined(Merge::Parameters, &[shards, &[own]].concat())
    }

    #[test]
    fn ours_stay_and_what_shards_agree_on_stands_beside_them() {
        let one = reply(&[
            ("timeout", "5"),
            ("hz", "10"),
            ("dir", "/a"),
            ("requirepass", "x"),
            ("maxclients", "9"),
        ]);
        let two = reply(&[("dir", "/b"), ("hz", "10"), ("timeout", "7"), ("new", "1")]);
        let own = reply(&[("timeout", "0")]);
        assert_eq!(merged(&[&one, &two], &own), reply(&[("timeout", "0"), ("hz", "10"), ("new", "1")]));
        assert_eq!(
            merged(&[&one, &one], "%0\r\n"),
            "%3\r\n$7\r\ntimeout\r\n$1\r\n5\r\n$2\r\nhz\r\n$2\r\n10\r\n$3\r\ndir\r\n$2\r\n/a\r\n"
        );
    }

    #[test]
    fn some_have_one_value_for_all() {
        for (name, values, value) in [
            ("maxmemory", ["100", "50", "1"], Some("151")),
            ("maxmemory", ["100", "0", "1"], Some("0")),
            ("maxmemory", ["x", "0", "1"], None),
            ("MAXMEMORY-policy", ["volatile-lru", "noeviction", "allkeys-lru"], Some("allkeys-lru")),
            ("notify-keyspace-events", ["Kx", "E", ""], Some("xKE")),
            ("appendonly", ["yes", "no", "yes"], Some("no")),
            ("appendonly", ["yes", "yes", "yes"], Some("yes")),
            ("save", ["1 1", "", "1 1"], Some("")),
            ("hz", ["1", "2", "1"], None),
        ] {
            let shards = values.map(|value| reply(&[(name, value)]));
            let shards = shards.each_ref().map(|shard| &**shard);
            let expected: Vec<(&str, &str)> = value.into_iter().map(|value| (name, value)).collect();
            assert_eq!(merged(&shards, "*0\r\n"), reply(&expected), "{name} {values:?}");
        }
    }

    #[test]
    fn shards_that_do_not_answer_have_no_say_as_long_as_something_is_known() {
        let (one, own) = (reply(&[("hz", "10")]), reply(&[("port", "1")]));
        let limited = reply(&[("hz", "10"), ("maxmemory", "5")]);
        assert_eq!(merged(&[&limited, "-ERR shard shard-2: timed out\r\n"], "*0\r\n"), one);
        assert_eq!(merged(&["-NOPERM no\r\n", "-NOPERM no\r\n"], &own), own);
        assert_eq!(merged(&["-NOPERM no\r\n", "-NOPERM no\r\n"], "*0\r\n"), "-NOPERM no\r\n");
        assert_eq!(merged(&["-ERR a\r\n", "-ERR b\r\n"], "*0\r\n"), "-ERR a (shard shard-1)\r\n");
        let odd = "-ERR shard shard-1: unexpected response to a part of the request\r\n";
        for wrong in ["*1\r\n$1\r\na\r\n", "*2\r\n$1\r\na\r\n*0\r\n", ":1\r\n", "*-1\r\n"] {
            assert_eq!(merged(&[wrong, &one], &own), odd, "{wrong:?}");
        }
    }
}
