//! How many clients a worker has of each address, for whoever wants to know where they come from.
//!
//! It is touched when a client comes and when it goes, never for a request.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Addresses that are told apart by one worker of one pool; 3 MB at most.
pub const PEERS_MAX: usize = 65_536;

/// Clients by address. One thread writes, any may read.
#[derive(Default, Debug)]
pub struct Peers(Mutex<Book>);

/// What is counted.
#[derive(Clone, Default, Debug)]
pub struct Book {
    /// By address; none over a Unix socket.
    pub known: HashMap<Option<IpAddr>, u32>,
    /// Clients of further addresses.
    pub others: u32,
}

impl Peers {
    /// One more client.
    pub fn came(&self, address: Option<IpAddr>) {
        let mut book = self.book();
        if let Some(count) = book.known.get_mut(&address) {
            *count += 1;
        } else if book.known.len() < PEERS_MAX {
            book.known.insert(address, 1);
        } else {
            book.others += 1;
        }
    }

    /// One less. Which of two clients of an address was counted among the others is not known, nor does it matter: the sum
    /// is right.
    pub fn went(&self, address: Option<IpAddr>) {
        let mut book = self.book();
        match book.known.get_mut(&address) {
            None => book.others = book.others.saturating_sub(1),
            Some(1) => {
                book.known.remove(&address);
                // After a crowd the room of a crowd is given back.
                if book.known.capacity() / 4 > book.known.len().max(64) {
                    let room = book.known.len() * 2;
                    book.known.shrink_to(room);
                }
            }
            Some(count) => *count -= 1,
        }
    }

    /// What is counted now.
    pub fn snapshot(&self) -> Book {
        self.book().clone()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: usize) -> Option<IpAddr> {
        Some(IpAddr::from((number as u32).to_be_bytes()))
    }

    #[test]
    fn clients_are_counted_by_address_and_the_sum_is_right_beyond_the_limit() {
        let peers = Peers::default();
        for number in 0..PEERS_MAX + 3 {
            peers.came(address(number));
        }
        peers.came(None);
        peers.came(address(0));
        let book = peers.snapshot();
        assert_eq!((book.known.len(), book.others, book.known[&address(0)]), (PEERS_MAX, 4, 2));
        // One that was among the others comes again where there is room, and both go.
        peers.went(address(1));
        peers.came(address(PEERS_MAX));
        peers.went(address(PEERS_MAX));
        peers.went(address(PEERS_MAX));
        let book = peers.snapshot();
        let sum = book.known.values().sum::<u32>() + book.others;
        assert_eq!((book.known.len(), book.others, sum as usize), (PEERS_MAX - 1, 3, PEERS_MAX + 3));
    }

    #[test]
    fn who_is_gone_takes_no_room() {
        let peers = Peers::default();
        (0..PEERS_MAX).for_each(|number| peers.came(address(number)));
        (0..PEERS_MAX).for_each(|number| peers.went(address(number)));
        peers.went(address(0));
        let book = peers.book();
        assert!(book.known.is_empty() && book.known.capacity() < 1024, "{}", book.known.capacity());
        assert_eq!(book.others, 0);
    }
}
