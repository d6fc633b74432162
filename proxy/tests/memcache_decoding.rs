//! memcached's text protocol: the decoders against the same bytes cut elsewhere, and what reaches a shard.

use memstore_proxy::account::Account;
use memstore_proxy::metrics::Counters;
use memstore_proxy::protocol::memcache::response::ResponseDecoder;
use memstore_proxy::protocol::memcache::{Memcache, Settings};
use memstore_proxy::protocol::store::Store;
use memstore_proxy::protocol::{DecodeRequests, Facts, Plan, Protocol, Request, RequestBounds, Route};
use memstore_proxy::scripts::Scripts;
use memstore_proxy::slow::SlowLog;
use memstore_proxy::time::Time;
use proptest::collection::vec;
use proptest::prelude::*;

const BOUNDS: RequestBounds = RequestBounds { bytes: 1000, arguments: 1000 };

/// What becomes of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Outcome {
    /// Shards are sent this; these are the keys.
    Sent(String, Vec<String>),
    /// The proxy replies.
    Reply(String),
    /// Nothing but closing helps.
    Malformed(String),
}

/// What becomes of the requests in `stream` when it comes in pieces of these sizes.
fn outcomes(stream: &[u8], cuts: &[usize]) -> Vec<Outcome> {
    let (settings, counters) = (Settings::default(), Counters::of_workers(1, 1).remove(0));
    let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let mut found = Vec::new();
    let (mut decoder, mut plan) =
        (<Memcache as Protocol>::RequestDecoder::default(), Plan::<Memcache>::default());
    let account = Account::new(usize::MAX);
    let (scripts, slow) = (Scripts::new(&account), SlowLog::new(&account));
    let (mut start, mut end, mut cuts) = (0, 0, cuts.iter().cycle());
    while end < stream.len() {
        end = (end + cuts.next().copied().unwrap_or(1).max(1)).min(stream.len());
        while start < end {
            let input = &stream[start..end];
            let length = match decoder.next(&(), input, BOUNDS) {
                Err(malformed) => {
                    found.push(Outcome::Malformed(malformed.0));
                    return found;
                }
                Ok(None) => break,
                Ok(Some(length)) => length,
            };
            assert!(length > 0 && length <= input.len());
            let canonical = decoder.canonical(&input[..length]);
            plan.begin();
            let facts = Facts {
                settings: &settings,
                pool: "pool",
                client: 1,
                unix_start: 0,
                now: Time::default(),
                counters: &counters,
                store: &Store::default(),
                scripts: &scripts,
                slow: &slow,
                denied: &memstore_proxy::denied::DeniedLog::default(),
                account: &account,
                quiet: true,
            };
            let request = Request { decoder: &decoder, canonical };
            let route = Memcache::plan(request, &mut (), &facts, &mut plan);
            let text = plan.key_text(canonical);
            let keys = plan.keys.iter().map(|&(start, length)| shown(&text[start..start + length]));
            match route {
                Route::Ignore => {}
                Route::Answer | Route::AnswerAndClose => found.push(Outcome::Reply(shown(&plan.reply))),
                _ => found.push(Outcome::Sent(shown(canonical), keys.collect())),
            }
            decoder.reset();
            start += length;
        }
    }
    found
}

fn sent(stream: &str) -> String {
    match &outcomes(stream.as_bytes(), &[stream.len()])[..] {
        [Outcome::Sent(canonical, _)] => canonical.clone(),
        other => panic!("{other:?}"),
    }
}

fn replies(stream: &str) -> Vec<String> {
    let reply = |outcome| match outcome {
        Outcome::Reply(reply) => reply.strip_suffix("\\r\\n").unwrap_or(&reply).to_owned(),
        Outcome::Malformed(reason) => format!("closed: {reason}"),
        Outcome::Sent(..) => panic!("sent: {outcome:?}"),
    };
    outcomes(stream.as_bytes(), &[stream.len()]).into_iter().map(reply).collect()
}

