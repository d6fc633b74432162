//! memcached's text protocol for the simulated peers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use memstore_proxy::protocol::memcache::{Memcache, Settings};

use super::client::Keys;
use super::dialect::{Dialect, Expectation, Expected, Reply, Told};
use super::shard::{Shard, State};
use crate::Random;

const BARRIER: &str = "MN";

impl Dialect for Memcache {
    const REQUEST_BYTES_MAX: u64 = 1_300_000;

    fn settings() -> Settings {
        Settings::default()
    }

    fn ask(keys: &mut Keys, random: &mut Random) -> (Vec<u8>, Vec<Expectation>) {
        let key = keys.key(random);
        let text = String::from_utf8(key.clone()).expect("a key of ours");
        match random.below(28) {
            0..=4 => {
                let line = *choose(random, &["get", "  get ", "gets", "gat 0"]);
                (format!("{line} {text}\r\n").into_bytes(), vec![Expected::Get(vec![key]).told()])
            }
            5..=9 => {
                let value = keys.value(random);
                let line = match random.below(3) {
                    0 => format!("set {text} 0 0 {}", value.len()),
                    1 => format!(" set  {text} +7 -0 0{} word ", value.len()),
                    _ => format!("ms {text} {} T0", value.len()),
                };
                (with_value(&line, &value), vec![Expected::Set(vec![(key, value)]).told()])
            }
            10..=12 => {
                let value = keys.value(random);
                let line = format!("set {text} 0 0 {} noreply", value.len());
                let expected = Expected::Set(vec![(key, value.clone())]);
                (with_value(&line, &value), vec![Expectation { expected, told: Told::Never }])
            }
            13..=15 => {
                let keys = keys.keys(6, random);
                let line = *choose(random, &["get", "gets", "gat 0", "gats 0"]);
                let words = String::from_utf8(keys.join(&b' ')).expect("keys of ours");
                (format!("{line} {words}\r\n").into_bytes(), vec![Expected::Get(keys).told()])
            }
            16..=17 => (format!("delete {text}\r\n").into_bytes(), vec![Expected::Delete(vec![key]).told()]),
            18 => {
                let expected = Expected::Delete(vec![key]);
                let told = Expectation { expected, told: Told::Never };
                (format!("delete {text} noreply\r\n").into_bytes(), vec![told])
            }
            19..=20 => {
                let line = format!("mg {} v k b q O{}\r\nmn\r\n", BASE64.encode(&key), keys.number());
                (line.into_bytes(), quietly(Expected::Get(vec![key])))
            }
            21 => {
                let value = keys.value(random);
                let mut bytes =
                    with_value(&format!("ms {} {} b q", BASE64.encode(&key), value.len()), &value);
                bytes.extend_from_slice(b"mn\r\n");
                (bytes, quietly(Expected::Set(vec![(key, value)])))
            }
            22 => (
                b"version\r\n".to_vec(),
                vec![Expected::FromShards(Reply::Text("VERSION 1.6.18".into())).told()],
            ),
            23 => (b"verbosity 1\r\n".to_vec(), vec![Expected::FromShards(Reply::Done).told()]),
            24 => (b"get\n".to_vec(), vec![Expected::Refusal("ERROR").told()]),
            25 => {
                let refusals = ["CLIENT_ERROR bad data chunk", "ERROR"];
                let bytes = format!("set {text} 0 0 3\r\nabcd\r\n").into_bytes();
                (bytes, refusals.map(|refusal| Expected::Refusal(refusal).told()).into())
            }
            26 if random.one_in(40) => {
                let value = vec![b'\n'; Self::REQUEST_BYTES_MAX as usize];
                let line = format!("set {text} 0 0 {}", value.len());
                (with_value(&line, &value), vec![Expected::Refusal("SERVER_ERROR object too large").told()])
            }
            27 if random.one_in(60) => {
                let told = Expectation { expected: Expected::Goodbye, told: Told::Never };
                (b"quit\r\n".to_vec(), vec![told])
            }
            _ => (
                format!("set {text} 0 0 1 {text} x\r\n").into_bytes(),
                vec![Expected::Refusal("ERROR").told()],
            ),
        }
    }

