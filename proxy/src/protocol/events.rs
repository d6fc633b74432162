//! Which of what happens to keys servers tell of: the flags of `notify-keyspace-events`, a letter for each kind of events.
//!
//! Which letters there are only servers know, and later ones know more; here they are a set that grows.

use std::fmt;

/// A set of letters.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Flags(u128);

/// Stands for [`CLASSES`].
const ALL: u8 = b'A';
const CLASSES: &[u8] = b"g$lshzxetd";
/// Those that no class of theirs stands for: `m` came with Redis 6, `n` with 7, `o` and `c` with 8.2, `r` and `S T I V` (events of parts of keys)
/// later. Valkey 9 has those of Redis 7. The order is that in which servers say them, where they do: of `n o c r` those that have
/// [`ALL`] say nothing, though they tell of them. So these cannot be seen there, and are set again.
const ORDER: &[u8] = b"Ag$lshzxetdnocrKEmSTIV";
/// Those that servers have known for as long as there are events (Redis 2.8).
const OLDEST: &[u8] = b"Ag$lshzxeKE";

impl Flags {
    /// The letters of a text, unless there is something in it that cannot be one.
    pub fn of(text: &[u8]) -> Option<Self> {
        let mut flags = Self::default();
        for &letter in text {
            if !letter.is_ascii_graphic() {
                return None;
            }
            flags.0 |= 1 << letter;
        }
        Some(flags)
    }

    fn has(self, letter: u8) -> bool {
        let is_class = self.0 & (1 << ALL) > 0 && CLASSES.contains(&letter);
        is_class || self.0 & (1 << letter) > 0
    }

    /// There are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Both taken together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are none of the other's.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether one of the other's is among these.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 > 0
    }

    /// Those that no server is known to know.
    #[must_use]
    pub fn strange(self) -> Self {
        self.beyond(ORDER)
    }

    /// Which of them a server does not know, where it has refused them all without a word which: those that none knows, or else those
    /// that old ones do not.
    #[must_use]
    pub fn doubtful(self) -> Self {
        let doubts = [self.strange(), self.beyond(OLDEST)];
        doubts.into_iter().find(|flags| !flags.is_empty()).unwrap_or(self)
    }

    fn beyond(self, known: &[u8]) -> Self {
        Self(known.iter().fold(self.0, |rest, &letter| rest & !(1 << letter)))
    }

    /// Whether all of the other's are among these.
    pub fn contains(self, other: Self) -> bool {
        (0..128).filter(|&letter| other.0 & (1 << letter) > 0).all(|letter| self.has(letter))
    }
}

/// As a server writes them, where it knows them.
impl fmt::Display for Flags {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_all = self.has(ALL) || CLASSES.iter().all(|&letter| self.has(letter));
        let others = (0..128).filter(|letter| !ORDER.contains(letter));
        for letter in ORDER.iter().copied().chain(others) {
            let is_said = match letter {
                ALL => has_all,
                _ if has_all && CLASSES.contains(&letter) => false,
                _ => self.0 & (1 << letter) > 0,
            };
            if is_said {
                write!(formatter, "{}", char::from(letter))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Flags {
        Flags::of(text.as_bytes()).expect("letters")
    }

    #[test]
    fn they_are_written_as_servers_write_them() {
        for (text, written) in [
            ("", ""),
            ("Egx", "gxE"),
            ("KEA", "AKE"),
            ("g$lshzxetdK", "AK"),
            ("AgK", "AK"),
            ("mnKocEV", "nocKEmV"),
            ("KEZ", "KEZ"),
            ("K$K$", "$K"),
        ] {
            assert_eq!(of(text).to_string(), written);
        }
        assert_eq!(Flags::of(b"K\r\n"), None);
        assert_eq!(Flags::of("K\u{e4}".as_bytes()), None);
    }

    #[test]
    fn they_are_only_added() {
        assert!(
            of("AKE").contains(of("Egx")) && !of("AK").contains(of("Egx")) && !of("AKE").contains(of("n"))
        );
        assert!(of("").contains(of("")) && of("K").contains(of("")) && !of("").contains(of("K")));
        assert_eq!(of("Kx").with(of("Eg")).to_string(), "gxKE");
    }

    #[test]
    fn letters_that_servers_know_are_not_doubted_beside_others() {
        for (text, doubtful) in
            [("KEQ", "Q"), ("nQR", "QR"), ("Kn", "n"), ("KoE", "o"), ("ocQ", "Q"), ("Kx", "xK"), ("", "")]
        {
            assert_eq!(of(text).doubtful(), of(doubtful), "{text}");
        }
        assert!(of("KQ").meets(of("Qn")) && !of("K").meets(of("Q")));
        assert_eq!(of("KxE").without(of("KQ")), of("xE"));
    }
}
