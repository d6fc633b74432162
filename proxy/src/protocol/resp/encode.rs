//! Writes RESP values: what the proxy itself says to clients and shards.
//!
//! Where RESP3 has a type that RESP2 lacks, the function takes `resp3` and falls back as Redis does.
//! Source: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

/// `+text`
pub fn simple(out: &mut Vec<u8>, text: &str) {
    line(out, b'+', text.as_bytes());
}

/// `-text`; CR and LF inside the text become spaces, so that it stays one line.
pub fn error(out: &mut Vec<u8>, text: &str) {
    out.push(b'-');
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

/// `:number`
pub fn integer(out: &mut Vec<u8>, number: i64) {
    header(out, b':', number);
}

/// `$length` and the bytes
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    header(out, b'$', bytes.len() as i64);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Text for people: `=length`, `txt:` and the bytes. RESP3 only.
pub fn verbatim(out: &mut Vec<u8>, text: &[u8]) {
    header(out, b'=', text.len() as i64 + 4);
    out.extend_from_slice(b"txt:");
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

/// The absent value: `_` in RESP3, `$-1` in RESP2.
pub fn null(out: &mut Vec<u8>, resp3: bool) {
    out.extend_from_slice(if resp3 { b"_\r\n" } else { b"$-1\r\n" });
}

/// The absent array: `_` in RESP3, `*-1` in RESP2.
pub fn null_array(out: &mut Vec<u8>, resp3: bool) {
    out.extend_from_slice(if resp3 { b"_\r\n" } else { b"*-1\r\n" });
}

/// Whether a response is an error.
pub fn is_error(response: &[u8]) -> bool {
    matches!(response.first(), Some(b'-' | b'!'))
}

/// Whether the response is that, in RESP2 or RESP3.
pub fn is_null_array(response: &[u8]) -> bool {
    matches!(response, b"*-1\r\n" | b"_\r\n")
}

/// The head of an array; `length` values follow.
pub fn array(out: &mut Vec<u8>, length: usize) {
    header(out, b'*', length as i64);
}

/// The head of what was not asked for; `length` values follow. RESP2 knows it as an array.
pub fn push(out: &mut Vec<u8>, resp3: bool, length: usize) {
    header(out, if resp3 { b'>' } else { b'*' }, length as i64);
}

/// The head of a map; `pairs` keys and values follow. RESP2 knows it as a flat array.
pub fn map(out: &mut Vec<u8>, resp3: bool, pairs: usize) {
    if resp3 { header(out, b'%', pairs as i64) } else { header(out, b'*', 2 * pairs as i64) }
}

/// The head of a set; `length` values follow. RESP2 knows it as an array.
pub fn set(out: &mut Vec<u8>, resp3: bool, length: usize) {
    header(out, if resp3 { b'~' } else { b'*' }, length as i64);
}

/// The head of a text of so many bytes; the text and a line end follow. RESP2 knows it as a bulk string.
pub fn text_header(out: &mut Vec<u8>, resp3: bool, length: usize) {
    if resp3 {
        header(out, b'=', length as i64 + 4);
        out.extend_from_slice(b"txt:");
    } else {
        header(out, b'$', length as i64);
    }
}

/// A request: an array of bulk strings.
pub fn request(out: &mut Vec<u8>, words: &[&[u8]]) {
    array(out, words.len());
    for word in words {
        bulk(out, word);
    }
}

/// Each part of a split request has some, and formatting by the standard library takes 140 instructions for one.
fn header(out: &mut Vec<u8>, kind: u8, number: i64) {
    // The kind, a sign, 19 digits and the line end, written from the end.
    let mut text = [0; 23];
    let mut start = text.len() - 2;
    text[start..].copy_from_slice(b"\r\n");
    let mut rest = number.unsigned_abs();
    loop {
        start -= 1;
        text[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        start -= 1;
        text[start] = b'-';
    }
    start -= 1;
    text[start] = kind;
    out.extend_from_slice(&text[start..]);
}

fn line(out: &mut Vec<u8>, kind: u8, text: &[u8]) {
    out.push(kind);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_written_as_the_standard_library_does() {
        for number in [0, 1, -1, 9, 10, 99, 100, -10, 1234567890, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            super::integer(&mut out, number);
            assert_eq!(String::from_utf8(out).expect("digits"), format!(":{number}\r\n"));
        }
    }
}
