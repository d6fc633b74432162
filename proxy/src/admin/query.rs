//! The query of an URL.

use std::collections::HashMap;

/// Longest query that is looked at, in bytes: a key of a store may be long.
const QUERY_MAX: usize = 8 * 1024;

/// A name and its value.
type Pair = (Vec<u8>, Vec<u8>);

/// Names and values, with `%` and `+` read; of a name that comes twice the last value.
pub fn pairs(query: Option<&str>) -> Result<HashMap<String, String>, String> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| "the query is not UTF-8".to_owned());
    let mut found = HashMap::new();
    for (name, value) in raw(query)? {
        found.insert(text(name)?, text(value)?);
    }
    Ok(found)
}

/// The same as bytes, in their order: keys of a store need not be UTF-8.
pub fn raw(query: Option<&str>) -> Result<Vec<Pair>, String> {
    let query = query.unwrap_or_default();
    if query.len() > QUERY_MAX {
        return Err(format!("the query is longer than {QUERY_MAX} bytes"));
    }
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decoded(name)?, decoded(value)?))
        })
        .collect()
}

fn decoded(text: &str) -> Result<Vec<u8>, String> {
    let (bytes, mut decoded) = (text.as_bytes(), Vec::with_capacity(text.len()));
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => {
                let digits =
                    text.get(at..at + 2).filter(|two| two.bytes().all(|byte| byte.is_ascii_hexdigit()));
                let value = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
                decoded
                    .push(value.ok_or_else(|| {
                        format!("the query has a % without two hexadecimal digits: {text}")
                    })?);
                at += 2;
            }
            byte => decoded.push(byte),
        }
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_what_they_stand_for() {
        let found =
            pairs(Some("pool=a%20b&key=x+y&&empty&shards=1&shards=2&u=%C3%A4")).expect("it is well formed");
        let at = |name: &str| found[name].as_str();
        assert_eq!(["pool", "key", "empty", "shards", "u"].map(at), ["a b", "x y", "", "2", "\u{e4}"]);
        assert!(pairs(None).expect("nothing is wrong").is_empty());
        assert_eq!(raw(Some("key=%ff%00")).expect("bytes"), [(b"key".to_vec(), vec![0xff, 0])]);
        for wrong in ["a=%", "a=%1", "a=%zz", "a=%+1", "a=%ff", "%ä=1"] {
            assert!(pairs(Some(wrong)).is_err(), "{wrong}");
        }
        assert!(raw(Some(&"x".repeat(QUERY_MAX + 1))).is_err());
    }
}
