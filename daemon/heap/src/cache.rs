//! Large blocks that are free, kept to be used again.

use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::pages;

/// Free blocks that are kept at most.
const KEPT: usize = 64;
/// Whether blocks are cut and joined: Miri's system frees a block only as a whole.
const CUTS: bool = !cfg!(miri);

static CACHE: Mutex<Cache> =
    Mutex::new(Cache { kept: [const { FreeBlock::NONE }; KEPT], in_use: 0, free: 0, peak: 0, clock: 0 });

/// A free large block.
#[derive(Clone, Copy)]
struct FreeBlock {
    address: *mut u8,
    /// Bytes; 0: no block.
    size: usize,
    /// When it was freed.
    stamp: u64,
}

impl FreeBlock {
    const NONE: FreeBlock = FreeBlock { address: null_mut(), size: 0, stamp: 0 };

    /// Takes the first `size` bytes away.
    fn cut_front(&mut self, size: usize) -> *mut u8 {
        let front = self.address;
        *self = match self.size - size {
            0 => FreeBlock::NONE,
            rest => FreeBlock { address: front.wrapping_add(size), size: rest, ..*self },
        };
        front
    }

    /// Takes at least `least` bytes away at the end, all where there are no more, and says which: so that what stays ends with a
    /// huge page, which the system would have to split otherwise.
    fn cut_back(&mut self, least: usize) -> (*mut u8, usize) {
        let end = self.address.addr() + self.size;
        let cut = end.saturating_sub(least) / pages::huge_page() * pages::huge_page();
        let FreeBlock { address, size, .. } = *self;
        if !CUTS || cut <= address.addr() {
            *self = FreeBlock::NONE;
            return (address, size);
        }
        self.size = cut - address.addr();
        (address.wrapping_add(self.size), size - self.size)
    }

    /// Takes `other` over if it lies directly before or behind; to the system mappings beside each other are one.
    fn join(&mut self, other: &mut FreeBlock) {
        let ends = |block: &FreeBlock| block.address.wrapping_add(block.size);
        if other.size == 0 || ends(other) != self.address && ends(self) != other.address {
            return;
        }
        self.address = self.address.min(other.address);
        self.size += other.size;
        *other = FreeBlock::NONE;
    }
}

/// The free large blocks, and how much is in use.
pub(crate) struct Cache {
    kept: [FreeBlock; KEPT],
    /// Bytes of mapped blocks that the program holds, large or not.
    pub(crate) in_use: usize,
    /// Bytes of `kept`.
    pub(crate) free: usize,
    /// The largest `in_use` since the last `trim`.
    pub(crate) peak: usize,
    clock: u64,
}

// SAFETY: the addresses in `kept` are of blocks that nobody else knows of.
unsafe impl Send for Cache {}

pub(crate) fn cache() -> MutexGuard<'static, Cache> {
    CACHE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    /// Counts a block as in use, and frees of what is kept as much as both together would be more than the most that was in use.
    /// The counters never panic, which an allocator must not.
    pub(crate) fn count(&mut self, size: usize) {
        self.in_use = self.in_use.saturating_add(size);
        self.peak = self.peak.max(self.in_use);
        while self.free > self.peak - self.in_use {
            self.release_oldest(self.free - (self.peak - self.in_use));
        }
    }

    /// No longer counts a block as in use.
    pub(crate) fn forget(&mut self, size: usize) {
        self.in_use = self.in_use.saturating_sub(size);
    }

    /// A block of this size, cut off the smallest kept one that has it or new, counted as in use; null, and nothing counted, if
    /// the system has no more. The second: it is new, and its bytes are zero.
    pub(crate) fn take(&mut self, size: usize) -> (*mut u8, bool) {
        let fits = |block: &&mut FreeBlock| block.size == size || CUTS && block.size > size;
        if let Some(block) = self.kept.iter_mut().filter(fits).min_by_key(|block| block.size) {
            let address = block.cut_front(size);
            self.free -= size;
            self.count(size);
            return (address, false);
        }
        let address = pages::map(size);
        if !address.is_null() {
            self.count(size);
        }
        (address, true)
    }

    /// Keeps a block that the program frees, joined with its neighbours: what is in use and what is kept are together what
    /// they were before.
    pub(crate) fn keep(&mut self, address: *mut u8, size: usize) {
        self.forget(size);
        self.clock += 1;
        let mut block = FreeBlock { address, size, stamp: self.clock };
        for other in self.kept.iter_mut().filter(|_| CUTS) {
            block.join(other);
        }
        if self.kept.iter().all(|block| block.size != 0) {
            self.release_oldest(usize::MAX);
        }
        if let Some(place) = self.kept.iter_mut().find(|block| block.size == 0) {
            *place = block;
            self.free += size;
        }
    }

    /// Gives all that is kept back to the system; the peak is what is in use now.
    pub(crate) fn release_all(&mut self) {
        while self.free > 0 {
            self.release_oldest(usize::MAX);
        }
        self.peak = self.in_use;
    }

    /// Gives at least `least` bytes of the block that was kept longest back to the system, or all of it.
    fn release_oldest(&mut self, least: usize) {
        let kept = self.kept.iter_mut().filter(|block| block.size != 0);
        let Some(oldest) = kept.min_by_key(|block| block.stamp) else { return };
        let (address, size) = oldest.cut_back(least);
        self.free -= size;
        // SAFETY: the pages were mapped, and nobody else knows of them.
        unsafe { pages::unmap(address, size) };
    }
}
