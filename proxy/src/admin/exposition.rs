//! Metrics as text: Prometheus' classic format and OpenMetrics, which differ in the names of counters and in the end.
//!
//! Sources: <https://prometheus.io/docs/instrumenting/exposition_formats/>,
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>.

use std::fmt::{Display, Write as _};

use crate::metrics::{Durations, Histogram};

/// What a metric is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows; its name ends in `_total` where a sample is written.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often something took how long.
    Histogram,
}

/// A page of metrics.
pub struct Page {
    text: String,
    open_metrics: bool,
}

impl Page {
    /// An empty page.
    pub fn new(open_metrics: bool) -> Self {
        Self { text: String::new(), open_metrics }
    }

    /// Begins a metric. Counters are named without `_total`.
    pub fn begin(&mut self, name: &str, kind: Kind, help: &str) -> Family<'_> {
        let (typed, suffix) = match kind {
            Kind::Counter if self.open_metrics => ("counter", ""),
            Kind::Counter => ("counter", "_total"),
            Kind::Gauge => ("gauge", ""),
            Kind::Histogram => ("histogram", ""),
        };
        let _ = writeln!(self.text, "# HELP {name}{suffix} {help}");
        let _ = writeln!(self.text, "# TYPE {name}{suffix} {typed}");
        let name = if kind == Kind::Counter { format!("{name}_total") } else { name.to_owned() };
        Family { page: self, name }
    }

    /// The whole page.
    pub fn finish(mut self) -> String {
        if self.open_metrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// The samples of one metric.
pub struct Family<'p> {
    page: &'p mut Page,
    name: String,
}

impl Family<'_> {
    /// One sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        let _ = writeln!(self.page.text, "{}{} {value}", self.name, written(labels, None));
        self
    }

    /// One histogram, summed over workers; nothing while it is empty. Times in seconds.
    pub fn histogram<'h>(
        &mut self,
        labels: &[(&str, &str)],
        parts: impl Iterator<Item = &'h Histogram>,
    ) -> &mut Self {
        let Durations { counts, sum } = Durations::of(parts);
        if counts.iter().sum::<u64>() == 0 {
            // Thousands of shards that nobody uses are not worth twenty lines each.
            return self;
        }
        let name = &self.name;
        let mut total = 0;
        for (bucket, count) in counts.into_iter().enumerate() {
            total += count;
            let bound = if bucket < Histogram::BOUNDS {
                seconds(Histogram::bound(bucket)).to_string()
            } else {
                "+Inf".into()
            };
            let _ = writeln!(self.page.text, "{name}_bucket{} {total}", written(labels, Some(&bound)));
        }
        let _ = writeln!(self.page.text, "{name}_sum{} {}", written(labels, None), seconds(sum));
        let _ = writeln!(self.page.text, "{name}_count{} {total}", written(labels, None));
        self
    }
}

/// Microseconds in seconds.
pub fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// Labels between braces, or nothing.
fn written(labels: &[(&str, &str)], bound: Option<&str>) -> String {
    let mut text = String::new();
    for (name, value) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(text, "{}{name}=\"{value}\"", if text.is_empty() { '{' } else { ',' });
    }
    if !text.is_empty() {
        text.push('}');
    }
    text
}
