//! The table of settings as a JSON schema: for editors, and for the values of the chart.
//!
//! What may be written stands in the table as text, in a little language: a kind (`time`, `size`, `1 to 256`), then words
//! that are allowed as well (`time or none`); or the words alone, of which one is the default. Whatever is not in it is
//! any text. So a schema never refuses what the configuration takes.

use serde_json::{Map, Value, json};

use super::settings::{CLUSTER, POOL, PROCESS, Setting};

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
        _ => {}
    }
    let (kind, words) = parts(setting.allowed);
    let several = |digits: &str| {
        let all: Vec<&str> = std::iter::once(digits).chain(words.iter().copied()).collect();
        format!("^({})$", all.join("|"))
    };
    match kind {
        "time" | "time above 0" => {
            let least = u8::from(kind != "time");
            let digits = if least == 0 { "[0-9]+ *(ms|s|m|h)?" } else { "0*[1-9][0-9]* *(ms|s|m|h)?" };
            json!({ "type": ["integer", "string"], "minimum": least, "pattern": several(digits) })
        }
        "size" => {
            let digits = "0*[1-9][0-9]* *([kKmMgG]([iI]?[bB])?|[bB])?";
            json!({ "type": ["integer", "string"], "minimum": 1, "pattern": several(digits) })
        }
        _ => match (bounds(kind), choices(setting)) {
            (Some((least, most)), _) => {
                let digits = several("[0-9]+");
                json!({ "type": ["integer", "string"], "minimum": least, "maximum": most, "pattern": digits })
            }
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
        assert_eq!(of("drain_grace")["pattern"], format!("^({time})$"));
        assert_eq!(of("drain_limit")["minimum"], 1);
        assert_eq!(
            (&of("workers")["maximum"], &of("workers")["pattern"]),
            (&json!(256), &json!("^([0-9]+|auto)$"))
        );
    }

    #[test]
    fn every_kind_in_the_table_is_one_that_is_known() {
        // What only looks like a number, a time or a size would be taken for any text.
        for setting in POOL.iter().chain(CLUSTER).chain(PROCESS) {
            let begins = |kinds: &[&str]| kinds.iter().any(|kind| setting.allowed.starts_with(kind));
            let is_counted = begins(&["time", "size"]) || setting.allowed.split(' ').nth(1) == Some("to");
            let is_share = setting.allowed.contains('%');
            if is_counted && !is_share {
                assert!(schema(setting).get("pattern").is_some(), "{}: {}", setting.name, setting.allowed);
            }
        }
    }
}
