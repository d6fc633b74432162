//! `memstore top`: a running proxy, live in a terminal.
//!
//! A thread asks, so that keys are heard while an answer is awaited. Between two answers everything is shown per second.

use std::cmp::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Args;

use super::ask::Whom;
use super::plain::clean;
use super::report::{self, Pool, Report, Shard, counted, lasting, sized, timed};
use super::status::style_of;
use super::terminal::{Screen, Style, cut, is_colour_allowed};
use crate::config::value;

/// How long a key is waited for before it is looked whether something is new.
const GLANCE: Duration = Duration::from_millis(100);
/// Shards of each pool that are asked for: those that do not serve and those with most requests.
const SHARDS_MAX: usize = 500;
/// The shortest interval.
const INTERVAL_MIN: Duration = Duration::from_millis(200);

/// Whom it asks, and how often.
#[derive(Args)]
pub struct Top {
    #[command(flatten)]
    whom: Whom,
    /// Only this pool
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Time between two queries
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = value::duration)]
    interval: Duration,
}

/// A column of shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Column {
    Shard,
    State,
    Requests,
    Errors,
    In,
    Out,
    Queued,
    InFlight,
    Connections,
    P50,
    P99,
    Share,
}

impl Column {
    const ALL: [Self; 12] = [
        Self::Shard,
        Self::State,
        Self::Requests,
        Self::Errors,
        Self::In,
        Self::Out,
        Self::Queued,
        Self::InFlight,
        Self::Connections,
        Self::P50,
        Self::P99,
        Self::Share,
    ];

    /// Its title and width.
    fn head(self) -> (&'static str, usize) {
        match self {
            Self::Shard => ("SHARD", 20),
            Self::State => ("STATE", 7),
            Self::Requests => ("REQ/S", 8),
            Self::Errors => ("ERR/S", 7),
            Self::In => ("IN/S", 8),
            Self::Out => ("OUT/S", 8),
            Self::Queued => ("QUEUED", 6),
            Self::InFlight => ("FLIGHT", 6),
            Self::Connections => ("CONNS", 5),
            Self::P50 => ("P50", 7),
            Self::P99 => ("P99", 7),
            Self::Share => ("SHARE", 7),
        }
    }
}

/// What one shard has done in the time between two answers.
#[derive(Clone, Default)]
struct Row {
    pool: String,
    shard: Shard,
    requests: f64,
    errors: f64,
    /// Bytes of requests, and of responses.
    bytes: [f64; 2],
    p50: Option<u64>,
    p99: Option<u64>,
}

impl Row {
    fn text(&self, column: Column) -> String {
        let number = |number: i64| number.to_string();
        match column {
            Column::Shard => clean(&self.shard.name),
            Column::State => clean(&self.shard.state),
            Column::Requests => counted(self.requests),
            Column::Errors => counted(self.errors),
            Column::In => sized(self.bytes[0]),
            Column::Out => sized(self.bytes[1]),
            Column::Queued => number(self.shard.metrics.queued_requests),
            Column::InFlight => number(self.shard.metrics.in_flight_requests),
            Column::Connections => number(self.shard.metrics.connections),
            Column::P50 => timed(self.p50),
            Column::P99 => timed(self.p99),
            Column::Share => format!("{:.2}%", self.shard.share * 100.0),
        }
    }

    /// By names from the first, by numbers from the largest.
    fn compare(&self, other: &Self, column: Column) -> Ordering {
        let number = |row: &Self| match column {
            Column::Requests => row.requests,
            Column::Errors => row.errors,
            Column::In => row.bytes[0],
            Column::Out => row.bytes[1],
            Column::Queued => row.shard.metrics.queued_requests as f64,
            Column::InFlight => row.shard.metrics.in_flight_requests as f64,
            Column::Connections => row.shard.metrics.connections as f64,
            Column::P50 => row.p50.map_or(-1.0, |micros| micros as f64),
            Column::P99 => row.p99.map_or(-1.0, |micros| micros as f64),
            Column::Share => row.shard.share,
            Column::State => f64::from(u8::from(!row.shard.is_up())),
            Column::Shard => 0.0,
        };
        let by_name = || self.shard.name.cmp(&other.shard.name);
        number(other).total_cmp(&number(self)).then_with(by_name)
    }
}

/// What is shown.
struct View {
    before: Option<Report>,
    now: Option<Report>,
    /// Why there is no newer one.
    error: Option<String>,
    pool: Option<String>,
    sort: Column,
    reversed: bool,
    /// Shards that are passed over.
    scroll: usize,
    colours: bool,
}

