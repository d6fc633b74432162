//! RESP for the simulated peers: a plain parser, unlike the one under test.

/// One value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Option<Vec<u8>>),
    Array(Vec<Value>),
}

/// The value that `bytes` begins with and its length, once it is complete.
pub fn parse(bytes: &[u8]) -> Option<(Value, usize)> {
    let line_end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let text = std::str::from_utf8(&bytes[1..line_end]).expect("headers are text");
    let mut at = line_end + 2;
    let value = match bytes[0] {
        b'+' => Value::Simple(text.to_owned()),
        b'-' => Value::Error(text.to_owned()),
        b':' => Value::Integer(text.parse().expect("an integer")),
        b'_' => Value::Bulk(None),
        b'$' if text == "-1" => Value::Bulk(None),
        b'$' => {
            let length: usize = text.parse().expect("a length");
            let bulk = bytes.get(at..at + length)?.to_vec();
            bytes.get(at + length..at + length + 2).map(|end| assert_eq!(end, b"\r\n"))?;
            at += length + 2;
            Value::Bulk(Some(bulk))
        }
        b'*' => {
            let mut elements = Vec::new();
            for _ in 0..text.parse::<usize>().expect("a count") {
                let (element, length) = parse(&bytes[at..])?;
                at += length;
                elements.push(element);
            }
            Value::Array(elements)
        }
        other => panic!("no RESP2 value begins with {:?}", char::from(other)),
    };
    Some((value, at))
}

/// A request as clients write it.
pub fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
