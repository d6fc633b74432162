//! A client that knows what it may be told: for each of its keys, the values it can have.

use std::collections::{HashMap, VecDeque};

use memstore_proxy::pool::ClientId;

use super::dialect::{Dialect, Expectation, Expected, Reply, Told};
use super::shard::in_database;
use crate::{Coverage, Random};

/// Keys of one client.
const KEYS: u64 = 12;
/// Databases that there are.
pub const DATABASES: u64 = 48;

/// Where a client takes keys and values from; no value comes twice.
pub struct Keys {
    client: usize,
    /// Transactions may have keys on several shards.
    spreads: bool,
    database: u32,
    next_value: u64,
}

impl Keys {
    pub fn key(&self, random: &mut Random) -> Vec<u8> {
        format!("client:{}:key:{}", self.client, random.below(KEYS)).into_bytes()
    }

    pub fn keys(&self, most: u64, random: &mut Random) -> Vec<Vec<u8>> {
        (0..=random.below(most)).map(|_| self.key(random)).collect()
    }

    /// Another database from now on.
    pub fn select(&mut self, random: &mut Random) -> u32 {
        let most = if random.one_in(4) { DATABASES } else { 3 };
        self.database = random.below(most) as u32;
        self.database
    }

    /// The key, as it is known in the present database.
    pub fn known(&self, key: &[u8]) -> Vec<u8> {
        in_database(key, self.database)
    }

    pub fn value(&mut self, random: &mut Random) -> Vec<u8> {
        self.next_value += 1;
        let mut value = format!("{}/{}/", self.client, self.next_value).into_bytes();
        let size = match random.below(400) {
            0 => 1_200_000,
            1..=12 => 20_000,
            _ => random.below(60) as usize,
        };
        value.resize(value.len() + size, b'v');
        value
    }

    /// Whether the keys of a transaction may be on several shards.
    pub fn spreads(&self) -> bool {
        self.spreads
    }

    /// One that finds room whatever is held.
    pub fn small_value(&mut self, random: &mut Random) -> Vec<u8> {
        self.next_value += 1;
        let mut value = format!("{}/{}/", self.client, self.next_value).into_bytes();
        value.resize(value.len() + random.below(60) as usize, b'v');
        value
    }

    /// A number that was not given before.
    pub fn number(&mut self) -> u64 {
        self.next_value += 1;
        self.next_value
    }
}

/// One client.
pub struct Client {
    pub id: ClientId,
    keys: Keys,
    /// Bytes not yet sent.
    pub outbox: VecDeque<u8>,
    inbox: Vec<u8>,
    expected: VecDeque<Expectation>,
    possible: HashMap<Vec<u8>, Vec<Option<Vec<u8>>>>,
    /// Keys move between shards, so that what they once were may come back.
    moving: bool,
    /// It has closed its writing side, or said goodbye.
    pub finished: bool,
    /// It takes no replies for now.
    pub lazy: bool,
    /// It has heard words that can mean that it has to go.
    pub may_have_to_go: bool,
}

impl Client {
    pub fn new(id: ClientId, number: usize, moving: bool, spreads: bool) -> Self {
        Self {
            id,
            keys: Keys { client: number, spreads, database: 0, next_value: 0 },
            outbox: VecDeque::new(),
            inbox: Vec::new(),
            expected: VecDeque::new(),
            possible: HashMap::new(),
            moving,
            finished: false,
            lazy: false,
            may_have_to_go: false,
        }
    }

    pub fn waits(&self) -> bool {
        self.expected.iter().any(|expectation| expectation.told != Told::Never)
    }

    /// Writes some requests.
    pub fn ask<D: Dialect>(&mut self, random: &mut Random) {
        for _ in 0..=random.below(12) {
            if self.finished {
                return;
            }
            let (bytes, expected) = D::ask(&mut self.keys, random);
            self.outbox.extend(bytes);
            self.finished = expected.iter().any(|asked| matches!(asked.expected, Expected::Goodbye));
            self.expected.extend(expected);
        }
    }

    /// Replies have come; each must be one that is possible. `faulty`: shards may have failed.
    pub fn hear<D: Dialect>(&mut self, bytes: &[u8], faulty: bool, coverage: &mut Coverage) {
        self.inbox.extend_from_slice(bytes);
        let mut used = 0;
        while used < self.inbox.len() {
            let Some((reply, length)) = D::reply(&self.inbox[used..]) else { break };
            used += length;
            if is_told_to_go(&self.inbox[used - length..used]) {
                assert!(faulty, "a client had to go where there is room for all");
                if !self.was_refused() {
                    self.had_to_go();
                }
                continue;
            }
            loop {
                let Expectation { expected, told } =
                    self.expected.pop_front().unwrap_or_else(|| panic!("nobody asked for {reply:?}"));
                let untold = match told {
                    Told::Always => false,
                    Told::Never => true,
                    Told::Unusual(next) => reply == Reply::Text(next.into()),
                };
                if !untold {
                    self.judge(expected, reply, faulty, coverage);
                    break;
                }
                coverage.untold += 1;
                // What is never told may have failed as well.
                self.judge_untold(expected, told == Told::Never && faulty);
            }
        }
        self.inbox.drain(..used);
    }