#[test]
fn plain_requests_reach_shards_as_they_came() {
    for stream in [
        "get k\r\n",
        "get k\n",
        "get a b  c \r\n",
        "gats -1 a b\r\n",
        "set k 4294967295 1763700000 2\r\n\r\n\r\n",
        "set k 0 0 0\r\n\r\n",
        "cas k 0 0 1 18446744073709551615\r\nx\r\n",
        "incr k 1 x\r\n",
        "delete k 0\r\n",
        "mg k v t0 O9\r\n",
        "ms k 2 T0 F5\r\nhi\r\n",
        "mg \x01\tü v\r\n",
    ] {
        assert_eq!(sent(stream), stream.as_bytes().escape_ascii().to_string());
    }
}

#[test]
fn what_servers_may_read_differently_reaches_them_plain() {
    for (stream, canonical) in [
        ("  get k\r\n", "get k\\r\\n"),
        ("set k 0 0 1 noreply\r\nx\r\n", "set k 0 0 1\\r\\nx\\r\\n"),
        ("set k 0 0 1 whatever\r\nx\r\n", "set k 0 0 1\\r\\nx\\r\\n"),
        ("set  k +1 -0 +02\r\nhi\r\n", "set k 1 0 2\\r\\nhi\\r\\n"),
        ("set k 0 4294967297 1\r\nx\r\n", "set k 0 1 1\\r\\nx\\r\\n"),
        ("cas k 0 0 1 7 noreply\n\r\r\n", "cas k 0 0 1 7\\r\\n\\r\\r\\n"),
        ("incr k 1 noreply\r\n", "incr k 1\\r\\n"),
        ("delete k noreply\r\n", "delete k\\r\\n"),
        ("delete noreply\r\n", "delete noreply\\r\\n"),
        ("delete noreply noreply\r\n", "delete noreply\\r\\n"),
        ("incr noreply 1 noreply\r\n", "incr noreply 1\\r\\n"),
        ("touch k 0 noreply\r\n", "touch k 0\\r\\n"),
        ("flush_all 5 noreply\r\n", "flush_all 5\\r\\n"),
        ("version now please\r\n", "version\\r\\n"),
        ("mg k q v\r\n", "mg k v\\r\\n"),
        ("md q quiet\r\n", "md q\\r\\n"),
        ("ms q +1 q Oq\r\nq\r\n", "ms q 1 Oq\\r\\nq\\r\\n"),
        // Newer servers count digits.
        ("set k 0 0 0000000000001\r\nx\r\n", "set k 0 0 1\\r\\nx\\r\\n"),
        ("ms k 0000000000001 v\r\nx\r\n", "ms k 1 v\\r\\nx\\r\\n"),
    ] {
        assert_eq!(sent(stream), canonical, "{stream:?}");
    }
}

#[test]
fn a_key_in_base64_is_hashed_as_what_it_means() {
    for (stream, key) in [
        ("mg Zm9v b v\r\n", "foo"),
        ("ms Zm9v 1 b\r\nx\r\n", "foo"),
        ("md AAo= b q\r\n", "\\x00\\n"),
        ("mg Zm9v v\r\n", "Zm9v"),
    ] {
        let found = outcomes(stream.as_bytes(), &[stream.len()]);
        assert!(matches!(&found[..], [Outcome::Sent(_, keys)] if keys[..] == [key]), "{found:?}");
    }
    assert_eq!(replies("ms !!!! 1 b\r\nx\r\nmn\r\n"), ["CLIENT_ERROR error decoding key", "MN"]);
}

