//! What is shown of a request where it is told of: the words of its line.

use super::commands::{Handling, lookup};
use super::words;
use crate::privacy::Privacy;
use crate::slow::shorten;

/// The words of a request that begins so.
pub fn words(head: &[u8], privacy: Privacy) -> Vec<Box<[u8]>> {
    let end = memchr::memchr(b'\n', head).unwrap_or(head.len());
    let line = head[..end].strip_suffix(b"\r").unwrap_or(&head[..end]);
    let handling = words::words(line).next().and_then(lookup).map(|command| command.handling);
    let is_key = |at: usize| match handling {
        Some(Handling::Keys { first }) => at >= first,
        Some(Handling::Key | Handling::Value | Handling::Meta(_)) => at == 1,
        Some(Handling::Everywhere(_) | Handling::Answer(_) | Handling::Refuse(_)) | None => false,
    };
    let count = words::words(line).count();
    let shown = words::words(line).enumerate().map(|(at, word)| match handling {
        // It may be a value behind a line that was wrong.
        None => privacy.argument(word),
        Some(_) if is_key(at) => privacy.key(word),
        Some(_) if at == 0 || is_plain(word) => std::borrow::Cow::Borrowed(word),
        Some(_) => privacy.argument(word),
    });
    shorten(shown, count)
}

/// A number, a flag, or `noreply`: nothing that a client has thought of. What stands behind a flag may be anything (`O`).
fn is_plain(word: &[u8]) -> bool {
    word.len() == 1 || word == b"noreply" || word.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::hashed;

    #[test]
    fn values_are_not_shown_and_keys_may_be_hashed() {
        let told = |request: &[u8], privacy| {
            let words = super::words(request, privacy);
            words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>().join(" ")
        };
        let (k, l) = (hashed(b"k"), hashed(b"l"));
        assert_eq!(told(b"set k 0 0 5\r\nvalue\r\n", Privacy::Shown), "set k 0 0 5");
        assert_eq!(told(b"set k 0 0 5\r\nvalue\r\n", Privacy::HashedKeys), format!("set {k} 0 0 5"));
        assert_eq!(told(b"get k l\r\n", Privacy::HashedKeys), format!("get {k} {l}"));
        assert_eq!(told(b"mg k v", Privacy::HashedKeys), format!("mg {k} v"));
        assert_eq!(told(b"mg k v Osecret", Privacy::HashedKeys), format!("mg {k} v (7 bytes)"));
        assert_eq!(told(b"mg k v Osecret", Privacy::Shown), "mg k v Osecret");
        assert_eq!(told(b"touch k secret\r\n", Privacy::HashedKeys), format!("touch {k} (6 bytes)"));
        assert_eq!(told(b"value k", Privacy::Shown), "value k");
        assert_eq!(told(b"value k", Privacy::HashedKeys), "(5 bytes) (1 bytes)");
        assert_eq!(told(b"", Privacy::Shown), "");
    }
}
