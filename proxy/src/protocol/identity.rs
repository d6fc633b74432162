//! Who a shard has to be. An address may be another shard's by now, and a connection to that one must not carry a request.

use std::sync::Arc;

/// The IDs of the nodes of a cluster.
pub type NodeIds = Arc<[Box<str>]>;

/// Who a shard has to be, where it can be asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ShardIdentity {
    /// The one that announces this host name.
    Host(Box<str>),
    /// A node of a cluster.
    Node {
        /// Its ID.
        id: Box<str>,
        /// All nodes of the cluster.
        known: NodeIds,
        /// The ID that it has said it has, where that is another one: then it has to know one of those.
        found: Option<Box<str>>,
    },
}

/// What a new connection says first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Greeting {
    /// Responses that it brings.
    pub responses: usize,
    /// Where the shard is asked who it is: so many responses are missing when the one to that is next.
    pub identity: Option<usize>,
}

/// Makes sure that a shard is the host that is meant, going by its answer to CONFIG GET replica-announce-ip: the elements
/// of the list, if it is one, as far as they are strings.
pub fn is_called(host: &str, answer: Option<&[Option<&[u8]>]>) -> Result<(), String> {
    let Some(answer) = answer else { return Err("the server does not report its identity".into()) };
    let &[_, Some(name)] = answer else {
        return Err("the server does not support replica-announce-ip".into());
    };
    let name = String::from_utf8_lossy(name);
    let plain = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
    if plain(&name) == plain(host) { Ok(()) } else { Err(format!("it is {name:?}, not {host:?}")) }
}
