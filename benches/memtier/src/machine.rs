//! Where and when a report was made: figures of two machines are not to be compared.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

/// The machine, as JSON.
pub fn describe() -> Value {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let model = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| cpu_model(&text));
    let system = rustix::system::uname();
    json!({
        "cpus": cpus,
        "model": model.unwrap_or_else(|| system.machine().to_string_lossy().into_owned()),
        "kernel": system.release().to_string_lossy(),
    })
}

/// The machine in one line, for a picture's foot.
pub fn in_a_line(machine: &Value) -> String {
    let text = |field: &str| machine[field].as_str().unwrap_or("?").to_owned();
    format!("{} CPUs, {}, Linux {}", machine["cpus"], text("model"), text("kernel"))
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    cpuinfo.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        (field.trim() == "model name").then(|| value.trim().to_owned())
    })
}

/// The first line a program prints when asked for its version.
pub fn version(program: &Path, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).output().ok().filter(|output| output.status.success())?;
    // nutcracker prints it where errors go, and Envoy below an empty line.
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text =
        String::from_utf8_lossy(&text).lines().map(str::trim).find(|line| !line.is_empty())?.to_owned();
    Some(text)
}

/// Now in UTC, as `2026-01-31T09:05:07Z`.
pub fn date() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    date_of(since.as_secs())
}

fn date_of(seconds: u64) -> String {
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (mut year, mut day) = (1970, seconds / 86_400);
    while day >= days_in_year(year) {
        day -= days_in_year(year);
        year += 1;
    }
    let february = days_in_year(year) - 337;
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", day + 1)
}

fn days_in_year(year: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    365 + u64::from(leap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_know_leap_years() {
        // Each as `date -u -d @SECONDS` prints it.
        assert_eq!(date_of(0), "1970-01-01T00:00:00Z");
        assert_eq!(date_of(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(date_of(951_868_799), "2000-02-29T23:59:59Z");
        assert_eq!(date_of(1_767_225_599), "2025-12-31T23:59:59Z");
        assert_eq!(date_of(1_772_323_200), "2026-03-01T00:00:00Z");
    }

    #[test]
    fn the_model_is_found() {
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: X 9\n"), Some("X 9".to_owned()));
        assert_eq!(cpu_model("processor\t: 0\n"), None);
    }

    #[test]
    fn a_version_is_one_line() {
        assert!(version(Path::new("cargo"), "--version").unwrap().starts_with("cargo"));
        assert_eq!(version(Path::new("/nowhere/at/all"), "-V"), None);
    }
}
