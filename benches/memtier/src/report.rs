//! What a tournament leaves behind: a JSON file with every run and where it was made, and a picture.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::machine;
use crate::measurement::{Figure, IdleMemory, Measurement, idle_of, median_of, ratio_of};
use crate::picture::{Chart, Group, Picture, Series};
use crate::table::pairs;
use crate::workload::WORKLOADS;

/// What the figures alone do not tell.
pub struct Circumstances {
    /// When it was made, in UTC.
    pub date: String,
    /// The machine it was made on.
    pub machine: Value,
    /// What each program says it is.
    pub versions: Map<String, Value>,
    /// How the harness was called.
    pub command_line: Vec<String>,
    /// Shards, rounds and the like.
    pub settings: Value,
}

/// Writes both files and tells their names.
pub fn write(
    folder: &Path,
    all: &[Measurement],
    failures: &[String],
    around: &Circumstances,
) -> Result<[PathBuf; 2]> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let stem = around.date.replace([':', '-'], "");
    let files = [folder.join(format!("{stem}.json")), folder.join(format!("{stem}.svg"))];
    let json = serde_json::to_string_pretty(&json(all, failures, around)).context("the report is no JSON")?;
    for (file, text) in files.iter().zip([json + "\n", picture(all, around).svg()]) {
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(files)
}

