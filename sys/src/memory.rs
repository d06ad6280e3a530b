//! How the C library's allocator behaves (`mallopt(3)`): for processes of which there are many.

/// Makes the allocator give back to the kernel what a process frees, rather than keep it for the next time.
///
/// Blocks from 32 KiB on get mappings of their own, and the heap shrinks as soon as 32 KiB at its end are free.
pub fn give_back() {
    for (parameter, value) in [
        (libc::M_MMAP_THRESHOLD, 32 * 1024),
        (libc::M_TRIM_THRESHOLD, 32 * 1024),
        (libc::M_TOP_PAD, 16 * 1024),
    ] {
        // SAFETY: it takes two integers and changes settings of the allocator, which it locks itself. An answer of 0 means
        // that the setting stays as it was.
        unsafe { libc::mallopt(parameter, value) };
    }
}
