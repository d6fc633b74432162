//! What the workers of a pool tell each other on behalf of clients: that keys have changed, where one client wants another one, of another
//! worker, to be told of it (CLIENT TRACKING with REDIRECT).
//!
//! One mailbox for each worker, behind a lock that is taken once for each change that is told so, and once in a pass where there is mail.
//! Whoever puts something into an empty one wakes its worker. Messages by way of the control thread would wait there behind all others.
//! What waits is in the account, of no worker alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::account::Account;

/// Bytes of what waits for one worker. Beyond that its clients are told that anything may have changed.
const MAIL_MAX: usize = 1 << 20;
/// What a message takes beside its bytes.
const MESSAGE_BYTES: usize = 128;
/// What a client takes that is to be told something, and one in whose stead it is.
const LETTER_BYTES: usize = 2 * size_of::<(u64, Letter)>();
const SENDER_BYTES: usize = 2 * size_of::<(u64, u64)>();

/// The mailboxes of a pool.
#[derive(Debug)]
pub struct Mailboxes {
    boxes: Box<[Mailbox]>,
    account: Arc<Account>,
}

#[derive(Default, Debug)]
struct Mailbox {
    has_mail: AtomicBool,
    mail: Mutex<Mail>,
}

/// What waits for a worker.
#[derive(Default, Debug)]
pub struct Mail {
    /// By the numbers of the clients that are to be told.
    pub letters: BTreeMap<u64, Letter>,
    /// Numbers of clients, each with that of the one that was to be told in its stead, which is not there.
    pub lost: BTreeSet<(u64, u64)>,
    /// Of what is told.
    bytes: usize,
    /// How many are told it, and in whose stead.
    senders: usize,
}

impl Mail {
    /// Memory of all of it.
    fn held(&self) -> usize {
        self.bytes + self.letters.len() * LETTER_BYTES + (self.senders + self.lost.len()) * SENDER_BYTES
    }
}

/// What waits for one client.
#[derive(Default, Debug)]
pub struct Letter {
    /// Numbers of those in whose stead it is told.
    pub senders: BTreeSet<u64>,
    /// What it is told, in order.
    pub told: Vec<Bytes>,
    /// It is told that anything may have changed instead.
    pub is_all: bool,
}

impl Mailboxes {
    /// Empty ones for so many workers; what comes into them counts in the account.
    pub fn new(workers: usize, account: &Arc<Account>) -> Self {
        let boxes = (0..workers.max(1)).map(|_| Mailbox::default()).collect();
        Self { boxes, account: account.clone() }
    }

    /// The worker that the client with this number has. Clients are numbered so that each worker has its own remainder.
    pub fn worker_of(&self, client: u64) -> usize {
        (client.wrapping_sub(1) % self.boxes.len() as u64) as usize
    }

    fn open(&self, worker: usize) -> MutexGuard<'_, Mail> {
        self.boxes[worker].mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts something into a mailbox. Whether its worker has to be woken.
    fn put(&self, worker: usize, put: impl FnOnce(&mut Mail)) -> bool {
        let mut mail = self.open(worker);
        let before = mail.held();
        put(&mut mail);
        self.account.change(before, mail.held());
        !self.boxes[worker].has_mail.swap(true, Ordering::AcqRel)
    }

    /// The client with the number `to` is to be told this, because `from` wants it so. Whether its worker has to be woken.
    pub fn tell(&self, to: u64, from: u64, told: &Bytes) -> bool {
        self.put(self.worker_of(to), |Mail { letters, bytes, senders, .. }| {
            let letter = letters.entry(to).or_default();
            *senders += usize::from(letter.senders.insert(from));
            if letter.is_all {
                return;
            }
            letter.told.push(told.clone());
            *bytes += told.len() + MESSAGE_BYTES;
            if *bytes > MAIL_MAX {
                *bytes = 0;
                letters.values_mut().for_each(|letter| (letter.told, letter.is_all) = (Vec::new(), true));
            }
        })
    }

    /// The client with the number `to` is told that `lost` is not there. Whether its worker has to be woken.
    pub fn tell_lost(&self, to: u64, lost: u64) -> bool {
        self.put(self.worker_of(to), |mail| {
            mail.lost.insert((to, lost));
        })
    }

    /// Whether something waits for the worker.
    #[inline]
    pub fn has_mail(&self, worker: usize) -> bool {
        self.boxes[worker].has_mail.load(Ordering::Acquire)
    }

    /// All that waits for the worker.
    pub fn take(&self, worker: usize) -> Mail {
        self.boxes[worker].has_mail.store(false, Ordering::Release);
        let mail = std::mem::take(&mut *self.open(worker));
        self.account.change(mail.held(), 0);
        mail
    }
}

impl Drop for Mailboxes {
    fn drop(&mut self) {
        (0..self.boxes.len()).for_each(|worker| drop(self.take(worker)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_worker_is_bounded() {
        let account = Account::new(usize::MAX);
        let boxes = Mailboxes::new(2, &account);
        assert_eq!((boxes.worker_of(1), boxes.worker_of(2), boxes.worker_of(7)), (0, 1, 0));
        let told = Bytes::from(vec![b'x'; 1000]);
        let woken = (0..100_000).filter(|number| boxes.tell(1 + 2 * (number % 4), 2, &told)).count();
        assert_eq!(woken, 1);
        assert!(boxes.open(0).bytes <= MAIL_MAX);
        assert_eq!(account.held(), boxes.open(0).held());
        assert!(boxes.has_mail(0) && !boxes.has_mail(1));
        let mail = boxes.take(0);
        assert_eq!(account.held(), 0);
        assert!(!boxes.has_mail(0) && mail.letters.len() == 4);
        assert!(mail.letters.values().all(|letter| letter.is_all && letter.told.is_empty()));
        boxes.tell(2, 1, &told);
        assert!(!boxes.tell_lost(2, 9) && !boxes.tell_lost(2, 9));
        let mail = boxes.take(1);
        assert_eq!((mail.letters[&2].told.len(), mail.lost.len()), (1, 1));
        assert!(!mail.letters[&2].is_all);
        boxes.tell(2, 1, &told);
        let held = account.held();
        boxes.tell(2, 1, &told);
        assert_eq!(account.held() - held, told.len() + MESSAGE_BYTES);
        drop(boxes);
        assert_eq!(account.held(), 0, "what nobody takes any more");
    }
}
