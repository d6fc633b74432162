//! Connections of clients that we have finished with: read until the client closes, because closing with unread bytes in
//! them would destroy replies on their way.
//!
//! Nothing that comes of them is of use, so each of them is read a little at a time, and only in its turn.

use std::rc::Rc;

use slab::Slab;

use crate::net::epoll::{Sockets, Token};
use crate::net::socket::{Read, Socket, Written};
use crate::time::Time;

/// Connections that linger; further ones are just closed.
const LINGERING_MAX: usize = 4096;
/// Longest read; each counts as much of what may be read in a pass, for what it costs where little comes.
pub const READ_SIZE: usize = 16 * 1024;

/// Which lingering connection: its place, and which of those that had it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LingeringId {
    index: u32,
    number: u32,
}

struct Connection {
    socket: Socket,
    /// Tells apart those that had the place.
    number: u32,
    until: Time,
    /// It waits for its turn to be read.
    queued: bool,
    /// What its transport has to say last is not written yet.
    finishing: bool,
}

/// The lingering connections of one pool.
pub struct Lingering {
    connections: Slab<Connection>,
    last_number: u32,
    pool: usize,
    sockets: Rc<Sockets>,
}

impl Lingering {
    /// None so far.
    pub fn new(pool: usize, sockets: Rc<Sockets>) -> Self {
        Self { connections: Slab::new(), last_number: 0, pool, sockets }
    }

    /// Nobody lingers.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// One more, until then at most. Returns what is to be read next.
    pub fn add(&mut self, mut socket: Socket, until: Time) -> Option<LingeringId> {
        let finishing = !finish(&mut socket);
        if self.connections.len() >= LINGERING_MAX {
            return None;
        }
        let entry = self.connections.vacant_entry();
        let index = entry.key() as u32;
        self.sockets.rename(&socket, self.pool, Token::Lingering(index)).ok()?;
        self.last_number = self.last_number.wrapping_add(1);
        let number = self.last_number;
        entry.insert(Connection { socket, number, until, queued: true, finishing });
        Some(LingeringId { index, number })
    }

    /// Something may have come. Returns what is to be read then, unless it waits for that already.
    pub fn wake(&mut self, index: usize) -> Option<LingeringId> {
        let connection = self.connections.get_mut(index)?;
        let was_queued = std::mem::replace(&mut connection.queued, true);
        (!was_queued).then_some(LingeringId { index: index as u32, number: connection.number })
    }

    /// Its turn has come: whatever is there is dropped. Returns what is to be read again: the end may have come with it.
    pub fn read(&mut self, id: LingeringId) -> Option<LingeringId> {
        let index = id.index as usize;
        let connection =
            self.connections.get_mut(index).filter(|connection| connection.number == id.number)?;
        connection.queued = false;
        if connection.finishing {
            connection.finishing = !finish(&mut connection.socket);
        }
        match connection.socket.discard(&mut [0; READ_SIZE]) {
            Ok(Read::Nothing) => None,
            Ok(Read::Full | Read::Drained) => self.wake(index),
            Ok(Read::Ended) | Err(_) => {
                self.connections.remove(index);
                None
            }
        }
    }

    /// Closes those whose time has passed.
    pub fn sweep(&mut self, now: Time) {
        self.connections.retain(|_, connection| connection.until > now);
    }

    /// Bytes that have come of all.
    #[cfg(test)]
    pub fn unread(&self) -> usize {
        self.connections.iter().map(|(_, connection)| connection.socket.waiting()).sum()
    }

    /// Closes all.
    pub fn clear(&mut self) {
        self.connections.clear();
    }
}

