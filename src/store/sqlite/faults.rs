//! The disk's state, from SQLite's errors: it is full, or its content is no longer known.
//!
//! Invariant: an error is fatal exactly when a write or an fsync may have been lost without a trace; a full disk, a quota and
//! a read that failed are not.
#![allow(unsafe_code)]

use rusqlite::{Connection, Error, ffi};

/// The codes of one failure, read before another statement replaces them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SqliteFault {
    /// SQLite's extended result code.
    code: i32,
    /// `errno` of the system call behind it; only of meaning for I/O errors.
    errno: i32,
}

impl SqliteFault {
    /// The newest failure of the connection.
    pub fn last(conn: &Connection) -> SqliteFault {
        // SAFETY: the handle is valid for as long as the connection is borrowed, and both calls only read from it.
        unsafe {
            let db = conn.handle();
            SqliteFault { code: ffi::sqlite3_extended_errcode(db), errno: ffi::sqlite3_system_errno(db) }
        }
    }

    /// The fault behind an error, with the connection's `errno`.
    pub fn of(error: &Error, conn: &Connection) -> SqliteFault {
        let errno = SqliteFault::last(conn).errno;
        SqliteFault { code: error.sqlite_error().map_or(ffi::SQLITE_ERROR, |error| error.extended_code), errno }
    }

    fn is_io(self) -> bool {
        self.code & 0xff == ffi::SQLITE_IOERR
    }

    /// Room is missing: nothing was written, and it goes on by itself once there is some. SQLite reports ENOSPC in most
    /// places; a quota, and a log index that cannot grow, are I/O errors to it.
    pub fn is_full(self) -> bool {
        let full = self.errno == rustix::io::Errno::NOSPC.raw_os_error()
            || self.errno == rustix::io::Errno::DQUOT.raw_os_error();
        self.code & 0xff == ffi::SQLITE_FULL || (self.is_io() && full && !self.is_sync())
    }

    /// Whether another connection held the lock.
    pub fn is_busy(self) -> bool {
        self.code & 0xff == ffi::SQLITE_BUSY
    }

    fn is_sync(self) -> bool {
        matches!(self.code, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
    }

    /// A write or an fsync failed for another reason than room.
    pub fn is_fatal_io(self) -> bool {
        let read = matches!(self.code, ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ);
        self.is_io() && !read && !self.is_full()
    }
}

/// Whether an fsync failed: the kernel may have dropped pages that it could not write, and will not report it again.
pub(super) fn is_lost_sync(error: &Error) -> bool {
    error.sqlite_error().is_some_and(|error| SqliteFault { code: error.extended_code, errno: 0 }.is_sync())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_full_disk_and_a_failed_fsync_never_is() {
        let check = |code, errno, full, fatal| {
            let fault = SqliteFault { code, errno };
            assert_eq!((fault.is_full(), fault.is_fatal_io()), (full, fatal), "{fault:?}");
        };
        let (eio, enospc, edquot) = (5, 28, 122);
        check(ffi::SQLITE_FULL, 0, true, false);
        check(ffi::SQLITE_IOERR_WRITE, edquot, true, false);
        check(ffi::SQLITE_IOERR_SHMSIZE, enospc, true, false);
        check(ffi::SQLITE_IOERR_WRITE, eio, false, true);
        check(ffi::SQLITE_IOERR_FSYNC, eio, false, true);
        check(ffi::SQLITE_IOERR_FSYNC, edquot, false, true);
        check(ffi::SQLITE_IOERR_READ, eio, false, false);
        check(ffi::SQLITE_CORRUPT, 0, false, false);
    }
}
