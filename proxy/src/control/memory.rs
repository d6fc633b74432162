//! Giving back memory that a burst needed.
//!
//! glibc keeps what was freed for the next request, for ever. Other allocators return it sooner, but cost every idle client
//! more: with mimalloc a process began at 14 MB instead of 4, and an idle client took 1,000 bytes instead of 590. So this
//! asks glibc from time to time, and more seldom while that brings nothing.
//!
//! Large buffers are mappings of their own. glibc would raise that threshold by itself up to 32 MiB, with every large buffer
//! that is freed (mallopt(3), M_MMAP_THRESHOLD), and then keep the holes between those of clients that come and go.

use std::sync::Arc;
use std::time::Duration;

use crate::account::Account;
#[cfg(target_env = "gnu")]
use crate::freed::LARGE_MIN;

/// Growth that is worth a look.
const GROWTH_MIN: u64 = 8 << 20;
/// Shortest and longest pause between two looks.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// See there.
#[cfg(target_env = "gnu")]
const MAPPED_MIN: libc::c_int = LARGE_MIN as libc::c_int;
/// So much free memory at the end of the heap is kept at once. Twice the other one, as glibc keeps them.
#[cfg(target_env = "gnu")]
const KEPT_MAX: libc::c_int = 2 * MAPPED_MIN;

/// Sets the allocator up. Before the workers start.
#[cfg(target_env = "gnu")]
pub fn set_up() {
    // SAFETY: it takes the allocator's lock; values that are refused change nothing.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_MIN);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_MAX);
    }
}

/// Nothing to set up.
#[cfg(not(target_env = "gnu"))]
pub fn set_up() {}

/// Returns freed memory to the system for ever. What the account holds is in use, and is left out: to look for holes takes the
/// allocator away from a worker for milliseconds, in vain while clients keep it busy.
pub async fn give_back(account: Arc<Account>) {
    let idle = || resident().saturating_sub(account.held() as u64);
    let mut floor = idle();
    let mut pause = PAUSE_MIN;
    loop {
        tokio::time::sleep(pause).await;
        let before = idle();
        floor = floor.min(before);
        if before < floor + GROWTH_MIN {
            pause = PAUSE_MIN;
            continue;
        }
        trim();
        let after = idle();
        floor = floor.min(after);
        let worthwhile = before.saturating_sub(after) > (before - floor) / 4;
        pause = if worthwhile { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
    }
}

/// Bytes of memory in use by the process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: it has no requirements and may be called from any thread.
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}
