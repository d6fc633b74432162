//! A client that knows what it may be told: for each of its keys, the values it can have.

use std::collections::{HashMap, VecDeque};

use memstore_proxy::pool::ClientId;

use super::resp::{Value, parse, request};
use crate::{Coverage, Random};

/// Keys of one client.
const KEYS: u64 = 12;

/// What a request must be answered with.
enum Expected {
    Exactly(Value),
    Get(Vec<Vec<u8>>, bool),
    Set(Vec<(Vec<u8>, Vec<u8>)>),
    Delete(Vec<Vec<u8>>),
    /// An error of the proxy's own that begins so; the connection goes on.
    Refusal(&'static str),
    Goodbye,
}

/// One client.
pub struct Client {
    pub id: ClientId,
    number: usize,
    /// Bytes not yet sent.
    pub outbox: VecDeque<u8>,
    inbox: Vec<u8>,
    expected: VecDeque<Expected>,
    possible: HashMap<Vec<u8>, Vec<Option<Vec<u8>>>>,
    next_value: u64,
    /// It has closed its writing side, or said goodbye.
    pub finished: bool,
    /// It takes no replies for now.
    pub lazy: bool,
}

impl Client {
    pub fn new(id: ClientId, number: usize) -> Self {
        Self {
            id,
            number,
            outbox: VecDeque::new(),
            inbox: Vec::new(),
            expected: VecDeque::new(),
            possible: HashMap::new(),
            next_value: 0,
            finished: false,
            lazy: false,
        }
    }

    pub fn waits(&self) -> bool {
        !self.expected.is_empty()
    }

    fn key(&self, random: &mut Random) -> Vec<u8> {
        format!("client:{}:key:{}", self.number, random.below(KEYS)).into_bytes()
    }

    fn value(&mut self, random: &mut Random) -> Vec<u8> {
        self.next_value += 1;
        let mut value = format!("{}/{}/", self.number, self.next_value).into_bytes();
        let size = match random.below(400) {
            0 => 1_200_000,
            1..=12 => 20_000,
            _ => random.below(60) as usize,
        };
        value.resize(value.len() + size, b'v');
        value
    }

    /// Writes some requests.
    pub fn ask(&mut self, random: &mut Random) {
        if self.finished {
            return;
        }
        for _ in 0..=random.below(12) {
            let (words, expected): (Vec<Vec<u8>>, Expected) = match random.below(24) {
                0..=6 => {
                    let key = self.key(random);
                    (vec![b"GET".to_vec(), key.clone()], Expected::Get(vec![key], false))
                }
                7..=12 => {
                    let (key, value) = (self.key(random), self.value(random));
                    (vec![b"set".to_vec(), key.clone(), value.clone()], Expected::Set(vec![(key, value)]))
                }
                13..=15 => {
                    let keys: Vec<_> = (0..=random.below(6)).map(|_| self.key(random)).collect();
                    let words = std::iter::once(b"MGET".to_vec()).chain(keys.iter().cloned()).collect();
                    (words, Expected::Get(keys, true))
                }
                16..=17 => {
                    let pairs: Vec<_> =
                        (0..=random.below(4)).map(|_| (self.key(random), self.value(random))).collect();
                    let flat = pairs.iter().flat_map(|(key, value)| [key.clone(), value.clone()]);
                    (std::iter::once(b"MSET".to_vec()).chain(flat).collect(), Expected::Set(pairs))
                }
                18..=19 => {
                    let keys: Vec<_> = (0..=random.below(4)).map(|_| self.key(random)).collect();
                    (
                        std::iter::once(b"DEL".to_vec()).chain(keys.iter().cloned()).collect(),
                        Expected::Delete(keys),
                    )
                }
                20 => (vec![b"PING".to_vec()], Expected::Exactly(Value::Simple("PONG".into()))),
                21 => {
                    let text = self.value(random);
                    (vec![b"ECHO".to_vec(), text.clone()], Expected::Exactly(Value::Bulk(Some(text))))
                }
                22 => (vec![b"NONSENSE".to_vec(), b"x".to_vec()], Expected::Refusal("ERR unknown command")),
                _ if random.one_in(60) => (vec![b"QUIT".to_vec()], Expected::Goodbye),
                _ => (vec![b"GET".to_vec()], Expected::Refusal("ERR wrong number of arguments")),
            };
            let inline = words.iter().all(|word| word.len() < 100) && random.one_in(10);
            if inline {
                self.outbox.extend([words.join(&b' '), b"\r\n".to_vec()].concat());
            } else {
                let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                self.outbox.extend(request(&words));
            }
            self.finished = matches!(expected, Expected::Goodbye);
            self.expected.push_back(expected);
            if self.finished {
                return;
            }
        }
    }

