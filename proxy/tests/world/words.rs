//! Requests and replies of Redis as words, for shards and clients that are made up.

/// The words of the request that `bytes` begins with, and its length.
pub fn request(bytes: &[u8]) -> Option<(Vec<String>, usize)> {
    let text = std::str::from_utf8(bytes).expect("text");
    let mut lines = text.split_inclusive("\r\n").filter(|line| line.ends_with("\r\n"));
    let head = lines.next()?;
    let count: usize = head[1..].trim_end().parse().expect("a count");
    let (mut words, mut length) = (Vec::new(), head.len());
    for _ in 0..count {
        let (size, word) = (lines.next()?, lines.next()?);
        length += size.len() + word.len();
        words.push(word.trim_end().to_owned());
    }
    Some((words, length))
}

/// Takes it.
pub fn take_request(bytes: &mut Vec<u8>) -> Option<Vec<String>> {
    let (words, length) = request(bytes)?;
    bytes.drain(..length);
    Some(words)
}

/// The reply that `bytes` begins with, in words, and its length.
pub fn reply(bytes: &[u8]) -> Option<(String, usize)> {
    let text = std::str::from_utf8(bytes).expect("text");
    let head = text.split_inclusive("\r\n").next().filter(|line| line.ends_with("\r\n"))?;
    let (kind, rest) = head.split_at(1);
    match (kind, rest.trim_end()) {
        ("*", count) if count != "-1" => {
            let (mut words, mut length) = (Vec::new(), head.len());
            for _ in 0..count.parse::<usize>().expect("a count") {
                let (word, used) = reply(&bytes[length..])?;
                words.push(word);
                length += used;
            }
            Some((words.join(" "), length))
        }
        ("$", size) if size != "-1" => {
            let end = head.len() + size.parse::<usize>().expect("a size") + 2;
            Some((text.get(head.len()..end - 2)?.to_owned(), end)).filter(|_| text.len() >= end)
        }
        _ => Some((head.trim_end().to_owned(), head.len())),
    }
}
