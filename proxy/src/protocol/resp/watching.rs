//! WATCH and UNWATCH, as they are said to shards and of them.

use super::{Resp, encode, transaction};
use crate::protocol::{Spread, Watching};

impl Watching for Resp {
    fn is_watching(reply: &mut Vec<u8>) {
        encode::simple(reply, "OK");
    }

    fn unwatch(out: &mut Vec<u8>) {
        encode::request(out, &[b"UNWATCH"]);
    }

    fn spread_watch(spread: Spread) -> &'static str {
        transaction::spread_watch(spread)
    }

    fn spread_from_watch(spread: Spread) -> &'static str {
        transaction::spread_from_watch(spread)
    }
}
