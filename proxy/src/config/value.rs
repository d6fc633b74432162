//! Texts of the configuration as values. Errors say what is allowed.

use std::time::Duration;

/// Longest duration that is a duration and not a mistake.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

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
    const ALLOWED: &str = "allowed is a time such as 500ms, 5s, 2m or 1h; a bare number is milliseconds";
    let digits = text.len() - text.trim_start_matches(|character: char| character.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| ALLOWED.to_owned())?;
    let millis = match unit.trim() {
        "" | "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err(ALLOWED.into()),
    };
    millis
        .map(Duration::from_millis)
        .filter(|duration| *duration <= DURATION_MAX)
        .ok_or_else(|| format!("that is more than {} days", DURATION_MAX.as_secs() / 86400))
}

/// A duration, or `none` or 0 for no limit.
pub fn limit(text: &str) -> Result<Option<Duration>, String> {
    if text == "none" {
        return Ok(None);
    }
    let duration = duration(text).map_err(|allowed| format!("{allowed}; none or 0 is no limit"))?;
    Ok(Some(duration).filter(|duration| !duration.is_zero()))
}

/// A number of bytes, with or without a unit.
pub fn size(text: &str) -> Result<u64, String> {
    const ALLOWED: &str = "allowed is a size such as 512KiB, 64MiB, 1GiB, 100MB or a number of bytes";
    let digits = text.len() - text.trim_start_matches(|character: char| character.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| ALLOWED.to_owned())?;
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err(ALLOWED.into()),
    };
    number.checked_mul(factor).filter(|&bytes| bytes > 0).ok_or_else(|| ALLOWED.to_owned())
}

/// A text with at least one character.
pub fn text(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("allowed is any text with at least one character".into())
    } else {
        Ok(text.to_owned())
    }
}
