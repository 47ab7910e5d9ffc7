//! Takes in changed people and tokens while the engine runs.
//!
//! Invariant: every change that is taken in is an entry in the ledger, and a file that cannot be used changes nothing and is
//! one too.

use super::Roster;
use crate::config::Config;
use crate::limits;
use crate::model::{About, Actor, EntryKind};
use crate::server::{App, Tokens};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tokio::sync::watch;

/// What of a file shows that it is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

fn mark(path: &Path) -> Option<Mark> {
    use std::os::unix::fs::MetadataExt;
    let about = std::fs::metadata(path).ok()?;
    Some(Mark { modified: about.modified().ok(), bytes: about.len(), inode: about.ino() })
}

/// Looks at the file until shutdown.
pub async fn watch(app: App, path: PathBuf, mut shutdown: watch::Receiver<bool>) {
    let mut seen = mark(&path);
    while !*shutdown.borrow() {
        tokio::select! {
            () = tokio::time::sleep(limits::ROSTER_LOOK_EVERY) => {}
            _ = shutdown.changed() => {}
        }
        let now = mark(&path);
        if now != seen {
            seen = now;
            take_in(&app, &path).await;
        }
    }
}

/// Reads the file again; its people and tokens hold from then on.
async fn take_in(app: &App, path: &Path) {
    let file = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let config = Config::load(&file).map_err(|error| error.to_string())?;
        let tokens = Tokens::load(&config.server, &config.data_dir)?;
        Ok((config, tokens))
    });
    let read: Result<(Config, Tokens), String> = match reading.await {
        Ok(read) => read,
        Err(bug) => Err(format!("a bug ended the reading: {bug}")),
    };
    let (config, tokens) = match read {
        Ok(read) => read,
        Err(why) => {
            tracing::error!(%why, "the configuration cannot be used: who may what stays as it was; mend the file");
            let why = crate::notifiers::one_line(&why, limits::STORY_LINE_CHARS);
            note(app, EntryKind::CatalogRefused { file: path.display().to_string(), why }).await;
            return;
        }
    };
    if needs_a_restart(&app.parts.config, &config) {
        tracing::warn!("the configuration has changed: people and tokens are taken in now, the rest at the next start");
    }
    let next = Roster::new(config.people, tokens);
    let mut changes = app.roster.now().changes(&next);
    if changes.is_empty() {
        return;
    }
    let more = changes.len().saturating_sub(limits::ROSTER_CHANGES);
    changes.truncate(limits::ROSTER_CHANGES);
    if more > 0 {
        changes.push(format!("and {more} more"));
    }
    // In force first: a role that was taken away must not wait for a disk.
    app.roster.replace(next);
    tracing::info!(changes = %changes.join("; "), "people and tokens were taken in");
    note(app, EntryKind::PeopleChanged { changes }).await;
}

fn needs_a_restart(running: &Config, read: &Config) -> bool {
    let rest = |config: &Config| {
        let mut rest = config.clone();
        rest.people.clear();
        rest.server.tokens.clear();
        // A port given on the command line is no change of the file.
        rest.server.listen = running.server.listen;
        rest
    };
    rest(running) != rest(read)
}

async fn note(app: &App, kind: EntryKind) {
    if let Err(error) = app.parts.store.note(Actor::engine(), About::default(), kind, app.parts.clock.now()).await {
        tracing::error!(%error, "cannot write to the ledger");
    }
}
