//! The program's heap: large blocks come back to the system when a stage is over, and are used again until then.
//!
//! glibc returns freed memory too late (32 MiB a block, an arena for each thread) or too early: mapping and unmapping
//! every activation cost a fifth of a step's time in page faults. [`Heap`] keeps freed large blocks for the next requests,
//! joined with free neighbours and cut to size, but never more than is free below the most that was in use at once: so it
//! does not raise the process's peak, whatever comes and goes.
//!
//! A program declares [`Heap`] as its `#[global_allocator]`, calls [`configure_malloc`] first in `main`, and [`trim`] whenever
//! much of its memory has become free for a while.

#![warn(clippy::unwrap_used)]

mod cache;
mod pages;
mod program;

use std::alloc::{GlobalAlloc, Layout, System};

use cache::cache;

/// Blocks from this size on are large, bytes: rows of the autoencoder's images wait in blocks of a quarter of a mebibyte.
const LARGE: usize = 128 << 10;
/// Sizes of large blocks are whole pages, and from this size on multiples of `GRAIN`, bytes.
const COARSE: usize = 1 << 20;
/// So almost equal requests can reuse each other's blocks, bytes.
const GRAIN: usize = 64 << 10;
/// Every large block is aligned to this; what wants more is left to the system.
const ALIGN: usize = 64;
/// Blocks from this size on are mapped by themselves, bytes: a network's weights, freed, leave no holes.
const MAPPED: usize = 64 << 10;
/// More free memory than this at the end of what is not mapped by itself is given back, bytes.
const TRIMMED: usize = 256 << 10;
/// The allocator; a program declares it as its `#[global_allocator]`.
#[derive(Debug)]
pub struct Heap;

/// Bytes of the block that a large request gets; `None` for a small one.
fn large(layout: Layout) -> Option<usize> {
    let grain = if layout.size() < COARSE { pages::page() } else { GRAIN.max(pages::page()) };
    let is_large = layout.size() >= LARGE && layout.align() <= ALIGN;
    if is_large { layout.size().checked_next_multiple_of(grain) } else { None }
}

/// Bytes that a block of the system's counts: those of a small one, which is not mapped by itself, do not.
fn counted(layout: Layout) -> usize {
    if layout.size() >= MAPPED { layout.size() } else { 0 }
}

/// Counts a block of the system's. It was not touched yet, so what is kept can still make room for it.
fn count_new(address: *mut u8, layout: Layout) -> *mut u8 {
    if !address.is_null() && counted(layout) > 0 {
        cache().count(counted(layout));
    }
    address
}

// SAFETY: small blocks are the system's. A large block was mapped, at least as large and as aligned as its layout wants; it is in
// the program's hands or in `kept`, never in both. Nothing here panics or allocates.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match large(layout) {
            Some(block) => cache().take(block).0,
            // SAFETY: the caller's promises about `layout` are the system's demands.
            None => count_new(unsafe { System.alloc(layout) }, layout),
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(block) = large(layout) else {
            // SAFETY: the caller's promises about `layout` are the system's demands.
            return count_new(unsafe { System.alloc_zeroed(layout) }, layout);
        };
        let (address, new) = cache().take(block);
        if !new {
            // SAFETY: the block is at least as large.
            unsafe { address.write_bytes(0, layout.size()) };
        }
        address
    }

    unsafe fn realloc(&self, address: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size does not overflow with this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (large(layout), large(wanted)) {
            (None, None) => {
                // SAFETY: the block is the system's, and so is the new one to be.
                let moved = unsafe { System.realloc(address, layout, size) };
                if !moved.is_null() && (counted(layout), counted(wanted)) != (0, 0) {
                    let mut cache = cache();
                    cache.forget(counted(layout));
                    cache.count(counted(wanted));
                }
                moved
            }
            (Some(block), Some(other)) if block == other => address,
            _ => {
                // SAFETY: both layouts are right, and the smaller one's bytes are within both blocks.
                unsafe {
                    let moved = self.alloc(wanted);
                    if !moved.is_null() {
                        moved.copy_from_nonoverlapping(address, layout.size().min(size));
                        self.dealloc(address, layout);
                    }
                    moved
                }
            }
        }
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        if let Some(block) = large(layout) {
            return cache().keep(address, block);
        }
        if counted(layout) > 0 {
            cache().forget(counted(layout));
        }
        // SAFETY: the block came from the system with this layout.
        unsafe { System.dealloc(address, layout) }
    }
}

