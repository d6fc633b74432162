//! Large buffers that are freed go back to the system in slices, so that nobody waits while it takes one back.
//!
//! glibc unmaps a large buffer at once where it is freed (mallopt(3), M_MMAP_THRESHOLD), which takes the kernel 1 to 2 ms for
//! one of 28 MB whose pages were touched: as long as all clients of the worker wait. A worker has them taken aside instead,
//! and gives back a slice of their pages in each of its passes ([`give_back_slice`]): more than it reads in one in turns, and more
//! where much is set aside. Threads that do not ask for this free at once.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

/// Buffers from this size on are returned to the system when they are freed, and grow without a copy. Bytes.
pub const LARGE_MIN: usize = 2 << 20;
/// So many bytes are given back in a pass, or this share of what is set aside, if that is more: however much is freed in a pass, no
/// more than so many times that is held.
const SLICE: usize = 1 << 20;
const SHARE: usize = 32;

/// The allocator of the process: that of the system, but for what this module says.
#[derive(Debug)]
pub struct Allocator;

/// A large buffer that is free. It stands at the beginning of the buffer itself.
struct Freed {
    next: *mut Freed,
    layout: Layout,
    /// So many bytes at its beginning may have pages.
    held: usize,
}

thread_local! {
    /// Whether this thread gives back in slices.
    static IN_SLICES: Cell<bool> = const { Cell::new(false) };
    static FIRST: Cell<*mut Freed> = const { Cell::new(ptr::null_mut()) };
    /// Bytes set aside.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all is done by the allocator of the system, and each of its blocks goes back to it once, with its layout. A block
// that is freed belongs to nobody until then: what stands in it is ours.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe { System.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe { System.realloc(block, layout, size) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.size() >= LARGE_MIN && IN_SLICES.get() {
            unsafe { take_aside(block, layout) }
        } else {
            unsafe { System.dealloc(block, layout) }
        }
    }
}

