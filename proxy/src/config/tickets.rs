//! Tickets by which clients resume TLS sessions, sealed by keys of a file that replicas share: a client that comes to another replica, or
//! after a restart, need not shake hands anew.
//!
//! A line of the file is a key; the first seals, all of them open. So a new key is put at the end on all replicas, then to the front on
//! all of them, and old ones are taken out once their tickets have ended. What has the keys can read what was said in sessions of TLS
//! 1.2 that were resumed by them, so they are to be changed often.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::ProducesTickets;

/// Bytes of a key: its name, then the secret.
const KEY: usize = NAME + 32;
const NAME: usize = 16;
/// Bytes that are drawn anew for each ticket, from which and the secret its own key is made: so none is used twice.
const SALT: usize = 16;
/// When it was given, in seconds since 1970.
const TIME: usize = 8;
/// Keys of a file.
const KEYS_MAX: usize = 16;
/// How long a ticket is good, in seconds, however long its key is there: as long as those without a file.
const LIFETIME: u32 = 12 * 60 * 60;
/// How far the clocks of two replicas may be apart, in seconds.
const SKEW: u64 = 5 * 60;

/// The keys of a file.
pub struct SharedTickets {
    keys: Vec<Key>,
    /// The time, in seconds since 1970.
    now: fn() -> u64,
}

struct Key {
    name: [u8; NAME],
    secret: hmac::Key,
}

impl SharedTickets {
    /// The keys in this text: one a line, in hexadecimal digits; empty lines and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// What is wrong with it, in words; nothing of a key is told.
    pub fn of(text: &str) -> Result<Arc<Self>, String> {
        let lines = text.lines().map(str::trim).enumerate();
        let mut keys: Vec<Key> = Vec::new();
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let bytes = digits(line).ok_or_else(|| {
                format!(
                    "line {} is not {} hexadecimal digits; openssl rand -hex {KEY} makes a key",
                    number + 1,
                    2 * KEY
                )
            })?;
            let (name, secret) = bytes.split_at(NAME);
            let name: [u8; NAME] = name.try_into().map_err(|_| "a key is too short".to_owned())?;
            if keys.iter().any(|known| known.name == name) {
                return Err(format!("line {} begins as another one does: each key is made anew", number + 1));
            }
            keys.push(Key { name, secret: hmac::Key::new(hmac::HMAC_SHA256, secret) });
        }
        match keys.len() {
            1..=KEYS_MAX => Ok(Arc::new(Self { keys, now })),
            count => Err(format!("there are {count} keys in this file; allowed are 1 to {KEYS_MAX}")),
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

fn digits(line: &str) -> Option<[u8; KEY]> {
    let mut bytes = [0; KEY];
    if line.len() != 2 * KEY || !line.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&line[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}

impl Key {
    /// What seals one ticket.
    fn of_ticket(&self, salt: &[u8]) -> Option<LessSafeKey> {
        let own = hmac::sign(&self.secret, salt);
        UnboundKey::new(&AES_256_GCM, own.as_ref()).ok().map(LessSafeKey::new)
    }
}

/// Each ticket has a key of its own.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

impl fmt::Debug for SharedTickets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SharedTickets({} keys)", self.keys.len())
    }
}

impl ProducesTickets for SharedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    /// The name of the key, the salt, then what is sealed: when, and what rustls says.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut ticket = key.name.to_vec();
        ticket.resize(NAME + SALT, 0);
        default_provider().secure_random.fill(&mut ticket[NAME..]).ok()?;
        let sealing = key.of_ticket(&ticket[NAME..])?;
        let mut sealed = (self.now)().to_be_bytes().to_vec();
        sealed.extend_from_slice(plain);
        sealing.seal_in_place_append_tag(nonce(), Aad::from(&ticket[..]), &mut sealed).ok()?;
        ticket.append(&mut sealed);
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (head, sealed) = ticket.split_at_checked(NAME + SALT)?;
        let key = self.keys.iter().find(|key| key.name == head[..NAME])?;
        let mut sealed = sealed.to_vec();
        let opened =
            key.of_ticket(&head[NAME..])?.open_in_place(nonce(), Aad::from(head), &mut sealed).ok()?;
        let (given, plain) = opened.split_at_checked(TIME)?;
        let (given, now) = (u64::from_be_bytes(given.try_into().ok()?), (self.now)());
        let is_good = given <= now.saturating_add(SKEW) && now.saturating_sub(given) <= LIFETIME.into();
        is_good.then(|| plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    const START: u64 = 1_900_000_000;

    fn line(seed: u8) -> String {
        (0..KEY).map(|at| format!("{:02x}", seed.wrapping_mul(31).wrapping_add(at as u8))).collect()
    }

    fn tickets(text: &str, now: fn() -> u64) -> SharedTickets {
        let Ok(read) = SharedTickets::of(text).map(Arc::into_inner) else { panic!("{text}") };
        SharedTickets { now, ..read.expect("nobody else has it") }
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let [one, two, three] = [1, 2, 3].map(line);
        let now = || START;
        let before = tickets(&format!("# of March\n{one}\n"), now);
        let between = tickets(&format!("{one}\n\n{two}\r\n"), now);
        let after = tickets(&format!("{two}\n{one}"), now);
        let last = tickets(&format!("{three}\n{two}\n"), now);
        let (old, new) =
            (before.encrypt(b"state").expect("sealed"), after.encrypt(b"state").expect("sealed"));
        for (of, ticket, is_good) in [
            (&before, &old, true),
            (&between, &old, true),
            (&after, &old, true),
            (&last, &old, false),
            (&before, &new, false),
            (&between, &new, true),
            (&last, &new, true),
        ] {
            assert_eq!(of.decrypt(ticket).is_some_and(|state| state == b"state"), is_good);
        }
        assert_ne!(old, before.encrypt(b"state").expect("sealed"), "each is sealed anew");
    }

    #[test]
    fn a_ticket_that_was_changed_opens_nothing() {
        let keys = tickets(&line(1), || START);
        let ticket = keys.encrypt(b"state").expect("sealed");
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(keys.decrypt(&changed), None, "byte {at}");
            assert_eq!(keys.decrypt(&ticket[..at]), None, "{at} bytes");
        }
        assert_eq!(keys.decrypt(&[ticket, vec![0]].concat()), None);
    }

    #[test]
    fn a_ticket_ends_though_its_key_is_there() {
        static NOW: AtomicU64 = AtomicU64::new(START);
        let keys = tickets(&line(1), || NOW.load(Relaxed));
        let ticket = keys.encrypt(b"").expect("sealed");
        for (now, is_good) in [
            (START + u64::from(LIFETIME), true),
            (START + u64::from(LIFETIME) + 1, false),
            (START - SKEW, true),
            (START - SKEW - 1, false),
        ] {
            NOW.store(now, Relaxed);
            assert_eq!(keys.decrypt(&ticket).is_some(), is_good, "{now}");
        }
    }

    #[test]
    fn files_that_are_none_are_refused_without_a_word_of_a_key() {
        let good = line(1);
        let many: String = (0..=KEYS_MAX as u8).map(|seed| line(seed) + "\n").collect();
        for text in
            ["", "# nothing\n", &good[1..], &format!("{good}0"), &format!("{good}\n{good}"), &many, "\u{e9}"]
        {
            let why = SharedTickets::of(text).expect_err(text);
            assert!(!why.contains(&good[..8]), "{why}");
        }
    }
}