/// Sets the system's allocator up for the whole process: blocks from 64 KiB on are mapped by themselves, free memory is given
/// back early, and all threads share one arena. To be called first in `main`, before other threads are started.
pub fn configure_malloc() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in
        [(libc::M_MMAP_THRESHOLD, MAPPED as i32), (libc::M_TRIM_THRESHOLD, TRIMMED as i32), (libc::M_ARENA_MAX, 1)]
    {
        // SAFETY: changes three numbers that later allocations go by.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives all free memory back to the system, and the pages of the program that it can map again when it uses them.
pub fn trim() {
    program::release();
    cache().release_all();
    #[cfg(all(target_env = "gnu", not(miri)))]
    // SAFETY: takes the heap's own locks and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    const BLOCK: usize = 40 * GRAIN;
    /// More than any system has.
    const IMPOSSIBLE: usize = isize::MAX as usize - (1 << 20);

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, ALIGN).unwrap()
    }

    /// Bytes in use, kept, and at the peak.
    fn figures() -> (usize, usize, usize) {
        let cache = cache();
        (cache.in_use, cache.free, cache.peak)
    }

    /// The cache is one: its tests come one after the other, each with nothing in use.
    fn alone(test: impl FnOnce()) {
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        trim();
        assert_eq!(figures(), (0, 0, 0));
        test();
        trim();
        assert_eq!(figures(), (0, 0, 0));
    }

    /// What is freed is kept for the same size, never beyond the peak.
    #[test]
    fn blocks_are_used_again_and_never_raise_the_peak() {
        // SAFETY: every block is written within its size, and freed once with its layout.
        alone(|| unsafe {
            let first = Heap.alloc(layout(BLOCK - 5));
            first.write_bytes(7, BLOCK - 5);
            Heap.dealloc(first, layout(BLOCK - 5));
            assert_eq!(Heap.alloc_zeroed(layout(BLOCK)), first, "almost the same size is the same block");
            assert!((0..BLOCK).step_by(97).all(|i| *first.add(i) == 0));

            let grown = Heap.realloc(first, layout(BLOCK), 2 * BLOCK);
            assert!((0..BLOCK).step_by(97).all(|i| *grown.add(i) == 0));
            assert_eq!(figures(), (2 * BLOCK, BLOCK, 3 * BLOCK), "the old block is kept: both were in use");
            Heap.dealloc(grown, layout(2 * BLOCK));
            assert_eq!(figures(), (0, 3 * BLOCK, 3 * BLOCK));

            let large = Heap.alloc(layout(2 * BLOCK + GRAIN));
            let (in_use, free, peak) = figures();
            assert_eq!((in_use, peak), (2 * BLOCK + GRAIN, 3 * BLOCK));
            assert!(free <= peak - in_use, "room is made: {free} are kept");
            Heap.dealloc(large, layout(2 * BLOCK + GRAIN));
            let small = Heap.realloc(Heap.alloc(layout(100)), layout(100), 200);
            Heap.dealloc(small, layout(200));
        });
    }

    /// A request is cut off a larger block, and what is free again is joined.
    #[test]
    #[cfg_attr(miri, ignore = "Miri's system frees a block only as a whole")]
    fn blocks_are_cut_and_joined() {
        // SAFETY: every block is written within its size, and freed once with its layout.
        alone(|| unsafe {
            let whole = Heap.alloc(layout(3 * BLOCK));
            for order in [[0, 1, 2], [2, 0, 1], [0, 2, 1]] {
                Heap.dealloc(whole, layout(3 * BLOCK));
                let parts = [0, 1, 2].map(|_| Heap.alloc(layout(BLOCK)));
                assert_eq!(parts, [0, 1, 2].map(|part| whole.wrapping_add(part * BLOCK)));
                parts.iter().for_each(|part| part.write_bytes(7, BLOCK));
                order.into_iter().for_each(|part| Heap.dealloc(parts[part], layout(BLOCK)));
                assert_eq!(figures(), (0, 3 * BLOCK, 3 * BLOCK));
                assert_eq!(Heap.alloc_zeroed(layout(3 * BLOCK)), whole);
                assert!((0..3 * BLOCK).step_by(97).all(|i| *whole.add(i) == 0));
            }
            Heap.dealloc(whole, layout(3 * BLOCK));
        });
    }

    /// Where no free block is large enough, the oldest make room: whole ones, and the last to the end of a huge page.
    #[test]
    #[cfg_attr(miri, ignore = "Miri's system frees a block only as a whole")]
    fn no_more_is_given_back_than_makes_room() {
        let huge = pages::huge_page();
        // SAFETY: every block is written within its size, and freed once with its layout.
        alone(|| unsafe {
            let [first, held, last] = [4 * huge, huge, 4 * huge].map(|size| Heap.alloc(layout(size)));
            Heap.dealloc(first, layout(4 * huge));
            Heap.dealloc(last, layout(4 * huge));
            let large = Heap.alloc(layout(5 * huge - GRAIN));
            assert_eq!(figures(), (6 * huge - GRAIN, 3 * huge, 9 * huge));
            assert_eq!(Heap.alloc(layout(3 * huge)), last);
            [0, 3 * huge - 1].into_iter().for_each(|at| last.add(at).write(7));
            for (block, size) in [(held, huge), (large, 5 * huge - GRAIN), (last, 3 * huge)] {
                Heap.dealloc(block, layout(size));
            }
        });
    }

    /// What the system refuses was never in use: no counter, and not the peak, may remember it.
    #[test]
    fn a_refused_block_is_not_counted() {
        // SAFETY: every block is freed once, with the layout that it has.
        alone(|| unsafe {
            let held = Heap.alloc(layout(BLOCK));
            let before = figures();
            assert!(Heap.alloc(layout(IMPOSSIBLE)).is_null());
            assert!(Heap.alloc_zeroed(layout(IMPOSSIBLE)).is_null());
            assert!(Heap.realloc(held, layout(BLOCK), IMPOSSIBLE).is_null());
            assert_eq!(figures(), before, "large blocks");
            Heap.dealloc(held, layout(BLOCK));
        });
    }

    /// The same of blocks of the system's: a stricter alignment than large blocks have makes these its affair.
    #[test]
    #[cfg_attr(miri, ignore = "Miri ends a program that wants too much")]
    fn a_refused_block_of_the_systems_is_not_counted() {
        // SAFETY: every block is freed once, with the layout that it has.
        alone(|| unsafe {
            let strict = |size| Layout::from_size_align(size, 4096).unwrap();
            let middling = Heap.alloc(strict(MAPPED));
            let before = figures();
            assert!(Heap.alloc(strict(IMPOSSIBLE)).is_null());
            assert!(Heap.alloc_zeroed(strict(IMPOSSIBLE)).is_null());
            assert!(Heap.realloc(middling, strict(MAPPED), IMPOSSIBLE).is_null());
            assert_eq!(figures(), before, "blocks of the system's");
            Heap.dealloc(middling, strict(MAPPED));
        });
    }

    /// Blocks that are mapped by themselves count while they are held, whatever they grow to.
    #[test]
    fn middling_blocks_are_counted_while_they_are_held() {
        // SAFETY: every block is freed once, with the layout that it has.
        alone(|| unsafe {
            let small = Heap.alloc(layout(100));
            assert_eq!(figures().0, 0);
            let middling = Heap.realloc(small, layout(100), MAPPED);
            assert_eq!(figures().0, MAPPED);
            let more = Heap.realloc(middling, layout(MAPPED), LARGE - 1);
            assert_eq!(figures(), (LARGE - 1, 0, LARGE - 1));
            let less = Heap.realloc(more, layout(LARGE - 1), 50);
            assert_eq!(figures().0, 0);
            Heap.dealloc(less, layout(50));
        });
    }
}
