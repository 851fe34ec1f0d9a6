//! Pages of the program's file and of its libraries: code and constants.
//!
//! The system maps them when they are used, sixteen for each that is wanted, and leaves them mapped: once a program has
//! started and parsed its graphs, 20 MiB of it are resident, of which painting uses a tenth. What is given back stays in the
//! page cache while there is room, and what is used again is mapped again within microseconds.

/// Gives the pages of all that is loaded and never written back to the system.
pub(crate) fn release() {
    #[cfg(all(target_os = "linux", not(miri)))]
    // SAFETY: the callback fits, and uses nothing of ours.
    unsafe {
        libc::dl_iterate_phdr(Some(linux::release), std::ptr::null_mut())
    };
}

#[cfg(all(target_os = "linux", not(miri)))]
mod linux {
    use std::ffi::{c_int, c_void};

    use crate::pages::page;

    /// Gives back the pages of an object's segments that cannot be written: they are what is in its file. Relocated
    /// constants, which are protected once they were written, lie in a segment that can be.
    ///
    /// # Safety
    ///
    /// For `dl_iterate_phdr` alone.
    pub(super) unsafe extern "C" fn release(object: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
        // SAFETY: the system describes an object that is loaded, with as many headers as it says.
        let (base, headers) = unsafe {
            let object = &*object;
            if object.dlpi_phdr.is_null() {
                return 0;
            }
            (object.dlpi_addr as usize, std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()))
        };
        for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0)
        {
            let start = base.wrapping_add(header.p_vaddr as usize);
            let first = start.next_multiple_of(page());
            let pages = start.wrapping_add(header.p_memsz as usize).saturating_sub(first) / page();
            // SAFETY: these pages are mapped from a file and were never written, so that using them maps the same again.
            unsafe { libc::madvise(first as *mut c_void, pages * page(), libc::MADV_DONTNEED) };
        }
        0
    }
}
