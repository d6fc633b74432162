//! What a driver keeps of each socket. Every idle client has one, so it is small.

use crate::net::socket::{Ends, Socket};
use crate::pool::{ClientId, ConnectionId};
use crate::table::Table;
use crate::time::Time;
use crate::worker::linger::LingeringId;

/// A client's.
pub struct ClientSocket {
    pub socket: Socket,
    pub ends: Ends,
    /// Of its [`ClientId`]; its place says the rest.
    pub generation: u32,
    /// The kernel has said that nothing more will come after what there is.
    pub ended: bool,
    /// What it may have to read still.
    pub more: More,
    /// It has been written in this pass as much as that allows, and has its turn in the next one.
    pub paused: bool,
    /// It is old: it goes with its next reply.
    pub leaving: bool,
    /// What the kernel has of it while shards are waited for: the time of its requests runs already.
    pub left: Option<Box<Left>>,
}

/// What a client may have to read, though the kernel does not tell of it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum More {
    /// Nothing.
    None,
    /// Something that was left because the pool did not want it.
    Unwanted,
    /// More than it was read at once: it waits for its next turn.
    Queued,
}

/// Bytes that the pool did not want yet.
pub struct Left {
    pub since: Time,
    pub bytes: usize,
}

/// A shard's.
pub struct ShardSocket {
    pub socket: Socket,
    pub id: ConnectionId,
    /// Tells apart those that the connection has one after the other.
    pub number: u32,
    /// The kernel has said that nothing more will come after what there is.
    pub ended: bool,
    /// It has more to read than it was read at once, and has its next turn.
    pub queued: bool,
    /// As [`ClientSocket::paused`].
    pub paused: bool,
}

/// A socket that may have more to read and waits for its turn. One that is closed has none, whoever has its place by then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    Client(ClientId),
    /// The connection, and the number of its socket.
    Shard(ConnectionId, u32),
    Lingering(LingeringId),
}

impl ClientSocket {
    /// Of a client that has just come.
    pub fn new(socket: Socket, ends: Ends, ClientId { generation, .. }: ClientId) -> Self {
        let (ended, paused, leaving) = (false, false, false);
        Self { socket, ends, generation, ended, more: More::None, paused, leaving, left: None }
    }

    /// Who it is, in this place.
    #[inline]
    pub fn id(&self, place: usize) -> ClientId {
        ClientId { index: place as u32, generation: self.generation }
    }

    /// Since when the bytes just read have been there, if they were left before.
    pub fn arrived(&mut self, count: usize) -> Option<Time> {
        let Left { since, bytes } = *self.left.take()?;
        if count < bytes {
            self.left = Some(Box::new(Left { since, bytes: bytes - count }));
        }
        (count <= bytes).then_some(since)
    }
}

/// All clients that there are.
pub fn ids(clients: &Table<ClientSocket>) -> impl Iterator<Item = ClientId> {
    clients.iter().map(|(place, client)| client.id(place))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;
    use crate::pool::client::Client;
    use crate::protocol::memcache::Memcache;
    use crate::protocol::resp::Resp;
    use crate::worker::driver::Drive as _;
    use crate::worker::driver::rig::{Rig, heard, say};

    /// What it owns beside the kernel's socket; a table has room for more clients than there are.
    #[test]
    fn an_idle_client_is_small() {
        let socket = size_of::<Option<ClientSocket>>();
        for client in [size_of::<Client<Resp>>(), size_of::<Client<Memcache>>()] {
            assert!(socket + client <= 112, "{socket} + {client}");
        }
    }

    /// No shard is ever connected to for it.
    #[test]
    fn what_nobody_speaks_any_more_ends_although_it_was_never_used() {
        let mut rig = Rig::new(1, |_| {});
        let mut client = rig.client();
        say(&mut client, "HELLO 3\r\n");
        rig.passes();
        assert!(heard(&mut client).starts_with("%7\r\n"));
        assert!(rig.driver.pool.has_extra_connections());
        drop(client);
        rig.passes();
        while let Some(next) = rig.driver.next_pass() {
            assert!(rig.now < Time::from_micros(60_000_000), "it has no end");
            rig.now = rig.now.max(next);
            rig.pass();
        }
        assert!(!rig.driver.pool.has_extra_connections());
    }

    /// Shards that send faster than they are read: each has one turn at a time, however often the kernel tells of it.
    #[test]
    fn shards_that_always_have_more_take_turns() {
        const SHARDS: usize = 16;
        let mut rig = Rig::new(SHARDS, |limits| limits.server_connections = SHARDS);
        let mut clients: Vec<_> = (0..SHARDS).map(|_| rig.client()).collect();
        clients.iter_mut().for_each(|client| say(client, "GET a\r\n"));
        rig.passes();
        let mut shards: Vec<_> = clients.iter().map(|_| rig.shard()).collect();
        rig.passes();
        for shard in &mut shards {
            assert_eq!(heard(shard), "*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
            say(shard, "$1000000000\r\n");
        }
        let some = [b'x'; 64 * 1024];
        for pass in 0..100 {
            shards.iter_mut().for_each(|shard| while shard.write(&some).is_ok() {});
            rig.pass();
            clients.iter_mut().for_each(|client| drop(heard(client)));
            assert!(rig.driver.again.len() <= SHARDS, "{} turns in pass {pass}", rig.driver.again.len());
        }
    }

    /// A connection is made again where it was, and its turn may come after that.
    #[test]
    fn what_was_left_of_a_socket_gives_the_next_one_no_second_turn() {
        let mut rig = Rig::new(16, |_| {});
        let mut client = rig.client();
        let (mut turns, mut shards) = (Vec::new(), Vec::new());
        for begins in ["this is no response", "$1000000000\r\n"] {
            say(&mut client, "GET a\r\n");
            rig.passes();
            let mut shard = rig.shard();
            rig.passes();
            say(&mut shard, begins);
            while shard.write(&[b'x'; 64 * 1024]).is_ok() {}
            rig.pass();
            turns.extend(rig.driver.again.iter().copied());
            if turns.len() == 1 {
                assert!(heard(&mut client).contains("malformed"), "the connection is lost");
                rig.passes();
                // The shard's failure.
                while rig.reports.try_recv().is_ok() {}
            }
            shards.push(shard);
        }
        while shards[1].write(&[b'x'; 64 * 1024]).is_ok() {}
        rig.driver.again.push_front(turns[0]);
        rig.driver.turns = 1;
        rig.blind_pass(Duration::ZERO);
        assert_eq!(rig.driver.again, [turns[1]]);
    }
}
