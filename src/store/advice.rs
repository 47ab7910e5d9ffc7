//! The fix for a store that cannot be opened, by its error.
//!
//! Invariant: pure; each advice is one command or one setting.

use super::StoreError;

/// The fix for an error of opening the store.
pub fn advice(error: &StoreError) -> &'static str {
    let text = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match error {
        StoreError::Locked(_) => "one process, one store: stop the other engine, or give this one its own `data_dir`",
        _ if says(&["newer Nightshift"]) => {
            "install that version again, or go back with the copy that was kept before the upgrade: see docs/backup.md, Downgrade"
        }
        _ if says(&["--accept-loss"]) => "see docs/backup.md, A ledger that is too short",
        _ if says(&["network file system"]) => "set `data_dir` to a local disk",
        _ if says(&["is full", "No space left", "quota"]) => "free space on the disk of `data_dir`, then start again",
        _ if says(&["malformed", "not a database", "damaged", "cannot be read back"]) => {
            "the file is damaged: keep a copy of it, then restore the newest backup with `nightshift restore FILE`"
        }
        _ if says(&["readonly", "read-only", "Read-only", "Permission denied", "unable to open"]) => {
            "let this user write to `data_dir` and to every file in it (`ls -l`), and check whether the disk is mounted read-only"
        }
        _ if says(&["is locked", "is busy"]) => "another program has the database open (a shell, a copy job): end it",
        _ => "check the disk and its log (`dmesg`); restore a backup with `nightshift restore FILE`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_of_opening_has_its_own_advice() {
        let database = |text: &str| StoreError::Database(text.to_owned());
        for (error, expect) in [
            (StoreError::Locked("in use by process 7".to_owned()), "stop the other engine"),
            (database("database disk image is malformed"), "nightshift restore"),
            (database("file is not a database"), "nightshift restore"),
            (database("database or disk is full"), "free space"),
            (database("attempt to write a readonly database"), "read-only"),
            (database("unable to open database file"), "write to `data_dir`"),
            (database("database is locked"), "another program"),
            (StoreError::Refused("… it was opened by a newer Nightshift".to_owned()), "Downgrade"),
            (StoreError::Refused("… start with `--accept-loss` …".to_owned()), "too short"),
            (database("disk I/O error"), "dmesg"),
        ] {
            assert!(advice(&error).contains(expect), "{error}: {}", advice(&error));
        }
    }
}
