//! What is shown of a request where it is told of: its words, without secrets, and without keys where these are private.

use std::borrow::Cow;

use super::command::Command;
use super::command::index::lookup;
use crate::privacy::Privacy;
use crate::slow::{WORD_BYTES_MAX, WORDS_MAX, shorten, shorten_cut};

/// What stands in the place of a secret, as in the log of a server.
const REDACTED: &[u8] = b"(redacted)";

/// The words of a request that begins so; of a transaction its requests, one word for each.
pub fn words(head: &[u8], privacy: Privacy) -> Vec<Box<[u8]>> {
    let Some((count, first, mut rest, cut)) = request(head) else { return Vec::new() };
    if !(count == 1 && first.first().is_some_and(|word| word.eq_ignore_ascii_case(b"multi"))) {
        return shortened(&first, privacy, count, cut);
    }
    let mut requests = vec![Cow::Borrowed(first[0])];
    while let Some((count, words, behind, cut)) = request(rest).filter(|(_, words, ..)| !words.is_empty()) {
        rest = behind;
        let words = shortened(&words, privacy, count, cut);
        requests.push(Cow::Owned(words.join(&b' ')));
        if requests.len() > WORDS_MAX {
            break;
        }
    }
    let count = requests.len();
    shorten(requests.into_iter(), count)
}

/// These words of so many; of the last so many bytes are not there.
fn shortened(words: &[&[u8]], privacy: Privacy, count: usize, cut: usize) -> Vec<Box<[u8]>> {
    let shown = shown(words, privacy, cut);
    // What stands in the place of a word is whole.
    let is_itself = matches!(shown.last(), Some(Cow::Borrowed(word)) if *word != REDACTED);
    shorten_cut(shown.into_iter(), count, if is_itself { cut } else { 0 })
}

/// The name of a client or user, or as much of it as is shown.
pub fn name(name: &str) -> String {
    name.chars().take(WORD_BYTES_MAX).collect()
}

/// What there is of a request.
type Beginning<'b> = (usize, Vec<&'b [u8]>, &'b [u8], usize);

/// How many words the request has, those of them that are there whole or in part, what is behind them, and how many bytes of the last
/// of them are not there.
fn request(input: &[u8]) -> Option<Beginning<'_>> {
    let (count, mut rest) = number(input.strip_prefix(b"*")?)?;
    let (mut words, mut cut) = (Vec::new(), 0);
    while words.len() < count {
        let Some((length, behind)) = rest.strip_prefix(b"$").and_then(number) else { break };
        words.push(&behind[..length.min(behind.len())]);
        cut = length.saturating_sub(behind.len());
        rest = behind.get(length..).and_then(|rest| rest.strip_prefix(b"\r\n")).unwrap_or_default();
        if words.len() > WORDS_MAX {
            break;
        }
    }
    Some((count, words, rest, cut))
}

fn number(input: &[u8]) -> Option<(usize, &[u8])> {
    let end = memchr::memchr(b'\n', input)?;
    let digits = std::str::from_utf8(input[..end].strip_suffix(b"\r")?).ok()?;
    Some((digits.parse().ok()?, &input[end + 1..]))
}

/// Each of the words that are there, as it is shown; of the last so many bytes are not there.
fn shown<'w>(words: &[&'w [u8]], privacy: Privacy, cut: usize) -> Vec<Cow<'w, [u8]>> {
    let argument = |at: usize, word: &'w [u8]| match privacy {
        Privacy::HashedKeys if cut > 0 && at + 1 == words.len() => {
            Cow::Owned(format!("({} bytes)", word.len() + cut).into_bytes())
        }
        _ => privacy.argument(word),
    };
    let Some(row) = words.first().and_then(|name| lookup(name)) else {
        // A command of a module, whose keys are not known here.
        let rest = words.iter().enumerate().skip(1).map(|(at, word)| argument(at, word));
        return words.first().map(|word| Cow::Borrowed(*word)).into_iter().chain(rest).collect();
    };
    let command = words.get(1).and_then(|word| row.subcommand(word)).unwrap_or(row);
    let named = if std::ptr::eq(command, row) { 1 } else { 2 };
    let secret = secrets(command, words);
    let keys: Vec<usize> = match privacy {
        Privacy::Shown => Vec::new(),
        Privacy::HashedKeys => command
            .key_positions(words.len(), |at| words[at])
            .map_or_else(|_| Vec::new(), |positions| positions.collect()),
    };
    let show = |(at, word): (usize, &&'w [u8])| match () {
        () if at < named => Cow::Borrowed(*word),
        () if secret.contains(&at) => Cow::Borrowed(REDACTED),
        () if keys.contains(&at) => privacy.key(word),
        () => argument(at, word),
    };
    words.iter().enumerate().map(show).collect()
}

