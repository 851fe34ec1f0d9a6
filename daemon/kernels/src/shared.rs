//! An output that several threads write at once, each its own columns.

use std::marker::PhantomData;

/// A slice whose disjoint parts may be written by different threads.
#[derive(Clone, Copy)]
pub(crate) struct SharedOut<'a> {
    first: *mut f32,
    len: usize,
    borrow: PhantomData<&'a [f32]>,
}

// SAFETY: `part` is the only way to the values, and its caller vouches that no two threads ask for the same ones.
unsafe impl Sync for SharedOut<'_> {}
// SAFETY: as above.
unsafe impl Send for SharedOut<'_> {}

impl<'a> SharedOut<'a> {
    pub(crate) fn new(out: &'a mut [f32]) -> Self {
        SharedOut { first: out.as_mut_ptr(), len: out.len(), borrow: PhantomData }
    }

    /// Where a value is, for prefetching.
    #[inline(always)]
    pub(crate) fn address(&self, at: usize) -> *const f32 {
        self.first.wrapping_add(at)
    }

    /// `len` values from `at` on.
    ///
    /// # Safety
    ///
    /// While the part lives nobody else asks for any of its values.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "the caller vouches that parts do not overlap")]
    pub(crate) unsafe fn part(&self, at: usize, len: usize) -> &mut [f32] {
        assert!(at + len <= self.len, "{at} + {len} is past {}", self.len);
        // SAFETY: within the slice that is borrowed for 'a; the caller vouches that it is not aliased.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(at), len) }
    }
}
