//! The program's heap: large blocks come back to the system when a stage is over, and are used again until then.
//!
//! glibc gives freed memory back too late (32 MiB a block, an arena for each thread) or too early: mapping and unmapping
//! every activation cost a fifth of a step's time in page faults. `Heap` keeps freed large blocks for the next request of
//! the same size, but never more than is free below the most that was in use at once: so it does not raise the process's
//! peak, whatever comes and goes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::pages;

/// Blocks from this size on are large, bytes.
const LARGE: usize = 1 << 20;
/// Sizes of large blocks are multiples of this, so that almost equal ones can stand in for each other, bytes.
const GRAIN: usize = 64 << 10;
/// Every large block is aligned to this; what wants more is left to the system.
const ALIGN: usize = 64;
/// Blocks from this size on are mapped by themselves, bytes: a network's weights, freed, leave no holes.
const MAPPED: usize = 64 << 10;
/// More free memory than this at the end of what is not mapped by itself is given back, bytes.
const TRIMMED: usize = 256 << 10;
/// Free blocks that are kept at most.
const KEPT: usize = 64;

/// The allocator; a program declares it as its `#[global_allocator]`.
#[derive(Debug)]
pub struct Heap;

static CACHE: Mutex<Cache> =
    Mutex::new(Cache { kept: [const { Block::NONE }; KEPT], in_use: 0, free: 0, peak: 0, clock: 0 });

/// A free large block.
#[derive(Clone, Copy)]
struct Block {
    address: *mut u8,
    size: usize,
    /// When it was freed.
    stamp: u64,
}

impl Block {
    const NONE: Block = Block { address: null_mut(), size: 0, stamp: 0 };
}

struct Cache {
    kept: [Block; KEPT],
    /// Bytes of mapped blocks that the program holds, large or not.
    in_use: usize,
    /// Bytes of `kept`.
    free: usize,
    /// The largest `in_use` since the last `trim`.
    peak: usize,
    clock: u64,
}

// SAFETY: the addresses in `kept` are of blocks that nobody else knows of.
unsafe impl Send for Cache {}

fn cache() -> MutexGuard<'static, Cache> {
    CACHE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of the block that a large request gets; `None` for a small one.
fn large(layout: Layout) -> Option<usize> {
    let is_large = layout.size() >= LARGE && layout.align() <= ALIGN;
    if is_large { layout.size().checked_next_multiple_of(GRAIN) } else { None }
}

/// A new large block, which `cache` has counted.
fn new(size: usize) -> *mut u8 {
    let address = pages::map(size);
    if address.is_null() {
        cache().in_use -= size;
    }
    address
}

/// Counts a block that is not large, but mapped by itself, as in use.
fn count_middling(layout: Layout) {
    if layout.size() >= MAPPED {
        cache().count(layout.size());
    }
}

/// No longer counts such a block.
fn forget_middling(layout: Layout) {
    if layout.size() >= MAPPED {
        cache().in_use -= layout.size();
    }
}

impl Cache {
    /// Counts a block as in use. What is kept goes where both together would be more than was in use at the peak.
    fn count(&mut self, size: usize) {
        self.in_use += size;
        self.peak = self.peak.max(self.in_use);
        while self.in_use + self.free > self.peak {
            self.release_oldest();
        }
    }

    /// Takes out a kept block of this size, or makes room for a new one. Counts it as in use.
    fn take(&mut self, size: usize) -> *mut u8 {
        if let Some(block) = self.kept.iter_mut().find(|block| block.size == size) {
            let address = block.address;
            *block = Block::NONE;
            self.free -= size;
            self.count(size);
            return address;
        }
        self.count(size);
        null_mut()
    }

    /// Keeps a block that the program frees: what is in use and what is kept are together what they were before.
    fn keep(&mut self, address: *mut u8, size: usize) {
        self.in_use -= size;
        if self.kept.iter().all(|block| block.size != 0) {
            self.release_oldest();
        }
        self.clock += 1;
        if let Some(place) = self.kept.iter_mut().find(|block| block.size == 0) {
            *place = Block { address, size, stamp: self.clock };
            self.free += size;
        }
    }

