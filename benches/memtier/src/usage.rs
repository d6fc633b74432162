//! What a process has used so far, as the kernel counts it.

use std::time::Duration;

use anyhow::{Context, Result};

/// CPU a process has used since it started, all its threads together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// In its own code.
    pub user: Duration,
    /// In the kernel on its behalf.
    pub system: Duration,
    /// Of its children that have ended and been waited for, both kinds.
    pub children: Duration,
}

/// Memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What it holds now.
    pub resident_bytes: u64,
    /// The most it ever held.
    pub peak_bytes: u64,
}

impl Cpu {
    /// Of this process, now.
    pub fn of(pid: u32) -> Result<Cpu> {
        let ticks_per_second = rustix::param::clock_ticks_per_second();
        parse_stat(&read(pid, "stat")?, ticks_per_second).with_context(|| format!("odd /proc/{pid}/stat"))
    }
}

/// CPU everything on the machine has used since it was started.
pub fn machine_busy() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    parse_machine(&text, rustix::param::clock_ticks_per_second()).context("odd /proc/stat")
}

impl Memory {
    /// Of this process, now.
    pub fn of(pid: u32) -> Result<Memory> {
        parse_status(&read(pid, "status")?).with_context(|| format!("odd /proc/{pid}/status"))
    }
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

fn parse_stat(text: &str, ticks_per_second: u64) -> Option<Cpu> {
    // The name, second in the line, may hold spaces and parentheses; nothing after it does.
    let (_, rest) = text.rsplit_once(')')?;
    let mut ticks = rest.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    let mut next = || Some(Duration::from_secs_f64(ticks.next()?.ok()? as f64 / ticks_per_second as f64));
    Some(Cpu { user: next()?, system: next()?, children: next()? + next()? })
}

fn parse_machine(text: &str, ticks_per_second: u64) -> Option<Duration> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _waiting, interrupts, soft_interrupts, ..] = ticks[..] else {
        return None;
    };
    let busy = user + nice + system + interrupts + soft_interrupts;
    Some(Duration::from_secs_f64(busy as f64 / ticks_per_second as f64))
}

fn parse_status(text: &str) -> Option<Memory> {
    let bytes = |field: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some(Memory { resident_bytes: bytes("VmRSS")?, peak_bytes: bytes("VmHWM")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_fields() {
        let text = "41 (a) 9 (b) S 1 41 41 0 -1 4194560 117 0 0 0 250 31 7 5 20 0 1 0 5 6 7";
        let millis = Duration::from_millis;
        let expected = Cpu { user: millis(2500), system: millis(310), children: millis(120) };
        assert_eq!(parse_stat(text, 100), Some(expected));
        assert_eq!(parse_stat("41 (a) S 1", 100), None);
    }

    #[test]
    fn a_machine_that_waits_is_not_busy() {
        let text = "cpu  100 20 30 9999 888 4 6 777 0 0\ncpu0 1 2 3\n";
        assert_eq!(parse_machine(text, 100), Some(Duration::from_millis(1600)));
        assert_eq!(parse_machine("cpu  1 2\n", 100), None);
    }

    #[test]
    fn memory_is_in_kibibytes() {
        let text = "Name:\tx\nVmPeak:\t  900 kB\nVmHWM:\t    20 kB\nVmRSS:\t    12 kB\n";
        assert_eq!(parse_status(text), Some(Memory { resident_bytes: 12_288, peak_bytes: 20_480 }));
        assert_eq!(parse_status("Name:\tx\n"), None);
    }

    #[test]
    fn this_very_process_can_be_read() {
        let pid = std::process::id();
        assert!(Memory::of(pid).unwrap().peak_bytes > 100_000);
        Cpu::of(pid).unwrap();
    }
}