    /// There was no room for the large request that is answered next: the words are the same, but the client stays. Where it has
    /// to go all the same, nothing else comes.
    fn was_refused(&mut self) -> bool {
        let told = self.expected.iter().position(|expectation| expectation.told == Told::Always);
        let Some(at) = told.filter(|&at| self.expected[at].expected.is_large()) else { return false };
        for Expectation { expected, .. } in self.expected.drain(..at).collect::<Vec<_>>() {
            self.judge_untold(expected, true);
        }
        if let Some(Expectation { expected: Expected::Set(pairs), .. }) = self.expected.pop_front() {
            // It was executed if the client has to go.
            pairs.into_iter().for_each(|(key, value)| self.may_be(key, Some(value), false));
        }
        self.may_have_to_go = true;
        true
    }

    /// Too much was held, and most by this client: what it asked for may have been done or not.
    fn had_to_go(&mut self) {
        self.finished = true;
        self.outbox.clear();
        for Expectation { expected, .. } in std::mem::take(&mut self.expected) {
            match expected {
                Expected::Set(pairs) => {
                    pairs.into_iter().for_each(|(key, value)| self.may_be(key, Some(value), false));
                }
                Expected::Delete(keys) => keys.into_iter().for_each(|key| self.may_be(key, None, false)),
                Expected::Transaction(elements) => self.may_be_executed(elements),
                Expected::Rename(source, destination) => self.may_be_renamed(source, destination),
                Expected::Get(_)
                | Expected::Goodbye
                | Expected::Refusal(_)
                | Expected::Exactly(_)
                | Expected::FromShards(_) => {}
            }
        }
    }

    /// The key has this value now, or may have it.
    fn may_be(&mut self, key: Vec<u8>, value: Option<Vec<u8>>, surely: bool) {
        let possible = self.possible.entry(key).or_insert_with(|| vec![None]);
        if surely && !self.moving {
            possible.clear();
        }
        possible.push(value);
    }

    /// What the key may be, of values.
    fn values_of_key(&self, key: &[u8]) -> Vec<Vec<u8>> {
        self.possible.get(key).into_iter().flatten().flatten().cloned().collect()
    }

    /// The value may have gone from one key to the other, or be under both; but it is under one of them.
    fn may_be_renamed(&mut self, source: Vec<u8>, destination: Vec<u8>) {
        for value in self.values_of_key(&source) {
            self.may_be(destination.clone(), Some(value), false);
        }
        if source != destination {
            self.may_be(source, None, false);
        }
    }

    fn judge_rename(&mut self, source: Vec<u8>, destination: Vec<u8>, reply: Reply, coverage: &mut Coverage) {
        let values = self.values_of_key(&source);
        match reply {
            Reply::Done => {
                coverage.renames += 1;
                assert!(!values.is_empty() || self.moving, "a key that cannot be there was renamed");
                if source == destination {
                    return;
                }
                if !self.moving {
                    self.possible.insert(destination.clone(), Vec::new());
                }
                values.into_iter().for_each(|value| self.may_be(destination.clone(), Some(value), false));
                self.may_be(source, None, true);
            }
            Reply::Refused(words) if words == "ERR no such key" => self.is_possible(source, None),
            Reply::Failed(words) if words.starts_with("ERR RENAME over shards ") => {
                coverage.failed_renames += 1;
                assert_ne!(source, destination);
                if words.ends_with("; nothing was changed") {
                    return;
                }
                let is_written = words.ends_with(" under both keys");
                if is_written && !self.moving {
                    self.possible.insert(destination.clone(), Vec::new());
                }
                values.into_iter().for_each(|value| self.may_be(destination.clone(), Some(value), false));
                if words.ends_with("may be under both keys") {
                    self.may_be(source, None, false);
                }
            }
            Reply::Failed(_) => self.may_be_renamed(source, destination),
            other => panic!("{other:?} to RENAME"),
        }
    }

    /// Nobody knows which of these were executed.
    fn may_be_executed(&mut self, elements: Vec<Expected>) {
        for element in elements {
            if !matches!(element, Expected::Get(_)) {
                self.judge_untold(element, true);
            }
        }
    }

    fn judge_untold(&mut self, expected: Expected, may_have_failed: bool) {
        match expected {
            Expected::Set(pairs) => {
                for (key, value) in pairs {
                    self.may_be(key, Some(value), !may_have_failed);
                }
            }
            Expected::Delete(keys) => {
                for key in keys {
                    self.may_be(key, None, !may_have_failed);
                }
            }
            Expected::Get(keys) => {
                for key in keys {
                    self.is_possible(key, None);
                }
            }
            Expected::Transaction(elements) => self.may_be_executed(elements),
            // Untold is what a client does not want to hear, and no error is silent then.
            Expected::Rename(source, destination) => self.may_be_renamed(source, destination),
            Expected::Goodbye | Expected::Refusal(_) | Expected::Exactly(_) | Expected::FromShards(_) => {}
        }
    }