/// Shows it until `q` is pressed.
pub fn top(asked: &Top) -> anyhow::Result<()> {
    let (told, answers) = mpsc::sync_channel(1);
    let (whom, interval) = (asked.whom.clone(), asked.interval.max(INTERVAL_MIN));
    // A first answer before the terminal is taken: what is wrong is said where it stays to be read.
    let query = format!("?shards={SHARDS_MAX}&clients=0");
    let (_, first) = report::ask(&whom, &query)?;
    let screen = Screen::enter()?;
    // It ends with the process.
    std::thread::Builder::new().name("top".into()).spawn(move || {
        loop {
            let begin = Instant::now();
            let answer = report::ask(&whom, &query).map(|(_, report)| report);
            if told.send(answer.map_err(|error| format!("{error:#}"))).is_err() {
                return;
            }
            std::thread::sleep(interval.saturating_sub(begin.elapsed()));
        }
    })?;
    let mut view = View::new(first, asked.pool.clone(), is_colour_allowed());
    let mut size = (0, 0);
    loop {
        let mut is_new = size != screen.size();
        size = screen.size();
        while let Ok(answer) = answers.try_recv() {
            view.take(answer);
            is_new = true;
        }
        if is_new {
            screen.show(&view.lines(size))?;
        }
        let keys = screen.pressed(GLANCE);
        if !keys.is_empty() {
            if view.pressed(&keys, size.1) {
                return Ok(());
            }
            screen.show(&view.lines(size))?;
        }
    }
}

impl View {
    fn new(first: Report, pool: Option<String>, colours: bool) -> Self {
        let (now, sort) = (Some(first), Column::Requests);
        Self { before: None, now, error: None, pool, sort, reversed: false, scroll: 0, colours }
    }

    fn take(&mut self, answer: Result<Report, String>) {
        match answer {
            Ok(report) => {
                self.before = self.now.replace(report);
                self.error = None;
            }
            Err(why) => self.error = Some(why),
        }
    }

    /// Whether that ends it.
    fn pressed(&mut self, keys: &[u8], rows: usize) -> bool {
        let place = Column::ALL.iter().position(|column| *column == self.sort).unwrap_or(0);
        let count = Column::ALL.len();
        match keys {
            b"\x1b[C" | b"\x1bOC" | b">" => self.sort = Column::ALL[(place + 1) % count],
            b"\x1b[D" | b"\x1bOD" | b"<" => self.sort = Column::ALL[(place + count - 1) % count],
            b"\x1b[B" | b"\x1bOB" | b"j" => self.scroll += 1,
            b"\x1b[A" | b"\x1bOA" | b"k" => self.scroll = self.scroll.saturating_sub(1),
            b"\x1b[6~" | b" " => self.scroll += rows / 2,
            b"\x1b[5~" | b"b" => self.scroll = self.scroll.saturating_sub(rows / 2),
            b"r" => self.reversed = !self.reversed,
            b"\t" => self.next_pool(),
            [b'\x1b', ..] => {}
            // Several that were typed quickly.
            _ => {
                for key in keys {
                    match key {
                        b'q' | b'Q' | 3 | 4 => return true,
                        _ if keys.len() > 1 && self.pressed(&[*key], rows) => return true,
                        _ => {}
                    }
                }
            }
        }
        false
    }

    fn next_pool(&mut self) {
        let Some(now) = &self.now else { return };
        let names: Vec<&String> = now.pools.iter().map(|pool| &pool.name).collect();
        let next = match &self.pool {
            None => 0,
            Some(name) => {
                names.iter().position(|known| *known == name).map_or(names.len(), |place| place + 1)
            }
        };
        (self.pool, self.scroll) = (names.get(next).map(|name| name.to_string()), 0);
    }

