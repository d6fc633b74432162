//! An honest shard: it executes what it reads, in order, and answers in order.

use std::collections::{HashMap, VecDeque};

use super::resp::{Value, parse};

/// The data of one shard; it outlives its connections.
#[derive(Default)]
pub struct Shard {
    data: HashMap<Vec<u8>, Vec<u8>>,
    /// How often each value was set: no request may be executed twice.
    pub executed: HashMap<Vec<u8>, u32>,
}

/// One connection, as the shard sees it.
#[derive(Default)]
pub struct Connection {
    inbox: Vec<u8>,
    /// Responses not yet received by the proxy.
    pub outbox: VecDeque<u8>,
    /// It reads nothing for now.
    pub silent: bool,
}

impl Connection {
    /// Bytes have come.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.inbox.extend_from_slice(bytes);
    }

    /// Executes the next request, if one is complete.
    pub fn execute(&mut self, shard: &mut Shard) -> bool {
        if self.silent || self.inbox.is_empty() {
            return false;
        }
        let Some((Value::Array(words), length)) = parse(&self.inbox) else { return false };
        self.inbox.drain(..length);
        let words: Vec<Vec<u8>> =
            words
                .into_iter()
                .map(|word| {
                    if let Value::Bulk(Some(word)) = word { word } else { panic!("a word is a bulk string") }
                })
                .collect();
        self.outbox.extend(shard.answer(&words));
        true
    }
}

impl Shard {
    fn answer(&mut self, words: &[Vec<u8>]) -> Vec<u8> {
        let bulk = |value: Option<&Vec<u8>>| match value {
            None => b"$-1\r\n".to_vec(),
            Some(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
        };
        match words[0].to_ascii_lowercase().as_slice() {
            b"get" => bulk(self.data.get(&words[1])),
            b"mget" => {
                let values = words[1..].iter().flat_map(|key| bulk(self.data.get(key)));
                format!("*{}\r\n", words.len() - 1).into_bytes().into_iter().chain(values).collect()
            }
            b"set" | b"mset" => {
                for pair in words[1..].chunks(2) {
                    *self.executed.entry(pair[1].clone()).or_default() += 1;
                    self.data.insert(pair[0].clone(), pair[1].clone());
                }
                b"+OK\r\n".to_vec()
            }
            b"del" => {
                let removed = words[1..].iter().filter(|key| self.data.remove(*key).is_some()).count();
                format!(":{removed}\r\n").into_bytes()
            }
            other => panic!("a shard was sent {:?}", String::from_utf8_lossy(other)),
        }
    }
}
