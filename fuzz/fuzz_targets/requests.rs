//! Requests: whatever comes, a request ends where it ends however the bytes are cut, and its arguments lie within it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memstore_proxy::protocol::resp::decode::{RequestDecoder, RequestLimits};

const LIMITS: RequestLimits = RequestLimits { request_bytes_max: 1 << 20, authenticated: true };

fn ends(bytes: &[u8], step: usize) -> (Vec<usize>, bool) {
    let (mut found, mut decoder, mut start, mut end) = (Vec::new(), RequestDecoder::default(), 0, 0);
    while end < bytes.len() {
        end = (end + step).min(bytes.len());
        while start < end {
            match decoder.decode(&bytes[start..end], LIMITS) {
                Err(_) => return (found, true),
                Ok(None) => break,
                Ok(Some(length)) => {
                    assert!(length > 0 && length <= end - start);
                    let canonical = decoder.canonical(&bytes[start..start + length]);
                    assert_eq!(decoder.arguments(canonical).count(), decoder.argument_count());
                    decoder.reset();
                    start += length;
                    found.push(start);
                }
            }
        }
    }
    (found, false)
}

fuzz_target!(|bytes: &[u8]| {
    let whole = ends(bytes, bytes.len().max(1));
    assert_eq!(whole, ends(bytes, 1));
    assert_eq!(whole, ends(bytes, 7));
});
