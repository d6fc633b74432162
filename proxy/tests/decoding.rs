//! The decoders, against the same bytes cut elsewhere and against redis-protocol's; and the buffers, against a plain one.

use bytes::{Bytes, BytesMut};
use memstore_proxy::buffer::{Output, Rest};
use memstore_proxy::protocol::RequestBounds;
use memstore_proxy::protocol::resp::decode::{RequestDecoder, RequestLimits, ResponseDecoder};
use proptest::collection::vec;
use proptest::prelude::*;
use redis_protocol::resp2::types::OwnedFrame;
use redis_protocol::resp3::types::OwnedFrame as Frame3;

const LIMITS: RequestLimits =
    RequestLimits { bounds: RequestBounds { bytes: 1 << 30, arguments: 1 << 20 }, authenticated: true };

fn encode(words: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Requests found in `stream` when it comes in pieces of these sizes: their words, or where it went wrong.
fn requests(stream: &[u8], cuts: &[usize]) -> (Vec<Vec<Vec<u8>>>, Option<String>) {
    let mut found = Vec::new();
    let mut decoder = RequestDecoder::default();
    let (mut start, mut end, mut cuts) = (0, 0, cuts.iter().cycle());
    while end < stream.len() {
        end = (end + cuts.next().copied().unwrap_or(1).max(1)).min(stream.len());
        loop {
            let input = &stream[start..end];
            match decoder.decode(input, LIMITS) {
                Err(malformed) => return (found, Some(malformed.0)),
                Ok(None) => {
                    assert!(decoder.missing(input.len()) <= stream.len() || decoder.missing(input.len()) > 0);
                    break;
                }
                Ok(Some(length)) => {
                    assert!(length > 0 && length <= input.len());
                    let canonical = decoder.canonical(&input[..length]);
                    let words: Vec<_> =
                        decoder.arguments(canonical).map(|word| word.value.to_vec()).collect();
                    assert_eq!(words.len(), decoder.argument_count());
                    for (index, word) in words.iter().enumerate().take(4) {
                        assert_eq!(decoder.head(index, canonical), Some(&word[..]));
                    }
                    found.push(words);
                    decoder.reset();
                    start += length;
                }
            }
            if start == end {
                break;
            }
        }
    }
    (found, None)
}

/// Ends of the responses found in `stream` when it comes in pieces of these sizes, or where it went wrong.
fn response_ends(stream: &[u8], cuts: &[usize]) -> (Vec<usize>, Option<String>) {
    let mut ends = Vec::new();
    let mut decoder = ResponseDecoder::default();
    let (mut understood, mut end, mut cuts) = (0, 0, cuts.iter().cycle());
    while end < stream.len() {
        end = (end + cuts.next().copied().unwrap_or(1).max(1)).min(stream.len());
        loop {
            let progress = match decoder.decode(&stream[understood..end]) {
                Ok(progress) => progress,
                Err(malformed) => return (ends, Some(malformed.0)),
            };
            assert!(progress.length <= end - understood);
            understood += progress.length;
            if !progress.complete {
                break;
            }
            ends.push(understood);
        }
    }
    (ends, None)
}

fn words() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(vec(any::<u8>(), 0..40), 1..8)
}

fn frame2() -> impl Strategy<Value = OwnedFrame> {
    let leaf = prop_oneof![
        "[a-zA-Z0-9 ]{0,20}".prop_map(|text| OwnedFrame::SimpleString(text.into_bytes())),
        "[A-Z]{1,5} [a-z ]{0,20}".prop_map(OwnedFrame::Error),
        any::<i64>().prop_map(OwnedFrame::Integer),
        vec(any::<u8>(), 0..60).prop_map(OwnedFrame::BulkString),
        Just(OwnedFrame::Null),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| vec(inner, 0..6).prop_map(OwnedFrame::Array))
}

