//! How messages of a protocol are written in a conversation, and shown where they are other than expected.

use std::fmt::Write;

/// A protocol's way of writing.
pub trait Speech {
    /// Bytes of requests as clients send them and shards hear them.
    fn requests(text: &str) -> Result<Vec<u8>, String>;
    /// Bytes of responses and replies.
    fn responses(text: &str) -> Result<Vec<u8>, String>;
    /// The opposite of [`Self::requests`], as far as the bytes can be read.
    fn show_requests(bytes: &[u8]) -> String;
    /// The opposite of [`Self::responses`].
    fn show_responses(bytes: &[u8]) -> String;
}

/// Requests are words, `SET k1 "a b"`. Replies are `+OK`, `-ERR no`, `:1`, `"a bulk string"`, `nil`, `["a" nil]`, and of
/// RESP3 `null`, `>["a push"]`, `%["a" "map"]`, `~["a" "set"]`, `#t`, `,1.5`.
pub struct Redis;

/// Lines, the value of a `set` being one.
pub struct Memcache;

impl Speech for Memcache {
    fn requests(text: &str) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for line in parts(text) {
            bytes.extend(unescaped(line)?);
            bytes.extend_from_slice(b"\r\n");
        }
        Ok(bytes)
    }

    fn responses(text: &str) -> Result<Vec<u8>, String> {
        Self::requests(text)
    }

    fn show_requests(bytes: &[u8]) -> String {
        let mut lines = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
            lines.push(escaped(&rest[..end]));
            rest = &rest[end + 2..];
        }
        if !rest.is_empty() {
            lines.push(format!("and unfinished: {}", quoted(rest)));
        }
        lines.join(" ; ")
    }

    fn show_responses(bytes: &[u8]) -> String {
        Self::show_requests(bytes)
    }
}

impl Speech for Redis {
    fn requests(text: &str) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for request in parts(text) {
            let mut rest = request;
            let mut words = Vec::new();
            while let Some((word, after)) = word(rest)? {
                words.push(word);
                rest = after;
            }
            bytes.extend(format!("*{}\r\n", words.len()).bytes());
            words.iter().for_each(|word| bulk(&mut bytes, word));
        }
        Ok(bytes)
    }

    fn responses(text: &str) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for part in parts(text) {
            if part.starts_with(['+', '-']) {
                bytes.extend(unescaped(part)?);
                bytes.extend_from_slice(b"\r\n");
                continue;
            }
            let rest = value(&mut bytes, part)?;
            if !rest.trim().is_empty() {
                return Err(format!("{rest:?} stands behind a value; ` ; ` separates them"));
            }
        }
        Ok(bytes)
    }

    fn show_requests(bytes: &[u8]) -> String {
        let mut requests = Vec::new();
        let mut rest = bytes;
        while let Some((words, after)) = request(rest) {
            requests.push(words.iter().map(|word| written(word)).collect::<Vec<_>>().join(" "));
            rest = after;
        }
        if !rest.is_empty() {
            requests.push(format!("and unfinished: {}", quoted(rest)));
        }
        requests.join(" ; ")
    }

    fn show_responses(bytes: &[u8]) -> String {
        let mut replies = Vec::new();
        let mut rest = bytes;
        while let Some((text, after)) = shown(rest) {
            replies.push(text);
            rest = after;
        }
        if !rest.is_empty() {
            replies.push(format!("and unfinished: {}", quoted(rest)));
        }
        replies.join(" ; ")
    }
}

/// What stands between ` ; `, which may also stand in quotes.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut is_quoted, mut is_escaped) = (Vec::new(), 0, false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            '\\' if !is_escaped => {
                is_escaped = true;
                continue;
            }
            '"' if !is_escaped => is_quoted = !is_quoted,
            ';' if !is_quoted && text[..at].ends_with(' ') => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
        is_escaped = false;
    }
    parts.push(text[start..].trim());
    parts
}

