//! A list of servers at a URL: a JSON document that is asked for again and again.
//!
//! Plain HTTP/1.0, so that nothing comes in chunks, and one connection for each question. Who asks says which version of the
//! list it has (`If-None-Match`), and is mostly told that there is no other. An answer is bounded in size and time, and so is
//! what is said of a broken one; a part of one is none: a list that is cut short would move keys.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};

use super::fixed::Servers;
use super::{Listing, Poll, Polled, Source};
use crate::Address;
use crate::document::Document;
use crate::mistake::{Mistake, Mistakes, Place};
use crate::shard::{cut, put_in_order};

/// Longest answer, its head included.
const ANSWER_MAX: usize = 4 << 20;
/// Longest head of an answer.
const HEAD_MAX: usize = 64 << 10;
/// How long one question may take as a whole, once the addresses are known.
const LIMIT: Duration = Duration::from_secs(5);
/// Most servers in a list.
const SERVERS_MAX: usize = 4096;
/// Longest version that is kept.
const VERSION_MAX: usize = 1 << 10;
/// Longest text of all mistakes of a list together, of each of them, and of where the list is.
const ERROR_MAX: usize = 1 << 10;
const MISTAKE_MAX: usize = 480;
const ORIGIN_MAX: usize = 200;

/// A document at a URL. It is a list of servers as strings, or a topology document as a proxy has it at `/topology`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    place: Address,
    /// As it is written.
    authority: String,
    /// From the slash on, with the query.
    path: String,
    /// Name of the pool in a topology document.
    pub pool: String,
    /// How often.
    pub refresh: Duration,
}