fn json(all: &[Measurement], failures: &[String], around: &Circumstances) -> Value {
    let results: Vec<Value> = pairs(all)
        .into_iter()
        .map(|(workload, proxy)| {
            let figures = |pick: fn(&[Measurement], &str, &str, Figure) -> Option<f64>| {
                let found = Figure::ALL.into_iter().filter_map(|figure| {
                    Some((figure.name().to_owned(), pick(all, workload, proxy, figure)?.into()))
                });
                Value::Object(found.collect())
            };
            let runs = all.iter().filter(|run| run.workload == workload && run.proxy == proxy);
            json!({
                "workload": workload,
                "about": WORKLOADS.iter().find(|known| known.name == workload).map(|known| known.about),
                "proxy": proxy,
                "median": figures(median_of),
                "ratio_to_nutcracker": figures(ratio_of),
                "idle_bytes_per_client": idle_of(all, workload, proxy).map(idle_json),
                "rounds": runs.map(run_json).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "date": around.date,
        "machine": around.machine,
        "versions": around.versions,
        "command_line": around.command_line,
        "settings": around.settings,
        "results": results,
        "failures": failures,
    })
}

fn run_json(run: &Measurement) -> Value {
    let figures = Figure::ALL.into_iter();
    let mut fields: Map<String, Value> =
        figures.filter_map(|figure| Some((figure.name().to_owned(), run.figure(figure)?.into()))).collect();
    fields.insert("round".to_owned(), (run.round + 1).into());
    fields.insert("other_cpus".to_owned(), run.other_cpus.into());
    if let Some(outcome) = &run.outcome {
        fields.insert("requests".to_owned(), outcome.requests.into());
        fields.insert("elapsed_seconds".to_owned(), outcome.elapsed.as_secs_f64().into());
        fields.insert("errors".to_owned(), outcome.errors.into());
        fields.insert("misses".to_owned(), outcome.misses.into());
        fields.insert("unanswered".to_owned(), outcome.unanswered.into());
    }
    if let Some(idle) = run.idle {
        fields.insert("idle_bytes_per_client".to_owned(), idle_json(idle));
    }
    Value::Object(fields)
}

fn idle_json(idle: IdleMemory) -> Value {
    json!({
        "clients": idle.clients,
        "connected": idle.connected,
        "after_ping": idle.after_ping,
        "after_get": idle.after_get,
        "after_close": idle.after_close,
    })
}

fn picture(all: &[Measurement], around: &Circumstances) -> Picture {
    let (mut workloads, mut proxies): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for (workload, proxy) in pairs(all) {
        if !workloads.contains(&workload) {
            workloads.push(workload);
        }
        if !proxies.contains(&proxy) {
            proxies.push(proxy);
        }
    }
    let (idle, loaded): (Vec<&str>, Vec<&str>) = workloads
        .into_iter()
        .partition(|workload| all.iter().any(|run| run.workload == *workload && run.idle.is_some()));
    let mut charts = Vec::new();
    if !loaded.is_empty() {
        for (figure, title) in [
            (Figure::Throughput, "Throughput, requests per second (more is better)"),
            (Figure::Cpu, "CPU of the proxy, microseconds per request (less is better)"),
            (Figure::P99, "99th percentile of latency, microseconds (less is better)"),
        ] {
            let group = |workload: &&str| Group {
                label: (*workload).to_owned(),
                bars: proxies.iter().map(|proxy| median_of(all, workload, proxy, figure)).collect(),
            };
            charts.push(Chart { title: title.to_owned(), groups: loaded.iter().map(group).collect() });
        }
    }
    for workload in idle {
        let moments: [Moment; 4] = [
            ("connected", |idle| idle.connected),
            ("after PING", |idle| idle.after_ping),
            ("after GET", |idle| idle.after_get),
            ("after close", |idle| idle.after_close),
        ];
        let groups = moments.map(|(label, pick)| Group {
            label: label.to_owned(),
            bars: proxies.iter().map(|proxy| idle_of(all, workload, proxy).map(pick)).collect(),
        });
        let title = "Memory of the proxy, bytes per idle client (less is better)".to_owned();
        charts.push(Chart { title, groups: groups.into() });
    }
    let series = proxies.iter().map(|proxy| Series { name: (*proxy).to_owned(), colour: colour(proxy) });
    Picture {
        title: "memstore and its peers under the same load".to_owned(),
        foot: vec![
            "Medians over the rounds. Bars of one group share a scale, groups do not.".to_owned(),
            format!("{}, {}", machine::in_a_line(&around.machine), around.date),
        ],
        series: series.collect(),
        charts,
    }
}

/// A column of what idle clients cost.
type Moment = (&'static str, fn(IdleMemory) -> f64);

/// The same colour in every picture; told apart by the colour-blind too.
fn colour(proxy: &str) -> &'static str {
    match proxy {
        "memstore" => "#0072b2",
        "nutcracker" => "#e69f00",
        "direct" => "#999999",
        _ => "#009e73",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::tests::run;

    fn around() -> Circumstances {
        Circumstances {
            date: "2026-01-31T09:05:07Z".to_owned(),
            machine: json!({"cpus": 2, "model": "X 9", "kernel": "6.1"}),
            versions: Map::new(),
            command_line: vec!["run".to_owned()],
            settings: json!({}),
        }
    }

    #[test]
    fn a_report_has_medians_ratios_and_every_round() {
        let all = [run("nutcracker", 0, 1000), run("memstore", 0, 1500), run("memstore", 1, 1700)];
        let report = json(&all, &[], &around());
        let ours = &report["results"][1];
        assert_eq!(ours["proxy"], "memstore");
        assert_eq!(ours["median"]["throughput_per_second"], 1600.0);
        assert_eq!(ours["ratio_to_nutcracker"]["throughput_per_second"], 1.5);
        assert_eq!(ours["rounds"][1]["requests"], 1700);
        assert_eq!(report["machine"]["cpus"], 2);
    }

    #[test]
    fn idle_clients_get_a_chart_of_their_own() {
        let mut idle = run("memstore", 0, 1);
        (idle.workload, idle.outcome) = ("idle", None);
        idle.idle = Some(IdleMemory { clients: 10, connected: 500.0, ..IdleMemory::default() });
        let picture = picture(&[run("nutcracker", 0, 1000), idle], &around());
        assert_eq!(picture.charts.len(), 4);
        assert_eq!(picture.charts[3].groups[0].bars, [None, Some(500.0)]);
        assert!(picture.foot[1].starts_with("2 CPUs, X 9, Linux 6.1"));
    }
}
