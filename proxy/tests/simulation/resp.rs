//! RESP for the simulated peers.

use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::resp::session::Settings;

use super::client::{DATABASES, Keys, is_refused};
use super::dialect::{Dialect, Expectation, Expected, Reply};
use super::shard::{Shard, State, in_database};
use crate::Random;

impl Dialect for Resp {
    const REQUEST_BYTES_MAX: u64 = 64 << 20;

    fn settings() -> Settings {
        Settings { databases: DATABASES as u32, ..Settings::default() }
    }

    fn ask(keys: &mut Keys, random: &mut Random) -> (Vec<u8>, Vec<Expectation>) {
        let (words, expected): (Vec<Vec<u8>>, Expected) = match random.below(31) {
            28..=30 => {
                let (source, destination) = (keys.key(random), keys.key(random));
                let expected = Expected::Rename(keys.known(&source), keys.known(&destination));
                (vec![b"RENAME".to_vec(), source, destination], expected)
            }
            26..=27 => return transaction(keys, random),
            0..=6 => {
                let key = keys.key(random);
                let expected = Expected::Get(vec![keys.known(&key)]);
                (vec![b"GET".to_vec(), key], expected)
            }
            7..=12 => {
                let (key, value) = (keys.key(random), keys.value(random));
                let expected = Expected::Set(vec![(keys.known(&key), value.clone())]);
                (vec![b"set".to_vec(), key, value], expected)
            }
            13..=15 => {
                let asked = keys.keys(6, random);
                let known = asked.iter().map(|key| keys.known(key)).collect();
                (named(b"MGET", asked.into_iter()), Expected::Get(known))
            }
            16..=17 => {
                let pairs: Vec<_> =
                    keys.keys(4, random).into_iter().map(|key| (key, keys.value(random))).collect();
                let flat = pairs.iter().flat_map(|(key, value)| [key.clone(), value.clone()]);
                let request = named(b"MSET", flat);
                let known = pairs.into_iter().map(|(key, value)| (keys.known(&key), value)).collect();
                (request, Expected::Set(known))
            }
            18..=19 => {
                let asked = keys.keys(4, random);
                let known = asked.iter().map(|key| keys.known(key)).collect();
                (named(b"DEL", asked.into_iter()), Expected::Delete(known))
            }
            20 => (vec![b"PING".to_vec()], Expected::Exactly(Reply::Text("PONG".into()))),
            21 => {
                let text = keys.value(random);
                (vec![b"ECHO".to_vec(), text.clone()], Expected::Exactly(Reply::Values(vec![Some(text)])))
            }
            22..=23 => {
                let database = keys.select(random).to_string().into_bytes();
                (vec![b"SELECT".to_vec(), database], Expected::Exactly(Reply::Done))
            }
            24 => (vec![b"NONSENSE".to_vec(), b"x".to_vec()], Expected::Refusal("ERR unknown command")),
            _ if random.one_in(60) => (vec![b"QUIT".to_vec()], Expected::Goodbye),
            _ => (vec![b"GET".to_vec()], Expected::Refusal("ERR wrong number of arguments")),
        };
        let inline = words.iter().all(|word| word.len() < 100) && random.one_in(10);
        let bytes = if inline { [words.join(&b' '), b"\r\n".to_vec()].concat() } else { request(&words) };
        (bytes, vec![expected.told()])
    }

    fn reply(bytes: &[u8]) -> Option<(Reply, usize)> {
        let (value, length) = parse(bytes)?;
        Some((told(value), length))
    }

    fn execute(shard: &mut Shard, state: &mut State, bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
        let (Value::Array(words), length) = parse(bytes)? else { panic!("a request is an array") };
        let word =
            |word| if let Value::Bulk(Some(word)) = word { word } else { panic!("a word is a bulk string") };
        let words: Vec<Vec<u8>> = words.into_iter().map(word).collect();
        Some((hear(shard, state, words), length))
    }
}

