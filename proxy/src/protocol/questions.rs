//! What the process itself asks servers of the Redis protocol, beside the requests of clients, and how it takes what they say.

use super::Running;

/// Words of a question.
type Words<const N: usize> = [&'static str; N];

/// Whether it answers.
pub const PING: Words<1> = ["PING"];
/// How it is.
pub const INFO: Words<1> = ["INFO"];
/// Which commands it has.
pub const COMMANDS: Words<1> = ["COMMAND"];
/// By what name it wants to be known.
pub const NAME: Words<3> = ["CONFIG", "GET", "replica-announce-ip"];
/// To tell of changed keys from now on.
pub const TRACKING: Words<3> = ["CLIENT", "TRACKING", "ON"];
/// Whether a node of a cluster is well.
pub const CLUSTER_STATE: Words<2> = ["CLUSTER", "INFO"];
/// Which nodes it knows.
pub const CLUSTER_NODES: Words<2> = ["CLUSTER", "NODES"];
/// Where they are.
pub const CLUSTER_SLOTS: Words<2> = ["CLUSTER", "SLOTS"];
/// Whether it speaks RESP3, as it goes over the wire: what comes is RESP3 where it does.
pub const RESP3: &[u8] = b"HELLO 3\r\n";

/// Which libraries of functions it has, with their code.
pub const LIBRARIES: Words<3> = ["FUNCTION", "LIST", "WITHCODE"];
/// The same without.
pub const LIBRARY_NAMES: Words<2> = ["FUNCTION", "LIST"];

/// To have this library from now on.
pub fn load_library(code: &[u8]) -> [&[u8]; 3] {
    [b"FUNCTION", b"LOAD", code]
}

/// To have it no more.
pub fn delete_library(name: &[u8]) -> [&[u8]; 3] {
    [b"FUNCTION", b"DELETE", name]
}

/// The parameter that says of which events of keys a server tells.
pub const EVENTS: &str = "notify-keyspace-events";
/// Of which it tells.
pub const TOLD_EVENTS: Words<3> = ["CONFIG", "GET", EVENTS];

/// To tell of these events of keys.
pub fn tell_events(flags: &str) -> [&str; 4] {
    ["CONFIG", "SET", EVENTS, flags]
}

/// To use this database.
pub fn use_database(number: &str) -> [&str; 2] {
    ["SELECT", number]
}

/// To stop what runs.
pub fn stop(what: Running) -> Words<2> {
    match what {
        Running::Script => ["SCRIPT", "KILL"],
        Running::Function => ["FUNCTION", "KILL"],
    }
}

/// A server that refuses in these words runs a script.
pub fn is_busy(words: &str) -> bool {
    words.starts_with("BUSY")
}

/// A server that refuses to stop in these words runs nothing.
pub fn is_idle(words: &str) -> bool {
    words.starts_with("NOTBUSY")
}

/// A server that refuses in these words does not let this user in, or not do it.
pub fn is_denial(words: &str) -> bool {
    ["WRONGPASS", "NOAUTH", "NOPERM", "ERR invalid password"].iter().any(|code| words.starts_with(code))
}

/// A server that refuses in these words may be well soon.
pub fn is_passing(words: &str) -> bool {
    ["BUSY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"].iter().any(|code| words.starts_with(code))
}

/// A server that answers [`RESP3`] in these words, behind the minus, does not speak it.
pub fn is_without_resp3(words: &str) -> bool {
    words.contains("unknown command") || words.starts_with("NOPROTO")
}

/// A server that refuses a database in these words has fewer: in those of Redis from 4 on, of those before, and of a node of a cluster.
pub fn is_out_of_range(words: &str) -> bool {
    ["index is out of range", "invalid DB index", "not allowed in cluster mode"]
        .iter()
        .any(|known| words.contains(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart() {
        assert!(is_busy("BUSY Redis is busy running a script.") && !is_busy("NOTBUSY No scripts"));
        assert!(is_idle("NOTBUSY No scripts in execution right now.") && !is_idle("UNKILLABLE Sorry"));
        for words in ["LOADING Redis is loading", "MASTERDOWN Link", "CLUSTERDOWN The cluster is down"] {
            assert!(is_passing(words), "{words}");
        }
        assert!(!is_passing("NOPERM this user") && !is_passing("ERR unknown command"));
        assert!(is_without_resp3("ERR unknown command `HELLO`") && is_without_resp3("NOPROTO unsupported"));
        assert!(is_out_of_range("ERR DB index is out of range") && !is_out_of_range("NOPERM"));
    }
}
