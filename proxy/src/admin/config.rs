//! `/config`: the settings in force, and where each was said.

use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Value, json};

use crate::config::{Origin, Row};
use crate::status::Status;

/// The document. docs/admin.md says what it has.
pub fn document(status: &Status) -> String {
    let shown = status.shown();
    let effective = |name: &str| match name {
        "workers" => Some(status.workers.len().to_string()),
        "memory_max" => Some(status.account.max().to_string()),
        _ => None,
    };
    let of_process = |row: &Row| {
        let mut told = told(row);
        if let (Some(effective), "auto") = (effective(&row.name), row.value.as_str().unwrap_or_default()) {
            told["effective"] = effective.into();
        }
        told
    };
    let document = json!({
        "version": 1,
        "file": shown.file.display().to_string(),
        "generation": status.generation.load(Relaxed),
        "process": shown.process.iter().map(of_process).collect::<Vec<_>>(),
        "pools": shown.pools.iter().map(|(name, rows)| {
            json!({ "name": name, "settings": rows.iter().map(told).collect::<Vec<_>>() })
        }).collect::<Vec<_>>(),
    });
    format!("{document}\n")
}

fn told(Row { name, value, is_secret, origin }: &Row) -> Value {
    let mut told = json!({ "name": name, "value": value });
    if *is_secret {
        told["secret"] = true.into();
    }
    told["from"] = match origin {
        Origin::Default => "default",
        Origin::File(_) => "file",
        Origin::Flag => "flag",
        Origin::Environment(_) => "environment",
    }
    .into();
    match origin {
        Origin::File(place) => told["line"] = place.line.into(),
        Origin::Environment(variable) => told["variable"] = variable.as_str().into(),
        Origin::Default | Origin::Flag => {}
    }
    told
}