    /// Replies have come; each must be one that is possible. `faulty`: shards may have failed.
    pub fn hear(&mut self, bytes: &[u8], faulty: bool, coverage: &mut Coverage) {
        self.inbox.extend_from_slice(bytes);
        let mut used = 0;
        while used < self.inbox.len() {
            let Some((reply, length)) = parse(&self.inbox[used..]) else { break };
            used += length;
            let expected = self.expected.pop_front().expect("a reply was asked for");
            self.judge(expected, reply, faulty, coverage);
        }
        self.inbox.drain(..used);
    }

    fn judge(&mut self, expected: Expected, reply: Value, faulty: bool, coverage: &mut Coverage) {
        let failed = matches!(&reply, Value::Error(text) if text.starts_with("ERR shard "));
        if failed {
            assert!(faulty, "an error without a fault: {reply:?}");
            coverage.errors += 1;
        }
        match expected {
            Expected::Exactly(value) => assert_eq!(reply, value),
            Expected::Goodbye => assert_eq!(reply, Value::Simple("OK".into())),
            Expected::Refusal(begin) => {
                assert!(
                    matches!(&reply, Value::Error(text) if text.starts_with(begin)),
                    "{reply:?} is not {begin}"
                );
            }
            Expected::Set(pairs) => {
                assert!(failed || reply == Value::Simple("OK".into()), "{reply:?} to SET");
                for (key, value) in pairs {
                    let possible = self.possible.entry(key).or_insert_with(|| vec![None]);
                    if !failed {
                        possible.clear();
                    }
                    possible.push(Some(value));
                }
            }
            Expected::Delete(keys) => {
                let all = i64::try_from(keys.len()).expect("few");
                assert!(
                    failed || matches!(reply, Value::Integer(count) if (0..=all).contains(&count)),
                    "{reply:?}"
                );
                for key in keys {
                    let possible = self.possible.entry(key).or_insert_with(|| vec![None]);
                    if !failed {
                        possible.clear();
                    }
                    possible.push(None);
                }
            }
            Expected::Get(keys, several) => {
                if failed {
                    return;
                }
                let values = match reply {
                    Value::Array(values) if several => values,
                    value if !several => vec![value],
                    other => panic!("{other:?} to MGET"),
                };
                assert_eq!(values.len(), keys.len());
                for (key, value) in keys.into_iter().zip(values) {
                    let Value::Bulk(value) = value else { panic!("{value:?} to GET") };
                    let possible = self.possible.entry(key.clone()).or_insert_with(|| vec![None]);
                    let shown = |value: &Option<Vec<u8>>| {
                        value
                            .as_ref()
                            .map(|value| String::from_utf8_lossy(&value[..value.len().min(20)]).into_owned())
                    };
                    assert!(
                        possible.contains(&value),
                        "{} is {:?}, which it can only be by a mistake",
                        String::from_utf8_lossy(&key),
                        shown(&value)
                    );
                    *possible = vec![value];
                    coverage.values += 1;
                }
            }
        }
    }
}