impl Http {
    /// `http://host[:port][/path][?query]`, asked every so often. Where it is a topology document this pool counts.
    ///
    /// # Errors
    /// What is allowed. The URL, in which there may be a password, is not told.
    pub fn parse(url: &str, pool: &str, refresh: Duration) -> Result<Self, String> {
        const ALLOWED: &str = "allowed is http://host:port/path";
        let rest = url.strip_prefix("http://").ok_or(ALLOWED)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(format!("a user name or password in the URL is not supported; {ALLOWED}"));
        }
        if !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(format!(
                "the path has a blank, a fragment or characters that are not ASCII; {ALLOWED}"
            ));
        }
        let place = place(authority).ok_or(ALLOWED)?;
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            place,
            authority: authority.into(),
            path: format!("{slash}{path}"),
            pool: pool.into(),
            refresh,
        })
    }

    /// For people: without the query, in which there may be a token.
    fn shown(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        cut(&format!("http://{}{path}", self.authority), ORIGIN_MAX).to_owned()
    }

    fn wrong(&self, text: impl fmt::Display) -> Mistakes {
        self.mistakes(vec![Mistake { place: Place::START, text: text.to_string() }])
    }

    /// The first few of them, each cut where it is long.
    fn mistakes(&self, mut list: Vec<Mistake>) -> Mistakes {
        // For a line that counts the others.
        const REST: usize = 40;
        let (origin, all) = (self.shown(), list.len());
        let around = origin.len() + REST;
        let mut left = ERROR_MAX - around;
        for (index, Mistake { text, .. }) in list.iter_mut().enumerate() {
            let is_cut = text.len() > MISTAKE_MAX;
            let printable = |character: char| if character.is_control() { ' ' } else { character };
            *text = cut(text, MISTAKE_MAX).chars().map(printable).collect();
            text.push_str(if is_cut { "..." } else { "" });
            match left.checked_sub(text.len() + around) {
                Some(rest) => left = rest,
                None => {
                    list.truncate(index);
                    break;
                }
            }
        }
        if let (more @ 1.., Some(last)) = (all - list.len(), list.last()) {
            list.push(Mistake { place: last.place, text: format!("and {more} more") });
        }
        Mistakes { origin: origin.into(), list }
    }

    /// Asks the first of these addresses that takes the connection.
    fn exchange(&self, at: &[SocketAddr], version: Option<&str>, until: Instant) -> io::Result<Vec<u8>> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for (place, address) in at.iter().enumerate() {
            // One that is silent leaves time for those after it.
            let share = left(until)? / u32::try_from(at.len() - place).unwrap_or(u32::MAX);
            match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
                Ok(stream) => return converse(stream, &self.request(version), until),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn request(&self, version: Option<&str>) -> String {
        let Self { authority, path, .. } = self;
        let condition = version.map(|tag| format!("If-None-Match: {tag}\r\n")).unwrap_or_default();
        format!(
            "GET {path} HTTP/1.0\r\nHost: {authority}\r\nAccept: application/json\r\nConnection: close\r\n{condition}\r\n"
        )
    }

    /// What is in an answer to [`Self::request`].
    fn understand(&self, answer: &[u8], version: Option<&str>) -> Result<Polled, Mistakes> {
        let end = end_of_head(answer).ok_or_else(|| self.wrong("the response is not HTTP"))?;
        let head = Head::parse(&answer[..end]).map_err(|words| self.wrong(words))?;
        match head.status {
            200 => {}
            304 if version.is_some() => return Ok(Polled::Same),
            status => return Err(self.wrong(format!("the response has status {status}"))),
        }
        let body = &answer[end..];
        if head.length.is_some_and(|length| length != body.len()) {
            return Err(self.wrong("the response is truncated"));
        }
        let body = std::str::from_utf8(body).map_err(|_| self.wrong("the response is not UTF-8"))?;
        Ok(Polled::Listed { listing: self.listing(body)?, version: head.version })
    }

    fn listing(&self, body: &str) -> Result<Listing, Mistakes> {
        if !body.trim_start().starts_with('[') {
            return self.of_document(body);
        }
        let Lines(lines) = serde_json::from_str(body).map_err(|error| {
            let place = Place { line: error.line(), column: error.column() };
            self.mistakes(vec![Mistake { place, text: format!("not a list of strings: {error}") }])
        })?;
        let (mut servers, mut mistakes) = (Servers::default(), Vec::new());
        for (number, line) in (1..).zip(&lines) {
            // Counted by entries: JSON keeps no places.
            let place = Place { line: number, column: 1 };
            mistakes.extend(servers.add(line, number).err().map(|text| Mistake { place, text }));
        }
        let mut servers = servers.into_shards();
        if !mistakes.is_empty() {
            return Err(self.mistakes(mistakes));
        }
        if servers.is_empty() {
            return Err(self.wrong("the list is empty; a pool needs at least one server"));
        }
        // The same servers in whatever order are the same list.
        put_in_order(&mut servers);
        Ok(Listing::of(servers))
    }

    fn of_document(&self, body: &str) -> Result<Listing, Mistakes> {
        let document = Document::parse(body).map_err(|error| self.wrong(error))?;
        if document.pools.get(&self.pool).is_some_and(|pool| pool.shards.len() > SERVERS_MAX) {
            return Err(self.wrong(format!("more than {SERVERS_MAX} servers")));
        }
        let topology = document.topology(&self.pool).map_err(|error| self.wrong(error))?;
        let listing = Listing::of(topology.shards().to_vec());
        Ok(Listing { placement: Some(topology.placement()), ..listing })
    }
}

impl Poll for Http {
    fn places(&self) -> &[Address] {
        std::slice::from_ref(&self.place)
    }

    fn refresh(&self) -> Duration {
        self.refresh
    }

    fn is_same(&self, other: &Source) -> bool {
        matches!(other, Source::Http(other) if *self == Self { refresh: self.refresh, ..other.clone() })
    }

    fn poll(&self, at: &[SocketAddr], version: Option<&str>) -> Result<Polled, Mistakes> {
        let unreadable = |error: io::Error| self.wrong(format!("cannot be read: {error}"));
        let answer = self.exchange(at, version, Instant::now() + LIMIT).map_err(unreadable)?;
        self.understand(&answer, version)
    }
}

