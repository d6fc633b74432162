//! What the machine, or the container, gives us.

use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Without a CPU quota, workers are no more than this: what a proxy needs is rarely the whole machine.
const WORKERS_MAX: usize = 4;

/// Workers by the CPU quota of the container, rounded down so that it is not exceeded; without one, a worker per core up
/// to [`WORKERS_MAX`].
pub fn default_workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match cpu_quota() {
        Some(quota) => (quota as usize).clamp(1, cores.max(1)),
        None => cores.min(WORKERS_MAX),
    }
}

/// Half of the memory that the container, or the machine, has, in bytes.
pub fn default_memory_max() -> u64 {
    memory_limit().or_else(machine_memory).unwrap_or(2 << 30) / 2
}

/// As many file descriptors as we may have; how many that are.
pub fn raise_file_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(reason = %error, "raising the open file limit failed");
            current.unwrap_or(u64::MAX)
        }
    }
}

/// A number that differs between processes.
pub fn seed() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

/// Cores' worth of CPU time that control groups allow, the least of all levels.
fn cpu_quota() -> Option<f64> {
    let v2 = group_files("", "cpu.max").into_iter().filter_map(|text| parse_cpu_max(&text));
    let quota = group_files("cpu", "cpu.cfs_quota_us").into_iter();
    let period = group_files("cpu", "cpu.cfs_period_us").into_iter();
    let v1 = quota
        .zip(period)
        .filter_map(|(quota, period)| parse_cpu_max(&format!("{} {}", quota.trim(), period.trim())));
    v2.chain(v1).min_by(f64::total_cmp)
}

/// `"max 100000"` is no limit, `"150000 100000"` is one core and a half; version 1 writes `-1` for no limit.
fn parse_cpu_max(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let quota: f64 = words.next()?.parse().ok().filter(|quota| *quota > 0.0)?;
    let period: f64 = words.next()?.parse().ok().filter(|period| *period > 0.0)?;
    Some(quota / period)
}

fn memory_limit() -> Option<u64> {
    let v2 = group_files("", "memory.max");
    let v1 = group_files("memory", "memory.limit_in_bytes");
    // Version 1 writes a number beyond any machine for no limit.
    let real = |bytes: &u64| *bytes < 1 << 60;
    v2.iter().chain(&v1).filter_map(|text| text.trim().parse().ok()).filter(real).min()
}

fn machine_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The contents of a file in our control group and in all above it. `controller` is empty for version 2.
fn group_files(controller: &str, file: &str) -> Vec<String> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        let path = fields.next()?;
        controllers.split(',').any(|name| name == controller).then(|| path.trim_start_matches('/').to_owned())
    });
    let root = PathBuf::from("/sys/fs/cgroup").join(controller);
    let mut directory = root.join(group.unwrap_or_default());
    let mut contents = Vec::new();
    loop {
        contents.extend(std::fs::read_to_string(directory.join(file)));
        if directory == root || !directory.pop() || !directory.starts_with(&root) {
            return contents;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse_cpu_max;

    #[test]
    fn quotas_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(1.5));
        assert_eq!(parse_cpu_max("-1 100000"), None);
        assert_eq!(parse_cpu_max("0 100000"), None);
        assert_eq!(parse_cpu_max(""), None);
    }
}
