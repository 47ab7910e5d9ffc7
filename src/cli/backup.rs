//! `nightshift backup` and `nightshift restore`: the whole store in one file, and back.
//!
//! Invariant: reported numbers were read back from the file; a restore names the files it sets aside and the missing
//! ones.

use super::client::user;
use super::invocation::{Invocation, TextStyle};
use super::stop::CliError;
use crate::clock::{Clock, RealClock};
use crate::config::Config;
use crate::store::{self, BackupContents, StoreFiles};
use serde_json::json;
use std::path::PathBuf;

pub(super) const EXAMPLES: &str = "\
Examples:
  nightshift backup /backup/nightshift-2026-11-30.backup    also while the engine runs
  nightshift backup --check /backup/nightshift-2026-11-30.backup
  nightshift restore /backup/nightshift-2026-11-30.backup   after the engine was stopped";

#[derive(clap::Args)]
pub(super) struct BackupArgs {
    /// File to write; it must not exist. It holds the signing key: protect it like the data folder
    file: PathBuf,
    /// Only verify an existing backup
    #[arg(long)]
    check: bool,
}

#[derive(clap::Args)]
pub(super) struct RestoreArgs {
    /// A file written by `nightshift backup`
    file: PathBuf,
}

fn place(config: &Config) -> StoreFiles {
    StoreFiles { database: config.store_path(), marks: config.mark_paths(), keys: config.kept_keys() }
}

pub(super) fn run(args: &BackupArgs, invocation: &Invocation) -> Result<(), CliError> {
    let contents = if args.check {
        store::verify_backup(&args.file).map_err(|error| CliError::failure(error, "use an earlier backup"))?
    } else {
        let (config, _) = invocation.config()?;
        store::backup(&place(&config), &args.file).map_err(|error| {
            CliError::failure(
                error,
                "run it on the engine's machine, as the engine's user, to a disk with room; see docs/backup.md",
            )
        })?
    };
    if invocation.json() {
        return invocation.print_json(&json!({
            "file": args.file, "entries": contents.entries, "signed": contents.signed.map(|mark| mark.size),
            "root": contents.signed.map(|mark| mark.root.to_string()), "keys": contents.keys,
        }));
    }
    let good = invocation.paint(TextStyle::Good, "good");
    invocation.line(&format!("{good}  {}: {}", args.file.display(), said(&contents)))
}

pub(super) fn restore(args: &RestoreArgs, invocation: &Invocation) -> Result<(), CliError> {
    let (config, _) = invocation.config()?;
    let place = place(&config);
    let restored = store::restore(&place, &args.file, &user(), config.unmatched_tell(), RealClock.now());
    let restored = restored.map_err(|error| {
        let hint = match &error {
            store::StoreError::Locked(_) => "stop the engine first, then restore",
            _ => "the previous data is kept: see docs/backup.md, Restore",
        };
        CliError::failure(error, hint)
    })?;
    if invocation.json() {
        return invocation.print_json(&json!({
            "database": place.database, "entries": restored.contents.entries, "epoch": restored.epoch,
            "missing": restored.missing, "aside": restored.aside,
        }));
    }
    let good = invocation.paint(TextStyle::Good, "restored");
    invocation.line(&format!("{good}  {}: {}", place.database.display(), said(&restored.contents)))?;
    if restored.missing > 0 {
        let missing = restored.missing;
        invocation.line(&format!(
            "missing: {missing} ledger entries signed after the backup; check the cluster before you release automation"
        ))?;
    }
    if let Some(aside) = restored.aside {
        invocation.line(&format!("the previous data is in {}", aside.display()))?;
    }
    invocation.line("start the engine: the channels of unmatched alerts are notified of the restore")
}

fn said(contents: &BackupContents) -> String {
    let signed = contents
        .signed
        .map_or("none of them signed yet".to_owned(), |mark| format!("{} signed, root {}", mark.size, mark.root));
    let keys = match contents.keys.as_slice() {
        [] => "no keys".to_owned(),
        keys => format!("with {}", keys.join(", ")),
    };
    format!("{} entries, {signed}; {keys}", contents.entries)
}
