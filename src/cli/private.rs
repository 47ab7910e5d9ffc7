//! This program's files on disk are for its own user alone: keys, the ledger, agents' findings.
//!
//! Invariant: a folder of ours that others may read is made private before anything is written into it, or it is said.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Every bit of the group and of others.
const OTHERS: u32 = 0o077;

/// Files that are made from now on are for their owner alone. Called before any thread is started.
pub(super) fn keep_files_private() {
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(OTHERS));
}

/// Makes the folder, or takes the rights of group and others from one that is there, and from the files in it that were
/// made before they were private.
///
/// # Errors
///
/// The folder cannot be made, or it is open to all others and belongs to another user, who alone can change that.
pub(super) fn folder(folder: &Path) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
    if !folder.is_dir() {
        return std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrong);
    }
    let there = std::fs::metadata(folder).map_err(wrong)?;
    let me = rustix::process::geteuid().as_raw();
    match there.mode() & OTHERS {
        0 => {}
        _ if there.uid() == me || me == 0 => {
            tracing::warn!(folder = %folder.display(), mode = format!("{:o}", there.mode() & 0o777), "folder was readable by other users; mode changed to 700");
            tighten(folder, &there).map_err(wrong)?;
        }
        // A volume of Kubernetes: it is the group's, which is this process alone, and no other user may look.
        open if open & 0o007 == 0 => {}
        _ => {
            return Err(format!(
                "{} is open to every user of this machine and belongs to another one (uid {}): run `chmod 700 {}` as that \
                 user, or set `data_dir` to a folder of this user",
                folder.display(),
                there.uid(),
                folder.display()
            ));
        }
    }
    for entry in std::fs::read_dir(folder).map_err(wrong)?.flatten() {
        let Ok(file) = entry.metadata() else { continue };
        let is_public = entry.path().extension().is_some_and(|ending| ending == "pub" || ending == "pem");
        if file.is_file() && !is_public && file.mode() & OTHERS != 0 && (file.uid() == me || me == 0) {
            tighten(&entry.path(), &file).map_err(|error| format!("{}: {error}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn tighten(path: &Path, there: &std::fs::Metadata) -> std::io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(there.mode() & 0o7777 & !OTHERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_folder_that_others_could_read_is_made_private_and_so_is_what_lies_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        for (name, file_mode) in [("nightshift.db", 0o644), ("nightshift.db-wal", 0o664), ("signing.pub", 0o644)] {
            std::fs::write(data.join(name), "").unwrap();
            std::fs::set_permissions(data.join(name), std::fs::Permissions::from_mode(file_mode)).unwrap();
        }
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
        folder(&data).unwrap();
        let modes = ["nightshift.db", "nightshift.db-wal", "signing.pub"].map(|name| mode(&data.join(name)));
        assert_eq!((mode(&data), modes), (0o700, [0o600, 0o600, 0o644]));
        folder(&data.join("new/deep")).unwrap();
        assert_eq!(mode(&data.join("new/deep")), 0o700);
    }
}
