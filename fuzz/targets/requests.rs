//! Requests of both protocols: whatever comes, a request ends where it ends and means what it means however the bytes
//! are cut, and its keys lie within it.

use memstore_proxy::account::Account;
use memstore_proxy::metrics::Counters;
use memstore_proxy::protocol::memcache::Memcache;
use memstore_proxy::protocol::resp::Resp;
use memstore_proxy::protocol::store::Store;
use memstore_proxy::protocol::{DecodeRequests, Facts, Plan, Protocol, Request, RequestBounds, Route};
use memstore_proxy::scripts::Scripts;
use memstore_proxy::slow::SlowLog;
use memstore_proxy::time::Time;

const BOUNDS: RequestBounds = RequestBounds { bytes: 1 << 20, arguments: 1 << 20 };

/// The end of every request, what shards would be sent, and what is to be done with it; and whether it ended badly.
fn requests<P: Protocol<Settings: Default>>(
    bytes: &[u8],
    step: usize,
) -> (Vec<(usize, Vec<u8>, String)>, bool) {
    let settings = P::Settings::default();
    let mut session = P::session(&settings);
    let counters = Counters::of_workers(1, 1).remove(0);
    let account = Account::new(usize::MAX);
    let (scripts, slow) = (Scripts::new(&account), SlowLog::new(&account));
    let (mut found, mut decoder, mut plan) = (Vec::new(), P::RequestDecoder::default(), Plan::<P>::default());
    let (mut start, mut end) = (0, 0);
    while end < bytes.len() {
        end = (end + step).min(bytes.len());
        while start < end {
            let input = &bytes[start..end];
            let length = match decoder.next(&session, input, BOUNDS) {
                Err(_) => return (found, true),
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
            let route = P::plan(request, &mut session, &facts, &mut plan);
            let _ = plan.take_reply();
            let text = plan.key_text(canonical);
            for &(place, length) in &plan.keys {
                assert!(place + length <= text.len());
            }
            start += length;
            if !matches!(route, Route::Ignore) {
                found.push((
                    start,
                    canonical.to_vec(),
                    format!("{route:?} {:?} {:?}", plan.keys, plan.manner),
                ));
            }
            decoder.reset();
        }
    }
    (found, false)
}

fn check<P: Protocol<Settings: Default>>(bytes: &[u8]) {
    let (whole, ended_badly) = requests::<P>(bytes, bytes.len().max(1));
    for step in [1, 7] {
        let (cut, cut_ended_badly) = requests::<P>(bytes, step);
        assert_eq!(ended_badly, cut_ended_badly);
        // Some strangers begin with empty lines, which are requests if nothing comes with them.
        assert!(if ended_badly { cut.starts_with(&whole) } else { cut == whole }, "{whole:?} {cut:?}");
    }
}

/// One input.
pub fn run_input(bytes: &[u8]) {
    check::<Resp>(bytes);
    check::<Memcache>(bytes);
}