#[test]
fn nothing_foul_reaches_a_shard_and_the_next_request_is_understood() {
    const BAD_LINE: &str = "CLIENT_ERROR bad command line format";
    let long = "k".repeat(251);
    for (stream, expected) in [
        ("get a\0b\r\nmn\r\n", vec![BAD_LINE, "MN"]),
        ("get a\rb\r\nmn\r\n", vec![BAD_LINE, "MN"]),
        ("set a\0b 0 0 2\r\nmn\r\n", vec![BAD_LINE, "MN"]),
        ("set k 0 0 -1\r\nmn\r\n", vec![BAD_LINE, "MN"]),
        ("set k 0 0 4294967297\r\nmn\r\n", vec![BAD_LINE, "MN"]),
        ("set k 0 0 99999999999999999999\r\nmn\r\n", vec![BAD_LINE, "MN"]),
        ("set k 0 99999999999999999999 2\r\nmn\r\n", vec![BAD_LINE, "MN"]),
        ("set k -1 0 2\r\nmn\r\n", vec![BAD_LINE, "MN"]),
        ("set k 0 0 2x\r\nmn\r\n", vec![BAD_LINE, "MN"]),
        ("cas k 0 0 2 -1\r\nmn\r\n", vec![BAD_LINE, "MN"]),
        ("ms k\r\nmn\r\n", vec![BAD_LINE, "MN"]),
        // What stands behind an `ms` is its value, whatever is wrong with its flags.
        ("ms k 2 Z\r\nmn\r\nmn\r\n", vec!["CLIENT_ERROR invalid flag", "MN"]),
        ("ms k 2 T0 T1\r\nmn\r\nmn\r\n", vec!["CLIENT_ERROR duplicate flag", "MN"]),
        ("ms k 2 Tx\r\nmn\r\nmn\r\n", vec!["CLIENT_ERROR bad token in command line format", "MN"]),
        ("ms k 2 MZ\r\nmn\r\nmn\r\n", vec!["CLIENT_ERROR invalid mode for ms M token", "MN"]),
        ("ms k 2 Fx\r\nmn\r\nmn\r\n", vec![BAD_LINE, "MN"]),
        ("ms k 2x\r\nmn\r\n", vec![BAD_LINE, "MN"]),
        ("me\r\nmn\r\n", vec![BAD_LINE, "MN"]),
        ("gat x k\r\nmn\r\n", vec!["CLIENT_ERROR invalid exptime argument", "MN"]),
        ("gat 0\r\nmn\r\n", vec!["END", "MN"]),
        ("delete k noreply noreply\r\nmn\r\n", vec![BAD_LINE, "MN"]),
        ("incr k noreply noreply\r\nmn\r\n", vec![BAD_LINE, "MN"]),
        ("touch k noreply noreply\r\nmn\r\n", vec![BAD_LINE, "MN"]),
        ("incr k noreply\r\nmn\r\n", vec!["ERROR", "MN"]),
        ("flush_all noreply noreply\r\nmn\r\n", vec![BAD_LINE, "MN"]),
        ("flush_all 0 noreply noreply\r\nmn\r\n", vec!["ERROR", "MN"]),
        ("verbosity noreply noreply\r\nmn\r\n", vec![BAD_LINE, "MN"]),
        ("set k 0 0 2\r\nabc\r\nmn\r\n", vec!["CLIENT_ERROR bad data chunk", "ERROR", "MN"]),
        ("set k 0 0 1\r\nabc\r\nmn\r\n", vec!["CLIENT_ERROR bad data chunk", "ERROR", "MN"]),
        ("set k 0 0 3\r\n\r\nmn\r\nmn\r\n", vec!["CLIENT_ERROR bad data chunk", "ERROR", "MN"]),
        (
            "get\r\nGET a\r\n\r\nset k\r\nincr k\r\nmn\r\n",
            vec!["ERROR", "ERROR", "ERROR", "ERROR", "ERROR", "MN"],
        ),
        ("POST / HTTP/1.1\r\nflush_all\r\n", vec!["closed: this is HTTP, not memcached's text protocol"]),
    ] {
        assert_eq!(replies(stream), expected, "{stream:?}");
    }
    for line in [
        format!("get k {long}"),
        format!("set {long} 0 0 2"),
        format!("mg {long} v"),
        format!("incr {long} 1"),
    ] {
        assert_eq!(replies(&format!("{line}\r\nmn\r\n")), [BAD_LINE, "MN"], "{line}");
    }
    let closed = "closed: line is longer than 2048 bytes";
    assert_eq!(replies(&"a".repeat(3000)), [closed]);
    assert_eq!(replies(&format!("gat 0{}\r\n", " a".repeat(1500))), [closed]);
    let binary = &outcomes(&[b"\x80", &[0; 23][..]].concat(), &[1])[..];
    assert!(matches!(binary, [Outcome::Malformed(reason)] if reason.contains("binary")), "{binary:?}");
}

#[test]
fn a_value_that_is_too_large_is_swallowed() {
    let value = "mn\r\n".repeat(500);
    let stream = format!("set k 0 0 2000\r\n{value}\r\nms k 2000 q\r\n{value}\r\nmn\r\n");
    let expected =
        ["SERVER_ERROR object too large for cache"; 2].into_iter().chain(["MN"]).collect::<Vec<_>>();
    assert_eq!(replies(&stream), expected);
}

