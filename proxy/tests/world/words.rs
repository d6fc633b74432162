//! Requests and replies of Redis as words, for shards and clients that are made up.

/// The words of the request that `bytes` begins with, and its length.
pub fn request(bytes: &[u8]) -> Option<(Vec<String>, usize)> {
    let text = std::str::from_utf8(bytes).expect("text");
    let mut lines = text.split_inclusive("\r\n").filter(|line| line.ends_with("\r\n"));
    let head = lines.next()?;
    let count: usize = head[1..].trim_end().parse().expect("a count");
    let (mut words, mut length) = (Vec::new(), head.len());
    for _ in 0..count {
        let size = lines.next()?;
        length += size.len();
        if !size.starts_with('$') {
            words.push(size.trim_end().to_owned());
            continue;
        }
        let word = lines.next()?;
        length += word.len();
        words.push(word.trim_end().to_owned());
    }
    Some((words, length))
}

/// The reply that `bytes` begins with, in words, and its length.
pub fn reply(bytes: &[u8]) -> Option<(String, usize)> {
    let text = std::str::from_utf8(bytes).expect("text");
    let head = text.split_inclusive("\r\n").next().filter(|line| line.ends_with("\r\n"))?;
    if head.starts_with('*') && !head.starts_with("*-1") {
        let (words, length) = request(bytes)?;
        return Some((words.join(" "), length));
    }
    Some((head.trim_end().to_owned(), head.len()))
}
