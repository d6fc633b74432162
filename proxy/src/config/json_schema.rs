//! The table of settings as a JSON schema: for editors, and for the values of the chart.
//!
//! What may be written stands in the table as text, in a little language: a kind (`time`, `size`, `1 to 256`), then words
//! that are allowed as well (`time or none`); or the words alone, of which one is the default. Whatever is not in it is
//! any text. So a schema never refuses what the configuration takes; and what has a kind or words it takes exactly as far as
//! the configuration does.

use serde_json::{Map, Value, json};

use super::settings::{CLUSTER, POOL, PROCESS, Setting};
use super::value::{DURATION_MAX, SIZES, TIMES};

/// The schema of a configuration: of one with `pools:`, or of a mapping of pools as nutcracker reads it.
pub fn text() -> String {
    let whole = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Configuration of memstore",
        "type": "object",
        "if": { "required": ["pools"] },
        "then": { "properties": properties(PROCESS), "additionalProperties": false },
        "else": { "additionalProperties": { "$ref": "#/definitions/pool" } },
        "definitions": { "pool": object(POOL), "cluster": object(CLUSTER) },
    });
    format!("{whole:#}\n")
}

fn object(settings: &[Setting]) -> Value {
    json!({ "type": "object", "properties": properties(settings), "additionalProperties": false })
}

fn properties(settings: &[Setting]) -> Value {
    let described = |setting: &Setting| {
        let mut schema = schema(setting);
        if let Some(schema) = schema.as_object_mut() {
            let text = format!("{} ({})", setting.meaning, setting.allowed);
            schema.insert("description".into(), text.into());
            if let Some(default) = setting.default {
                schema.insert("default".into(), default.into());
            }
        }
        (setting.name.to_owned(), schema)
    };
    settings.iter().map(described).collect::<Map<_, _>>().into()
}

/// What a setting may be. A text that looks like a number or a truth value need not be quoted.
fn schema(setting: &Setting) -> Value {
    match setting.name {
        "pools" => {
            return json!({ "type": "object", "additionalProperties": { "$ref": "#/definitions/pool" } });
        }
        "cluster" => return json!({ "allOf": [{ "$ref": "#/definitions/cluster" }] }),
        "hash_tag" => {
            // A number of two characters need not be quoted either.
            let single = json!({ "type": "integer", "minimum": 0, "maximum": 9 });
            return json!({
                "type": ["integer", "string"],
                "minimum": -9,
                "maximum": 99,
                "not": single,
                "pattern": "^[ -~]{2}$",
            });
        }
        _ => {}
    }
    let (kind, words) = parts(setting.allowed);
    // Who writes something else is told what it looks like, and only who writes too much is shown all the digits.
    let counted = |least: u64, most: u64, looks: &str, exactly: &[String]| {
        let all = |texts: &str| {
            let all: Vec<&str> = std::iter::once(texts).chain(words.iter().copied()).collect();
            format!("^({})$", all.join("|"))
        };
        json!({
            "type": ["integer", "string"],
            "minimum": least,
            "maximum": most,
            "pattern": all(looks),
            "if": { "pattern": all(looks) },
            "then": { "pattern": all(&exactly.join("|")) },
        })
    };
    match kind {
        "duration" | "duration above 0" => {
            let (least, most) = (u64::from(kind != "duration"), DURATION_MAX.as_millis() as u64);
            let looks = if least == 0 { "[0-9]+ *(ms|s|m|h)?" } else { "0*[1-9][0-9]* *(ms|s|m|h)?" };
            let exactly = TIMES.map(|(unit, millis)| {
                let optional = if millis == 1 { "?" } else { "" };
                format!("{} *({unit}){optional}", digits(least, most / millis))
            });
            counted(least, most, looks, &exactly)
        }
        "size" => {
            let exactly = SIZES.map(|(units, _, most)| {
                let any_case = |letter: char| format!("[{letter}{}]", letter.to_ascii_uppercase());
                let units: Vec<String> =
                    units.iter().map(|unit| unit.chars().map(any_case).collect()).collect();
                format!("{} *({})", digits(1, most), units.join("|"))
            });
            counted(1, SIZES[0].2, "0*[1-9][0-9]* *([kKmMgG]([iI]?[bB])?|[bB])?", &exactly)
        }
        "0% to 100%" => json!({ "type": "string", "pattern": "^0*(100|[0-9]{1,2})%$" }),
        _ => match (bounds(kind), choices(setting)) {
            (Some((least, most)), _) => counted(least, most, "[0-9]+", &[digits(least, most)]),
            (None, Some(choices)) => json!({ "enum": choices }),
            (None, None) if kind.starts_with("a list") || kind.starts_with("list") => {
                json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 })
            }
            (None, None) => json!({ "type": ["string", "number", "boolean"] }),
        },
    }
}