    fn reply(bytes: &[u8]) -> Option<(Reply, usize)> {
        let mut hits = Vec::new();
        let mut at = 0;
        loop {
            let (line, length) = line(&bytes[at..])?;
            at += length;
            let words: Vec<&str> = line.split(' ').collect();
            let reply = match words[..] {
                ["VALUE", key, "0" | "7", length, ..] => {
                    hits.push((key.as_bytes().to_vec(), value(bytes, &mut at, length)?));
                    continue;
                }
                ["END"] => Reply::Hits(hits),
                ["VA", length, key, "b", opaque] => {
                    assert!(opaque.starts_with('O'), "{line}");
                    let key = BASE64.decode(key.strip_prefix('k').expect("a key")).expect("base64");
                    Reply::Hits(vec![(key, value(bytes, &mut at, length)?)])
                }
                ["STORED" | "HD" | "OK"] => Reply::Done,
                ["DELETED"] => Reply::Count(1),
                ["NOT_FOUND"] => Reply::Count(0),
                ["SERVER_ERROR", "shard", ..] => Reply::Failed(line.into()),
                ["ERROR" | "CLIENT_ERROR" | "SERVER_ERROR", ..] => Reply::Refused(line.into()),
                ["MN"] | ["VERSION", _] => Reply::Text(line.into()),
                _ => panic!("{line:?} as a reply"),
            };
            return Some((reply, at));
        }
    }

    fn execute(shard: &mut Shard, _: &mut State, bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
        let (line, mut at) = line(bytes)?;
        let words: Vec<&str> = line.split(' ').collect();
        let response = match words[..] {
            ["get", ref keys @ ..] | ["gat", _, ref keys @ ..] => found(shard, keys, ""),
            ["gets", ref keys @ ..] | ["gats", _, ref keys @ ..] => found(shard, keys, " 5"),
            ["set", key, "0" | "7", "0", length] => {
                shard.set(key.as_bytes(), &value(bytes, &mut at, length)?);
                b"STORED\r\n".to_vec()
            }
            ["ms", key, length, ref flags @ ..] => {
                let value = value(bytes, &mut at, length)?;
                let key = if flags == ["b"] { BASE64.decode(key).expect("base64") } else { key.into() };
                shard.set(&key, &value);
                b"HD\r\n".to_vec()
            }
            ["mg", key, "v", "k", "b", opaque] => {
                match shard.data.get(&BASE64.decode(key).expect("base64")) {
                    Some(value) => with_value(&format!("VA {} k{key} b {opaque}", value.len()), value),
                    None => b"EN\r\n".to_vec(),
                }
            }
            ["delete", key] => match shard.data.remove(key.as_bytes()) {
                Some(_) => b"DELETED\r\n".to_vec(),
                None => b"NOT_FOUND\r\n".to_vec(),
            },
            ["version"] => b"VERSION 1.6.18\r\n".to_vec(),
            ["verbosity", "1"] => b"OK\r\n".to_vec(),
            _ => panic!("a shard was sent {line:?}"),
        };
        Some((response, at))
    }
}

fn quietly(expected: Expected) -> Vec<Expectation> {
    let barrier = Expected::Exactly(Reply::Text(BARRIER.into()));
    vec![Expectation { expected, told: Told::Unusual(BARRIER) }, barrier.told()]
}

fn found(shard: &Shard, keys: &[&str], unique: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for key in keys {
        if let Some(value) = shard.data.get(key.as_bytes()) {
            out.extend(with_value(&format!("VALUE {key} 0 {}{unique}", value.len()), value));
        }
    }
    out.extend_from_slice(b"END\r\n");
    out
}

fn with_value(line: &str, value: &[u8]) -> Vec<u8> {
    [line.as_bytes(), b"\r\n", value, b"\r\n"].concat()
}

/// The line that `bytes` begins with, and its length with CRLF.
fn line(bytes: &[u8]) -> Option<(&str, usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((std::str::from_utf8(&bytes[..end]).expect("a line is text"), end + 2))
}

/// The value of the given length at `at`, which then stands behind it.
fn value(bytes: &[u8], at: &mut usize, length: &str) -> Option<Vec<u8>> {
    let end = *at + length.parse::<usize>().expect("a length");
    let value = bytes.get(*at..end)?.to_vec();
    assert_eq!(bytes.get(end..end + 2)?, b"\r\n");
    *at = end + 2;
    Some(value)
}

fn choose<'w, T>(random: &mut Random, words: &'w [T]) -> &'w T {
    &words[random.below(words.len() as u64) as usize]
}
