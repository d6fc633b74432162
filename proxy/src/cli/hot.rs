//! `memstore hot`: which keys are used most, asked of a running proxy.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::Value;

use super::ask::Ask;
use super::common::{Format, print};
use super::plain::clean;

/// What is asked for.
#[derive(Args)]
pub struct Hot {
    #[command(flatten)]
    asked: Ask,
    /// Only this pool
    #[arg(long)]
    pool: Option<String>,
    /// Maximum number of keys, large requests and large replies, from 1 to 256
    #[arg(long, default_value_t = 20)]
    count: u16,
}

/// Prints the keys that are used most, and the largest requests and replies.
pub fn hot(hot: &Hot) -> anyhow::Result<ExitCode> {
    let pool = hot.pool.as_deref().map(|pool| format!("&pool={}", encoded(pool))).unwrap_or_default();
    let (status, body) = hot.asked.send("GET", &format!("/hot?count={}{pool}", hot.count))?;
    ensure!(status == 200, "{status}: {}", body.trim_end());
    if hot.asked.format == Format::Json {
        print(&body)?;
    } else {
        let document: Value = serde_json::from_str(&body).context("the proxy's answer is no JSON")?;
        let pools = document["pools"].as_object().context("the proxy's answer has no pools")?;
        let mut text = String::new();
        for (name, pool) in pools {
            write_pool(name, pool, &mut text);
        }
        print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_pool(name: &str, pool: &Value, text: &mut String) {
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let name = clean(name);
    if number(&pool["sample"]) == 0.0 {
        let _ = writeln!(text, "pool {name}: hot_keys is off");
        return;
    }
    let _ = writeln!(
        text,
        "pool {name}: {} sampled requests in {:.0} s (hot_keys_sample: {})",
        clean(&pool["sampled_requests"].to_string()),
        number(&pool["seconds"]),
        clean(&pool["sample"].to_string())
    );
    let rows = |field: &str| pool[field].as_array().cloned().unwrap_or_default();
    let word = |value: &Value| clean(value.as_str().unwrap_or("-"));
    // Numbers, unless it is no proxy that answers.
    let figure = |value: &Value| clean(&value.to_string());
    let keys = rows("keys").into_iter().map(|row| {
        let percent = |field: &str| format!("{:.1}%", number(&row[field]) * 100.0);
        let rate = format!("{:.0}", number(&row["accesses_per_second"]));
        [percent("share"), rate, percent("reads"), word(&row["shard"]), word(&row["key"])]
    });
    write_table(["share", "per second", "reads", "shard", "key"], keys.collect(), text);
    for (title, field) in [("largest requests", "large_requests"), ("largest replies", "large_replies")] {
        let large = rows(field).into_iter().map(|row| {
            let ago = format!("{} s ago", figure(&row["seconds_ago"]));
            [figure(&row["bytes"]), ago, word(&row["command"]), word(&row["shard"]), word(&row["key"])]
        });
        let large: Vec<_> = large.collect();
        if !large.is_empty() {
            let _ = writeln!(text, "{title}");
            write_table(["bytes", "seen", "command", "shard", "key"], large, text);
        }
    }
}

/// A line for each row; the last column is as wide as it is.
fn write_table(heads: [&str; 5], rows: Vec<[String; 5]>, text: &mut String) {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .chain([heads[column].len()])
            .max()
            .unwrap_or_default()
    };
    let widths: [usize; 4] = std::array::from_fn(width);
    let heads = heads.map(str::to_owned);
    for row in std::iter::once(&heads).chain(&rows) {
        text.push_str("  ");
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(text, "{cell:<width$}  ");
        }
        let _ = writeln!(text, "{}", row[4]);
    }
}

/// A value in the query of a URL.
pub fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_table() {
        let pool = serde_json::json!({
            "sample": 100, "seconds": 61.4, "sampled_requests": 2000, "sampled_accesses": 2000,
            "keys": [{"key": "user:1", "key_bytes": 6, "shard": "shard-1", "share": 0.25, "share_max": 0.26, "accesses_per_second": 815.2, "reads": 1.0}],
            "large_requests": [],
            "large_replies": [{"key": "page", "key_bytes": 4, "shard": null, "command": "get", "keys": 1, "bytes": 70000, "seconds_ago": 3}],
        });
        let mut text = String::new();
        write_pool("p", &pool, &mut text);
        let expected = "pool p: 2000 sampled requests in 61 s (hot_keys_sample: 100)\n  \
            share  per second  reads   shard    key\n  \
            25.0%  815         100.0%  shard-1  user:1\n\
            largest replies\n  \
            bytes  seen     command  shard  key\n  \
            70000  3 s ago  get      -      page\n";
        assert_eq!(text, expected);
        let mut text = String::new();
        write_pool("p", &serde_json::json!({"sample": 0}), &mut text);
        assert_eq!(text, "pool p: hot_keys is off\n");
        let mut text = String::new();
        let hostile = serde_json::json!({"sample": 1, "sampled_requests": "\u{9b}1", "keys": [{"key": "\u{1b}[2J", "shard": "\u{9b}2J"}],
            "large_requests": [{"bytes": "\u{9b}", "seconds_ago": "\u{9b}", "command": "\u{1b}c"}]});
        write_pool("p\u{1b}c", &hostile, &mut text);
        assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text:?}");
    }

    #[test]
    fn a_name_in_a_query_stays_what_it_is() {
        assert_eq!(encoded("a-b c&d=\u{e4}"), "a-b%20c%26d%3D%C3%A4");
    }
}
