//! The table of settings as a JSON schema: for editors, and for the values of the chart.
//!
//! A schema never refuses what the configuration takes; and what has a kind that the configuration judges it takes exactly as
//! far as that does. Whatever has a reader of its own is any string.

use serde_json::{Map, Value, json};

use super::kind::Kind;
use super::listeners::LISTENERS_MAX;
use super::settings::{CERTIFICATE, CLUSTER, LISTENER, POOL, PROCESS, SERVERS_TLS, Setting, TLS};
use super::tls::CERTIFICATES_MAX;
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
        "definitions": { "pool": object(POOL), "listener": object(LISTENER), "cluster": object(CLUSTER), "tls": object(TLS), "servers_tls": object(SERVERS_TLS) },
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
            let text = format!("{} ({})", setting.meaning, setting.kind);
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
        "pin" => {
            let target = json!({ "type": "string", "minLength": 1 });
            let prefix = json!({ "minLength": 1, "maxLength": 250 });
            return json!({ "type": "object", "propertyNames": prefix, "additionalProperties": target });
        }
        "listen" => {
            let address = json!({ "type": "string" });
            let listener =
                json!({ "allOf": [{ "$ref": "#/definitions/listener" }], "required": ["address"] });
            let entry = json!({ "anyOf": [address, listener] });
            let list = json!({ "type": "array", "items": entry, "minItems": 1, "maxItems": LISTENERS_MAX });
            return json!({ "anyOf": [address, list] });
        }
        "tls" if LISTENER.iter().any(|of| std::ptr::eq(of, setting)) => {
            let flag = json!({ "enum": [true, false, "true", "false"] });
            return json!({ "anyOf": [flag, { "$ref": "#/definitions/tls" }] });
        }
        "certificates" => {
            let mut pair = object(CERTIFICATE);
            pair["required"] = json!(["certificate", "key"]);
            return json!({ "type": "array", "items": pair, "minItems": 1, "maxItems": CERTIFICATES_MAX });
        }
        name @ ("cluster" | "tls" | "servers_tls") => {
            return json!({ "allOf": [{ "$ref": format!("#/definitions/{name}") }] });
        }
        "otlp_tls" => return json!({ "allOf": [{ "$ref": "#/definitions/servers_tls" }] }),
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
    let (kind, words) = match setting.kind {
        Kind::Auto(kind) => (*kind, &["auto"][..]),
        Kind::Off(kind) => (*kind, &["-1"][..]),
        Kind::Limit => (Kind::Duration, &["none"][..]),
        kind => (kind, &[][..]),
    };
    // Who writes something else is told what it looks like, and only who writes too much is shown all the digits.
    let counted = |least: u64, most: u64, looks: &str, exactly: &[String]| {
        let all = |texts: &str| {
            let all: Vec<&str> = std::iter::once(texts).chain(words.iter().copied()).collect();
            format!("^({})$", all.join("|"))
        };
        json!({
            "type": ["integer", "string"],
            "minimum": if words == ["-1"] { json!(-1) } else { json!(least) },
            "maximum": most,
            "pattern": all(looks),
            "if": { "pattern": all(looks) },
            "then": { "pattern": all(&exactly.join("|")) },
        })
    };
    match kind {
        Kind::Duration | Kind::Positive => {
            let (least, most) = (u64::from(kind == Kind::Positive), DURATION_MAX.as_millis() as u64);
            let looks = if least == 0 { "[0-9]+ *(ms|s|m|h)?" } else { "0*[1-9][0-9]* *(ms|s|m|h)?" };
            let exactly = TIMES.map(|(unit, millis)| {
                let optional = if millis == 1 { "?" } else { "" };
                format!("{} *({unit}){optional}", digits(least, most / millis))
            });
            counted(least, most, looks, &exactly)
        }
        Kind::Size => {
            let exactly = SIZES.map(|(units, _, most)| {
                let any_case = |letter: char| format!("[{letter}{}]", letter.to_ascii_uppercase());
                let units: Vec<String> =
                    units.iter().map(|unit| unit.chars().map(any_case).collect()).collect();
                format!("{} *({})", digits(1, most), units.join("|"))
            });
            counted(1, SIZES[0].2, "0*[1-9][0-9]* *([kKmMgG]([iI]?[bB])?|[bB])?", &exactly)
        }
        Kind::Percent => json!({ "type": "string", "pattern": "^0*(100|[0-9]{1,2})%$" }),
        Kind::Whole(least, most) => counted(least, most, "[0-9]+", &[digits(least, most)]),
        Kind::Flag => {
            let flags: [Value; 4] = [true.into(), false.into(), "true".into(), "false".into()];
            let words = words.iter().map(|word| Value::from(*word));
            json!({ "enum": flags.into_iter().chain(words).collect::<Vec<_>>() })
        }
        Kind::Word(words) => json!({ "enum": words }),
        Kind::Node(_) => json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 }),
        Kind::Text(_) | Kind::Secret(_) | Kind::Auto(_) | Kind::Off(_) | Kind::Limit => {
            json!({ "type": ["string", "number", "boolean"] })
        }
    }
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
            ("resp3", json!({ "enum": [true, false, "true", "false", "auto"] })),
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
}