/// The kind, and the words that may stand instead.
fn parts(allowed: &str) -> (&str, Vec<&str>) {
    let (kind, rest) =
        allowed.split_once(" or ").or_else(|| allowed.split_once(", ")).unwrap_or((allowed, ""));
    (kind, rest.split([',', ' ']).filter(|word| !word.is_empty() && *word != "or").collect())
}

/// Decimal digits of a number from 0 or 1 on, as a pattern.
fn digits(least: u64, most: u64) -> String {
    let text = most.to_string();
    let any = |count: usize| match count {
        0 => String::new(),
        1 => "[0-9]".to_owned(),
        _ => format!("[0-9]{{{count}}}"),
    };
    let mut all = Vec::new();
    if least == 0 {
        all.push("0".to_owned());
    }
    if text.bytes().all(|digit| digit == b'9') {
        all.push(format!("[1-9][0-9]{{0,{}}}", text.len() - 1));
        return format!("0*({})", all.join("|"));
    }
    if text.len() > 1 {
        all.push(format!("[1-9][0-9]{{0,{}}}", text.len() - 2));
    }
    // As long as the largest, and smaller from some digit on.
    for (place, digit) in text.bytes().enumerate() {
        let (first, last) = (if place == 0 { b'1' } else { b'0' }, digit - 1);
        if first <= last {
            let range = format!("[{}-{}]", char::from(first), char::from(last));
            all.push(format!("{}{range}{}", &text[..place], any(text.len() - place - 1)));
        }
    }
    all.push(text);
    format!("0*({})", all.join("|"))
}

/// Of `1 to 256`.
fn bounds(kind: &str) -> Option<(u64, u64)> {
    let (least, most) = kind.split_once(" to ")?;
    Some((least.parse().ok()?, most.parse().ok()?))
}

/// The words of a list of words, of which one is the default.
fn choices(setting: &Setting) -> Option<Vec<Value>> {
    let words: Vec<_> = setting.allowed.split(' ').collect();
    if !words.contains(&setting.default?) {
        return None;
    }
    let truths = [("true", true), ("false", false)].into_iter();
    let truths = truths.filter(|(word, _)| words.contains(word)).map(|(_, truth)| truth.into());
    Some(truths.chain(words.iter().map(|word| (*word).into())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Value {
        schema(POOL.iter().chain(PROCESS).find(|setting| setting.name == name).expect("a setting"))
    }

    #[test]
    fn what_may_be_written_is_read_from_the_table() {
        let time = "[0-9]+ *(ms|s|m|h)?";
        for (name, schema) in [
            ("redis", json!({ "enum": [true, false, "true", "false"] })),
            ("resp3", json!({ "enum": [true, false, "auto", "true", "false"] })),
            ("distribution", json!({ "enum": ["ketama", "modula", "random", "slots", "single"] })),
            ("log_format", json!({ "enum": ["text", "json"] })),
            ("admin_address", json!({ "type": ["string", "number", "boolean"] })),
            ("servers", json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 })),
        ] {
            assert_eq!(of(name), schema, "{name}");
        }
        assert_eq!(of("timeout")["pattern"], format!("^({time}|none)$"));
        assert_eq!(of("timeout")["maximum"], 365_u64 * 86_400_000);
        assert_eq!(of("drain_grace")["pattern"], format!("^({time})$"));
        assert_eq!(of("drain_limit")["minimum"], 1);
        assert_eq!(of("eject_max_share")["pattern"], of("ready_min_healthy")["pattern"]);
        assert_eq!(
            (&of("workers")["maximum"], &of("workers")["pattern"]),
            (&json!(256), &json!("^([0-9]+|auto)$"))
        );
    }

    #[test]
    fn digits_are_those_of_numbers_up_to_the_largest() {
        assert_eq!(digits(1, 256), "0*([1-9][0-9]{0,1}|[1-1][0-9]{2}|2[0-4][0-9]|25[0-5]|256)");
        assert_eq!(digits(0, 7), "0*(0|[1-6]|7)");
        assert_eq!(digits(1, 999), "0*([1-9][0-9]{0,2})");
    }

    #[test]
    fn every_kind_in_the_table_is_one_that_is_known() {
        // What only looks like a number, a time or a size would be taken for any text.
        for setting in POOL.iter().chain(CLUSTER).chain(PROCESS) {
            let begins = |kinds: &[&str]| kinds.iter().any(|kind| setting.allowed.starts_with(kind));
            let is_counted = begins(&["duration", "size"]) || setting.allowed.split(' ').nth(1) == Some("to");
            if is_counted {
                assert!(schema(setting).get("pattern").is_some(), "{}: {}", setting.name, setting.allowed);
            }
        }
    }
}
