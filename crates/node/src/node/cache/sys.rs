//! The system calls that no safe crate wraps: how much of a file the page cache holds, and a reader's place in the queue.
//!
//! Invariant: every pointer handed to the kernel is to memory that we own for as long as the call lasts.

// `cachestat`, `mincore` and `ioprio_set` have no safe wrapper anywhere.
#![allow(unsafe_code)]

use memmap2::MmapOptions;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

#[repr(C)]
struct CachestatRange {
    from: u64,
    bytes: u64,
}

#[repr(C)]
#[derive(Default)]
struct CachestatCounts {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// One number on every architecture, as for all system calls since 2019. Kernels before 6.5 answer ENOSYS.
const CACHESTAT: libc::c_long = 451;

/// Pages of a range of a file that are in the page cache, in constant memory and without mapping the file.
pub(super) fn cachestat(file: &File, from: u64, bytes: u64) -> io::Result<u64> {
    let range = CachestatRange { from, bytes };
    let mut counts = CachestatCounts::default();
    // SAFETY: both structs are laid out as the kernel's and outlive the call; the file is open.
    let answer = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut counts, 0) };
    if answer == 0 { Ok(counts.cached) } else { Err(io::Error::last_os_error()) }
}

/// The same by mapping the range and asking `mincore`; `from` is a multiple of the page size, the range not empty.
/// For a file that is neither ours nor writable the kernel answers "all of it", so the caller must check before.
pub(super) fn mincore(file: &File, from: u64, bytes: usize) -> io::Result<u64> {
    let map = MmapOptions::new().offset(from).len(bytes).map_raw_read_only(file)?;
    let mut pages = vec![0_u8; bytes.div_ceil(rustix::param::page_size())];
    // SAFETY: the range is mapped until `map` is dropped, and the vector has a byte for each of its pages.
    let answer = unsafe { libc::mincore(map.as_mut_ptr().cast(), bytes, pages.as_mut_ptr()) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(pages.iter().filter(|page| **page & 1 == 1).count() as u64)
}

/// Gives the calling thread the lowest priority at the disk. A kernel that refuses leaves it where it was.
pub(super) fn yield_the_disk() {
    const WHO_THREAD: libc::c_int = 1;
    const BEST_EFFORT_LAST: libc::c_int = (2 << 13) | 7;
    // SAFETY: no memory is handed over; 0 is the calling thread.
    let _ = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_THREAD, 0, BEST_EFFORT_LAST) };
}