/// Pieces of requests, good and bad.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        3 => "[a-z]{1,6}".prop_map(String::into_bytes),
        2 => prop_oneof!["get", "set", "gats", "ms", "mg", "mn", "cas", "incr", "delete", "noreply", "q", "b", "quit", "version"]
            .prop_map(String::into_bytes),
        2 => "[-+]?[0-9]{1,4}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 1..5),
    ];
    let line = vec(word, 0..8).prop_map(|words| [words.join(&b' '), b"\r\n".to_vec()].concat());
    let storing =
        (0..1200usize, 0..1200usize, any::<bool>(), any::<bool>()).prop_map(|(said, given, honest, meta)| {
            let given = if honest { said } else { given };
            let line =
                if meta { format!("ms k {said} q\r\n") } else { format!("set k 0 0 {said} noreply\r\n") };
            [line.as_bytes(), &b"mn\r\n".repeat(given / 4 + 1)[..given], b"\r\n"].concat()
        });
    prop_oneof![3 => line, 2 => storing, 1 => vec(any::<u8>(), 0..20)]
}

proptest! {
    #[test]
    fn requests_mean_the_same_however_they_are_cut(pieces in vec(piece(), 1..12), cuts in vec(1..40usize, 1..6)) {
        let stream = pieces.concat();
        let whole = outcomes(&stream, &[stream.len()]);
        prop_assert_eq!(&whole, &outcomes(&stream, &[1]));
        prop_assert_eq!(&whole, &outcomes(&stream, &cuts));
    }

    #[test]
    fn what_reaches_a_shard_is_one_request_and_stays_as_it_is(pieces in vec(piece(), 1..12)) {
        for outcome in outcomes(&pieces.concat(), &[usize::MAX]) {
            if let Outcome::Sent(canonical, keys) = outcome {
                let bytes = unescape(&canonical);
                // Where a server keeps silent, every later response goes to the wrong client.
                let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
                let words: Vec<&[u8]> = line.split(|byte| b" \r".contains(byte)).filter(|word| !word.is_empty()).collect();
                let asks_for_keys = [&b"get"[..], b"gets", b"gat", b"gats", b"mg", b"me", b"md", b"ma"].contains(&words[0]);
                let is_silent = words.len() > 2 && words[words.len() - 1] == b"noreply";
                prop_assert!(asks_for_keys || !is_silent, "{}", canonical);
                prop_assert!(!keys.is_empty() || [&b"version"[..], b"flush_all", b"verbosity", b"stats"].contains(&words[0]));
                prop_assert_eq!(outcomes(&bytes, &[bytes.len()]), [Outcome::Sent(canonical, keys)]);
            }
        }
    }

    #[test]
    fn responses_end_in_the_same_place_however_they_are_cut(
        parts in vec(response(), 1..12),
        noise in vec(any::<u8>(), 0..8),
        cuts in vec(1..40usize, 1..6),
    ) {
        let mut stream = parts.concat();
        let ends: Vec<usize> = parts.iter().scan(0, |end, part| { *end += part.len(); Some(*end) }).collect();
        stream.extend_from_slice(&noise);
        let whole = response_ends(&stream, &[stream.len()]);
        prop_assert!(whole.starts_with(&ends), "{whole:?} {ends:?}");
        prop_assert_eq!(&whole, &response_ends(&stream, &[1]));
        prop_assert_eq!(&whole, &response_ends(&stream, &cuts));
    }
}