    fn is_possible(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let possible = self.possible.entry(key.clone()).or_insert_with(|| vec![None]);
        let shown =
            value.as_ref().map(|value| String::from_utf8_lossy(&value[..value.len().min(20)]).into_owned());
        assert!(
            possible.contains(&value),
            "{} is {shown:?}, which it can only be by a mistake",
            String::from_utf8_lossy(&key),
        );
        if !self.moving {
            *possible = vec![value];
        }
    }

    fn judge_transaction(
        &mut self,
        elements: Vec<Expected>,
        reply: Reply,
        faulty: bool,
        coverage: &mut Coverage,
    ) {
        let replies = match reply {
            Reply::Failed(_) => return self.may_be_executed(elements),
            Reply::Refused(words) => {
                let sets = elements.iter().filter_map(|element| match element {
                    Expected::Set(pairs) => Some(pairs),
                    _ => None,
                });
                let is_refused = sets.flatten().any(|(_, value)| is_refused(value));
                assert!(words.starts_with("EXECABORT ") && (faulty || is_refused), "{words} to EXEC");
                coverage.refused_transactions += 1;
                // Alone a shard that refuses one executes none.
                if self.keys.spreads {
                    self.may_be_executed(elements);
                }
                return;
            }
            Reply::Values(values) => values.into_iter().map(|value| Reply::Values(vec![value])).collect(),
            Reply::Elements(replies) => replies,
            other => panic!("{other:?} to EXEC"),
        };
        assert_eq!(replies.len(), elements.len(), "elements of EXEC");
        coverage.transactions += 1;
        for (element, reply) in elements.into_iter().zip(replies) {
            assert!(!matches!(reply, Reply::Failed(_)), "{reply:?} within EXEC");
            self.judge(element, reply, faulty, coverage);
        }
    }

    fn judge(&mut self, expected: Expected, reply: Reply, faulty: bool, coverage: &mut Coverage) {
        let failed = matches!(reply, Reply::Failed(_));
        if failed {
            assert!(faulty, "an error without a fault: {reply:?}");
            coverage.errors += 1;
        }
        match expected {
            Expected::Transaction(elements) => self.judge_transaction(elements, reply, faulty, coverage),
            Expected::Rename(source, destination) => self.judge_rename(source, destination, reply, coverage),
            Expected::Exactly(expected) => assert_eq!(reply, expected),
            Expected::FromShards(expected) => {
                assert!(failed || reply == expected, "{reply:?}, not {expected:?}")
            }
            Expected::Goodbye => assert_eq!(reply, Reply::Done),
            Expected::Refusal(begin) => {
                assert!(
                    matches!(&reply, Reply::Refused(text) if text.starts_with(begin)),
                    "{reply:?} is not {begin}"
                );
            }
            Expected::Set(pairs) => {
                assert!(failed || reply == Reply::Done, "{reply:?} to SET");
                for (key, value) in pairs {
                    self.may_be(key, Some(value), !failed);
                }
            }
            Expected::Delete(keys) => {
                let all = i64::try_from(keys.len()).expect("few");
                let is_count = matches!(reply, Reply::Count(count) if (0..=all).contains(&count));
                assert!(failed || is_count, "{reply:?} to DEL");
                for key in keys {
                    self.may_be(key, None, !failed);
                }
            }
            Expected::Get(keys) => {
                let values = match reply {
                    Reply::Failed(_) => return,
                    Reply::Values(values) => values,
                    Reply::Hits(hits) => values_of(&keys, hits),
                    other => panic!("{other:?} to GET"),
                };
                assert_eq!(values.len(), keys.len());
                for (key, value) in keys.into_iter().zip(values) {
                    self.is_possible(key, value);
                    coverage.values += 1;
                }
            }
        }
    }
}

/// Shards refuse to queue SET with such a value within a transaction.
pub fn is_refused(value: &[u8]) -> bool {
    let number = value.split(|&byte| byte == b'/').nth(1).expect("values have numbers");
    number.ends_with(b"3")
}

/// For each key its value: hits come in the order of the keys.
fn values_of(keys: &[Vec<u8>], hits: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<Option<Vec<u8>>> {
    let mut hits = hits.into_iter().peekable();
    let values = keys.iter().map(|key| hits.next_if(|(hit, _)| hit == key).map(|(_, value)| value)).collect();
    assert_eq!(hits.next(), None, "a value that nobody asked for, or out of order");
    values
}

fn is_told_to_go(reply: &[u8]) -> bool {
    reply.starts_with(b"-OOM ") || reply.starts_with(b"SERVER_ERROR out of memory")
}
