//! A conversation as it is written: a header, then one step a line.

use std::path::Path;
use std::time::Duration;

/// A whole file.
pub struct Script {
    pub header: Vec<(usize, String, String)>,
    pub steps: Vec<Step>,
}

/// One line.
pub struct Step {
    /// Counted from 1.
    pub line: usize,
    pub text: String,
    pub what: What,
}

/// Somebody the proxy talks to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Peer {
    Client(String),
    /// A connection to a shard: its number, and which of those that were made to it, from 1.
    Shard(usize, usize),
}

/// What is said, as it is written.
pub enum Said {
    /// Messages in the words of the protocol's [`super::speech::Speech`].
    Messages(String),
    /// Bytes in quotes.
    Bytes(String),
    Nothing,
}

pub enum What {
    /// `client a> get k1`: the peer speaks.
    Says(Peer, Said),
    /// `client a< "v"`: all that the peer has heard since the last such line.
    Hears(Peer, Said),
    /// `client a closed`, `shard 2 closed: timed out`: by the proxy, perhaps for this reason.
    Closed(Peer, Option<String>),
    /// `client a closes`, `shard 2 refuses`, …
    Does(Peer, Deed),
    /// `after 400ms`.
    After(Duration),
    /// `count forward_error is 1`.
    Count(String, u64),
    /// `shard 2 failures: 1`: so many were counted towards its ejection since the last such line.
    Failures(usize, u64),
    /// `shard 2 ejected`, `shard 2 restored`.
    Ejected(usize, bool),
    /// `slot of k1 on shard 2`: the proxy is told of another owner.
    Slot(String, usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// Its connection breaks.
    Resets,
    /// It closes in good order.
    Closes,
    /// It closes its writing side only.
    Ends,
    StopsReading,
    ReadsOn,
    /// A shard accepts connections again, those that wait included.
    Accepts,
    /// A shard refuses connections from now on.
    Refuses,
    /// Connections to a shard are not made, nor refused, from now on.
    Hangs,
}

impl Script {
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("a conversation");
        let (mut header, mut steps) = (Vec::new(), Vec::new());
        for (at, text) in text.lines().enumerate() {
            let (line, text) = (at + 1, text.trim());
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            if steps.is_empty()
                && let Some((name, value)) = text.split_once(": ")
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            {
                header.push((line, name.to_owned(), value.trim().to_owned()));
                continue;
            }
            let what = step(text).unwrap_or_else(|fault| {
                panic!("{}:{line}: {text}\n    {fault}; see CONTRIBUTING.md", path.display())
            });
            steps.push(Step { line, text: text.to_owned(), what });
        }
        Self { header, steps }
    }
}

fn step(text: &str) -> Result<What, String> {
    if let Some(duration) = text.strip_prefix("after ") {
        return Ok(What::After(self::duration(duration).ok_or("not a duration such as 400ms or 3s")?));
    }
    if let Some(rest) = text.strip_prefix("count ") {
        let (name, number) = rest.split_once(" is ").ok_or("not `count NAME is NUMBER`")?;
        return Ok(What::Count(name.to_owned(), number.parse().map_err(|_| "not a number")?));
    }
    if let Some(rest) = text.strip_prefix("slot of ") {
        let (key, shard) = rest.split_once(" on shard ").ok_or("not `slot of KEY on shard NUMBER`")?;
        return Ok(What::Slot(key.to_owned(), shard.parse().map_err(|_| "not a number")?));
    }
    let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
    let end = rest.find([' ', '<', '>']).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    let peer = match kind {
        "client" => Peer::Client(name.to_owned()),
        "shard" => {
            let (shard, connection) = name.split_once('.').unwrap_or((name, "1"));
            let number = |text: &str| text.parse::<usize>().ok().filter(|&number| number > 0);
            Peer::Shard(
                number(shard).ok_or("shards are called shard 1, shard 2, …")?,
                number(connection).ok_or("connections of a shard are called shard 1, shard 1.2, …")?,
            )
        }
        _ => return Err("neither a client, a shard, `after`, `count` nor `slot of`".into()),
    };
    let messages = |said: &str| match said.trim() {
        "nothing" => Said::Nothing,
        said => Said::Messages(said.to_owned()),
    };
    if let Some(bytes) = rest.strip_prefix(">>") {
        return Ok(What::Says(peer, Said::Bytes(bytes.trim().to_owned())));
    }
    if let Some(bytes) = rest.strip_prefix("<<") {
        return Ok(What::Hears(peer, Said::Bytes(bytes.trim().to_owned())));
    }
    if let Some(said) = rest.strip_prefix('>') {
        return Ok(What::Says(peer, messages(said)));
    }
    if let Some(said) = rest.strip_prefix('<') {
        return Ok(What::Hears(peer, messages(said)));
    }
    let rest = rest.trim();
    if let Some(reason) = rest.strip_prefix("closed: ") {
        return Ok(What::Closed(peer, Some(reason.to_owned())));
    }
    if let (Some(number), Peer::Shard(shard, _)) = (rest.strip_prefix("failures: "), &peer) {
        return Ok(What::Failures(*shard, number.parse().map_err(|_| "not a number")?));
    }
    let deed = match (rest, &peer) {
        ("closed", _) => return Ok(What::Closed(peer, None)),
        ("ejected" | "restored", Peer::Shard(shard, _)) => {
            return Ok(What::Ejected(*shard, rest == "ejected"));
        }
        ("closes", _) => Deed::Closes,
        ("resets", _) => Deed::Resets,
        ("stops reading", _) => Deed::StopsReading,
        ("reads on", _) => Deed::ReadsOn,
        ("ends", Peer::Client(_)) => Deed::Ends,
        ("connects", Peer::Client(_)) => Deed::ReadsOn,
        ("accepts", Peer::Shard(..)) => Deed::Accepts,
        ("refuses", Peer::Shard(..)) => Deed::Refuses,
        ("hangs", Peer::Shard(..)) => Deed::Hangs,
        _ => return Err(format!("{rest:?} is nothing that a {kind} does")),
    };
    Ok(What::Does(peer, deed))
}

/// `400ms`, `3s`.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Some(number) = text.strip_suffix("ms") {
        return number.parse().ok().map(Duration::from_millis);
    }
    text.strip_suffix('s')?.parse().ok().map(Duration::from_secs)
}
