//! What the subcommands of CLUSTER ask, where the proxy poses as a cluster.

/// One of them, or several that have the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // most are the subcommand of that name
pub enum ClusterWord {
    Slots,
    Shards,
    Nodes,
    Myid,
    Myshardid,
    Info,
    Keyslot,
    Links,
    Help,
    /// REPLICAS and SLAVES.
    Replicas,
    CountFailureReports,
    Countkeysinslot,
    Getkeysinslot,
    SlotStats,
    Getslotmigrations,
    /// Any that changes slots or nodes.
    Change,
}

impl ClusterWord {
    /// Those whose answer may name the address that the client has connected to.
    pub const OF_ADDRESS: [Self; 5] = [Self::Slots, Self::Shards, Self::Nodes, Self::Myid, Self::Myshardid];

    /// Whether a node of the cluster is asked, where there is one behind the proxy.
    pub fn is_of_keys(self) -> bool {
        matches!(self, Self::Countkeysinslot | Self::Getkeysinslot)
    }
}