fn frame3() -> impl Strategy<Value = Frame3> {
    let leaf = prop_oneof![
        "[a-z ]{0,20}".prop_map(|text| Frame3::SimpleString { data: text.into_bytes(), attributes: None }),
        any::<i64>().prop_map(|data| Frame3::Number { data, attributes: None }),
        any::<bool>().prop_map(|data| Frame3::Boolean { data, attributes: None }),
        (-1e9..1e9f64).prop_map(|data| Frame3::Double { data, attributes: None }),
        "[0-9]{1,40}".prop_map(|text| Frame3::BigNumber { data: text.into_bytes(), attributes: None }),
        vec(any::<u8>(), 0..60).prop_map(|data| Frame3::BlobString { data, attributes: None }),
        vec(any::<u8>(), 0..60).prop_map(|data| Frame3::BlobError { data, attributes: None }),
        Just(Frame3::Null),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(|data| Frame3::Array { data, attributes: None }),
            vec((".{0,8}", inner), 0..4).prop_map(|pairs| {
                let key = |text: String| Frame3::BlobString { data: text.into_bytes(), attributes: None };
                Frame3::Map {
                    data: pairs.into_iter().map(|(text, value)| (key(text), value)).collect(),
                    attributes: None,
                }
            }),
        ]
    })
}

fn resp2(frame: &OwnedFrame) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    redis_protocol::resp2::encode::extend_encode(&mut bytes, &to_bytes_frame(frame), false)
        .expect("it encodes");
    bytes.to_vec()
}

fn to_bytes_frame(frame: &OwnedFrame) -> redis_protocol::resp2::types::BytesFrame {
    use redis_protocol::resp2::types::BytesFrame;
    match frame {
        OwnedFrame::SimpleString(text) => BytesFrame::SimpleString(Bytes::from(text.clone())),
        OwnedFrame::Error(text) => BytesFrame::Error(text.clone().into()),
        OwnedFrame::Integer(number) => BytesFrame::Integer(*number),
        OwnedFrame::BulkString(bytes) => BytesFrame::BulkString(Bytes::from(bytes.clone())),
        OwnedFrame::Array(frames) => BytesFrame::Array(frames.iter().map(to_bytes_frame).collect()),
        OwnedFrame::Null => BytesFrame::Null,
    }
}