    /// Seconds between the two answers; none before there are two, or where the proxy was started between them.
    fn between<'v>(&'v self, now: &Report) -> Option<(&'v Report, f64)> {
        let before = self.before.as_ref()?;
        let seconds = now.process.uptime_seconds - before.process.uptime_seconds;
        (seconds > 0.0).then_some((before, seconds))
    }

    fn rows(&self, now: &Report) -> Vec<Row> {
        let between = self.between(now);
        let mut rows = Vec::new();
        for pool in now.pools.iter().filter(|pool| self.is_wanted(pool)) {
            let before =
                between.and_then(|(before, _)| before.pools.iter().find(|known| known.name == pool.name));
            let known: std::collections::HashMap<&str, &Shard> = before
                .iter()
                .flat_map(|pool| &pool.shards)
                .map(|shard| (shard.name.as_str(), shard))
                .collect();
            for shard in &pool.shards {
                let before = known.get(shard.name.as_str()).copied();
                let rate = |number: fn(&Shard) -> u64| match (before, between) {
                    (Some(before), Some((_, seconds))) => {
                        number(shard).saturating_sub(number(before)) as f64 / seconds
                    }
                    _ => 0.0,
                };
                let latency = shard.latency.since(before.map(|shard| &shard.latency));
                rows.push(Row {
                    pool: pool.name.clone(),
                    shard: shard.clone(),
                    requests: rate(|shard| shard.metrics.requests),
                    errors: rate(Shard::failures),
                    bytes: [
                        rate(|shard| shard.metrics.request_bytes),
                        rate(|shard| shard.metrics.response_bytes),
                    ],
                    p50: latency.quantile(0.5),
                    p99: latency.quantile(0.99),
                });
            }
        }
        rows.sort_by(|a, b| if self.reversed { b.compare(a, self.sort) } else { a.compare(b, self.sort) });
        rows
    }

    fn is_wanted(&self, pool: &Pool) -> bool {
        self.pool.as_ref().is_none_or(|name| *name == pool.name)
    }

    /// The screen, of so many columns and rows.
    fn lines(&mut self, (width, height): (usize, usize)) -> Vec<String> {
        let Some(now) = self.now.clone() else { return Vec::new() };
        let mut lines = vec![self.of_process(&now, width)];
        let problem = self.error.as_ref().or(now.process.config.reload_error.as_ref());
        if let Some(problem) = problem {
            lines.push(Style::Bad.of(&cut(&clean(problem), width), self.colours));
        }
        for pool in now.pools.iter().filter(|pool| self.is_wanted(pool)) {
            // Many pools are not to push out all shards.
            if lines.len() > height / 2 {
                break;
            }
            lines.push(self.of_pool(&now, pool, width));
        }
        lines.push(String::new());
        let several = now.pools.iter().filter(|pool| self.is_wanted(pool)).count() > 1;
        lines.push(self.head(width, several));
        let rows = self.rows(&now);
        let room = height.saturating_sub(lines.len() + 1);
        self.scroll = self.scroll.min(rows.len().saturating_sub(room));
        lines.extend(rows.iter().skip(self.scroll).take(room).map(|row| self.of_row(row, width, several)));
        lines.truncate(height.saturating_sub(1));
        while lines.len() + 1 < height {
            lines.push(String::new());
        }
        let keys = "q quit   </> sort   r reverse   tab pool   up/down scroll";
        lines.push(Style::Dim.of(&cut(keys, width), self.colours));
        lines
    }

    fn of_process(&self, now: &Report, width: usize) -> String {
        let process = &now.process;
        let load = self.between(now).map(|(before, seconds)| {
            let busy = |report: &Report| {
                report.process.workers.iter().map(|worker| worker.busy_seconds).sum::<f64>()
            };
            let workers = process.workers.len().max(1) as f64;
            let cpu = |report: &Report| report.process.cpu_seconds.unwrap_or(0.0);
            format!(
                "  workers {:.0}% busy  cpu {:.0}%",
                (busy(now) - busy(before)) / seconds / workers * 100.0,
                (cpu(now) - cpu(before)) / seconds * 100.0
            )
        });
        let text = format!(
            "memstore {}  up {}{}  memory {} of {}  rss {}{}",
            clean(&process.version),
            lasting(process.uptime_seconds),
            load.unwrap_or_default(),
            sized(process.memory.held_bytes as f64),
            sized(process.memory.max_bytes as f64),
            process.memory.resident_bytes.map_or("-".into(), |bytes| sized(bytes as f64)),
            if process.draining { "  DRAINING" } else { "" },
        );
        Style::Bold.of(&cut(&text, width), self.colours)
    }

    fn of_pool(&self, now: &Report, pool: &Pool, width: usize) -> String {
        let between = self.between(now);
        let before =
            between.and_then(|(before, _)| before.pools.iter().find(|known| known.name == pool.name));
        let rate = |number: fn(&Pool) -> u64| match (before, between) {
            (Some(before), Some((_, seconds))) => {
                number(pool).saturating_sub(number(before)) as f64 / seconds
            }
            _ => 0.0,
        };
        let latency = pool.latency.since(before.map(|pool| &pool.latency));
        let text = format!(
            "{}  {}/{} up  {} clients  {} req/s  {} failed/s  {} refused/s  in {}/s  out {}/s  queued {}  p50 {}  p99 {}",
            clean(&pool.name),
            pool.shards_up,
            pool.shards_total,
            pool.clients.total,
            counted(rate(|pool| pool.metrics.requests)),
            counted(rate(|pool| pool.metrics.requests_failed)),
            counted(rate(|pool| pool.metrics.requests_refused)),
            sized(rate(|pool| pool.metrics.client_received_bytes)),
            sized(rate(|pool| pool.metrics.client_sent_bytes)),
            pool.queue.requests,
            timed(latency.quantile(0.5)),
            timed(latency.quantile(0.99)),
        );
        let is_whole = pool.shards_up == pool.shards_total && pool.listening;
        let style = if is_whole { Style::Plain } else { Style::Bad };
        style.of(&cut(&text, width), self.colours)
    }

    fn head(&self, width: usize, several: bool) -> String {
        let mark = |column: Column| {
            let (title, _) = column.head();
            if column == self.sort {
                format!("{title}{}", if self.reversed { '^' } else { '*' })
            } else {
                title.into()
            }
        };
        let text = cut(&row_of(several.then_some("POOL"), mark), width);
        Style::Reverse.of(&format!("{text:<width$}"), self.colours)
    }

    fn of_row(&self, row: &Row, width: usize, several: bool) -> String {
        let pool = clean(&row.pool);
        let text = row_of(several.then_some(pool.as_str()), |column| row.text(column));
        let reason = row.shard.reason.as_deref().map(|reason| format!("  {}", clean(reason)));
        let text = cut(&(text + reason.as_deref().unwrap_or_default()), width);
        let style = if row.shard.is_up() { Style::Plain } else { style_of(&row.shard.state) };
        style.of(&text, self.colours)
    }
}

