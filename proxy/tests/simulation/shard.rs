//! An honest shard: it executes what it reads, in order, and answers in order.

use std::collections::{HashMap, VecDeque};

use super::dialect::Dialect;

/// The data of one shard; it outlives its connections.
#[derive(Default)]
pub struct Shard {
    pub data: HashMap<Vec<u8>, Vec<u8>>,
    /// How often each value was set: no request may be executed twice.
    pub executed: HashMap<Vec<u8>, u32>,
}

impl Shard {
    pub fn set(&mut self, key: &[u8], value: &[u8]) {
        *self.executed.entry(value.to_vec()).or_default() += 1;
        self.data.insert(key.to_vec(), value.to_vec());
    }
}

/// What the key is called in this database where all databases are kept together.
pub fn in_database(key: &[u8], database: u32) -> Vec<u8> {
    if database == 0 { key.to_vec() } else { [key, format!("@{database}").as_bytes()].concat() }
}

/// What a shard keeps of a connection.
#[derive(Default)]
pub struct State {
    /// What it has selected.
    pub database: u32,
    /// The commands of a transaction, while there is one.
    pub queued: Option<Vec<Vec<Vec<u8>>>>,
    /// One of them was refused.
    pub refused: bool,
}

/// One connection, as the shard sees it.
#[derive(Default)]
pub struct Connection {
    inbox: Vec<u8>,
    state: State,
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
    pub fn execute<D: Dialect>(&mut self, shard: &mut Shard) {
        if self.silent || self.inbox.is_empty() {
            return;
        }
        if let Some((response, length)) = D::execute(shard, &mut self.state, &self.inbox) {
            self.inbox.drain(..length);
            self.outbox.extend(response);
        }
    }
}
