//! Which figures of INFO are kept of the shards, by section and name, how those of several make one, and which sections a client asks for.

/// How the numbers of several servers make one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Join {
    /// They are added up.
    Sum,
    /// The sum, where 0 stands for no limit.
    SumOfLimits,
    /// The highest, of states.
    Highest,
    /// The lowest, of what is safe or was done.
    Lowest,
}

impl Join {
    /// What two of them make.
    pub fn of(self, one: u64, other: u64) -> u64 {
        match self {
            Self::SumOfLimits if one == 0 || other == 0 => 0,
            Self::Sum | Self::SumOfLimits => one.saturating_add(other),
            Self::Highest => one.max(other),
            Self::Lowest => one.min(other),
        }
    }
}

/// The numbers that are kept, by section of INFO and name. What concerns the connections and replicas of a shard is none of its clients'
/// business; scripts and libraries are meant to be the same everywhere.
pub const NUMBERS: [(&str, &str, Join); 70] = [
    ("memory", "used_memory", Join::Sum),
    ("memory", "used_memory_rss", Join::Sum),
    ("memory", "used_memory_peak", Join::Sum),
    ("memory", "used_memory_overhead", Join::Sum),
    ("memory", "used_memory_startup", Join::Sum),
    ("memory", "used_memory_dataset", Join::Sum),
    ("memory", "allocator_allocated", Join::Sum),
    ("memory", "allocator_active", Join::Sum),
    ("memory", "allocator_resident", Join::Sum),
    ("memory", "used_memory_lua", Join::Sum),
    ("memory", "used_memory_vm_eval", Join::Sum),
    ("memory", "used_memory_scripts_eval", Join::Sum),
    ("memory", "number_of_cached_scripts", Join::Highest),
    ("memory", "number_of_functions", Join::Highest),
    ("memory", "number_of_libraries", Join::Highest),
    ("memory", "used_memory_vm_functions", Join::Sum),
    ("memory", "used_memory_vm_total", Join::Sum),
    ("memory", "used_memory_functions", Join::Sum),
    ("memory", "used_memory_scripts", Join::Sum),
    ("memory", "maxmemory", Join::SumOfLimits),
    ("memory", "mem_not_counted_for_evict", Join::Sum),
    ("memory", "mem_clients_slaves", Join::Sum),
    ("memory", "mem_clients_normal", Join::Sum),
    ("memory", "mem_aof_buffer", Join::Sum),
    ("memory", "active_defrag_running", Join::Highest),
    ("memory", "lazyfree_pending_objects", Join::Sum),
    ("memory", "lazyfreed_objects", Join::Sum),
    ("clients", "total_blocking_keys", Join::Sum),
    ("clients", "total_blocking_keys_on_nokey", Join::Sum),
    ("persistence", "loading", Join::Highest),
    ("persistence", "async_loading", Join::Highest),
    ("persistence", "rdb_changes_since_last_save", Join::Sum),
    ("persistence", "rdb_bgsave_in_progress", Join::Highest),
    ("persistence", "rdb_last_save_time", Join::Lowest),
    ("persistence", "rdb_saves", Join::Sum),
    ("persistence", "rdb_last_cow_size", Join::Sum),
    ("persistence", "rdb_last_load_keys_expired", Join::Sum),
    ("persistence", "rdb_last_load_keys_loaded", Join::Sum),
    ("persistence", "aof_enabled", Join::Lowest),
    ("persistence", "aof_rewrite_in_progress", Join::Highest),
    ("persistence", "aof_rewrite_scheduled", Join::Highest),
    ("persistence", "aof_rewrites", Join::Sum),
    ("persistence", "aof_rewrites_consecutive_failures", Join::Highest),
    ("persistence", "aof_last_cow_size", Join::Sum),
    ("persistence", "aof_current_size", Join::Sum),
    ("persistence", "aof_base_size", Join::Sum),
    ("stats", "instantaneous_ops_per_sec", Join::Sum),
    ("stats", "total_net_input_bytes", Join::Sum),
    ("stats", "total_net_output_bytes", Join::Sum),
    ("stats", "expired_keys", Join::Sum),
    ("stats", "expired_keys_active", Join::Sum),
    ("stats", "expired_subkeys", Join::Sum),
    ("stats", "expired_fields", Join::Sum),
    ("stats", "expired_time_cap_reached_count", Join::Sum),
    ("stats", "expire_cycle_cpu_milliseconds", Join::Sum),
    ("stats", "evicted_keys", Join::Sum),
    ("stats", "total_eviction_exceeded_time", Join::Sum),
    ("stats", "current_eviction_exceeded_time", Join::Sum),
    ("stats", "keyspace_hits", Join::Sum),
    ("stats", "keyspace_misses", Join::Sum),
    ("stats", "latest_fork_usec", Join::Highest),
    ("stats", "total_forks", Join::Sum),
    ("stats", "active_defrag_hits", Join::Sum),
    ("stats", "active_defrag_misses", Join::Sum),
    ("stats", "active_defrag_key_hits", Join::Sum),
    ("stats", "active_defrag_key_misses", Join::Sum),
    ("stats", "total_active_defrag_time", Join::Sum),
    ("stats", "current_active_defrag_time", Join::Sum),
    ("stats", "unexpected_error_replies", Join::Sum),
    ("stats", "dump_payload_sanitizations", Join::Sum),
];

/// Those that are shown for people as well.
pub const SHOWN: [&str; 7] = [
    "used_memory",
    "used_memory_rss",
    "used_memory_peak",
    "used_memory_lua",
    "used_memory_vm_total",
    "used_memory_scripts",
    "maxmemory",
];

/// Numbers with a fraction, which are added up, by section and name, and digits behind the point.
pub const DECIMALS: [(&str, &str, usize); 8] = [
    ("stats", "instantaneous_input_kbps", 2),
    ("stats", "instantaneous_output_kbps", 2),
    ("cpu", "used_cpu_sys", 6),
    ("cpu", "used_cpu_user", 6),
    ("cpu", "used_cpu_sys_children", 6),
    ("cpu", "used_cpu_user_children", 6),
    ("cpu", "used_cpu_sys_main_thread", 6),
    ("cpu", "used_cpu_user_main_thread", 6),
];

/// What is `ok` if it is so everywhere.
pub const STATES: [(&str, &str); 3] = [
    ("persistence", "rdb_last_bgsave_status"),
    ("persistence", "aof_last_bgrewrite_status"),
    ("persistence", "aof_last_write_status"),
];

/// Sections of INFO that shards are asked for, and which of their databases the client is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sections {
    /// Bits, in an order that only who asks knows.
    pub asked: u16,
    /// The first database, and how many.
    pub databases: (u32, u32),
}

/// A size as Redis writes it for people.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["K", "M", "G", "T", "P"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while size >= 1024.0
        && let Some(next) = units.next()
    {
        size /= 1024.0;
        unit = Some(next);
    }
    format!("{size:.2}{}", unit.copied().unwrap_or_default())
}
