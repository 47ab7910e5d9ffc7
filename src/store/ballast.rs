//! A file that only takes up room: let go when the disk is full, so that a freeze and a last notice still get through.
//!
//! Invariant: while it is let go alerts are refused (their sender keeps them); it is made again before they are taken again.
//! An empty file means that it was let go, also for the next process. Where there was never room for it nothing is refused.

use crate::limits;
use rustix::fs::FallocateFlags;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Default)]
pub(super) struct DiskBallast {
    /// None: there is no such file, and nothing is refused for its sake.
    path: Option<PathBuf>,
    let_go: AtomicBool,
    /// Users were notified that it is let go.
    told: AtomicBool,
}

impl DiskBallast {
    /// The ballast at this path, which is not let go yet; none: there is no ballast.
    pub fn new(path: Option<PathBuf>) -> DiskBallast {
        DiskBallast { path, ..DiskBallast::default() }
    }

    /// Whether its room was given up.
    pub fn is_let_go(&self) -> bool {
        self.let_go.load(Ordering::Acquire)
    }

    /// True once for each time that it is let go.
    pub fn is_news(&self) -> bool {
        self.is_let_go() && !self.told.load(Ordering::Acquire)
    }

    /// Records that users were notified of it.
    pub fn was_told(&self) {
        self.told.store(true, Ordering::Release);
    }

    /// Gives its room to the next writes. Nothing happens where there is no such file.
    pub fn let_go(&self) {
        let Some(path) = self.path.as_ref().filter(|path| path.exists()) else { return };
        if self.let_go.swap(true, Ordering::AcqRel) {
            return;
        }
        self.told.store(false, Ordering::Release);
        let emptied = File::options().write(true).open(path).and_then(|file| file.set_len(0));
        tracing::error!(
            file = %path.display(), emptied = emptied.is_ok(),
            "the disk is full; the ballast file is emptied and alerts are refused until there is room; free some space"
        );
    }

    /// Takes the room, if there is enough. True: alerts are taken (again).
    pub fn make(&self) -> bool {
        let Some(path) = &self.path else { return true };
        let bytes = limits::BALLAST_BYTES;
        let found = std::fs::metadata(path).map(|meta| meta.len());
        let made = matches!(found, Ok(size) if size == bytes) || {
            let folder = path.parent().unwrap_or(path);
            let room = rustix::fs::statvfs(folder).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
            let enough = room.is_ok_and(|room| room >= bytes + limits::BALLAST_MARGIN_BYTES);
            enough && fill(path, bytes).is_ok()
        };
        match (made, found) {
            (true, _) => self.let_go.store(false, Ordering::Release),
            (false, Ok(_)) => self.let_go(),
            (false, Err(_)) => {
                // A part of it only takes away the room that is missing.
                let _ = std::fs::remove_file(path);
                tracing::warn!(file = %path.display(), "no room for the ballast file; on a full disk a freeze will fail; free some space");
            }
        }
        made
    }
}

/// A file whose every byte has its place on the disk.
fn fill(path: &std::path::Path, bytes: u64) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => {}
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let zeros = vec![0; 64 * 1024];
            for _ in 0..bytes / zeros.len() as u64 {
                file.write_all(&zeros)?;
            }
        }
        Err(error) => return Err(error.into()),
    }
    let synced = file.sync_all();
    if synced.is_err() {
        // Whether its room is really taken is not known: it is as good as let go.
        let _ = file.set_len(0);
    }
    synced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ballast_takes_its_room_gives_it_once_and_takes_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ballast");
        let ballast = DiskBallast::new(Some(path.clone()));
        assert!(ballast.make() && !ballast.is_let_go());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), limits::BALLAST_BYTES);
        ballast.let_go();
        assert!(ballast.is_let_go() && ballast.is_news());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        assert!(DiskBallast::new(Some(path.clone())).make(), "there is room here, so a file that was let go is filled");
        std::fs::File::create(&path).unwrap();
        ballast.was_told();
        assert!(!ballast.is_news() && ballast.make() && !ballast.is_let_go() && path.exists());
        let none = DiskBallast::new(None);
        none.let_go();
        assert!(!none.is_let_go(), "without a file nothing is refused");
    }
}
