//! When the certificates of a pool end: whoever runs it is told in time.

use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::config::Certificate;
use crate::control::pool::PoolControl;

/// How often it is looked. A certificate that was replaced is in the configuration by then.
const LOOK: Duration = Duration::from_secs(10);
/// So long before a certificate ends it is told, in seconds: two weeks, of which those that are renewed by a machine are never so near.
const EARLY: i64 = 14 * DAY;
/// It is told again after so long.
const AGAIN: Duration = Duration::from_secs(DAY as u64);
const DAY: i64 = 24 * 60 * 60;

/// Looks as long as the pool is served.
pub async fn watch(pool: Rc<PoolControl>) {
    // What was told last, and when.
    let mut told: Vec<(Certificate, Instant)> = Vec::new();
    while !pool.removed.get() {
        let config = pool.config();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
        told.retain(|(of, at)| at.elapsed() < AGAIN && config.certificates().any(|known| known == of));
        for certificate in config.certificates() {
            if told.iter().any(|(of, _)| of == certificate) {
                continue;
            }
            let (side, not_after) = (certificate.side, certificate.not_after);
            if let Some(words) = words(not_after - now) {
                tracing::warn!(pool = %config.name, file = %certificate.path, %side, not_after, "{words}; replace the file");
                told.push((certificate.clone(), Instant::now()));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What is to be said of a certificate that ends in so many seconds.
fn words(left: i64) -> Option<String> {
    match left {
        ..=0 => Some("the TLS certificate has ended".to_owned()),
        1..EARLY => Some(format!("the TLS certificate ends in {} h", left / (60 * 60))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_soon_is_told() {
        assert_eq!(words(EARLY), None);
        assert_eq!(words(EARLY - 1).as_deref(), Some("the TLS certificate ends in 335 h"));
        assert_eq!(words(1).as_deref(), Some("the TLS certificate ends in 0 h"));
        assert_eq!(words(0).as_deref(), Some("the TLS certificate has ended"));
        assert_eq!(words(-DAY).as_deref(), Some("the TLS certificate has ended"));
    }
}
