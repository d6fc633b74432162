//! The loads every proxy is put under: one row each, so that a number in a report can be traced to its load.
//! Nothing here knows which generator sends them.

use crate::protocol::Protocol;

/// A load, and the name it has on the command line and in reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// The name `--workloads` takes.
    pub name: &'static str,
    /// One line for `--list` and for the reader of a report.
    pub about: &'static str,
    /// What is sent, and when.
    pub mix: Mix,
    /// Client connections.
    pub clients: usize,
    /// Requests a client keeps in flight.
    pub pipeline: usize,
    /// Length of every value.
    pub value_bytes: usize,
    /// Distinct keys, all of them filled in before the measurement.
    pub keys: u32,
    /// How often each key is asked for.
    pub popularity: Popularity,
    /// Shards behind each proxy, if it is not for the command line to say.
    pub shards: Option<usize>,
    /// What the clients speak.
    pub protocol: Protocol,
}

/// How requests spread over the keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Popularity {
    /// All keys alike.
    Even,
    /// Zipf's law: the n-th most popular key is asked for in proportion to 1/n to this power. Caches see powers near 1.
    Zipf(f64),
}

/// What the clients of a workload send, and what decides when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// SET and GET one to ten; a client sends when a reply has come.
    SetGet,
    /// One request for so many keys; a client sends when a reply has come.
    MultiGet(usize),
    /// SET and GET one to ten; after so many replies a client closes its connection and makes another.
    Churn(usize),
    /// SET and GET one to ten at a fixed rate, whether replies come or not.
    FixedRate,
    /// Connections that do next to nothing: what is measured is memory.
    Idle,
}

const BASE: Workload = Workload {
    name: "",
    about: "",
    mix: Mix::SetGet,
    clients: 50,
    pipeline: 1,
    value_bytes: 32,
    keys: 10_000,
    popularity: Popularity::Even,
    shards: None,
    protocol: Protocol::Resp,
};

const MEMCACHED: Workload = Workload { protocol: Protocol::Memcache, ..BASE };

/// All workloads, in the order they run in.
pub const WORKLOADS: &[Workload] = &[
    Workload { name: "small-p1", about: "SET:GET 1:10, 32 B, 50 clients, pipeline 1", ..BASE },
    Workload {
        name: "small-p16",
        about: "SET:GET 1:10, 32 B, 50 clients, pipeline 16",
        pipeline: 16,
        ..BASE
    },
    Workload {
        name: "small-p100",
        about: "SET:GET 1:10, 32 B, 50 clients, pipeline 100",
        pipeline: 100,
        ..BASE
    },
    Workload {
        name: "clients-1000",
        about: "SET:GET 1:10, 32 B, 1,000 clients, pipeline 1",
        clients: 1000,
        ..BASE
    },
    Workload {
        name: "value-4k",
        about: "SET:GET 1:10, 4 KiB, 50 clients, pipeline 1",
        value_bytes: 4096,
        ..BASE
    },
    Workload {
        name: "value-64k",
        about: "SET:GET 1:10, 64 KiB, 50 clients, pipeline 1",
        value_bytes: 65_536,
        keys: 1000,
        ..BASE
    },
    Workload {
        name: "mget-20",
        about: "MGET of 20 keys, 32 B, 50 clients, pipeline 1",
        mix: Mix::MultiGet(20),
        ..BASE
    },
    Workload {
        name: "zipf-p16",
        about: "SET:GET 1:10, 32 B, 50 clients, pipeline 16, 100,000 keys by Zipf's law (0.99)",
        pipeline: 16,
        keys: 100_000,
        popularity: Popularity::Zipf(0.99),
        ..BASE
    },
    Workload {
        name: "shards-300",
        about: "SET:GET 1:10, 32 B, 50 clients, pipeline 16, 300 shards",
        pipeline: 16,
        shards: Some(300),
        ..BASE
    },
    Workload {
        name: "churn",
        about: "SET:GET 1:10, 32 B, 50 clients, a new connection after every 10 requests",
        mix: Mix::Churn(10),
        ..BASE
    },
    Workload {
        name: "rate",
        about: "SET:GET 1:10, 32 B, 50 clients, fixed rate, latency counted from the due time",
        mix: Mix::FixedRate,
        ..BASE
    },
    Workload {
        name: "idle",
        about: "20,000 idle clients, memory each",
        mix: Mix::Idle,
        clients: 20_000,
        ..BASE
    },
    Workload {
        name: "mc-small-p1",
        about: "memcached, SET:GET 1:10, 32 B, 50 clients, pipeline 1",
        ..MEMCACHED
    },
    Workload {
        name: "mc-small-p16",
        about: "memcached, SET:GET 1:10, 32 B, 50 clients, pipeline 16",
        pipeline: 16,
        ..MEMCACHED
    },
    Workload {
        name: "mc-value-4k",
        about: "memcached, SET:GET 1:10, 4 KiB, 50 clients, pipeline 1",
        value_bytes: 4096,
        ..MEMCACHED
    },
    Workload {
        name: "mc-get-20",
        about: "memcached, get of 20 keys, 32 B, 50 clients, pipeline 1",
        mix: Mix::MultiGet(20),
        ..MEMCACHED
    },
    Workload {
        name: "mc-rate",
        about: "memcached, SET:GET 1:10, 32 B, 50 clients, fixed rate, latency counted from the due time",
        mix: Mix::FixedRate,
        ..MEMCACHED
    },
];

impl Workload {
    /// Whether memtier_benchmark can send it: it knows no open loop, and what else is here is not in all its releases.
    pub fn is_for_memtier(&self) -> bool {
        matches!(self.mix, Mix::SetGet | Mix::MultiGet(_)) && self.popularity == Popularity::Even
    }

    /// The workloads of a comma-separated list; `all` means every one.
    pub fn select(list: &str) -> Result<Vec<Workload>, String> {
        if list == "all" {
            return Ok(WORKLOADS.to_vec());
        }
        list.split(',').map(Workload::named).collect()
    }

    fn named(name: &str) -> Result<Workload, String> {
        WORKLOADS.iter().find(|workload| workload.name == name).cloned().ok_or_else(|| {
            let known: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
            format!("no workload is called {name:?}; there are {} and all", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), WORKLOADS.len());
    }

    #[test]
    fn a_list_keeps_the_order_it_was_given_in() {
        let chosen = Workload::select("idle,small-p16").unwrap();
        assert_eq!(chosen.iter().map(|workload| workload.name).collect::<Vec<_>>(), ["idle", "small-p16"]);
        assert_eq!(Workload::select("all").unwrap().len(), WORKLOADS.len());
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let complaint = Workload::select("small-p1,smal").unwrap_err();
        assert!(complaint.contains("\"smal\"") && complaint.contains("mget-20"), "{complaint}");
    }
}