/// Where passwords may stand.
fn secrets(command: &Command<'_>, words: &[&[u8]]) -> std::ops::Range<usize> {
    let behind = |option: &[u8]| {
        words.iter().position(|word| word.eq_ignore_ascii_case(option)).map_or(words.len(), |at| at + 1)
    };
    match command.name {
        "auth" => 1..words.len(),
        "hello" => behind(b"auth")..words.len(),
        "acl|setuser" | "config|set" => 2..words.len(),
        "migrate" => behind(b"auth").min(behind(b"auth2"))..words.len(),
        _ => 0..0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode;
    use super::*;

    fn told(words: &[&str], privacy: Privacy) -> String {
        let mut request = Vec::new();
        encode::request(&mut request, &words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
        let shown: Vec<String> =
            super::words(&request, privacy).iter().map(|word| String::from_utf8_lossy(word).into()).collect();
        shown.join(" ")
    }

    #[test]
    fn secrets_are_never_shown() {
        for (words, shown) in [
            (&["AUTH", "secret"][..], "AUTH (redacted)"),
            (&["auth", "user", "secret"], "auth (redacted) (redacted)"),
            (&["HELLO", "3", "AUTH", "user", "secret"], "HELLO 3 AUTH (redacted) (redacted)"),
            (&["CONFIG", "SET", "requirepass", "secret"], "CONFIG SET (redacted) (redacted)"),
            (&["ACL", "SETUSER", "user", ">secret"], "ACL SETUSER (redacted) (redacted)"),
            (&["MIGRATE", "h", "1", "k", "0", "9", "AUTH", "secret"], "MIGRATE h 1 k 0 9 AUTH (redacted)"),
            (
                &["MIGRATE", "h", "1", "k", "0", "9", "AUTH2", "user", "secret"],
                "MIGRATE h 1 k 0 9 AUTH2 (redacted) (redacted)",
            ),
        ] {
            assert_eq!(told(words, Privacy::Shown), shown);
            assert!(!told(words, Privacy::HashedKeys).contains("secret"));
        }
    }

    #[test]
    fn keys_are_hashed_where_they_are_private() {
        use crate::privacy::hashed;
        let (k, l) = (hashed(b"k"), hashed(b"l"));
        for (words, shown) in [
            (&["SET", "k", "value"][..], format!("SET {k} (5 bytes)")),
            (&["MSET", "k", "1", "l", "22"], format!("MSET {k} (1 bytes) {l} (2 bytes)")),
            (&["EVAL", "return 1", "1", "k", "x"], format!("EVAL (8 bytes) (1 bytes) {k} (1 bytes)")),
            (&["JSON.SET", "k", "v"], "JSON.SET (1 bytes) (1 bytes)".into()),
            (&["OBJECT", "ENCODING", "k"], format!("OBJECT ENCODING {k}")),
        ] {
            assert_eq!(told(words, Privacy::HashedKeys), shown);
            assert_eq!(told(words, Privacy::Shown), words.join(" "));
        }
    }

    #[test]
    fn transactions_are_told_by_their_requests() {
        let block = b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n*1\r\n$4\r\nEXEC\r\n";
        let words = super::words(block, Privacy::Shown);
        assert_eq!(words, [b"MULTI"[..].into(), b"SET a 1"[..].into(), Box::from(&b"EXEC"[..])]);
    }

    #[test]
    fn what_is_cut_anywhere_is_shown_as_far_as_it_goes() {
        let mut request = Vec::new();
        encode::request(&mut request, &[b"SET", b"key", &[b'x'; 300]]);
        for end in 0..request.len() {
            for privacy in [Privacy::Shown, Privacy::HashedKeys] {
                assert!(words(&request[..end], privacy).len() <= 3, "{end}");
            }
        }
        let end = request.len() - 202;
        let last = |privacy| String::from_utf8_lossy(&words(&request[..end], privacy)[2]).into_owned();
        assert_eq!(last(Privacy::Shown), format!("{}... (200 more bytes)", "x".repeat(100)));
        assert_eq!(last(Privacy::HashedKeys), "(300 bytes)");
        let many = format!("*100000\r\n{}", "$1\r\na\r\n".repeat(700));
        let words = words(many.as_bytes(), Privacy::Shown);
        assert_eq!(words.len(), WORDS_MAX);
        assert_eq!(&*words[WORDS_MAX - 1], b"... (99969 more arguments)");
        assert!(super::words(b"*18446744073709551615\r\n$99999999999999\r\nx", Privacy::Shown).len() <= 2);
    }
}