/// A transaction of some commands, as it is sent; whether with one key or several.
fn transaction(keys: &mut Keys, random: &mut Random) -> (Vec<u8>, Vec<Expectation>) {
    let one = keys.key(random);
    let mut bytes = request(&[b"MULTI".to_vec()]);
    let mut told = vec![Expected::Exactly(Reply::Done).told()];
    let mut elements = Vec::new();
    for _ in 0..random.below(6) {
        let key = if keys.spreads() { keys.key(random) } else { one.clone() };
        let known = keys.known(&key);
        let (words, expected) = match random.below(8) {
            0..=2 => {
                let value = keys.small_value(random);
                (vec![b"SET".to_vec(), key, value.clone()], Expected::Set(vec![(known, value)]))
            }
            3..=4 => (vec![b"GET".to_vec(), key], Expected::Get(vec![known])),
            5 => (vec![b"MGET".to_vec(), key.clone(), key], Expected::Get(vec![known.clone(), known])),
            6 => (vec![b"DEL".to_vec(), key], Expected::Delete(vec![known])),
            _ => (vec![b"PING".to_vec()], Expected::Exactly(Reply::Text("PONG".into()))),
        };
        bytes.extend(request(&words));
        told.push(Expected::Exactly(Reply::Text("QUEUED".into())).told());
        elements.push(expected);
    }
    let is_dropped = random.one_in(8);
    bytes.extend(request(&[if is_dropped { b"DISCARD".to_vec() } else { b"EXEC".to_vec() }]));
    told.push(match is_dropped {
        true => Expected::Exactly(Reply::Done).told(),
        false => Expected::Transaction(elements).told(),
    });
    (bytes, told)
}

/// What a client makes of a value.
fn told(value: Value) -> Reply {
    let is_bulk = |value: &Value| matches!(value, Value::Bulk(_));
    match value {
        Value::Simple(text) if text == "OK" => Reply::Done,
        Value::Simple(text) => Reply::Text(text),
        Value::Error(text)
            if text.starts_with("ERR shard ") || text.starts_with("ERR RENAME over shards ") =>
        {
            Reply::Failed(text)
        }
        Value::Error(text) => Reply::Refused(text),
        Value::Integer(count) => Reply::Count(count),
        Value::Bulk(value) => Reply::Values(vec![value]),
        Value::Array(values) if !values.is_empty() && values.iter().all(is_bulk) => {
            let bulk = |value| if let Value::Bulk(value) = value { value } else { None };
            Reply::Values(values.into_iter().map(bulk).collect())
        }
        Value::Array(values) => Reply::Elements(values.into_iter().map(told).collect()),
    }
}

/// What a shard says to a request, within a transaction or not.
fn hear(shard: &mut Shard, state: &mut State, words: Vec<Vec<u8>>) -> Vec<u8> {
    match (words[0].as_slice(), &mut state.queued) {
        (b"MULTI", queued @ None) => {
            *queued = Some(Vec::new());
            state.refused = false;
            b"+OK\r\n".to_vec()
        }
        (b"EXEC", queued @ Some(_)) => {
            let queued = queued.take().expect("just seen");
            if state.refused {
                return b"-EXECABORT Transaction discarded because of previous errors.\r\n".to_vec();
            }
            let mut reply = format!("*{}\r\n", queued.len()).into_bytes();
            let mut clients = queued.iter().map(|words| owner(&words[1]));
            let first = clients.next();
            assert!(
                clients.all(|client| Some(client) == first),
                "a transaction has commands of others in it"
            );
            for words in &queued {
                reply.extend(answer(shard, &mut state.database, words));
            }
            reply
        }
        (b"SET", Some(_)) if is_refused(&words[2]) => {
            state.refused = true;
            b"-OOM command not allowed when used memory > 'maxmemory'.\r\n".to_vec()
        }
        (_, Some(queued)) => {
            queued.push(words);
            b"+QUEUED\r\n".to_vec()
        }
        (_, None) => answer(shard, &mut state.database, &words),
    }
}

