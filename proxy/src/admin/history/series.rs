//! Rows of figures, one for each sample, and what is made of a histogram.

use std::collections::VecDeque;
use std::fmt::Write as _;

use super::{Counts, SAMPLES_MAX};
use crate::metrics::Histogram;

/// Figures by sample; not a number where there is none.
pub struct Rows<const N: usize> {
    /// The sample of the first row.
    first: u64,
    rows: VecDeque<[f32; N]>,
}

impl<const N: usize> Default for Rows<N> {
    fn default() -> Self {
        Self { first: 0, rows: VecDeque::new() }
    }
}

impl<const N: usize> Rows<N> {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Those of one more sample; the oldest go.
    pub fn push(&mut self, sample: u64, row: [f32; N]) {
        if self.rows.is_empty() {
            self.first = sample;
        }
        if self.rows.len() == SAMPLES_MAX {
            self.rows.pop_front();
            self.first += 1;
        }
        self.rows.push_back(row);
    }

    /// Bytes that are allocated for them.
    pub fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<[f32; N]>()
    }

    /// Appends one column as JSON: an array of the samples from `from` to before `to`, with null where there is no figure.
    pub fn column(&self, column: usize, from: u64, to: u64, text: &mut String) {
        text.push('[');
        for sample in from..to {
            if sample > from {
                text.push(',');
            }
            let row = sample.checked_sub(self.first).and_then(|place| self.rows.get(place as usize));
            match row.map(|row| row[column]) {
                Some(value) if value.is_finite() => {
                    // Three digits behind the point of what is not small; more would be noise and bytes.
                    let value = if value < 1.0 { value } else { (value * 1000.0).round() / 1000.0 };
                    let _ = write!(text, "{value}");
                }
                _ => text.push_str("null"),
            }
        }
        text.push(']');
    }
}

/// The time in seconds that this share of the requests took at most, as between the bounds of the bucket; not a number if there
/// were none.
pub fn quantile(counts: &Counts, share: f64) -> f64 {
    let all: u64 = counts.iter().sum();
    if all == 0 {
        return f64::NAN;
    }
    let rank = share * all as f64;
    let mut below = 0.0;
    for (bucket, &count) in counts.iter().enumerate().take(Histogram::BOUNDS) {
        let count = count as f64;
        if below + count >= rank && count > 0.0 {
            let lower = if bucket == 0 { 0 } else { Histogram::bound(bucket - 1) } as f64;
            let upper = Histogram::bound(bucket) as f64;
            // Whole microseconds.
            return (lower + (upper - lower) * (rank - below) / count).round() / 1e6;
        }
        below += count;
    }
    // It took longer than the last bound.
    Histogram::bound(Histogram::BOUNDS - 1) as f64 / 1e6
}