/// The last words of its transport; once they are written, of which it is told, nothing of that is kept.
fn finish(socket: &mut Socket) -> bool {
    let is_finished = socket.finish() != Written::Pending;
    if is_finished {
        socket.spend();
    }
    is_finished
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::account::{Account, Aside};
    use crate::net::epoll::Alarm;
    use crate::net::late::{FAREWELL, Late};

    #[test]
    fn each_is_read_a_little_in_its_turn() {
        let sockets = Rc::new(Sockets::new(&Alarm::new().expect("a descriptor")).expect("a descriptor"));
        let mut lingering = Lingering::new(0, sockets);
        let (mut theirs, ours) = UnixStream::pair().expect("descriptors");
        ours.set_nonblocking(true).expect("a socket");
        std::io::Write::write_all(&mut theirs, &[0; 3 * READ_SIZE / 2]).expect("there is room");
        lingering.sockets.add(&ours, 0, Token::Client(0)).expect("it is watched");
        let turn = lingering.add(Socket::from(ours), Time::from_micros(1)).expect("there is room");
        assert_eq!(lingering.wake(0), None, "it has a turn already");
        let left = |lingering: &Lingering| lingering.connections[0].socket.waiting();
        assert_eq!(lingering.read(turn), Some(turn));
        assert_eq!(left(&lingering), READ_SIZE / 2);
        assert_eq!(lingering.read(turn), Some(turn));
        assert_eq!(lingering.read(turn), None, "nothing is left");
        assert_eq!(lingering.wake(0), Some(turn));
        drop(theirs);
        assert_eq!(lingering.read(turn), None);
        assert!(lingering.is_empty(), "it has ended");
        assert_eq!(lingering.wake(0), None);
    }

    #[test]
    fn what_a_transport_holds_counts_until_its_last_words_are_written_and_no_longer() {
        let account = Account::new(usize::MAX);
        let sockets = Rc::new(Sockets::new(&Alarm::new().expect("a descriptor")).expect("a descriptor"));
        let mut lingering = Lingering::new(0, sockets);
        let (mut theirs, ours) = UnixStream::pair().expect("descriptors");
        for end in [&theirs, &ours] {
            end.set_nonblocking(true).expect("a socket");
        }
        lingering.sockets.add(&ours, 0, Token::Client(0)).expect("it is watched");
        let mut hoard = Aside::new(&account);
        hoard.hold(5_000);
        let turn = lingering.add(Late::hoarding(ours, hoard), Time::from_micros(1)).expect("there is room");
        let (mut heard, mut room) = (Vec::new(), [0; 64]);
        while heard.len() < FAREWELL.len() {
            assert_eq!(account.aside(), 5_000, "its last words are not written");
            let count = std::io::Read::read(&mut theirs, &mut room).expect("it goes on");
            heard.extend_from_slice(&room[..count]);
            lingering.read(turn);
            // The rest of them fits.
            if account.aside() == 0 {
                break;
            }
        }
        assert_eq!(account.aside(), 0, "all is said");
        assert!(!lingering.is_empty(), "the client has not closed");
    }

    #[test]
    fn a_turn_ends_with_its_connection() {
        let sockets = Rc::new(Sockets::new(&Alarm::new().expect("a descriptor")).expect("a descriptor"));
        let mut lingering = Lingering::new(0, sockets);
        let mut pairs = [(); 2].map(|()| UnixStream::pair().expect("descriptors"));
        let mut turns = pairs.iter_mut().map(|(theirs, ours)| {
            ours.set_nonblocking(true).expect("a socket");
            std::io::Write::write_all(theirs, b"some").expect("there is room");
            let ours = ours.try_clone().expect("a descriptor");
            lingering.sockets.add(&ours, 0, Token::Client(0)).expect("it is watched");
            lingering.sweep(Time::from_micros(2));
            lingering.add(Socket::from(ours), Time::from_micros(1)).expect("there is room")
        });
        let (former, present) = (turns.next().expect("one"), turns.next().expect("another"));
        drop(turns);
        assert_eq!(former.index, present.index);
        assert_eq!(lingering.read(former), None);
        assert_eq!(lingering.read(present), Some(present));
    }
}
