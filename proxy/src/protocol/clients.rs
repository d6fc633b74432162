//! Questions of clients about clients: which ones are meant, and what is found.
//!
//! Each worker knows its own clients. It looks whether a client is meant before it formats anything, and what the workers
//! have found is merged once for all who asked the same.

use std::fmt::Display;

use bytes::Bytes;

use super::channels::Kind;
use super::events::Flags;

/// A question about the clients of the whole process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// Which clients are meant.
    pub filter: ClientFilter,
    /// What is to be done with them.
    pub deed: Deed,
    /// How the protocol wants to say the answer; only it knows.
    pub form: u8,
}

/// What is done with the clients that a [`Question`] means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// They are listed.
    List,
    /// They are disconnected.
    Kill,
    /// Those whose request waits for data wait no more; the others are not meant.
    Unblock {
        /// They are told an error, not that their time is over.
        with_error: bool,
    },
    /// They may be told of keys in the stead of others.
    Receive,
    /// Nobody is meant: shards are to tell of these events of keys.
    Notify(Flags),
    /// Nobody is meant: shards are to stop what they run.
    Stop(Running),
}

impl Deed {
    /// Whether clients are meant.
    pub fn is_about_clients(self) -> bool {
        match self {
            Self::List | Self::Kill | Self::Unblock { .. } | Self::Receive => true,
            Self::Notify(_) | Self::Stop(_) => false,
        }
    }
}

/// What a shard runs that is to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Running {
    /// A script.
    Script,
    /// A function of a library.
    Function,
}

/// Which clients a [`Question`] means; all that is given must match.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ClientFilter {
    /// Any of these numbers.
    pub ids: Option<Ids>,
    /// The client's address.
    pub address: Option<String>,
    /// The address it connected to.
    pub local_address: Option<String>,
    /// Not this one.
    pub except: Option<u64>,
    /// It is this user.
    pub user: Option<String>,
    /// Connected for at least so many seconds.
    pub age_min: Option<u64>,
    /// It listens to channels, or does not.
    pub listens: Option<bool>,
    /// Matches nobody (for example clients of a type that does not exist here).
    pub none: bool,
}

/// Numbers of clients: a set, since a client may name as many as it likes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ids(Vec<u64>);

impl FromIterator<u64> for Ids {
    fn from_iter<I: IntoIterator<Item = u64>>(ids: I) -> Self {
        let mut ids: Vec<u64> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        Self(ids)
    }
}

impl Ids {
    /// Whether this number is one of them.
    pub fn contains(&self, id: u64) -> bool {
        self.0.binary_search(&id).is_ok()
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied()
    }
}

impl Question {
    /// Whether it is about this client alone.
    pub fn is_only_about(&self, id: u64) -> bool {
        self.filter.ids.as_ref().is_some_and(|ids| ids.0 == [id])
    }

    /// Whether nobody can be meant.
    pub fn is_about_nobody(&self) -> bool {
        self.filter.none || self.filter.ids.as_ref().is_some_and(|ids| ids.0.is_empty())
    }
}

impl ClientFilter {
    /// Whether the client is meant. What is cheap to compare comes first.
    pub fn matches(&self, client: &ClientRow<'_>) -> bool {
        let is_at = |wanted: &Option<String>, at: &dyn Display| {
            wanted.as_ref().is_none_or(|wanted| *wanted == at.to_string())
        };
        !self.none
            && self.ids.as_ref().is_none_or(|ids| ids.contains(client.id))
            && self.except != Some(client.id)
            && self.user.as_ref().is_none_or(|user| user == client.user)
            && self.listens.is_none_or(|listens| listens == client.listens.iter().any(|&count| count > 0))
            && self.age_min.is_none_or(|least| client.age >= least)
            && is_at(&self.address, client.address)
            && is_at(&self.local_address, client.local_address)
    }
}

/// One client as it is listed.
pub struct ClientRow<'c> {
    /// Unique number.
    pub id: u64,
    /// The name of its user; empty where there are none.
    pub user: &'c str,
    /// Its address, as `host:port` or the path of the socket.
    pub address: &'c dyn Display,
    /// The address it connected to.
    pub local_address: &'c dyn Display,
    /// Seconds since it connected.
    pub age: u64,
    /// Seconds since its last request.
    pub idle: u64,
    /// Requests in flight.
    pub in_flight: usize,
    /// Requests queued for a transaction.
    pub queued: usize,
    /// Keys that it watches.
    pub watched: usize,
    /// Bytes of unfinished requests.
    pub input_bytes: usize,
    /// Bytes of replies not yet taken.
    pub output_bytes: usize,
    /// Its request waits for data.
    pub is_blocked: bool,
    /// That request, where it is kept meanwhile.
    pub waits: Option<Bytes>,
    /// It is the one that asks: by the form of its question.
    pub asks: Option<u8>,
    /// How many channels it listens to, of each kind.
    pub listens: [usize; Kind::COUNT],
}

/// What one worker has found for a question.
#[derive(Clone, Default, Debug)]
pub struct Rows {
    /// The lines of the clients, one after the other.
    text: String,
    /// For each client its number and where its line ends.
    ends: Vec<(u64, usize)>,
}

impl Rows {
    /// One more client. Its line is written by `write`.
    pub fn push(&mut self, id: u64, write: impl FnOnce(&mut String)) {
        write(&mut self.text);
        self.ends.push((id, self.text.len()));
    }

    fn lines(&self) -> impl Iterator<Item = (u64, &str)> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|&(_, end)| end));
        self.ends.iter().zip(starts).map(|(&(id, end), start)| (id, &self.text[start..end]))
    }
}

/// The answer to a question, shared by all who asked it.
#[derive(Clone, Default, Debug)]
pub struct Found {
    /// Why it was not done, in the words that the client is told.
    pub refusal: Option<String>,
    /// How many clients were meant.
    pub count: usize,
    /// Their lines, by their numbers.
    pub text: Bytes,
}

impl Found {
    /// Of what all workers have found.
    pub fn of(parts: &[Rows]) -> Self {
        let mut lines: Vec<(u64, &str)> = parts.iter().flat_map(Rows::lines).collect();
        lines.sort_unstable_by_key(|&(id, _)| id);
        let mut text = String::with_capacity(parts.iter().map(|part| part.text.len()).sum());
        lines.iter().for_each(|(_, line)| text.push_str(line));
        Self { refusal: None, count: lines.len(), text: text.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(ids: &[u64]) -> Rows {
        let mut rows = Rows::default();
        for &id in ids {
            rows.push(id, |line| line.push_str(&format!("id={id}\n")));
        }
        rows
    }

    #[test]
    fn what_workers_have_found_is_merged_by_number() {
        let found = Found::of(&[rows(&[5, 1, 3]), rows(&[]), rows(&[4, 2])]);
        assert_eq!(found.count, 5);
        assert_eq!(found.text, "id=1\nid=2\nid=3\nid=4\nid=5\n");
    }

    #[test]
    fn numbers_are_a_set() {
        let question = |ids: &[u64]| Question {
            filter: ClientFilter { ids: Some(ids.iter().copied().collect()), ..ClientFilter::default() },
            deed: Deed::List,
            form: 0,
        };
        assert_eq!(question(&[3, 1, 3]), question(&[1, 3]));
        assert!(question(&[7, 7]).is_only_about(7));
        assert!(question(&[]).is_about_nobody() && !question(&[1]).is_about_nobody());
    }
}
