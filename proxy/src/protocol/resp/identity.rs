//! What a shard is asked so that it says who it is, and what its answers mean.
//!
//! A shard on its own has no name but the one it announces to its replicas; a node of a cluster has an ID.

use super::encode;
use crate::protocol::{ShardIdentity, is_called, questions};

/// Writes the question.
pub fn ask(identity: &ShardIdentity, out: &mut Vec<u8>) {
    match identity {
        ShardIdentity::Host(_) => encode::request(out, &questions::NAME.map(str::as_bytes)),
        ShardIdentity::Node { .. } => encode::request(out, &[b"CLUSTER", b"MYID"]),
    }
}

/// Judges the answer, and writes a further question to `out` where that is needed. An error says who it is, or why it does
/// not say.
pub fn judge(identity: &mut ShardIdentity, answer: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let refused = answer.strip_prefix(b"-").map(|words| String::from_utf8_lossy(words).trim_end().to_owned());
    match identity {
        ShardIdentity::Host(host) => match refused {
            Some(words) => Err(words),
            None => is_called(host, strings(answer).as_deref()),
        },
        ShardIdentity::Node { known, found: Some(found), id } => {
            let text = match refused {
                Some(words) => return Err(words),
                None => string(answer).map(|(text, _)| String::from_utf8_lossy(text)),
            };
            // One of the same cluster sends requests where they belong.
            match text {
                None => Err("the answer is not a string".into()),
                Some(text) if known.iter().any(|node| text.contains(&**node)) => Ok(()),
                Some(_) => Err(format!("it is node {found}, not {id}")),
            }
        }
        ShardIdentity::Node { id, found, .. } => {
            // A user may not be allowed to ask.
            if let Some((said, _)) = string(answer)
                && said.len() == id.len()
                && said != id.as_bytes()
            {
                *found = Some(String::from_utf8_lossy(said).into());
                encode::request(out, &[b"CLUSTER", b"NODES"]);
            }
            Ok(())
        }
    }
}

/// The string that the reply begins with, and what is behind it.
pub(super) fn string(reply: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, rest) = line(reply)?;
    match line.split_first()? {
        (b'+', text) => Some((text, rest)),
        (kind @ (b'$' | b'='), length) => {
            let length = std::str::from_utf8(length).ok()?.parse::<usize>().ok()?;
            let (text, rest) = rest.split_at_checked(length)?;
            // What is said in RESP3 begins with what kind of text it is.
            let text = if *kind == b'=' { text.split_at_checked(4)?.1 } else { text };
            Some((text, rest.strip_prefix(b"\r\n")?))
        }
        _ => None,
    }
}

/// The elements of a reply that is a short list, or a map, with nothing but strings in it.
fn strings(reply: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    const MANY: usize = 8;
    let (head, mut rest) = line(reply)?;
    let (kind, count) = head.split_first()?;
    let each = match kind {
        b'*' => 1,
        b'%' => 2,
        _ => return None,
    };
    let count = std::str::from_utf8(count).ok()?.parse::<usize>().ok()?.min(MANY) * each;
    let mut found = Vec::new();
    while found.len() < count
        && let Some((text, behind)) = string(rest)
    {
        found.push(Some(text));
        rest = behind;
    }
    found.resize(count, None);
    Some(found)
}

fn line(reply: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\r', reply)?;
    Some((&reply[..end], reply[end..].strip_prefix(b"\r\n")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(answer: &str) -> Result<(), String> {
        let mut further = Vec::new();
        let judged = judge(&mut ShardIdentity::Host("Shard-1.test.".into()), answer.as_bytes(), &mut further);
        assert!(further.is_empty());
        judged
    }

    #[test]
    fn a_name_is_the_same_with_and_without_its_last_dot_in_either_version() {
        const NAME: &str = "$19\r\nreplica-announce-ip\r\n$12\r\nshard-1.TEST\r\n";
        assert_eq!(host(&format!("*2\r\n{NAME}")), Ok(()));
        assert_eq!(host(&format!("%1\r\n{NAME}")), Ok(()));
        assert_eq!(
            host("*2\r\n$19\r\nreplica-announce-ip\r\n$0\r\n\r\n"),
            Err("it is \"\", not \"Shard-1.test.\"".into())
        );
    }

    #[test]
    fn what_is_no_name_is_nobodys() {
        for (answer, words) in [
            ("*0\r\n", "the server does not support replica-announce-ip"),
            ("%0\r\n", "the server does not support replica-announce-ip"),
            ("*2\r\n$1\r\na\r\n:1\r\n", "the server does not support replica-announce-ip"),
            ("*2000000000\r\n", "the server does not support replica-announce-ip"),
            ("*-1\r\n", "the server does not report its identity"),
            ("+OK\r\n", "the server does not report its identity"),
            ("-ERR unknown command\r\n", "ERR unknown command"),
        ] {
            assert_eq!(host(answer), Err(words.into()), "{answer:?}");
        }
    }
}