    /// Gives the block that was kept longest back to the system.
    fn release_oldest(&mut self) {
        let kept = self.kept.iter_mut().filter(|block| block.size != 0);
        let Some(oldest) = kept.min_by_key(|block| block.stamp) else { return };
        let Block { address, size, .. } = std::mem::replace(oldest, Block::NONE);
        self.free -= size;
        // SAFETY: the block was mapped, and nobody else knows of it.
        unsafe { pages::unmap(address, size) };
    }
}

// SAFETY: small blocks are the system's. A large block was mapped, at least as large and as aligned as asked; it is in the
// program's hands or in `kept`, never in both.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(block) = large(layout) else {
            count_middling(layout);
            // SAFETY: the caller's promises about `layout` are the system's demands.
            return unsafe { System.alloc(layout) };
        };
        let address = cache().take(block);
        if address.is_null() { new(block) } else { address }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(block) = large(layout) else {
            count_middling(layout);
            // SAFETY: the caller's promises about `layout` are the system's demands.
            return unsafe { System.alloc_zeroed(layout) };
        };
        let address = cache().take(block);
        if address.is_null() {
            return new(block);
        }
        // SAFETY: the block is at least as large.
        unsafe { address.write_bytes(0, layout.size()) };
        address
    }

    unsafe fn realloc(&self, address: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size does not overflow with this alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (large(layout), large(wanted)) {
            (None, None) => {
                count_middling(wanted);
                forget_middling(layout);
                // SAFETY: the block is the system's, and so is the new one to be.
                unsafe { System.realloc(address, layout, size) }
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
        match large(layout) {
            Some(block) => cache().keep(address, block),
            None => {
                forget_middling(layout);
                // SAFETY: the block came from the system with this layout.
                unsafe { System.dealloc(address, layout) }
            }
        }
    }
}

/// Sets the heap up for the whole process; best called before other threads are started.
pub fn give_back_at_once() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in
        [(libc::M_MMAP_THRESHOLD, MAPPED as i32), (libc::M_TRIM_THRESHOLD, TRIMMED as i32), (libc::M_ARENA_MAX, 1)]
    {
        // SAFETY: changes three numbers that later allocations go by.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives back all that is free.
pub fn trim() {
    let mut cache = cache();
    while cache.free > 0 {
        cache.release_oldest();
    }
    cache.peak = cache.in_use;
    drop(cache);
    #[cfg(target_env = "gnu")]
    // SAFETY: takes the heap's own locks and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 40 * GRAIN;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, ALIGN).unwrap()
    }

    /// Bytes in use, kept, and at the peak.
    fn figures() -> (usize, usize, usize) {
        let cache = cache();
        (cache.in_use, cache.free, cache.peak)
    }

    /// One test, since the cache is one: what is freed is kept for the same size, never beyond the peak.
    #[test]
    fn blocks_are_used_again_and_never_raise_the_peak() {
        // SAFETY: every block is written within its size, and freed once with its layout.
        unsafe {
            let first = Heap.alloc(layout(BLOCK - 5));
            first.write_bytes(7, BLOCK - 5);
            Heap.dealloc(first, layout(BLOCK - 5));
            assert_eq!(Heap.alloc_zeroed(layout(BLOCK)), first, "almost the same size is the same block");
            assert!((0..BLOCK).all(|i| *first.add(i) == 0));

            let grown = Heap.realloc(first, layout(BLOCK), 2 * BLOCK);
            assert!((0..BLOCK).all(|i| *grown.add(i) == 0));
            assert_eq!(figures(), (2 * BLOCK, BLOCK, 3 * BLOCK), "the old block is kept: both were in use");
            Heap.dealloc(grown, layout(2 * BLOCK));
            assert_eq!(figures(), (0, 3 * BLOCK, 3 * BLOCK));

            let large = Heap.alloc(layout(2 * BLOCK + GRAIN));
            assert_eq!(figures(), (2 * BLOCK + GRAIN, 0, 3 * BLOCK), "room is made, the oldest goes first");
            Heap.dealloc(large, layout(2 * BLOCK + GRAIN));
            let small = Heap.realloc(Heap.alloc(layout(100)), layout(100), 200);
            Heap.dealloc(small, layout(200));
        }
        trim();
        assert_eq!(figures(), (0, 0, 0));
    }
}