/// The first word of the text, and what stands behind it.
fn word(text: &str) -> Result<Option<(Vec<u8>, &str)>, String> {
    let text = text.trim_start();
    if text.is_empty() {
        return Ok(None);
    }
    if text.starts_with('"') {
        let end = closing_quote(text)?;
        return Ok(Some((unescaped(&text[1..end])?, &text[end + 1..])));
    }
    // A run has blanks in it.
    let mut end = 0;
    while let Some(letter) = text[end..].chars().next() {
        match text[end..].find('>') {
            Some(length) if run(&text[end..=end + length]).is_some() => end += length + 1,
            _ if letter == ' ' => break,
            _ => end += letter.len_utf8(),
        }
    }
    Ok(Some((unescaped(&text[..end])?, &text[end..])))
}

/// Writes the value that the text begins with; returns what stands behind it.
fn value<'t>(bytes: &mut Vec<u8>, text: &'t str) -> Result<&'t str, String> {
    let text = text.trim_start();
    let (head, mark) = match text.as_bytes() {
        [b'[', ..] => (1, '*'),
        [mark @ (b'>' | b'%' | b'~'), b'[', ..] => (2, char::from(*mark)),
        [b'"', ..] => {
            let end = closing_quote(text)?;
            bulk(bytes, &unescaped(&text[1..end])?);
            return Ok(&text[end + 1..]);
        }
        // A text with blanks within an array.
        [mark @ (b'-' | b'+'), b'"', ..] => {
            let end = 1 + closing_quote(&text[1..])?;
            bytes.push(*mark);
            bytes.extend(unescaped(&text[2..end])?);
            bytes.extend_from_slice(b"\r\n");
            return Ok(&text[end + 1..]);
        }
        _ => {
            let end = text.find([' ', ']']).unwrap_or(text.len());
            match &text[..end] {
                "nil" => bytes.extend_from_slice(b"$-1\r\n"),
                "null" => bytes.extend_from_slice(b"_\r\n"),
                "nothing-array" => bytes.extend_from_slice(b"*-1\r\n"),
                simple if simple.starts_with(['+', '-', ':', ',', '#']) => {
                    bytes.extend_from_slice(simple.as_bytes());
                    bytes.extend_from_slice(b"\r\n");
                }
                other => return Err(format!("{other:?} is no value; bulk strings stand in quotes")),
            }
            return Ok(&text[end..]);
        }
    };
    let (mut elements, mut count, mut rest) = (Vec::new(), 0, &text[head..]);
    loop {
        rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix(']') {
            let count = if mark == '%' { count / 2 } else { count };
            bytes.extend(format!("{mark}{count}\r\n").bytes());
            bytes.extend(elements);
            return Ok(rest);
        }
        if rest.is_empty() {
            return Err("a ] is missing".into());
        }
        rest = value(&mut elements, rest)?;
        count += 1;
    }
}

fn bulk(bytes: &mut Vec<u8>, word: &[u8]) {
    bytes.extend(format!("${}\r\n", word.len()).bytes());
    bytes.extend_from_slice(word);
    bytes.extend_from_slice(b"\r\n");
}

fn closing_quote(text: &str) -> Result<usize, String> {
    let mut is_escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            '\\' if !is_escaped => {
                is_escaped = true;
                continue;
            }
            '"' if !is_escaped => return Ok(at),
            _ => {}
        }
        is_escaped = false;
    }
    Err("a quote is missing".into())
}

/// Bytes in quotes.
pub fn bytes(text: &str) -> Result<Vec<u8>, String> {
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(text) => unescaped(text),
        None => Err("bytes stand in quotes".into()),
    }
}