fn response() -> impl Strategy<Value = Vec<u8>> {
    let value = || vec(any::<u8>(), 0..60);
    let block =
        ("[a-z]{1,20}", value(), proptest::option::of(any::<u64>())).prop_map(|(key, value, unique)| {
            let unique = unique.map(|unique| format!(" {unique}")).unwrap_or_default();
            [format!("VALUE {key} 0 {}{unique}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat()
        });
    prop_oneof![
        vec(block, 0..4).prop_map(|blocks| [blocks.concat(), b"END\r\n".to_vec()].concat()),
        value()
            .prop_map(|value| [format!("VA {} kx O1\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat()),
        vec("STAT [a-z]{1,9} [a-z0-9 ]{0,9}\r\n", 1..4).prop_map(|lines| [
            lines.concat().into_bytes(),
            b"END\r\n".to_vec()
        ]
        .concat()),
        prop_oneof![
            "STORED",
            "NOT_FOUND",
            "HD O1",
            "EN",
            "[0-9]{1,20}",
            "ERROR",
            "CLIENT_ERROR [a-z ]{1,20}",
            "VERSION 1.6",
            "OK",
            "MN"
        ]
        .prop_map(|line: String| format!("{line}\r\n").into_bytes()),
    ]
}

/// Ends of the responses found in `stream` when it comes in pieces of these sizes.
fn response_ends(stream: &[u8], cuts: &[usize]) -> Vec<usize> {
    let (mut ends, mut decoder) = (Vec::new(), ResponseDecoder::default());
    let (mut understood, mut end, mut cuts) = (0, 0, cuts.iter().cycle());
    while end < stream.len() {
        end = (end + cuts.next().copied().unwrap_or(1).max(1)).min(stream.len());
        loop {
            let Ok(progress) = decoder.decode(&stream[understood..end]) else { return ends };
            assert!(progress.length <= end - understood);
            understood += progress.length;
            if !progress.complete {
                break;
            }
            ends.push(understood);
        }
    }
    ends
}

#[test]
fn what_no_shard_should_send_is_malformed() {
    for bytes in [
        "VALUE k 0 x\r\n",
        "VALUE k 0\r\n",
        "VALUE k 0 99999999999\r\n",
        "VALUE k 0 1\r\nab\r\n",
        "VALUE k 0 1\r\na\r\nSTORED\r\n",
        "VA -1\r\n",
        "VA 1 k\r\nabc",
        "-ERR unknown command\r\n",
        "+OK\r\n",
        "\r\n",
        "STORED\n",
        "STAT a b\r\nVA 1\r\n",
    ] {
        let mut decoder = ResponseDecoder::default();
        let mut rest = bytes.as_bytes();
        let malformed = loop {
            match decoder.decode(rest) {
                Err(_) => break true,
                Ok(progress) if progress.length == 0 || progress.complete => break false,
                Ok(progress) => rest = &rest[progress.length..],
            }
        };
        assert!(malformed, "{bytes:?}");
    }
    let long = [&b"SERVER_ERROR "[..], &[b'x'; 1_000_000], b"\r\nEND\r\n"].concat();
    assert_eq!(response_ends(&long, &[1000]), [1_000_015, 1_000_020], "a line may be as long as it likes");
    let endless = vec![b'A'; 100_000];
    assert!(ResponseDecoder::default().decode(&endless).is_err());
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        bytes.push(match (first, tail) {
            (b'\\', [b'x', high, low, ..]) => {
                rest = &tail[3..];
                let digit = |byte: u8| (byte as char).to_digit(16).expect("a digit") as u8;
                digit(*high) * 16 + digit(*low)
            }
            (b'\\', [letter, ..]) => {
                rest = &tail[1..];
                match letter {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    other => *other,
                }
            }
            _ => *first,
        });
    }
    bytes
}

#[test]
fn a_line_with_too_many_keys_is_not_waited_for() {
    let bounds = || RequestBounds { bytes: 1 << 30, arguments: 100_000 };
    let mut decoder = <Memcache as Protocol>::RequestDecoder::default();
    let line = [b"get".to_vec(), b" k".repeat(1_000_000)].concat();
    let mut come = 0;
    let refused = loop {
        come += 10_000;
        assert!(come < 600_000, "it is waited for");
        match decoder.next(&(), &line[..come], bounds()) {
            Ok(None) => {}
            Ok(Some(_)) => panic!("it has not ended"),
            Err(refused) => break refused,
        }
    };
    assert!(refused.0.contains("arguments_max (100000)"), "{}", refused.0);
    let mut decoder = <Memcache as Protocol>::RequestDecoder::default();
    let few = [b"get".to_vec(), b" k".repeat(90_000)].concat();
    assert_eq!(decoder.next(&(), &few, bounds()), Ok(None));
}
