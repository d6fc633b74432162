//! The words of a line, and the numbers among them.

use std::ops::Range;

use memchr::{memchr, memchr2};

/// Words that are remembered by their place; the rest is walked again where it is needed.
const HEAD: usize = 8;

/// The words of a line.
#[derive(Default, Debug)]
pub(super) struct Words {
    pub(super) count: usize,
    head: [(u32, u32); HEAD],
    /// Where the line ends, CR and LF not included.
    pub(super) line_end: usize,
    /// Length of the longest word.
    pub(super) longest: usize,
    /// The line has a byte that no line may have.
    pub(super) foul: bool,
}

impl Words {
    /// Finds the words of a line: what stands between spaces.
    #[inline]
    pub(super) fn of(line: &[u8]) -> Self {
        let mut words =
            Self { line_end: line.len(), foul: memchr2(0, b'\r', line).is_some(), ..Self::default() };
        let mut start = 0;
        while start < line.len() {
            let end = memchr(b' ', &line[start..]).map_or(line.len(), |length| start + length);
            if start < end {
                words.push(start, end);
            }
            start = end + 1;
        }
        words
    }

    #[inline]
    fn push(&mut self, start: usize, end: usize) {
        if let Some(place) = self.head.get_mut(self.count) {
            *place = (start as u32, end as u32);
        }
        self.count += 1;
        self.longest = self.longest.max(end - start);
    }

    /// Whether spaces stand in front of the first one.
    #[inline]
    pub(super) fn is_indented(&self) -> bool {
        self.head[0].0 > 0
    }

    /// Where one of the first words stands.
    #[inline]
    pub(super) fn place(&self, index: usize) -> Option<Range<usize>> {
        let &(start, end) = self.head[..self.count.min(HEAD)].get(index)?;
        Some(start as usize..end as usize)
    }
}

/// The words of a line, in order.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        loop {
            let end = memchr(b' ', rest).unwrap_or(rest.len());
            let (word, tail) = rest.split_at(end);
            rest = tail.get(1..).unwrap_or_default();
            if !word.is_empty() {
                return Some(word);
            }
            if rest.is_empty() {
                return None;
            }
        }
    })
}

/// A number as C's `strtoll` reads it, and nothing after it.
pub(super) fn number(word: &[u8]) -> Option<i64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// A number as C's `strtoull` reads it, but for a sign.
pub(super) fn unsigned(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}