/// Bytes as they are written between quotes, with `\r \n \\ \" \xHH` and runs such as `<70000 * x>`.
fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let after = &rest[letter.len_utf8()..];
        match letter {
            '\\' => {
                let byte = match after.as_bytes() {
                    [b'r', ..] => b'\r',
                    [b'n', ..] => b'\n',
                    [byte @ (b'\\' | b'"'), ..] => *byte,
                    [b'x', ..] => {
                        let digits = after.get(1..3).ok_or("\\x wants two digits")?;
                        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| "\\x wants two digits")?);
                        rest = &after[3..];
                        continue;
                    }
                    _ => return Err("known escapes are \\r \\n \\\\ \\\" \\xHH".into()),
                };
                bytes.push(byte);
                rest = &after[1..];
            }
            '<' if let Some((count, byte, length)) = rest.find('>').and_then(|end| run(&rest[..=end])) => {
                bytes.resize(bytes.len() + count, byte);
                rest = &rest[length..];
            }
            _ => {
                bytes.extend_from_slice(&rest.as_bytes()[..letter.len_utf8()]);
                rest = after;
            }
        }
    }
    Ok(bytes)
}

/// `<70000 * x>`: how many, of what, and how long that is.
fn run(text: &str) -> Option<(usize, u8, usize)> {
    let (count, byte) = text.strip_prefix('<')?.strip_suffix('>')?.split_once(" * ")?;
    let [byte] = byte.as_bytes() else { return None };
    Some((count.parse().ok()?, *byte, text.len()))
}

/// The opposite of [`unescaped`].
fn escaped(bytes: &[u8]) -> String {
    const RUN_MIN: usize = 24;
    let mut text = String::new();
    let mut rest = bytes;
    while let [first, ..] = rest {
        let same = rest.iter().take_while(|byte| *byte == first).count();
        if same >= RUN_MIN && first.is_ascii_graphic() {
            let _ = write!(text, "<{same} * {}>", char::from(*first));
            rest = &rest[same..];
            continue;
        }
        match first {
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            b'\\' => text.push_str("\\\\"),
            b'"' => text.push_str("\\\""),
            0x20..0x7f => text.push(char::from(*first)),
            other => {
                let _ = write!(text, "\\x{other:02x}");
            }
        }
        rest = &rest[1..];
    }
    text
}

pub fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", escaped(bytes))
}

fn written(word: &[u8]) -> String {
    let text = escaped(word);
    if word.is_empty() || word.iter().any(|byte| b" ;\"".contains(byte)) {
        format!("\"{text}\"")
    } else {
        text
    }
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}

fn number(text: &[u8]) -> Option<usize> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The request that the bytes begin with, and what stands behind it.
fn request(bytes: &[u8]) -> Option<(Vec<&[u8]>, &[u8])> {
    let (head, mut rest) = line(bytes)?;
    let mut words = Vec::new();
    for _ in 0..number(head.strip_prefix(b"*")?)? {
        let (head, after) = line(rest)?;
        let length = number(head.strip_prefix(b"$")?)?;
        words.push(after.get(..length)?);
        rest = after.get(length..)?.strip_prefix(b"\r\n")?;
    }
    Some((words, rest))
}

/// The value that the bytes begin with as it is written, and what stands behind it.
fn shown(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (head, rest) = line(bytes)?;
    let (mark, tail) = head.split_first()?;
    match mark {
        b'+' | b'-' | b':' | b',' | b'#' => Some((escaped(head), rest)),
        b'_' => Some(("null".into(), rest)),
        b'$' if tail == b"-1" => Some(("nil".into(), rest)),
        b'*' if tail == b"-1" => Some(("nothing-array".into(), rest)),
        b'$' => {
            let length = number(tail)?;
            Some((quoted(rest.get(..length)?), rest.get(length..)?.strip_prefix(b"\r\n")?))
        }
        b'*' | b'>' | b'~' | b'%' => {
            let count = number(tail)? * if *mark == b'%' { 2 } else { 1 };
            let (mut elements, mut rest) = (Vec::new(), rest);
            for _ in 0..count {
                let (element, after) = shown(rest)?;
                let has_blanks = element.starts_with(['-', '+']) && element.contains(' ');
                elements.push(match has_blanks {
                    true => format!("{}\"{}\"", &element[..1], &element[1..]),
                    false => element,
                });
                rest = after;
            }
            let mark = if *mark == b'*' { String::new() } else { char::from(*mark).to_string() };
            Some((format!("{mark}[{}]", elements.join(" ")), rest))
        }
        _ => None,
    }
}
