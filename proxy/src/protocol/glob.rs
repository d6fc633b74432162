//! Patterns as KEYS, PSUBSCRIBE, CONFIG GET and COMMAND LIST take them. They come from clients, so a pattern of many
//! asterisks must not take exponential time: only the last asterisk is ever tried again. And one of many megabytes is read
//! once, and not for each text and each place in it.
//!
//! `*`, `?`, `[a-c]`, `[^a-c]` and `\` before any of them. Source: <https://redis.io/docs/latest/commands/keys/>.

/// Longest text that can match; what patterns are held against here are names that the proxy gives.
const TEXT_MAX: usize = 256;

/// What all texts begin with that match the pattern, as far as it says so in plain letters.
pub fn beginning(pattern: &[u8]) -> &[u8] {
    let special = |byte: &u8| matches!(byte, b'*' | b'?' | b'[' | b'\\');
    &pattern[..pattern.iter().position(special).unwrap_or(pattern.len())]
}

/// A pattern that was read; ASCII letters match in either case, unless it is exact.
#[derive(Clone)]
pub struct Pattern {
    /// `None` is an asterisk.
    elements: Vec<Option<Bytes>>,
    /// It matches nothing shorter. Beyond `most` it matches nothing at all, and was not read to its end.
    least: usize,
    /// It matches nothing longer.
    most: usize,
    exact: bool,
}

/// The bytes that one element matches; a bit for each. Where case does not matter letters are in lower case.
#[derive(Clone, Copy, Default)]
struct Bytes([u64; 4]);

impl Bytes {
    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte / 64)] |= 1 << (byte % 64);
    }

    fn contains(self, byte: u8) -> bool {
        self.0[usize::from(byte / 64)] & (1 << (byte % 64)) != 0
    }
}

impl Pattern {
    /// Reads a pattern; letters match in either case.
    pub fn new(pattern: &[u8]) -> Self {
        Self::read(pattern, false, TEXT_MAX)
    }

    /// The same, but letters match themselves.
    pub fn exact(pattern: &[u8]) -> Self {
        Self::read(pattern, true, TEXT_MAX)
    }

    /// The same for texts of any length. Holding one against it takes as long as its length times that of the pattern, so this is for
    /// patterns of the configuration.
    pub fn of_any_length(pattern: &[u8]) -> Self {
        Self::read(pattern, true, usize::MAX)
    }

    /// Memory it holds beside itself.
    pub fn bytes(&self) -> usize {
        self.elements.capacity() * size_of::<Option<Bytes>>()
    }

    fn read(mut pattern: &[u8], exact: bool, most: usize) -> Self {
        let mut read = Self { elements: Vec::new(), least: 0, most, exact };
        while let [first, rest @ ..] = pattern {
            if *first == b'*' {
                if !matches!(read.elements.last(), Some(None)) {
                    read.elements.push(None);
                }
                pattern = rest;
                continue;
            }
            read.least += 1;
            if read.least > most {
                break;
            }
            let (bytes, length) = one(pattern, exact);
            read.elements.push(Some(bytes));
            pattern = &pattern[length..];
        }
        read
    }

    /// Whether the whole text matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        if text.len() < self.least || text.len() > self.most {
            return false;
        }
        let (mut at, mut done) = (0, 0);
        // behind the last asterisk: where the pattern goes on, and how much of the text the asterisk has taken
        let mut retry: Option<(usize, usize)> = None;
        while done < text.len() {
            match self.elements.get(at) {
                Some(None) => {
                    at += 1;
                    retry = Some((at, done));
                    continue;
                }
                Some(Some(bytes)) if bytes.contains(cased(text[done], self.exact)) => {
                    at += 1;
                    done += 1;
                    continue;
                }
                _ => {}
            }
            let Some((behind, taken)) = retry else {
                return false;
            };
            retry = Some((behind, taken + 1));
            (at, done) = (behind, taken + 1);
        }
        self.elements[at..].iter().all(Option::is_none)
    }
}

/// A byte as it is compared.
fn cased(byte: u8, exact: bool) -> u8 {
    if exact { byte } else { byte.to_ascii_lowercase() }
}

/// What the first element of a pattern matches that begins with no asterisk, and its length.
fn one(pattern: &[u8], exact: bool) -> (Bytes, usize) {
    let mut bytes = Bytes::default();
    match pattern {
        [] => (bytes, 0),
        [b'?', ..] => (Bytes([u64::MAX; 4]), 1),
        [b'\\', escaped, ..] => {
            bytes.insert(cased(*escaped, exact));
            (bytes, 2)
        }
        [b'[', rest @ ..] => {
            let (negated, mut rest) = match rest {
                [b'^', rest @ ..] => (true, rest),
                _ => (false, rest),
            };
            loop {
                match rest {
                    // an open end closes the set, as in Redis
                    [] => break,
                    [b']', behind @ ..] => {
                        rest = behind;
                        break;
                    }
                    [b'\\', escaped, behind @ ..] => {
                        bytes.insert(cased(*escaped, exact));
                        rest = behind;
                    }
                    [first, b'-', last, behind @ ..] => {
                        let (first, last) = (cased(*first, exact), cased(*last, exact));
                        (first.min(last)..=first.max(last)).for_each(|byte| bytes.insert(byte));
                        rest = behind;
                    }
                    [literal, behind @ ..] => {
                        bytes.insert(cased(*literal, exact));
                        rest = behind;
                    }
                }
            }
            if negated {
                bytes.0 = bytes.0.map(|word| !word);
            }
            (bytes, pattern.len() - rest.len())
        }
        [literal, ..] => {
            bytes.insert(cased(*literal, exact));
            (bytes, 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Pattern, TEXT_MAX};

    fn matches_ignore_case(pattern: &[u8], text: &[u8]) -> bool {
        Pattern::new(pattern).matches(text)
    }

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("x*", "xread", true),
            ("X*P", "xgroup", true),
            ("x*p", "xgroups", false),
            ("?et", "get", true),
            ("?et", "et", false),
            ("[gs]et", "set", true),
            ("[^gs]et", "set", false),
            ("[a-h]et", "get", true),
            ("[h-a]et", "get", true),
            ("[a-h", "g", true),
            ("[^A-H]", "g", false),
            ("[^A-H]", "I", true),
            ("[A-z]", "[", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("\\", "\\", true),
            ("*a*b", "xaxbxab", true),
        ] {
            assert_eq!(
                matches_ignore_case(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn an_exact_pattern_heeds_case() {
        for (pattern, text, expected) in [
            ("User:*", "User:1", true),
            ("User:*", "user:1", false),
            ("[A-Z]x", "Bx", true),
            ("[A-Z]x", "bx", false),
            ("\\*X", "*x", false),
        ] {
            assert_eq!(
                Pattern::exact(pattern.as_bytes()).matches(text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn many_asterisks_take_no_exponential_time() {
        assert!(!matches_ignore_case(&b"*a".repeat(TEXT_MAX), &b"a".repeat(TEXT_MAX - 1)));
        assert!(matches_ignore_case(&b"*a".repeat(TEXT_MAX), &b"a".repeat(TEXT_MAX)));
        assert!(!matches_ignore_case(&b"a".repeat(TEXT_MAX + 1), &b"a".repeat(TEXT_MAX)));
    }
}
