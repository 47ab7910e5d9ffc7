//! How much of a file is in the page cache: `cachestat` where the kernel has it, else `mincore`.
//!
//! Invariant: an answer is a count of the kernel's, never an estimate; a file that cannot be counted is an error with
//! its reason.

use super::sys;
use crate::limits;
use rustix::fs::{Access, AtFlags};
use rustix::thread::CapabilitySet;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// Which call counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ResidencyMethod {
    Cachestat,
    Mincore,
}

/// Set once the kernel has refused `cachestat` as unknown.
static TOO_OLD: AtomicBool = AtomicBool::new(false);

/// The way this kernel counts.
pub fn by() -> ResidencyMethod {
    if TOO_OLD.load(Ordering::Relaxed) { ResidencyMethod::Mincore } else { ResidencyMethod::Cachestat }
}

pub(super) fn page() -> u64 {
    rustix::param::page_size() as u64
}

/// Pages that so many bytes take.
pub(super) fn pages(bytes: u64) -> u64 {
    bytes.div_ceil(page())
}

/// Resident pages of a range. `from` is a multiple of the page size.
pub(super) fn resident(file: &File, from: u64, bytes: u64) -> io::Result<u64> {
    if bytes == 0 {
        return Ok(0);
    }
    if by() == ResidencyMethod::Cachestat {
        match sys::cachestat(file, from, bytes) {
            // Read-ahead may have brought in more than the file's last page.
            Ok(count) => return Ok(count.min(pages(bytes))),
            // Sandboxes that filter unknown system calls answer EPERM; the other call distinguishes the two.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                if error.raw_os_error() == Some(libc::ENOSYS) {
                    TOO_OLD.store(true, Ordering::Relaxed);
                }
            }
            Err(error) => return Err(error),
        }
    }
    by_mincore(file, from, bytes)
}

/// In windows, so that neither the mapping nor its byte a page grows with the file.
pub(super) fn by_mincore(file: &File, from: u64, bytes: u64) -> io::Result<u64> {
    if !may_count(file) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the kernel counts cached pages only for the file's owner, for a user with write access, or with CAP_FOWNER",
        ));
    }
    let mut sum = 0;
    let mut at = from;
    while at < from + bytes {
        let window = limits::CACHE_MINCORE_WINDOW.min(from + bytes - at);
        sum += sys::mincore(file, at, window as usize)?;
        at += window;
    }
    Ok(sum)
}

/// Whether the kernel would give the true count: to others it reports that everything is resident.
fn may_count(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let owned = file.metadata().is_ok_and(|meta| meta.uid() == rustix::process::geteuid().as_raw());
    let may_all =
        || rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::FOWNER));
    let shown = format!("/proc/self/fd/{}", file.as_raw_fd());
    owned || may_all() || rustix::fs::accessat(rustix::fs::CWD, &shown, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn both_calls_count_the_same_pages() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 3 * page() as usize + 1]).unwrap();
        assert_eq!(resident(&file, 0, 3 * page() + 1).unwrap(), 4);
        assert_eq!(by_mincore(&file, 0, 3 * page() + 1).unwrap(), 4);
        assert_eq!(resident(&file, page(), page()).unwrap(), 1);
        assert_eq!(resident(&file, 0, 0).unwrap(), 0);
    }

    #[test]
    fn a_hole_is_not_resident() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 << 20).unwrap();
        assert_eq!(resident(&file, 0, 8 << 20).unwrap(), 0);
        assert_eq!(by_mincore(&file, 0, 8 << 20).unwrap(), 0);
    }
}
