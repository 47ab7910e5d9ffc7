//! The mark beside the signing key: the newest signed checkpoint, outside the database, so that a database that was lost,
//! emptied or replaced by an older one is noticed at the next start.
//!
//! Invariant: the mark never covers more than the entries committed before it was written; it is replaced whole or not
//! at all.

use super::StoreError;
use super::ledger::{Checkpoint, LeafHash};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nightshift_runtime::file::replace;
use std::path::{Path, PathBuf};

/// The newest signed checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointMark {
    pub size: u64,
    pub root: LeafHash,
}

impl CheckpointMark {
    /// From the text of a checkpoint: its second and third line. The signature is not looked at: a mark only ever makes a
    /// start stricter, and must do so without the key, too.
    pub fn of(note: &str) -> Option<CheckpointMark> {
        let mut lines = note.lines().skip(1);
        let size = lines.next()?.parse().ok()?;
        let root = STANDARD.decode(lines.next()?).ok()?.try_into().ok()?;
        Some(CheckpointMark { size, root: LeafHash(root) })
    }

    /// Reads the mark. `None`: nothing was ever signed here.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read, or holds no checkpoint.
    pub fn read(path: &Path) -> Result<Option<CheckpointMark>, StoreError> {
        match std::fs::read_to_string(path) {
            Ok(note) => match CheckpointMark::of(&note) {
                Some(mark) => Ok(Some(mark)),
                None => Err(StoreError::Refused(format!(
                    "{} holds no checkpoint: it was altered or cut off; restore the newest backup, or start once with \
                     `--accept-loss` if the database is certainly complete",
                    path.display()
                ))),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => {
                Err(StoreError::Io { what: "cannot read the mark", path: path.display().to_string(), source })
            }
        }
    }

    /// The mark over most entries of those at `paths`.
    ///
    /// # Errors
    ///
    /// Fails when one of them cannot be read, or holds no checkpoint.
    pub fn newest(paths: &[PathBuf]) -> Result<Option<CheckpointMark>, StoreError> {
        let marks = paths.iter().map(|path| CheckpointMark::read(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(marks.into_iter().flatten().max_by_key(|mark| mark.size))
    }

    /// Keeps the checkpoint at `path`.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be written; the old mark stays.
    pub fn write(path: &Path, checkpoint: &Checkpoint) -> std::io::Result<()> {
        replace(path, checkpoint.note.as_bytes(), 0o644)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_what_the_checkpoint_says_and_a_torn_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signing.mark");
        assert_eq!(CheckpointMark::read(&path).unwrap(), None);
        let note = format!("nightshift\n17\n{}\n\n\u{2014} nightshift AAAA\n", STANDARD.encode([9; 32]));
        CheckpointMark::write(&path, &Checkpoint { size: 17, note }).unwrap();
        assert_eq!(CheckpointMark::read(&path).unwrap(), Some(CheckpointMark { size: 17, root: LeafHash([9; 32]) }));
        std::fs::write(&path, "nightshift\n1").unwrap();
        assert!(matches!(CheckpointMark::read(&path), Err(StoreError::Refused(text)) if text.contains("signing.mark")));
    }
}