/// The client that a key is of.
fn owner(key: &[u8]) -> &[u8] {
    key.split(|&byte| byte == b':').nth(1).expect("keys are named after their clients")
}

fn answer(shard: &mut Shard, database: &mut u32, words: &[Vec<u8>]) -> Vec<u8> {
    let known = |key: &[u8]| in_database(key, *database);
    let bulk = |value: Option<&Vec<u8>>| match value {
        None => b"$-1\r\n".to_vec(),
        Some(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
    };
    match words[0].to_ascii_lowercase().as_slice() {
        b"get" => bulk(shard.data.get(&known(&words[1]))),
        b"mget" => {
            let values = words[1..].iter().flat_map(|key| bulk(shard.data.get(&known(key))));
            format!("*{}\r\n", words.len() - 1).into_bytes().into_iter().chain(values).collect()
        }
        b"set" | b"mset" => {
            for pair in words[1..].chunks(2) {
                shard.set(&known(&pair[0]), &pair[1]);
            }
            b"+OK\r\n".to_vec()
        }
        b"del" => {
            let removed = words[1..].iter().filter(|key| shard.data.remove(&known(key)).is_some()).count();
            format!(":{removed}\r\n").into_bytes()
        }
        b"rename" => match shard.data.remove(&known(&words[1])) {
            None => b"-ERR no such key\r\n".to_vec(),
            Some(value) => {
                shard.data.insert(known(&words[2]), value);
                b"+OK\r\n".to_vec()
            }
        },
        b"pttl" => {
            format!(":{}\r\n", if shard.data.contains_key(&known(&words[1])) { -1 } else { -2 }).into()
        }
        b"dump" => bulk(shard.data.get(&known(&words[1]))),
        b"restore" => {
            assert_eq!(
                (&words[2][..], words.get(4).map(|word| &word[..])),
                (&b"0"[..], Some(&b"REPLACE"[..]))
            );
            shard.data.insert(known(&words[1]), words[3].clone());
            b"+OK\r\n".to_vec()
        }
        b"select" => {
            *database = String::from_utf8_lossy(&words[1]).parse().expect("a number");
            b"+OK\r\n".to_vec()
        }
        b"config" => {
            let who =
                ["replica-announce-ip", crate::WHO].map(|word| format!("${}\r\n{word}\r\n", word.len()));
            format!("*2\r\n{}", who.concat()).into_bytes()
        }
        other => panic!("a shard was sent {:?}", String::from_utf8_lossy(other)),
    }
}

fn named(name: &[u8], words: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    std::iter::once(name.to_vec()).chain(words).collect()
}

/// One value.
#[derive(Debug)]
enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Option<Vec<u8>>),
    Array(Vec<Value>),
}

/// The value that `bytes` begins with and its length, once it is complete.
fn parse(bytes: &[u8]) -> Option<(Value, usize)> {
    let line_end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let text = std::str::from_utf8(&bytes[1..line_end]).expect("headers are text");
    let mut at = line_end + 2;
    let value = match bytes[0] {
        b'+' => Value::Simple(text.to_owned()),
        b'-' => Value::Error(text.to_owned()),
        b':' => Value::Integer(text.parse().expect("an integer")),
        b'_' => Value::Bulk(None),
        b'$' if text == "-1" => Value::Bulk(None),
        b'$' => {
            let length: usize = text.parse().expect("a length");
            let bulk = bytes.get(at..at + length)?.to_vec();
            bytes.get(at + length..at + length + 2).map(|end| assert_eq!(end, b"\r\n"))?;
            at += length + 2;
            Value::Bulk(Some(bulk))
        }
        b'*' => {
            let mut elements = Vec::new();
            for _ in 0..text.parse::<usize>().expect("a count") {
                let (element, length) = parse(&bytes[at..])?;
                at += length;
                elements.push(element);
            }
            Value::Array(elements)
        }
        other => panic!("no RESP2 value begins with {:?}", char::from(other)),
    };
    Some((value, at))
}

/// A request as clients write it.
fn request(words: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
