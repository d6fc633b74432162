//! What is said and heard, as text: a letter for each byte.

pub fn request(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    words.iter().for_each(|word| bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes()));
    bytes
}

pub fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.chars().count())
}

/// A letter for each byte.
pub fn text_of(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

pub fn bytes_of(text: &str) -> impl Iterator<Item = u8> {
    text.chars().map(|letter| u8::try_from(letter).expect("it stands for a byte"))
}

/// What a shard says of a name.
pub fn said(word: &str, name: &str, count: usize) -> String {
    format!("*3\r\n{}{}:{count}\r\n", bulk(&word.to_ascii_lowercase()), bulk(name))
}

/// A value as it stands on the wire: its mark, its text if it is one, its elements.
#[derive(Clone, PartialEq, Debug)]
pub struct Value {
    pub mark: u8,
    pub text: String,
    pub elements: Vec<Value>,
}

/// The value that the bytes begin with, and how long it is.
pub fn value(bytes: &[u8]) -> Option<(Value, usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let (mark, line) = (bytes[0], std::str::from_utf8(&bytes[1..end]).expect("text"));
    let mut at = end + 2;
    let (mut text, mut elements) = (line.to_owned(), Vec::new());
    match mark {
        b'$' if line != "-1" => {
            let length: usize = line.parse().expect("a length");
            text = text_of(bytes.get(at..at + length)?);
            assert_eq!(bytes.get(at + length..at + length + 2)?, b"\r\n", "something stands inside a value");
            at += length + 2;
        }
        b'*' | b'>' | b'%' => {
            let count = line.parse::<usize>().expect("a number") * if mark == b'%' { 2 } else { 1 };
            for _ in 0..count {
                let (element, length) = value(&bytes[at..])?;
                elements.push(element);
                at += length;
            }
        }
        b'+' | b'-' | b':' | b'_' | b'$' => {}
        other => panic!("{:?} is no value", char::from(other)),
    }
    Some((Value { mark, text, elements }, at))
}
