//! The errors by which a node of a cluster says that it has not executed a request, and who might.
//!
//! Source: <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>, redirection and resharding.

use crate::protocol::Redirect;

/// What the response says of who is to be asked, if it is such an error.
pub fn redirect(response: &[u8]) -> Option<Redirect<'_>> {
    let words = std::str::from_utf8(response.strip_prefix(b"-")?.strip_suffix(b"\r\n")?).ok()?;
    let (code, rest) = words.split_once(' ').unwrap_or((words, ""));
    let stale = match code {
        "MOVED" | "ASK" => {
            let (slot, address) = rest.split_once(' ')?;
            let slot = slot.parse().ok()?;
            let (host, port) = address.rsplit_once(':')?;
            let port = port.parse().ok()?;
            let host = if host == "?" { "" } else { host };
            return Some(if code == "MOVED" {
                Redirect::Moved { slot, host, port }
            } else {
                Redirect::Ask { slot, host, port }
            });
        }
        "TRYAGAIN" => false,
        "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "READONLY" => true,
        _ => return None,
    };
    Some(Redirect::Later { stale })
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn nothing_that_a_node_says_is_too_much(words in "-(MOVED|ASK|TRYAGAIN|[A-Z]{0,9}) ?[0-9]{0,6} ?[a-z?:0-9.]{0,20}(\r\n)?") {
            if let Some(Redirect::Moved { port, .. } | Redirect::Ask { port, .. }) = redirect(words.as_bytes()) {
                assert!(words.contains(&port.to_string()));
            }
        }
    }

    #[test]
    fn errors_say_who_is_to_be_asked() {
        for (error, expected) in [
            (
                "MOVED 3999 127.0.0.1:6381",
                Some(Redirect::Moved { slot: 3999, host: "127.0.0.1", port: 6381 }),
            ),
            ("MOVED 3999 ::1:6381", Some(Redirect::Moved { slot: 3999, host: "::1", port: 6381 })),
            ("MOVED 3999 ?:6381", Some(Redirect::Moved { slot: 3999, host: "", port: 6381 })),
            ("MOVED 3999 :6381", Some(Redirect::Moved { slot: 3999, host: "", port: 6381 })),
            ("ASK 1 shard-0.cache:6379", Some(Redirect::Ask { slot: 1, host: "shard-0.cache", port: 6379 })),
            (
                "TRYAGAIN Multiple keys request during rehashing of slot",
                Some(Redirect::Later { stale: false }),
            ),
            ("CLUSTERDOWN The cluster is down", Some(Redirect::Later { stale: true })),
            ("LOADING Redis is loading the dataset in memory", Some(Redirect::Later { stale: true })),
            ("READONLY You can't write against a read only replica.", Some(Redirect::Later { stale: true })),
            ("MOVED", None),
            ("MOVED 3999 127.0.0.1", None),
            ("MOVED 3999 127.0.0.1:x", None),
            ("ERR MOVED 3999 127.0.0.1:6381", None),
            ("", None),
        ] {
            assert_eq!(redirect(format!("-{error}\r\n").as_bytes()), expected, "{error}");
        }
        for other in [&b"+MOVED 1 a:1\r\n"[..], b"$5\r\n-ASK \r\n", b"-\xff\r\n", b"-MOVED 1 a:1"] {
            assert_eq!(redirect(other), None);
        }
    }
}