/// `host`, `host:port`, `[IPv6]` or `[IPv6]:port`.
fn place(authority: &str) -> Option<Address> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => {
            let (host, port) =
                authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            if host.is_empty() || host.len() > 255 || !host.bytes().all(is_name) {
                return None;
            }
            (host, port)
        }
    };
    let is_number = |port: &&str| port.bytes().all(|byte| byte.is_ascii_digit());
    let port = match port {
        None => 80,
        Some(port) => Some(port).filter(is_number)?.parse().ok().filter(|&port| port > 0)?,
    };
    Some(Address::Tcp { host: host.to_owned(), port })
}

/// Strings, but not more than there may be servers.
struct Lines(Vec<String>);

impl<'de> Deserialize<'de> for Lines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;
        impl<'de> Visitor<'de> for Bounded {
            type Value = Lines;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a list of strings")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Lines, A::Error> {
                let mut lines = Vec::new();
                while let Some(line) = list.next_element()? {
                    if lines.len() == SERVERS_MAX {
                        return Err(A::Error::custom(format!("more than {SERVERS_MAX} servers")));
                    }
                    lines.push(line);
                }
                Ok(Lines(lines))
            }
        }
        deserializer.deserialize_seq(Bounded)
    }
}

/// What counts of the head of an answer.
struct Head {
    status: u16,
    /// Of the body.
    length: Option<usize>,
    version: Option<String>,
}

impl Head {
    fn parse(head: &[u8]) -> Result<Self, &'static str> {
        const NO_ANSWER: &str = "the response is not HTTP";
        let head = String::from_utf8_lossy(head);
        let mut lines = head.split("\r\n");
        let first = lines.next().filter(|first| first.starts_with("HTTP/1.")).ok_or(NO_ANSWER)?;
        let status = first.split(' ').nth(1).filter(|status| status.len() == 3).ok_or(NO_ANSWER)?;
        let mut told = Self { status: status.parse().map_err(|_| NO_ANSWER)?, length: None, version: None };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("transfer-encoding") {
                return Err("the response is chunked, which HTTP/1.0 does not support");
            } else if name.eq_ignore_ascii_case("content-length") {
                let length =
                    Some(value.parse().map_err(|_| "the Content-Length of the response is not a number")?);
                if told.length.is_some() && told.length != length {
                    return Err("the response has two different Content-Length headers");
                }
                told.length = length;
            } else if name.eq_ignore_ascii_case("etag") {
                // Where it is sent back as it came it must not end the line, nor be refused for its length.
                let is_plain = value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
                told.version = Some(value).filter(|_| is_plain && value.len() <= VERSION_MAX).map(Into::into);
            }
        }
        Ok(told)
    }

    /// Bytes of the body, where they are known before the connection is closed.
    fn body(&self) -> Option<usize> {
        if matches!(self.status, 204 | 304) { Some(0) } else { self.length }
    }
}

/// Where the body begins, if it does.
fn end_of_head(answer: &[u8]) -> Option<usize> {
    let head = &answer[..answer.len().min(HEAD_MAX)];
    head.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| at + 4)
}

/// How long it may take yet.
fn left(until: Instant) -> io::Result<Duration> {
    match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::new(io::ErrorKind::TimedOut, "timed out")),
        left => Ok(left),
    }
}

