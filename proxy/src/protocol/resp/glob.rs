//! Patterns as KEYS, PSUBSCRIBE, CONFIG GET and COMMAND LIST take them. They come from clients, so a pattern of many
//! asterisks must not take exponential time: only the last asterisk is ever tried again.
//!
//! `*`, `?`, `[a-c]`, `[^a-c]` and `\` before any of them. Source: <https://redis.io/docs/latest/commands/keys/>.

/// Whether the whole text matches; ASCII letters match in either case.
pub fn matches_ignore_case(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut done) = (0, 0);
    // behind the last asterisk: where the pattern goes on, and how much of the text the asterisk has taken
    let mut retry: Option<(usize, usize)> = None;
    while done < text.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            retry = Some((at, done));
            continue;
        }
        if let Some(length) = one(&pattern[at..], text[done]) {
            at += length;
            done += 1;
            continue;
        }
        let Some((behind, taken)) = retry else {
            return false;
        };
        retry = Some((behind, taken + 1));
        (at, done) = (behind, taken + 1);
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// The length of the pattern's first element if it matches this byte.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    let same = |other: u8| other.eq_ignore_ascii_case(&byte);
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => same(*escaped).then_some(2),
        [b'[', rest @ ..] => {
            let (negated, mut rest) = match rest {
                [b'^', rest @ ..] => (true, rest),
                _ => (false, rest),
            };
            let byte = byte.to_ascii_lowercase();
            let mut found = false;
            loop {
                match rest {
                    // an open end closes the set, as in Redis
                    [] => break,
                    [b']', behind @ ..] => {
                        rest = behind;
                        break;
                    }
                    [b'\\', escaped, behind @ ..] => {
                        found |= same(*escaped);
                        rest = behind;
                    }
                    [first, b'-', last, behind @ ..] => {
                        let (first, last) = (first.to_ascii_lowercase(), last.to_ascii_lowercase());
                        found |= (first.min(last)..=first.max(last)).contains(&byte);
                        rest = behind;
                    }
                    [literal, behind @ ..] => {
                        found |= same(*literal);
                        rest = behind;
                    }
                }
            }
            (found != negated).then_some(pattern.len() - rest.len())
        }
        [literal, ..] => same(*literal).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::matches_ignore_case;

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
    fn many_asterisks_take_no_exponential_time() {
        assert!(!matches_ignore_case(&b"*a".repeat(2_000), &b"a".repeat(1_999)));
    }
}
