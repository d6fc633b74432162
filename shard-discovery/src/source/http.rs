//! A list of servers at a URL: a JSON document that is asked for again and again.
//!
//! Plain HTTP/1.0, so that nothing comes in chunks, and one connection for each question. Who asks says which version of the
//! list it has (`If-None-Match`), and is mostly told that there is no other. An answer is bounded in size and time, and a
//! part of one is none: a list that is cut short would move keys.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::fixed::{Servers, address};
use super::{Listing, Poll, Polled};
use crate::Address;
use crate::document::Document;
use crate::mistake::{Mistake, Mistakes, Place};

/// Longest answer, its head included.
const ANSWER_MAX: usize = 4 << 20;
/// How long one question may take as a whole.
const LIMIT: Duration = Duration::from_secs(5);

/// A document at a URL. It is a list of servers as strings, or a topology document as a proxy has it at `/topology`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    place: Address,
    /// As it is written.
    authority: String,
    /// From the slash on.
    path: String,
    /// Name of the pool in a topology document.
    pub pool: String,
    /// How often.
    pub refresh: Duration,
}

impl Http {
    /// `http://host[:port][/path]`, asked every so often. Where it is a topology document this pool counts.
    ///
    /// # Errors
    /// What is allowed.
    pub fn parse(url: &str, pool: &str, refresh: Duration) -> Result<Self, String> {
        const ALLOWED: &str = "allowed is http://host:port/path";
        let rest = url.strip_prefix("http://").ok_or(ALLOWED)?;
        let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if authority.contains('@') || !is_plain(authority) || !is_plain(path) {
            return Err(ALLOWED.into());
        }
        let has_port = authority.contains(':') && !authority.ends_with(']');
        let place = if has_port { address(authority) } else { address(&format!("{authority}:80")) };
        let place = place.ok_or(ALLOWED)?;
        Ok(Self { place, authority: authority.into(), path: path.into(), pool: pool.into(), refresh })
    }

    fn wrong(&self, text: String) -> Mistakes {
        Mistakes::of_all(format!("http://{}{}", self.authority, self.path), text)
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
        let no_answer = || self.wrong("the answer is not HTTP".into());
        let text = std::str::from_utf8(answer).map_err(|_| self.wrong("the answer is not UTF-8".into()))?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(no_answer)?;
        let mut lines = head.split("\r\n");
        let first = lines.next().filter(|first| first.starts_with("HTTP/1.")).ok_or_else(no_answer)?;
        let status = first.split(' ').nth(1).ok_or_else(no_answer)?;
        let headers: Vec<(&str, &str)> =
            lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim())).collect();
        let header = |wanted: &str| {
            headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| *value)
        };
        match status {
            "200" => {}
            "304" if version.is_some() => return Ok(Polled::Same),
            _ => return Err(self.wrong(format!("the answer has status {status}"))),
        }
        if header("transfer-encoding").is_some() {
            return Err(self.wrong("the answer comes in pieces, which HTTP/1.0 does not know".into()));
        }
        if header("content-length").is_some_and(|length| length.parse() != Ok(body.len())) {
            return Err(self.wrong("the answer is cut short".into()));
        }
        // Where it is sent back as it came it must not end the line.
        let tag =
            header("etag").filter(|tag| tag.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
        Ok(Polled::Listed { listing: self.listing(body)?, version: tag.map(Into::into) })
    }

    fn listing(&self, body: &str) -> Result<Listing, Mistakes> {
        let origin = self.wrong(String::new()).origin;
        let all = |list: Vec<Mistake>| Mistakes { origin: origin.clone(), list };
        if !body.trim_start().starts_with('[') {
            let document = Document::parse(body).and_then(|document| document.topology(&self.pool));
            let topology = document.map_err(|error| self.wrong(error.to_string()))?;
            let listing = Listing::of(topology.shards().to_vec());
            return Ok(Listing { placement: Some(topology.placement()), ..listing });
        }
        let lines: Vec<String> = serde_json::from_str(body).map_err(|error| {
            let place = Place { line: error.line(), column: error.column() };
            all(vec![Mistake { place, text: format!("not a list of strings: {error}") }])
        })?;
        let (mut servers, mut mistakes) = (Servers::default(), Vec::new());
        for (number, line) in (1..).zip(&lines) {
            // Counted by entries: JSON keeps no places.
            let place = Place { line: number, column: 1 };
            mistakes.extend(servers.add(line, number).err().map(|text| Mistake { place, text }));
        }
        let servers = servers.into_shards();
        if !mistakes.is_empty() {
            return Err(all(mistakes));
        }
        if servers.is_empty() {
            return Err(self.wrong("the list is empty; a pool needs at least one server".into()));
        }
        Ok(Listing::of(servers))
    }
}

impl Poll for Http {
    fn place(&self) -> &Address {
        &self.place
    }

    fn refresh(&self) -> Duration {
        self.refresh
    }

    fn poll(&self, at: &[SocketAddr], version: Option<&str>) -> Result<Polled, Mistakes> {
        let unreadable = |error: io::Error| self.wrong(format!("cannot be read: {error}"));
        let answer = self.exchange(at, version, Instant::now() + LIMIT).map_err(unreadable)?;
        self.understand(&answer, version)
    }
}

/// How long it may take yet.
fn left(until: Instant) -> io::Result<Duration> {
    match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long")),
        left => Ok(left),
    }
}

/// All that is answered until the connection is closed.
fn converse(mut stream: TcpStream, request: &str, until: Instant) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(left(until)?))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(answer),
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            // Whether there is time for more is seen above.
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
        if answer.len() > ANSWER_MAX {
            return Err(io::Error::other(format!("it is longer than {ANSWER_MAX} bytes")));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::source::{Follower, Source};

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
        ] {
            assert!(place(url).is_err(), "{url}");
        }
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
    }

    #[test]
    fn what_is_no_list_is_refused_with_its_place() {
        for (answer, words) in [
            ("", "http://lists:8080/cache:1:1: the answer is not HTTP"),
            ("HTTP/1.1 302 Found\r\nLocation: x\r\n\r\n", "status 302"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "comes in pieces"),
            (&*ok("Content-Length: 99\r\n", "[\"h:1:1\"]"), "cut short"),
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
        assert_eq!(asked.join().unwrap(), [false, true, true, true]);
    }

    #[test]
    fn an_answer_is_bounded() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = server.local_addr().unwrap();
        let endless = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            while stream.write_all(&[b'['; 65536]).is_ok() {}
            // Silent from here on.
            server.accept().map(|(stream, _)| stream)
        });
        let error = http().exchange(&[at], None, Instant::now() + Duration::from_secs(60)).unwrap_err();
        assert_eq!(error.to_string(), format!("it is longer than {ANSWER_MAX} bytes"));
        let error = http().exchange(&[at], None, Instant::now() + Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        drop(endless.join());
    }
}