/// All that is answered: as much as the head says, or until the connection is closed.
fn converse(mut stream: TcpStream, request: &str, until: Instant) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(left(until)?))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 16 * 1024];
    let mut has_head = false;
    let mut whole = None;
    loop {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(answer),
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            // Whether there is time for more is seen above.
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
        if let (false, Some(end)) = (has_head, end_of_head(&answer)) {
            has_head = true;
            let body = Head::parse(&answer[..end]).ok().and_then(|head| head.body());
            whole = body.map(|body| end.saturating_add(body));
        }
        // What comes of the connection afterwards does not matter.
        if let Some(whole) = whole.filter(|&whole| whole <= answer.len()) {
            answer.truncate(whole);
            return Ok(answer);
        }
        if answer.len() > ANSWER_MAX || whole.is_some_and(|whole| whole > ANSWER_MAX) {
            return Err(io::Error::other(format!("it is longer than {ANSWER_MAX} bytes")));
        }
        if !has_head && answer.len() >= HEAD_MAX {
            return Err(io::Error::other(format!("its head is longer than {HEAD_MAX} bytes")));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::source::Follower;

    const DOCUMENT: &str = r#"{"version":1,"pools":{"cache":{"protocol":"redis","hash":"md5","distribution":"modula",
        "shards":[{"name":"b","address":"10.0.0.2:6379","weight":2},{"name":"a","address":"10.0.0.1:6379","ejected":true}]}}}"#;

    fn http() -> Http {
        Http::parse("http://lists:8080/cache", "cache", Duration::from_secs(5)).unwrap()
    }

    fn ok(headers: &str, body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\n{headers}\r\n{body}")
    }

    fn told(answer: &str) -> Result<Polled, String> {
        http().understand(answer.as_bytes(), Some("\"1\"")).map_err(|mistakes| mistakes.to_string())
    }

    fn listed(answer: &str) -> (Listing, Option<String>) {
        match told(answer) {
            Ok(Polled::Listed { listing, version }) => (listing, version),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn addresses_of_lists() {
        let place = |url: &str| {
            Http::parse(url, "cache", Duration::ZERO).map(|http| (http.place.to_string(), http.path))
        };
        assert_eq!(place("http://lists/a?b=c"), Ok(("lists:80".into(), "/a?b=c".into())));
        assert_eq!(place("http://lists:8080"), Ok(("lists:8080".into(), "/".into())));
        assert_eq!(place("http://[::1]/x"), Ok(("[::1]:80".into(), "/x".into())));
        assert_eq!(place("http://[::1]:81/x"), Ok(("[::1]:81".into(), "/x".into())));
        for url in [
            "https://lists/",
            "lists/x",
            "http:///x",
            "http://u@lists/",
            "http://lists:0/",
            "http://l/a b",
            "http://l/\r\nX: y",
            "http://::1/",
            "http://[::1/",
            "http://[::1]x:80/",
            "http://[lists]/",
            "http://a:b:80/",
            "http://a:+80/",
            "http://a:/",
            "http://a%20b/",
            "http://l/#x",
            "http://l#x",
        ] {
            assert!(place(url).is_err(), "{url}");
        }
        assert_eq!(place("http://lists?t=@/x"), Ok(("lists:80".into(), "/?t=@/x".into())));
    }

    #[test]
    fn secrets_of_a_url_are_not_told() {
        let parse = |url: &str| Http::parse(url, "cache", Duration::ZERO);
        let refused = parse("http://me:SECRET@lists/").unwrap_err();
        assert!(refused.contains("user name or password") && !refused.contains("SECRET"), "{refused}");
        let asked = parse("http://lists/a?token=SECRET").unwrap();
        assert!(asked.request(None).starts_with("GET /a?token=SECRET HTTP/1.0\r\n"));
        assert_eq!(asked.wrong("x").to_string(), "http://lists/a:1:1: x");
    }

    #[test]
    fn what_is_said_of_a_broken_list_is_bounded() {
        let many = |text: &str, count| format!("[{}]", vec![format!("{text:?}"); count].join(","));
        let long = "\u{10ffff}".repeat(1000);
        let shards =
            r#"{"name":"a","address":"h:1"},"#.repeat(SERVERS_MAX) + r#"{"name":"a","address":"h:1"}"#;
        for (body, words) in [
            (many("", 1_300_000), "more than 4096 servers"),
            (many("h:1:1 a", SERVERS_MAX + 1), "more than 4096 servers"),
            (many("h", SERVERS_MAX), "more"),
            (format!("[\"{long}\", \"{long}\", \"h:1:1 {long}\"]"), "and 2 more"),
            (format!("{{\"version\":\"{}\"}}", "x".repeat(4_000_000)), "invalid type"),
            (format!("{{\"version\":1,\"pools\":{{\"a\\nb{long}\":{{}}}}}}"), "missing field"),
            (DOCUMENT.replace("md5", &long), "hash"),
            (DOCUMENT.replace("\"cache\"", &format!("\"a\\nb{long}\"")), "has no pool"),
            (DOCUMENT.replace("10.0.0.2:6379", &long), "address"),
            (
                format!(
                    "{{\"version\":1,\"pools\":{{\"cache\":{{\"protocol\":\"redis\",\"hash\":\"md5\",\"distribution\":\"ketama\",\"shards\":[{shards}]}}}}}}"
                ),
                "more than 4096 servers",
            ),
        ] {
            let error = told(&ok("", &body)).unwrap_err();
            let is_plain = error.lines().all(|line| line.starts_with("http://lists:8080/cache:"));
            assert!(error.len() <= ERROR_MAX && is_plain && error.contains(words), "{words}: {error}");
        }
        let status = told(&format!("HTTP/1.1 {}\r\n\r\n", "9".repeat(60_000))).unwrap_err();
        assert!(status.len() < ERROR_MAX && status.contains("not HTTP"), "{status}");
        let far = Http::parse(&format!("http://l/{}", "p".repeat(10_000)), "cache", Duration::ZERO).unwrap();
        assert!(far.wrong("x".repeat(10_000)).to_string().len() <= ERROR_MAX);
    }

    #[test]
    fn another_order_is_no_other_list() {
        let [one, other] = [r#"["h:1:1 a", "h:2:1 b"]"#, r#"["h:2:1 b", "h:1:1 a"]"#];
        assert_eq!(listed(&ok("", one)), listed(&ok("", other)));
    }

    #[test]
    fn an_answer_is_complete_at_its_length_whatever_becomes_of_the_connection() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = server.local_addr().unwrap();
        let list = "[\"h:1:1 a\"]";
        let answers = [
            ok(&format!("Content-Length: {}\r\n", list.len()), &format!("{list} and more")),
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n".into(),
            "HTTP/1.1 204 No Content\r\n\r\n".into(),
        ];
        let sent = answers.clone();
        let open = std::thread::spawn(move || {
            sent.map(|answer| {
                let (mut stream, _) = server.accept().unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                stream
            })
        });
        for answer in answers {
            let until = Instant::now() + Duration::from_secs(60);
            let got = http().exchange(&[at], Some("1"), until).unwrap();
            assert_eq!(String::from_utf8(got).unwrap(), answer.strip_suffix(" and more").unwrap_or(&answer));
            assert!(Instant::now() < until - Duration::from_secs(30));
        }
        drop(open.join());
    }

    #[test]
    fn a_list_of_strings_and_a_topology_document_are_lists() {
        let answer = ok("ETag: \"7\"\r\nContent-Length: 24\r\n", r#"["h:1:1 a", "h:2:1 b"]  "#);
        let (listing, version) = listed(&answer);
        assert_eq!((version.as_deref(), listing.servers.len(), listing.placement), (Some("\"7\""), 2, None));
        let (listing, _) = listed(&ok("", DOCUMENT));
        assert_eq!(listing.placement.unwrap().key_hash, crate::KeyHash::Md5);
        // Also those that are out for now.
        let names: Vec<&str> = listing.servers.iter().map(|shard| &*shard.name).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn a_version_is_sent_back_and_believed_only_then() {
        assert!(http().request(Some("\"7\"")).contains("\r\nIf-None-Match: \"7\"\r\n"));
        assert!(!http().request(None).contains("If-None-Match"));
        assert_eq!(told("HTTP/1.1 304 Not Modified\r\n\r\n"), Ok(Polled::Same));
        let unasked = http().understand(b"HTTP/1.1 304 Not Modified\r\n\r\n", None);
        assert!(unasked.unwrap_err().to_string().contains("status 304"));
        assert_eq!(listed(&ok("ETag: \u{1}\r\n", r#"["h:1:1"]"#)).1, None);
        let tag = |length| listed(&ok(&format!("ETag: {}\r\n", "x".repeat(length)), r#"["h:1:1"]"#)).1;
        assert_eq!((tag(1024).map(|tag| tag.len()), tag(1025)), (Some(1024), None));
    }

    #[test]
    fn what_is_no_list_is_refused_with_its_place() {
        for (answer, words) in [
            ("", "http://lists:8080/cache:1:1: the response is not HTTP"),
            ("HTTP/1.1 302 Found\r\nLocation: x\r\n\r\n", "status 302"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "is chunked"),
            (&*ok("Content-Length: 99\r\n", "[\"h:1:1\"]"), "truncated"),
            (
                &*ok("Content-Length: 9\r\nContent-Length: 5\r\n", "[\"h:1:1\"]"),
                "two different Content-Length",
            ),
            (&*ok("", "[\n\"h:1:1\", 7]"), "http://lists:8080/cache:2:"),
            (&*ok("", "[]"), "the list is empty"),
            (
                &ok("", "[\"h:1:1 a\", \"h:2:1 a\"]"),
                "http://lists:8080/cache:2:1: server \"h:2:1 a\" has the name",
            ),
            (&*ok("", &DOCUMENT.replace("cache", "other")), "has no pool \"cache\""),
            (&*ok("", "{}"), "missing field"),
        ] {
            let error = told(answer).unwrap_err();
            assert!(error.contains(words), "{answer:?}: {error}");
        }
        assert!(http().understand(&[0xff, 0xfe], None).is_err());
    }

    #[test]
    fn it_is_followed_as_any_other_source() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/cache", server.local_addr().unwrap());
        let answers = [
            ok("ETag: \"7\"\r\n", r#"["h:1:1 a"]"#),
            "HTTP/1.1 304 Not Modified\r\n\r\n".into(),
            "HTTP/1.1 500 Oops\r\n\r\n".into(),
            ok("ETag: \"8\"\r\n", r#"["h:1:1 a", "h:2:1 b"]"#),
        ];
        let asked = std::thread::spawn(move || {
            answers.map(|answer| {
                let (mut stream, _) = server.accept().unwrap();
                let (mut request, mut piece) = (Vec::new(), [0; 1024]);
                while !request.ends_with(b"\r\n\r\n") {
                    let length = stream.read(&mut piece).unwrap();
                    request.extend_from_slice(&piece[..length]);
                }
                stream.write_all(answer.as_bytes()).unwrap();
                String::from_utf8(request).unwrap().contains("If-None-Match: \"7\"\r\n")
            })
        });
        let source = Source::Http(Http::parse(&url, "cache", Duration::from_secs(5)).unwrap());
        let mut follower = Follower::new(source).unwrap();
        assert!(!follower.refresh().unwrap());
        assert!(follower.refresh().unwrap_err().to_string().contains("status 500"));
        assert_eq!(follower.listing().servers.len(), 1);
        assert!(follower.refresh().unwrap());
        assert_eq!(follower.listing().servers.len(), 2);
        // After an answer that is an error the whole list is asked for.
        assert_eq!(asked.join().unwrap(), [false, true, true, false]);
    }

    #[test]
    fn an_answer_is_bounded() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = server.local_addr().unwrap();
        let endless = std::thread::spawn(move || {
            for head in ["", "HTTP/1.1 200 OK\r\n\r\n"] {
                let (mut stream, _) = server.accept().unwrap();
                stream.write_all(head.as_bytes()).unwrap();
                while stream.write_all(&[b'['; 65536]).is_ok() {}
            }
            // Silent from here on.
            server.accept().map(|(stream, _)| stream)
        });
        for words in [
            format!("its head is longer than {HEAD_MAX} bytes"),
            format!("it is longer than {ANSWER_MAX} bytes"),
        ] {
            let error = http().exchange(&[at], None, Instant::now() + Duration::from_secs(60)).unwrap_err();
            assert_eq!(error.to_string(), words);
        }
        let error = http().exchange(&[at], None, Instant::now() + Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        drop(endless.join());
    }
}
