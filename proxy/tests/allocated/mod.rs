//! An allocator that counts what the thread at hand has allocated and not given back.
#![allow(unsafe_code, reason = "so an allocator is written")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's, counted.
struct Counted;

#[global_allocator]
static COUNTED: Counted = Counted;

thread_local! {
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

/// Bytes that the thread has allocated and not given back, with what the C library adds to each piece: its length, and what
/// is missing to whole 16 bytes.
pub fn bytes() -> isize {
    BYTES.get()
}

fn count(layout: Layout, sign: isize) {
    let bytes = (layout.size() + 8).next_multiple_of(16).max(32) as isize;
    // A thread that ends has none any more.
    let _ = BYTES.try_with(|all| all.set(all.get() + sign * bytes));
}

// Safety: all is as the system's allocator does it.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout, 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(layout, -1);
        unsafe { System.dealloc(place, layout) }
    }
}
