//! Responses of both protocols: whatever a shard sends, the decoder never claims more than was given, and cuts do not
//! matter.

use memstore_proxy::protocol::memcache::Memcache;
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::{DecodeResponses, Protocol};

fn ends<P: Protocol>(bytes: &[u8], step: usize) -> (Vec<usize>, bool) {
    let (mut found, mut decoder, mut understood, mut end) = (Vec::new(), P::ResponseDecoder::default(), 0, 0);
    while end < bytes.len() {
        end = (end + step).min(bytes.len());
        loop {
            let Ok(progress) = decoder.decode(&bytes[understood..end]) else {
                return (found, true);
            };
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

fn check<P: Protocol>(bytes: &[u8]) {
    let whole = ends::<P>(bytes, bytes.len().max(1));
    assert_eq!(whole, ends::<P>(bytes, 1));
    assert_eq!(whole, ends::<P>(bytes, 5));
}

/// One input.
pub fn run_input(bytes: &[u8]) {
    check::<Resp>(bytes);
    check::<Memcache>(bytes);
}
