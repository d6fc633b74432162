//! Responses: whatever a shard sends, it never claims more than was given, and cuts do not matter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memstore_proxy::protocol::resp::decode::ResponseDecoder;

fn ends(bytes: &[u8], step: usize) -> (Vec<usize>, bool) {
    let (mut found, mut decoder, mut understood, mut end) = (Vec::new(), ResponseDecoder::default(), 0, 0);
    while end < bytes.len() {
        end = (end + step).min(bytes.len());
        loop {
            let Ok(progress) = decoder.decode(&bytes[understood..end]) else { return (found, true) };
            assert!(progress.length <= end - understood);
            understood += progress.length;
            if !progress.complete {
                break;
            }
            found.push(understood);
        }
    }
    (found, false)
}

fuzz_target!(|bytes: &[u8]| {
    let whole = ends(bytes, bytes.len().max(1));
    assert_eq!(whole, ends(bytes, 1));
    assert_eq!(whole, ends(bytes, 5));
});
