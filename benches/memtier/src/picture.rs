//! Grouped bars as SVG. Bars of one group share a scale and groups do not: a pipeline of 100 next to one of 1
//! would leave the latter without any height, and it is the bars within a group that are compared.

use std::fmt::Write;

/// A page of charts with one legend.
pub struct Picture {
    /// Above everything.
    pub title: String,
    /// Below everything, small.
    pub foot: Vec<String>,
    /// What the bars of each group stand for.
    pub series: Vec<Series>,
    /// From top to bottom.
    pub charts: Vec<Chart>,
}

/// One colour of bar.
pub struct Series {
    /// In the legend.
    pub name: String,
    /// As SVG writes it.
    pub colour: &'static str,
}

/// One row of groups.
pub struct Chart {
    /// What is shown, in which unit, and which way is better.
    pub title: String,
    /// The groups, from left to right.
    pub groups: Vec<Group>,
}

/// The bars of one workload.
pub struct Group {
    /// Below the bars.
    pub label: String,
    /// As many as there are series; a bar without a value is left out.
    pub bars: Vec<Option<f64>>,
}

const MARGIN: usize = 24;
const HEADER: usize = 84;
const CHART: usize = 210;
const BARS: usize = 130;
const BAR: usize = 42;
const GAP: usize = 30;
const FOOT_LINE: usize = 16;

impl Picture {
    /// The picture as a file's text.
    pub fn svg(&self) -> String {
        let group = self.series.len() * BAR + GAP;
        let groups = self.charts.iter().map(|chart| chart.groups.len()).max().unwrap_or(0);
        let width = (2 * MARGIN + groups * group).max(760);
        let height = HEADER + self.charts.len() * CHART + self.foot.len() * FOOT_LINE + MARGIN;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"Helvetica, Arial, sans-serif\" fill=\"#222222\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fdfdfb\"/>\n"
        );
        text(&mut svg, MARGIN, 36, "font-size=\"20\" font-weight=\"bold\"", &self.title);
        let mut left = MARGIN;
        for series in &self.series {
            let _ = writeln!(
                svg,
                "<rect x=\"{left}\" y=\"52\" width=\"14\" height=\"14\" fill=\"{}\"/>",
                series.colour
            );
            text(&mut svg, left + 20, 64, "font-size=\"13\"", &series.name);
            left += 50 + series.name.chars().count() * 8;
        }
        for (number, chart) in self.charts.iter().enumerate() {
            self.chart(&mut svg, chart, HEADER + number * CHART, width);
        }
        for (number, line) in self.foot.iter().enumerate() {
            let top = HEADER + self.charts.len() * CHART + (number + 1) * FOOT_LINE;
            text(&mut svg, MARGIN, top, "font-size=\"11\" fill=\"#666666\"", line);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn chart(&self, svg: &mut String, chart: &Chart, top: usize, width: usize) {
        text(svg, MARGIN, top + 16, "font-size=\"14\" font-weight=\"bold\"", &chart.title);
        let floor = top + 44 + BARS;
        let group_width = self.series.len() * BAR + GAP;
        for (number, group) in chart.groups.iter().enumerate() {
            let left = MARGIN + number * group_width + GAP / 2;
            let highest = group.bars.iter().flatten().copied().fold(0.0, f64::max);
            for (place, (value, series)) in group.bars.iter().zip(&self.series).enumerate() {
                let Some(value) = *value else { continue };
                // A memory that shrank is below zero; the number says so, the bar has no height.
                let share = if highest > 0.0 { (value / highest).max(0.0) } else { 0.0 };
                let bar = share * BARS as f64;
                let (x, y) = (left + place * BAR, floor as f64 - bar);
                let _ = writeln!(
                    svg,
                    "<rect x=\"{}\" y=\"{y:.1}\" width=\"{}\" height=\"{bar:.1}\" fill=\"{}\"/>",
                    x + 3,
                    BAR - 6,
                    series.colour
                );
                let label = short(value);
                let middle = "font-size=\"11\" text-anchor=\"middle\"";
                text(svg, x + BAR / 2, (y - 4.0) as usize, middle, &label);
            }
            let centre = left + self.series.len() * BAR / 2;
            text(svg, centre, floor + 17, "font-size=\"12\" text-anchor=\"middle\"", &group.label);
        }
        let _ = writeln!(
            svg,
            "<line x1=\"{MARGIN}\" y1=\"{floor}\" x2=\"{}\" y2=\"{floor}\" stroke=\"#888888\"/>",
            width - MARGIN
        );
    }
}

fn text(svg: &mut String, x: usize, y: usize, style: &str, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" {style}>{content}</text>");
}

/// A number in few characters: three digits that count, and k or M behind them.
pub fn short(value: f64) -> String {
    let (scaled, suffix) = match value.abs() {
        size if size >= 999_500.0 => (value / 1e6, "M"),
        size if size >= 9_995.0 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    match scaled.abs() {
        size if size >= 99.95 => format!("{scaled:.0}{suffix}"),
        size if size >= 9.995 => format!("{scaled:.1}{suffix}"),
        _ => format!("{scaled:.2}{suffix}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every tag is closed in turn, attributes are quoted, and nothing is left unescaped.
    fn check_well_formed(xml: &str) {
        let mut open: Vec<&str> = Vec::new();
        let mut rest = xml;
        while let Some(start) = rest.find('<') {
            assert!(!rest[..start].contains('>'), "a stray > before {}", &rest[start..]);
            for entity in rest[..start].split('&').skip(1) {
                assert!(["amp;", "lt;", "gt;"].iter().any(|known| entity.starts_with(known)), "{entity}");
            }
            let end = start + rest[start..].find('>').expect("a tag that ends");
            let tag = &rest[start + 1..end];
            assert_eq!(tag.matches('"').count(), 2 * tag.matches('=').count(), "{tag}");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split(' ').next().unwrap()),
            }
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest:?}");
    }

    fn picture() -> Picture {
        let series = |name: &str, colour| Series { name: name.to_owned(), colour };
        let group = |label: &str, bars: &[Option<f64>]| Group { label: label.to_owned(), bars: bars.into() };
        Picture {
            title: "a < b & \"c\" > d".to_owned(),
            foot: vec!["AT&T".to_owned()],
            series: vec![series("one", "#111111"), series("two", "#222222")],
            charts: vec![Chart {
                title: "requests".to_owned(),
                groups: vec![group("x", &[Some(1.0), Some(4.0)]), group("y", &[None, Some(-3.0)])],
            }],
        }
    }

    #[test]
    fn a_picture_is_well_formed() {
        check_well_formed(&picture().svg());
        check_well_formed(&Picture { charts: Vec::new(), ..picture() }.svg());
    }

    #[test]
    fn bars_are_as_high_as_their_share_of_the_group() {
        let svg = picture().svg();
        assert!(svg.contains("height=\"130.0\" fill=\"#222222\""), "{svg}");
        assert!(svg.contains("height=\"32.5\" fill=\"#111111\""), "{svg}");
        // Below zero, and nothing at all.
        assert_eq!(svg.matches("height=\"0.0\"").count(), 1);
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0.00"),
            (5.126, "5.13"),
            (42.0, "42.0"),
            (999.6, "1000"),
            (123_456.0, "123k"),
            (54_321.0, "54.3k"),
            (999_600.0, "1.00M"),
            (-12_000.0, "-12.0k"),
        ];
        for (value, expected) in cases {
            assert_eq!(short(value), expected);
        }
    }
}
