//! The C library's heap, told to give memory back as soon as it is freed.
//!
//! glibc keeps freed memory for later: up to 32 MiB a block, and in an arena for each thread. Activations are a few large
//! blocks of ever other sizes, so that the process would hold several times what is in use.

/// Blocks from this size on are mapped by themselves and unmapped when they are freed, bytes.
const MAPPED: i32 = 256 << 10;
/// More free memory than this at the heap's end is given back, bytes.
const TRIMMED: i32 = 256 << 10;

/// Sets the heap up for the whole process; best called before other threads are started.
pub fn give_back_at_once() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in
        [(glibc::M_MMAP_THRESHOLD, MAPPED), (glibc::M_TRIM_THRESHOLD, TRIMMED), (glibc::M_ARENA_MAX, 1)]
    {
        // SAFETY: changes three numbers that later allocations go by.
        unsafe { glibc::mallopt(parameter, value) };
    }
}

/// Gives back what lies free between blocks that are in use.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes the heap's own locks and touches free memory only.
    unsafe {
        glibc::malloc_trim(0);
    }
}

#[cfg(target_env = "gnu")]
mod glibc {
    use std::ffi::c_int;

    // From malloc.h.
    pub(super) const M_TRIM_THRESHOLD: c_int = -1;
    pub(super) const M_MMAP_THRESHOLD: c_int = -3;
    pub(super) const M_ARENA_MAX: c_int = -8;

    unsafe extern "C" {
        pub(super) fn mallopt(parameter: c_int, value: c_int) -> c_int;
        pub(super) fn malloc_trim(keep: usize) -> c_int;
    }
}
