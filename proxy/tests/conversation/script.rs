//! A conversation as it is written: the rule, a header, then one step a line. docs/conversations.md has all words that are
//! known here.

use std::path::Path;
use std::time::Duration;

/// A whole file.
pub struct Script {
    pub header: Vec<Setting>,
    pub steps: Vec<Step>,
}

/// A line of the header: `timeout: 400ms`.
#[derive(Clone)]
pub struct Setting {
    pub line: usize,
    pub name: String,
    pub value: String,
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
    /// `shard 1.2 finished`: the proxy has closed its writing side of the connection.
    Finished(usize, usize),
    /// `client a closes`, `shard 2 refuses`, …
    Does(Peer, Deed),
    /// `after 400ms`.
    After(Duration),
    /// `count forward_error is 1`.
    Count(String, u64),
    /// `shard 2 failures: 1`: so many were counted towards its ejection since the last such line.
    Failures(usize, u64),
    /// `shard 2 probes: 1`: so many failures were left for a probe to judge since the last such line.
    Probes(usize, u64),
    /// `slot of k1 on shard 2`: the proxy is told of another owner; none with `on no shard`.
    Slot(String, Option<usize>),
    /// `shard 2 reads for shard 1`: the proxy is told of a replica that answers reads.
    ReadsFor(usize, usize),
    /// `shard 2 replaces shard 1`: the proxy is told of a failover.
    Replaces(usize, usize),
    /// `owners asked for`: the proxy has wanted to know who owns what since the last such line.
    OwnersAskedFor,
    /// `reload timeout: 100ms ; shards: 3`: another configuration.
    Reload(Vec<Setting>),
    /// `drain`: the process is to end.
    Drain,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// Its connection breaks.
    Resets,
    /// It closes in good order.
    Closes,
    /// It closes its writing side only.
    Ends,
    /// It connects, and says nothing yet.
    Connects,
    StopsReading,
    ReadsOn,
    /// A shard accepts connections again, those that wait included.
    Accepts,
    /// A shard refuses connections from now on.
    Refuses,
    /// Connections to a shard are not made, nor refused, from now on.
    Hangs,
    /// Connections to a shard take too long, from now on, those that wait included.
    Unreachable,
    /// There is no descriptor for connections to a shard, from now on.
    LacksDescriptors,
    /// The host name of a shard has another address.
    Moves,
    /// A shard is taken out of the ring.
    Ejected,
    /// It comes back.
    Restored,
}

/// What clients do, and what is done to them.
pub const CLIENT_DEEDS: &[(&str, Deed)] = &[
    ("connects", Deed::Connects),
    ("closes", Deed::Closes),
    ("resets", Deed::Resets),
    ("ends", Deed::Ends),
    ("stops reading", Deed::StopsReading),
    ("reads on", Deed::ReadsOn),
];

/// What shards do, and what is done to them.
pub const SHARD_DEEDS: &[(&str, Deed)] = &[
    ("closes", Deed::Closes),
    ("resets", Deed::Resets),
    ("stops reading", Deed::StopsReading),
    ("reads on", Deed::ReadsOn),
    ("accepts", Deed::Accepts),
    ("refuses", Deed::Refuses),
    ("hangs", Deed::Hangs),
    ("is unreachable", Deed::Unreachable),
    ("lacks descriptors", Deed::LacksDescriptors),
    ("moves", Deed::Moves),
    ("is ejected", Deed::Ejected),
    ("is restored", Deed::Restored),
];

type Reader = fn(&str) -> Result<What, String>;
type ShardReader = fn(usize, &str) -> Result<What, String>;

