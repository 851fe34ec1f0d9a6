//! Memory straight from the system, in huge pages where it has them.
//!
//! A step writes gigabytes of activations. Each page of 4 KiB costs a fault when it is first written and a miss of the
//! address cache now and then; one of 2 MiB costs as little and holds 512 times as much. It is only asked for where a block
//! fills all of it, so that it takes no more memory than small ones would.

use std::ptr::null_mut;

/// Bytes of a huge page where small ones have 4 KiB.
const HUGE: usize = 2 << 20;

/// Maps `size` bytes, a multiple of the page size; they are zero. Null if the system has no more.
///
/// A block that has room for a huge page starts at a multiple of one.
pub(crate) fn map(size: usize) -> *mut u8 {
    let slack = if size < HUGE { 0 } else { HUGE };
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: asks for new pages anywhere, which nobody else has.
    let mapped = unsafe { libc::mmap(null_mut(), size + slack, access, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return null_mut();
    }
    let mapped: *mut u8 = mapped.cast();
    if slack == 0 {
        return mapped;
    }
    let before = mapped.align_offset(HUGE);
    // SAFETY: all is within the `size + slack` bytes, and what is unmapped is before or after the block.
    unsafe {
        let block = mapped.add(before);
        if before > 0 {
            unmap(mapped, before);
        }
        if slack > before {
            unmap(block.add(size), slack - before);
        }
        prefer_huge(block, size);
        block
    }
}

/// Gives pages back.
///
/// # Safety
///
/// `map` gave them, and nobody uses them any more.
pub(crate) unsafe fn unmap(pages: *mut u8, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { libc::munmap(pages.cast(), size) };
}

/// Asks for huge pages in a block.
///
/// # Safety
///
/// `map` gave it.
unsafe fn prefer_huge(block: *mut u8, size: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: changes which pages the system takes, not what is in them; a system that knows no huge pages refuses.
    unsafe {
        libc::madvise(block.cast(), size, libc::MADV_HUGEPAGE)
    };
    #[cfg(not(target_os = "linux"))]
    let _ = (block, size);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_zero_and_aligned_for_huge_ones() {
        for size in [64 << 10, HUGE - (64 << 10), HUGE, 3 * HUGE + (64 << 10)] {
            let block = map(size);
            assert!(!block.is_null() && (size < HUGE || block.align_offset(HUGE) == 0));
            // SAFETY: the block has `size` bytes, and nobody uses it afterwards.
            unsafe {
                assert!((0..size).all(|at| *block.add(at) == 0));
                block.write_bytes(1, size);
                unmap(block, size);
            }
        }
        assert!(map(usize::MAX / 4).is_null(), "more than there is");
    }
}
