//! Memory straight from the system, in huge pages where it has them.
//!
//! A step writes gigabytes of activations. Each page, of 4, 16 or 64 KiB, costs a fault when it is first written, and a TLB miss
//! now and then; a huge one (of 2, 32 or 512 MiB) costs as little and holds hundreds or thousands of them. A block gets huge pages
//! only where it fills all of them, so it takes no more memory than with small ones.
//!
//! All of this runs inside the allocator, so nothing here allocates.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of the system's pages: a power of two.
pub(crate) fn page() -> usize {
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    known(&PAGE, || {
        // SAFETY: reads a number and has no other effect.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size).ok().filter(|size| size.is_power_of_two()).unwrap_or(64 << 10)
    })
}

/// Bytes of the system's huge pages: a power of two, and a multiple of [`page`].
pub(crate) fn huge_page() -> usize {
    static HUGE: AtomicUsize = AtomicUsize::new(0);
    known(&HUGE, || {
        let valid = |size: &usize| size.is_power_of_two() && *size > page();
        // Where the system does not report it: what one page table maps, which is a page of entries of 8 bytes.
        system::huge_page().filter(valid).unwrap_or(page() * (page() / 8))
    })
}

/// The number in `place`, found out when it is first wanted; threads that find it out at the same time find the same.
fn known(place: &AtomicUsize, find: impl FnOnce() -> usize) -> usize {
    match place.load(Ordering::Relaxed) {
        0 => {
            let number = find();
            place.store(number, Ordering::Relaxed);
            number
        }
        number => number,
    }
}

/// Maps `size` bytes, a multiple of [`page`]; they are zero. Null if the system has no more.
///
/// A block that has room for a huge page starts at a multiple of one.
pub(crate) fn map(size: usize) -> *mut u8 {
    let huge = huge_page();
    if size < huge {
        return system::map(size);
    }
    let Some(mapped) = size.checked_add(huge).map(system::map).filter(|mapped| !mapped.is_null()) else {
        return std::ptr::null_mut();
    };
    let before = mapped.align_offset(huge);
    // SAFETY: all is within the `size + huge` bytes, and what is unmapped is before or after the block.
    unsafe {
        let block = mapped.add(before);
        if before > 0 {
            unmap(mapped, before);
        }
        if huge > before {
            unmap(block.add(size), huge - before);
        }
        system::prefer_huge(block, size);
        block
    }
}

/// Gives pages back to the system.
///
/// # Safety
///
/// They are whole pages that [`map`] gave, and nobody uses them any more.
pub(crate) unsafe fn unmap(pages: *mut u8, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { system::unmap(pages, size) };
}

#[cfg(not(miri))]
mod system {
    use std::ptr::null_mut;

    pub(super) fn map(size: usize) -> *mut u8 {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: maps new pages anywhere; no page in use is replaced.
        let mapped = unsafe { libc::mmap(null_mut(), size, access, flags, -1, 0) };
        if mapped == libc::MAP_FAILED { null_mut() } else { mapped.cast() }
    }

    /// # Safety
    ///
    /// As [`super::unmap`].
    pub(super) unsafe fn unmap(pages: *mut u8, size: usize) {
        // SAFETY: the caller's promise.
        unsafe { libc::munmap(pages.cast(), size) };
    }

    /// Wants huge pages in a block.
    ///
    /// # Safety
    ///
    /// [`map`] gave it.
    pub(super) unsafe fn prefer_huge(block: *mut u8, size: usize) {
        #[cfg(target_os = "linux")]
        // SAFETY: changes which pages the system takes, not what is in them; a system that knows no huge pages refuses.
        unsafe {
            libc::madvise(block.cast(), size, libc::MADV_HUGEPAGE)
        };
        #[cfg(not(target_os = "linux"))]
        let _ = (block, size);
    }

    /// The size of Linux's transparent huge pages, from /sys.
    pub(super) fn huge_page() -> Option<usize> {
        let mut text = [0u8; 32];
        // SAFETY: the path ends in a zero; the buffer has as many bytes as are read; the file is closed once.
        let len = unsafe {
            let path = c"/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
            let file = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            if file < 0 {
                return None;
            }
            let len = libc::read(file, text.as_mut_ptr().cast(), text.len());
            libc::close(file);
            len
        };
        let text = text.get(..usize::try_from(len).ok()?)?;
        std::str::from_utf8(text).ok()?.trim().parse().ok()
    }
}

/// Miri has neither partial unmapping nor `madvise`: there, a block has no slack around it, and comes from its own allocator.
#[cfg(miri)]
mod system {
    use std::alloc::{GlobalAlloc, Layout, System};

    /// Miri ends a program that wants more than this, rather than refuse it.
    const MOST: usize = 1 << 30;

    fn layout(size: usize) -> Option<Layout> {
        Layout::from_size_align(size, super::page()).ok().filter(|layout| layout.size() <= MOST)
    }

    pub(super) fn map(size: usize) -> *mut u8 {
        // SAFETY: blocks are never empty.
        layout(size).map_or(std::ptr::null_mut(), |layout| unsafe { System.alloc_zeroed(layout) })
    }

    /// # Safety
    ///
    /// As [`super::unmap`], and all of what `map` gave.
    pub(super) unsafe fn unmap(pages: *mut u8, size: usize) {
        // SAFETY: the caller's promise; the layout was valid when it was mapped.
        layout(size).into_iter().for_each(|layout| unsafe { System.dealloc(pages, layout) });
    }

    pub(super) unsafe fn prefer_huge(_: *mut u8, _: usize) {}

    /// Larger than any block of a test, so that none is cut out of a larger one.
    pub(super) fn huge_page() -> Option<usize> {
        Some(1 << 40)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_the_systems() {
        assert!(page().is_power_of_two() && page() >= 4 << 10);
        assert!(huge_page().is_power_of_two() && huge_page() > page());
        if let Some(said) = system::huge_page() {
            assert_eq!(huge_page(), said);
        }
        if page() == 4 << 10 && !cfg!(miri) {
            assert_eq!(huge_page(), 2 << 20);
        }
    }

    #[test]
    fn pages_are_zero_and_aligned_for_huge_ones() {
        let (grain, huge) = (page().max(64 << 10), huge_page());
        let sizes = [grain, huge - grain, huge, 3 * huge + grain];
        let count = if cfg!(miri) { 1 } else { sizes.len() };
        for size in sizes.into_iter().take(count) {
            let block = map(size);
            assert!(!block.is_null() && (size < huge || block.align_offset(huge) == 0));
            // SAFETY: the block has `size` bytes, and nobody uses it afterwards.
            unsafe {
                assert!((0..size).all(|at| *block.add(at) == 0));
                block.write_bytes(1, size);
                unmap(block, size);
            }
        }
    }

    #[test]
    fn more_than_there_is_is_null() {
        assert!(map((usize::MAX / 4) & !(page() - 1)).is_null());
        assert!(map(usize::MAX & !(page() - 1)).is_null());
    }
}
