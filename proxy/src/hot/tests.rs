#![cfg(test)]

use super::*;

fn book() -> Book {
    Book { sample: 1, ..Book::new() }
}

fn see(book: &mut Book, command: &str, key: &str, bytes: usize, now: Time) {
    let keys = std::iter::once(key.as_bytes());
    book.plan(Look { command: command.as_bytes(), keys, count: 1, bytes, reads: false });
    book.taken(1, 1, true, now);
}

fn at(seconds: u64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

#[test]
fn what_was_hot_long_ago_is_forgotten() {
    let account = Account::new(usize::MAX);
    let hot = HotKeys::new(1, &account);
    hot.set_sample(0, 1);
    let told = |now| {
        let report = hot.report_at(10, now);
        (report.keys.iter().map(|found| found.most).collect::<Vec<_>>(), report.large_requests.len())
    };
    see(&mut hot.open(0), "get", "a", LARGE_MIN, at(0));
    see(&mut hot.open(0), "get", "a", 10, at(59));
    assert_eq!(told(at(59)), (vec![2], 1));
    see(&mut hot.open(0), "get", "a", 10, at(61));
    assert_eq!(told(at(61)), (vec![3], 1));
    assert_eq!(told(at(119)), (vec![3], 1));
    assert_eq!(told(at(122)), (vec![1], 0));
    assert_eq!(told(at(300)), (vec![], 0));
    see(&mut hot.open(0), "get", "a", 10, at(310));
    assert_eq!(told(at(1000)), (vec![], 0), "a pool that is idle has no hot keys");
}

#[test]
fn the_largest_are_kept_each_once() {
    let mut book = book();
    for size in 0..1000usize {
        see(&mut book, "set", &format!("key:{}", size % 100), LARGE_MIN + size, at(1));
    }
    let largest = &book.spans[0].largest[0];
    assert_eq!(largest.len(), LARGEST_MAX);
    let mut sizes: Vec<u64> = largest.iter().map(|large| large.bytes - LARGE_MIN as u64).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, (984..1000).collect::<Vec<u64>>());
}

#[test]
fn what_is_held_is_bounded_whatever_is_seen() {
    let mut book = book();
    let long = "k".repeat(1_000);
    for number in 0..3_000u32 {
        let key = format!("{number}{long}");
        let keys = std::iter::repeat_n(key.as_bytes(), 200);
        book.plan(Look { command: key.as_bytes(), keys, count: 200, bytes: 1 << 30, reads: true });
        book.taken(u64::from(number), number, true, at(u64::from(number) / 100));
        book.replied(u64::from(number), number, 1 << 30, at(u64::from(number) / 100));
        assert!(book.bytes() < 400_000, "{}", book.bytes());
        if number == 1000 {
            assert!(book.pending.text.capacity() < 2 * COUNTED_MAX * SHOWN_MAX);
        }
    }
}

#[test]
fn whoever_reads_the_book_is_not_waited_for() {
    let hot = HotKeys::new(2, &Account::new(usize::MAX));
    let reading = hot.open(0);
    assert!(hot.try_open(0).is_none() && hot.try_open(1).is_some());
    drop(reading);
    assert!(hot.try_open(0).is_some());
}