/// # Safety
/// The block is one of the system's allocator with this layout, of [`LARGE_MIN`] bytes or more, and nobody uses it any more.
#[cold]
#[allow(unsafe_code)]
unsafe fn take_aside(block: *mut u8, layout: Layout) {
    let freed = block.cast::<Freed>();
    if freed.is_aligned() {
        // SAFETY: so large a block has room for it, and it is ours.
        unsafe { freed.write(Freed { next: FIRST.get(), layout, held: layout.size() }) };
        FIRST.set(freed);
        HELD.set(HELD.get() + layout.size());
    } else {
        // SAFETY: see above.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Gives back a slice of what the calling thread has taken aside. True if there is more.
#[inline]
pub fn give_back_slice() -> bool {
    !FIRST.get().is_null() && give_back(SLICE.max(HELD.get() / SHARE))
}

/// Gives back so many bytes, from the end of each buffer on. True if there is more.
#[cold]
#[allow(unsafe_code)]
fn give_back(mut bytes: usize) -> bool {
    let page = rustix::param::page_size();
    while let Some(freed) = ptr::NonNull::new(FIRST.get()) {
        let block = freed.cast::<u8>().as_ptr();
        // SAFETY: what the list leads to are records that `take_aside` has written, on this thread.
        let record = unsafe { &mut *freed.as_ptr() };
        // The record is not given back before the block is.
        if record.held <= bytes + page {
            let layout = record.layout;
            FIRST.set(record.next);
            HELD.set(HELD.get() - record.held);
            bytes = bytes.saturating_sub(record.held);
            // SAFETY: it came from there with this layout, and is in the list no more.
            unsafe { System.dealloc(block, layout) };
        } else {
            let end = (block as usize + record.held) / page * page;
            // No whole page may be left of what is to be given back.
            let begin = (block as usize + record.held - bytes).next_multiple_of(page).min(end);
            let held = begin - block as usize;
            HELD.set(HELD.get() - (record.held - held));
            record.held = held;
            // SAFETY: whole pages inside the block, behind the record. Where it is refused they go with the block.
            unsafe { libc::madvise(begin as *mut libc::c_void, end - begin, libc::MADV_DONTNEED) };
            return true;
        }
        if bytes == 0 {
            break;
        }
    }
    !FIRST.get().is_null()
}

/// From now on the calling thread gives large buffers back in slices, until this is dropped.
#[derive(Debug)]
pub struct InSlices(());

impl InSlices {
    /// Begins with it.
    #[must_use]
    pub fn begin() -> Self {
        IN_SLICES.set(true);
        Self(())
    }
}

impl Drop for InSlices {
    fn drop(&mut self) {
        IN_SLICES.set(false);
        while give_back_slice() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 8 << 20;

    fn layout() -> Layout {
        Layout::from_size_align(SIZE, 1).expect("a size")
    }

    /// A block whose pages are all touched.
    #[allow(unsafe_code)]
    fn touched() -> *mut u8 {
        // SAFETY: the size is not 0, and all of the block is written.
        unsafe {
            let block = Allocator.alloc(layout());
            block.write_bytes(1, SIZE);
            block
        }
    }

    #[allow(unsafe_code)]
    fn free(block: *mut u8) {
        // SAFETY: it was allocated with this layout.
        unsafe { Allocator.dealloc(block, layout()) }
    }

    /// How many whole pages of the block are in memory.
    #[allow(unsafe_code)]
    fn resident(block: *mut u8) -> usize {
        let page = rustix::param::page_size();
        let begin = (block as usize).next_multiple_of(page);
        let mut pages = vec![0_u8; SIZE / page - 1];
        // SAFETY: the pages are mapped, and there is a byte for each.
        let asked = unsafe { libc::mincore(begin as *mut _, pages.len() * page, pages.as_mut_ptr()) };
        assert_eq!(asked, 0, "the block is mapped");
        pages.iter().filter(|&&page| page & 1 == 1).count() * page
    }

    #[test]
    fn pages_go_back_a_slice_at_a_time() {
        let thread = InSlices::begin();
        let blocks = [touched(), touched()];
        blocks.into_iter().for_each(free);
        assert!(
            resident(blocks[0]) + resident(blocks[1]) > 2 * SIZE - SLICE / 4,
            "nothing is given back yet"
        );
        let mut left = 2 * SIZE;
        for _ in 0..SIZE / SLICE - 2 {
            assert!(give_back_slice());
            left -= SLICE;
            let held = resident(blocks[0]) + resident(blocks[1]);
            assert!(held.abs_diff(left) < SLICE / 4, "{held} bytes, {left} expected");
        }
        let mut slices = 0;
        while give_back_slice() {
            slices += 1;
        }
        assert!((SIZE / SLICE..SIZE / SLICE + 2).contains(&slices), "{slices} slices of the other");
        assert!(!give_back_slice());
        drop(thread);
    }

    #[test]
    fn nothing_is_left_where_a_thread_ends_with_it() {
        let thread = InSlices::begin();
        free(touched());
        drop(thread);
        assert!(FIRST.get().is_null());
        free(touched());
        assert!(FIRST.get().is_null(), "this thread frees at once");
    }

    /// Whatever is left of a slice for the next buffer, no page behind that is given back.
    #[test]
    #[allow(unsafe_code)]
    fn what_is_held_of_a_buffer_only_shrinks() {
        let thread = InSlices::begin();
        let page = rustix::param::page_size();
        for little in (0..2 * page).step_by(page / 16 - 12) {
            let sizes = [8 * SLICE + 100, 3 * SLICE - little];
            for size in sizes {
                let layout = Layout::from_size_align(size, 1).expect("a size");
                // SAFETY: the size is not 0, and it is freed once, with its layout.
                unsafe { Allocator.dealloc(Allocator.alloc(layout), layout) };
            }
            let mut before = HELD.get();
            while give_back_slice() {
                // SAFETY: it is the first of this thread's list.
                let first = unsafe { &*FIRST.get() };
                assert!(first.held <= first.layout.size(), "{little}: {} of {:?}", first.held, first.layout);
                assert!(HELD.get() < before, "{little}");
                before = HELD.get();
            }
            assert_eq!(HELD.get(), 0);
        }
        drop(thread);
    }
}