/// The columns beside each other, names to the left and numbers to the right.
fn row_of(pool: Option<&str>, text: impl Fn(Column) -> String) -> String {
    let mut line = pool.map(|pool| format!("{:<12} ", cut(pool, 12))).unwrap_or_default();
    for column in Column::ALL {
        let (_, width) = column.head();
        let text = cut(&text(column), width);
        match column {
            Column::Shard | Column::State => line.push_str(&format!("{text:<width$} ")),
            _ => line.push_str(&format!("{text:>width$} ")),
        }
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(uptime: f64, requests: [u64; 2]) -> Report {
        let text = format!(
            r#"{{"version":1,"process":{{"version":"1","uptime_seconds":{uptime},"workers":[{{"busy_seconds":{uptime}}}]}},
            "pools":[{{"name":"p","listening":true,"shards_total":2,"shards_up":1,"metrics":{{"requests":{}}},"shards":[
            {{"name":"a","state":"up","metrics":{{"requests":{}}},"latency":{{"buckets":[{}]}}}},
            {{"name":"b","state":"down","reason":"connection refused","metrics":{{"requests":{}}}}}]}}]}}"#,
            requests[0] + requests[1],
            requests[0],
            requests[0],
            requests[1]
        );
        serde_json::from_str(&text).expect("a document")
    }

    fn view() -> View {
        let mut view = View::new(report(10.0, [100, 50]), None, false);
        view.take(Ok(report(12.0, [300, 1050])));
        view
    }

    #[test]
    fn what_has_happened_between_two_answers_is_shown_per_second_and_sorted() {
        let mut view = view();
        let lines = view.lines((200, 10));
        assert_eq!(lines.len(), 10);
        assert!(lines[0].contains("up 12s  workers 100% busy"), "{lines:#?}");
        assert!(lines[1].contains("p  1/2 up") && lines[1].contains(" 600 req/s"), "{lines:#?}");
        assert!(lines[3].contains("REQ/S*"), "{lines:#?}");
        assert!(
            lines[4].starts_with('b')
                && lines[4].contains(" 500 ")
                && lines[4].ends_with("connection refused")
        );
        assert!(lines[5].starts_with('a') && lines[5].contains(" 100 "), "{lines:#?}");
        assert!(!view.pressed(b"r", 10) && view.lines((200, 10))[4].starts_with('a'));
        for _ in 0..10 {
            assert!(!view.pressed(b"\x1b[C", 10));
        }
        assert_eq!(view.sort, Column::Shard);
        // After a restart there is nothing between.
        view.take(Ok(report(1.0, [5, 5])));
        assert!(view.lines((200, 10))[1].contains(" 0 req/s"));
        view.take(Err("no answer".into()));
        assert_eq!(view.lines((200, 10))[1], "no answer");
    }

    #[test]
    fn it_fits_into_any_terminal_and_takes_any_key() {
        let mut view = view();
        for width in [1, 10, 79, 300] {
            for height in [1, 2, 5, 50] {
                let lines = view.lines((width, height));
                assert!(
                    lines.len() == height && lines.iter().all(|line| line.chars().count() <= width),
                    "{lines:#?}"
                );
            }
        }
        for keys in [&b"\x1b[A"[..], b"jjjjkk", b" b", b"\t\t", b"\xff\x00", b"\x1b[99~"] {
            assert!(!view.pressed(keys, 24), "{keys:?}");
            view.lines((80, 24));
        }
        for keys in [&b"q"[..], b"\x03", b"jq"] {
            assert!(view.pressed(keys, 24), "{keys:?}");
        }
    }
}