fn resp3(frame: &Frame3) -> Vec<u8> {
    let length = redis_protocol::resp3::types::Resp3Frame::encode_len(frame, false);
    let mut bytes = vec![0; length];
    let written =
        redis_protocol::resp3::encode::complete::encode(&mut bytes, frame, false).expect("it encodes");
    bytes.truncate(written);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_cut_gives_the_same_requests(all in vec(words(), 1..8), cuts in vec(1usize..50, 1..20)) {
        let stream: Vec<u8> = all.iter().flat_map(|words| encode(words)).collect();
        prop_assert_eq!(requests(&stream, &cuts), (all.clone(), None));
        prop_assert_eq!(requests(&stream, &[1]), (all, None));
    }

    /// A whole request goes a shorter way than one that comes byte by byte; what is nearly a request has to fail alike.
    #[test]
    fn nearly_valid_requests_are_the_same_whole_and_in_bytes(all in vec(words(), 1..4), changes in vec((any::<prop::sample::Index>(), prop::sample::select(b"*$0123456789-+\r\n x".to_vec())), 1..4)) {
        let mut stream: Vec<u8> = all.iter().flat_map(|words| encode(words)).collect();
        for (at, byte) in changes {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        prop_assert_eq!(requests(&stream, &[stream.len()]), requests(&stream, &[1]));
    }

    #[test]
    fn requests_end_where_redis_protocol_says(words in words()) {
        let stream = encode(&words);
        let (_, length) = redis_protocol::resp2::decode::decode(&stream).expect("valid").expect("complete");
        let mut decoder = RequestDecoder::default();
        prop_assert_eq!(decoder.decode(&stream, LIMITS), Ok(Some(length)));
    }

    #[test]
    fn arbitrary_bytes_do_not_panic_and_cuts_do_not_matter(stream in vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'*'), Just(b'$'), Just(b'1')], 0..200), cuts in vec(1usize..9, 1..5)) {
        let (whole, fault) = requests(&stream, &[stream.len()]);
        let (cut, cut_fault) = requests(&stream, &cuts);
        prop_assert_eq!(whole, cut);
        prop_assert_eq!(fault, cut_fault);
        let (whole, fault) = response_ends(&stream, &[stream.len()]);
        let (cut, cut_fault) = response_ends(&stream, &cuts);
        prop_assert_eq!(whole, cut);
        prop_assert_eq!(fault.is_some(), cut_fault.is_some());
    }

    #[test]
    fn resp2_responses_end_where_redis_protocol_says(frames in vec(frame2(), 1..6), cuts in vec(1usize..40, 1..10)) {
        let encoded: Vec<Vec<u8>> = frames.iter().map(resp2).collect();
        let ends: Vec<usize> = encoded.iter().scan(0, |end, bytes| { *end += bytes.len(); Some(*end) }).collect();
        prop_assert_eq!(response_ends(&encoded.concat(), &cuts), (ends, None));
    }

    #[test]
    fn resp3_responses_end_where_redis_protocol_says(frames in vec(frame3(), 1..6), cuts in vec(1usize..40, 1..10)) {
        let encoded: Vec<Vec<u8>> = frames.iter().map(resp3).collect();
        let ends: Vec<usize> = encoded.iter().scan(0, |end, bytes| { *end += bytes.len(); Some(*end) }).collect();
        prop_assert_eq!(response_ends(&encoded.concat(), &cuts), (ends, None));
    }

    #[test]
    fn an_output_is_a_queue_of_bytes(steps in vec((0u8..6, 0usize..40_000), 1..40)) {
        let mut output = Output::default();
        let mut model: Vec<u8> = Vec::new();
        for (number, (kind, size)) in steps.into_iter().enumerate() {
            let bytes = vec![number as u8; size];
            match kind {
                0 | 1 => { output.copy(&bytes[..size.min(300)]); model.extend(&bytes[..size.min(300)]); }
                2 => { output.share(Bytes::from(bytes.clone())); model.extend(bytes); }
                3 => {
                    let mut other = Output::default();
                    other.copy(b"x");
                    other.share(Bytes::from(bytes.clone()));
                    other.copy(b"y");
                    output.append(other);
                    model.push(b'x');
                    model.extend(bytes);
                    model.push(b'y');
                }
                4 => { let count = size.min(model.len()); output.advance(count); model.drain(..count); }
                _ => output.settle(),
            }
            prop_assert_eq!(output.len(), model.len());
            let mut vectors = [std::io::IoSlice::new(&[]); 64];
            let used = output.vectors(&mut vectors, usize::MAX);
            let first: Vec<u8> = vectors[..used].iter().flat_map(|vector| vector.iter().copied()).collect();
            prop_assert!(used == 64 || first == model);
            prop_assert!(model.starts_with(&first));
        }
    }

    #[test]
    fn a_rest_comes_back_in_front(pieces in vec(0usize..30_000, 1..12)) {
        let (mut rest, mut scratch, mut model) = (Rest::default(), BytesMut::new(), Vec::new());
        for (number, size) in pieces.into_iter().enumerate() {
            rest.restore(&mut scratch, size);
            prop_assert_eq!(&scratch[..], &model[..]);
            scratch.extend_from_slice(&vec![number as u8; size]);
            model.extend(vec![number as u8; size]);
            if number % 3 == 2 {
                let used = model.len() / 2;
                let _ = scratch.split_to(used);
                model.drain(..used);
            }
            rest.keep(&mut scratch, 0);
            prop_assert!(scratch.is_empty());
            prop_assert_eq!(rest.len(), model.len());
        }
    }
}

#[test]
fn a_huge_announcement_is_refused_before_it_is_waited_for() {
    for (stream, part) in [
        (&b"*1\r\n$600000000\r\n"[..], "invalid bulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*99999999999\r\n", "invalid multibulk length"),
        (b"*1\r\n$03\r\nGET\r\n", "invalid bulk length"),
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"*1\r\n$3\r\nGETxx", "expected CRLF"),
        (b"GET \"a\r\n", "unbalanced quotes"),
    ] {
        let (found, fault) = requests(stream, &[1]);
        assert!(found.is_empty());
        assert!(fault.as_ref().is_some_and(|text| text.contains(part)), "{stream:?}: {fault:?}");
    }
}

#[test]
fn a_nul_ends_an_inline_command_wherever_it_stands() {
    for (line, words) in [
        (&b"PING \0\r\n"[..], &[&b"PING"[..]][..]),
        (b"PING\0 a\r\n", &[b"PING"]),
        (b"PING \0a b\r\n", &[b"PING"]),
        (b"ECHO \"\" \0\r\n", &[b"ECHO", b""]),
    ] {
        let (found, fault) = requests(line, &[line.len()]);
        assert_eq!(fault, None);
        assert_eq!(
            found,
            [words.iter().map(|word| word.to_vec()).collect::<Vec<_>>()],
            "{}",
            line.escape_ascii()
        );
    }
}