/// Lines that do not begin with a peer, by their first words.
pub const STATEMENTS: &[(&str, Reader)] = &[
    ("after ", |text| Ok(What::After(duration(text).ok_or("not a duration such as 400ms or 3s")?))),
    ("count ", |text| {
        let (name, count) = text.split_once(" is ").ok_or("not `count NAME is NUMBER`")?;
        Ok(What::Count(name.to_owned(), number(count)?))
    }),
    ("slot of ", |text| match text.strip_suffix(" on no shard") {
        Some(key) => Ok(What::Slot(key.to_owned(), None)),
        None => {
            let (key, shard) = text.split_once(" on shard ").ok_or("not `slot of KEY on shard NUMBER`")?;
            Ok(What::Slot(key.to_owned(), Some(number(shard)?)))
        }
    }),
    ("owners asked for", |_| Ok(What::OwnersAskedFor)),
    ("reload ", |text| {
        let settings = text.split(" ; ").map(|part| setting(0, part).ok_or("not `reload NAME: VALUE`"));
        Ok(What::Reload(settings.collect::<Result<_, _>>()?))
    }),
    ("drain", |_| Ok(What::Drain)),
];

/// What is said of shards, by the words behind their number.
pub const SHARD_STATEMENTS: &[(&str, ShardReader)] = &[
    ("failures: ", |shard, text| Ok(What::Failures(shard, number(text)?))),
    ("probes: ", |shard, text| Ok(What::Probes(shard, number(text)?))),
    ("reads for shard ", |shard, text| Ok(What::ReadsFor(shard, number(text)?))),
    ("replaces shard ", |shard, text| Ok(What::Replaces(shard, number(text)?))),
];

impl Script {
    pub fn read(path: &Path) -> Result<Self, (usize, String)> {
        let text = std::fs::read_to_string(path).expect("a conversation");
        if !text.starts_with("# ") {
            return Err((1, "it opens with no comment that states its rule".into()));
        }
        let (mut header, mut steps) = (Vec::new(), Vec::new());
        for (at, text) in text.lines().enumerate() {
            let (line, text) = (at + 1, text.trim());
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            if steps.is_empty()
                && let Some(setting) = setting(line, text)
            {
                header.push(setting);
                continue;
            }
            let what = step(text)
                .map_err(|fault| (line, format!("{text}\n    {fault}; see docs/conversations.md")))?;
            steps.push(Step { line, text: text.to_owned(), what });
        }
        Ok(Self { header, steps })
    }
}

fn step(text: &str) -> Result<What, String> {
    if let Some((words, read)) = STATEMENTS.iter().find(|(words, _)| text.starts_with(words)) {
        return read(&text[words.len()..]);
    }
    let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
    let end = rest.find([' ', '<', '>']).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    let (peer, deeds) = match kind {
        "client" => (Peer::Client(name.to_owned()), CLIENT_DEEDS),
        "shard" => {
            let (shard, connection) = name.split_once('.').unwrap_or((name, "1"));
            let number = |text: &str| text.parse::<usize>().ok().filter(|&number| number > 0);
            let shard = number(shard).ok_or("shards are called shard 1, shard 2, …")?;
            let connection =
                number(connection).ok_or("connections of a shard are called shard 1, shard 1.2, …")?;
            (Peer::Shard(shard, connection), SHARD_DEEDS)
        }
        _ => return Err("it begins with none of the words that a line can begin with".into()),
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
    if rest == "closed" {
        return Ok(What::Closed(peer, None));
    }
    if let (Peer::Shard(shard, connection), "finished") = (&peer, rest) {
        return Ok(What::Finished(*shard, *connection));
    }
    if let Some(reason) = rest.strip_prefix("closed: ") {
        return Ok(What::Closed(peer, Some(reason.to_owned())));
    }
    if let Peer::Shard(shard, _) = peer
        && let Some((words, read)) = SHARD_STATEMENTS.iter().find(|(words, _)| rest.starts_with(words))
    {
        return read(shard, &rest[words.len()..]);
    }
    let known = deeds.iter().find(|(words, _)| *words == rest);
    let (_, deed) = known.ok_or_else(|| format!("{rest:?} is nothing that a {kind} does"))?;
    Ok(What::Does(peer, *deed))
}

fn setting(line: usize, text: &str) -> Option<Setting> {
    let (name, value) = text.trim().split_once(": ")?;
    let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'3');
    is_name.then(|| Setting { line, name: name.to_owned(), value: value.trim().to_owned() })
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is no number"))
}

/// `400ms`, `3s`.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Some(number) = text.strip_suffix("ms") {
        return number.parse().ok().map(Duration::from_millis);
    }
    text.strip_suffix('s')?.parse().ok().map(Duration::from_secs)
}
