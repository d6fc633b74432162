//! Texts of the configuration as values. Errors say what is allowed.

use std::time::Duration;

/// Longest duration that is a duration and not a mistake.
pub const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// Units of a duration, and milliseconds in each; a bare number has the first.
pub const TIMES: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
/// Units of a size: how they are written in small letters, the bytes in each, and the most of it. A petabyte is a mistake.
pub const SIZES: [(&[&str], u64, u64); 7] = [
    (&["", "b"], 1, 999_999_999_999_999),
    (&["k", "kib"], 1 << 10, 999_999_999_999),
    (&["kb"], 1_000, 999_999_999_999),
    (&["m", "mib"], 1 << 20, 999_999_999),
    (&["mb"], 1_000_000, 999_999_999),
    (&["g", "gib"], 1 << 30, 999_999),
    (&["gb"], 1_000_000_000, 999_999),
];

/// `true` or `false`.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => {
            let meant = match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "1" | "true" | "y" => "; did you mean true?",
                "no" | "off" | "0" | "false" | "n" => "; did you mean false?",
                _ => "",
            };
            Err(format!("allowed are true and false{meant}"))
        }
    }
}

/// Decimal digits, within bounds.
pub fn number(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let allowed = || format!("allowed is a whole number from {least} to {most}, in digits only");
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(allowed());
    }
    text.parse().ok().filter(|number| (least..=most).contains(number)).ok_or_else(allowed)
}

/// A number with a unit; a bare number is milliseconds, as in nutcracker.yml.
pub fn duration(text: &str) -> Result<Duration, String> {
    const ALLOWED: &str = "allowed is a duration such as 500ms, 5s, 2m or 1h; a bare number is milliseconds";
    let (number, unit) = counted(text).ok_or(ALLOWED)?;
    let unit = if unit.is_empty() { TIMES[0].0 } else { unit };
    let (_, millis) = TIMES.iter().find(|(name, _)| *name == unit).ok_or(ALLOWED)?;
    number
        .and_then(|number| number.checked_mul(*millis))
        .map(Duration::from_millis)
        .filter(|duration| *duration <= DURATION_MAX)
        .ok_or_else(|| format!("that is more than {} days", DURATION_MAX.as_secs() / 86400))
}

/// Digits and what is behind them, blanks between them left out. A number that is none is too large.
fn counted(text: &str) -> Option<(Option<u64>, &str)> {
    let digits = text.len() - text.trim_start_matches(|character: char| character.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    (digits > 0).then(|| (number.parse().ok(), unit.trim_start_matches(' ')))
}

/// A number of bytes, with or without a unit.
pub fn size(text: &str) -> Result<u64, String> {
    const ALLOWED: &str = "allowed is a size such as 512KiB, 64MiB, 1GiB, 100MB or a number of bytes";
    let (number, unit) = counted(text).ok_or(ALLOWED)?;
    let unit = unit.to_ascii_lowercase();
    let (_, bytes, most) = SIZES.iter().find(|(names, ..)| names.contains(&unit.as_str())).ok_or(ALLOWED)?;
    match number {
        Some(0) => Err(ALLOWED.into()),
        Some(number) if number <= *most => Ok(number * bytes),
        _ => Err("that is 1000 TB or more".into()),
    }
}

/// A text with at least one character.
pub fn text(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("allowed is any string with at least one character".into())
    } else {
        Ok(text.to_owned())
    }
}

/// A share of a whole, such as `80%`.
pub fn percent(text: &str) -> Result<u8, String> {
    let digits = text.strip_suffix('%').ok_or("allowed is a percentage such as 80%")?;
    number(digits, 0, 100).map(|percent| percent as u8).map_err(|_| "allowed are 0% to 100%".into())
}
