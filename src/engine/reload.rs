//! Takes in changed rules, runbooks and integrations while the engine runs.
//!
//! Invariant: every change that is taken in, and every file that is refused, is an entry in the ledger; files in force
//! were kept in the store before.

use super::EngineParts;
use crate::catalog::{self, CatalogFolders, CatalogProblem, CatalogSnapshot};
use crate::limits;
use crate::model::{Actor, EntryKind, EntryLinks};
use crate::store::StoreError;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Reads the files again, keeps their texts, puts them in force, and writes the result to the ledger.
pub async fn reload(parts: &EngineParts) {
    let catalog = parts.catalog.clone();
    let Ok((loaded, problems)) = tokio::task::spawn_blocking(move || catalog.read()).await else { return };
    refused(parts, &problems).await;
    let Some(loaded) = loaded else { return };
    // Kept first: a run that starts from it and a crash right after must find its runbook again.
    if let Err(error) = keep(parts, &loaded).await {
        tracing::error!(%error, "cannot store changed files; the previous version stays active");
        return;
    }
    parts.catalog.put(loaded);
    record(parts).await;
    tracing::info!("rules and runbooks reloaded");
    for misfit in super::misfits(&parts.config, &parts.catalog.current()) {
        tracing::warn!("{}", misfit.text);
        note(parts, EntryKind::Trouble { text: misfit.text }).await;
    }
    parts.nudge.nudge();
}

/// Counts, logs and records each file that is refused and was not the last time.
pub async fn refused(parts: &EngineParts, problems: &[CatalogProblem]) {
    for problem in parts.catalog.news(problems) {
        parts.metrics.catalog_refused();
        tracing::warn!(file = %problem.file, problem = %problem.text, "file rejected; its last good version stays active");
        let kind = EntryKind::CatalogRefused { file: problem.file.clone(), why: problem.text.clone() };
        note(parts, kind).await;
    }
}

/// Keeps the texts of the current catalog, so that runs outlive their files and a start never depends on them, and records
/// the catalog's hash.
pub async fn take_in(parts: &EngineParts) {
    if let Err(error) = keep(parts, &parts.catalog.current()).await {
        tracing::error!(%error, "cannot store the texts of rules and runbooks");
    }
    record(parts).await;
}

async fn keep(parts: &EngineParts, loaded: &CatalogSnapshot) -> Result<(), StoreError> {
    let now = parts.clock.now();
    // Together, so that they share a commit: a start does not wait for the disk once for each runbook.
    let runbooks = loaded.runbooks.values();
    let pins = runbooks.map(|runbook| parts.store.pin(&runbook.pin, &runbook.text, runbook.header.reach, now));
    let (pinned, kept) =
        futures::join!(futures::future::join_all(pins), parts.store.keep_catalog(loaded.files.to_vec()));
    pinned.into_iter().collect::<Result<Vec<()>, _>>()?;
    kept
}

async fn record(parts: &EngineParts) {
    let loaded = parts.catalog.current();
    let kind = EntryKind::CatalogLoaded {
        rules: loaded.rules.rules().count(),
        runbooks: loaded.runbooks.len(),
        hash: loaded.hash.clone(),
    };
    note(parts, kind).await;
}

/// Watches the folders until shutdown. Where watching is not possible, a slow poll does the same.
pub async fn watch_files(parts: EngineParts, mut shutdown: watch::Receiver<bool>) {
    let changes = Arc::new(tokio::sync::Notify::new());
    let on_change = changes.clone();
    let folders = CatalogFolders {
        runbooks: parts.config.runbooks_dir.clone(),
        rules: parts.config.rules_dir.clone(),
        integrations: parts.config.integrations_dir.clone(),
    };
    let watching = catalog::watch(folders, move || on_change.notify_one());
    if let Err(why) = &watching {
        tracing::warn!(%why, "file notifications unavailable; checking for changed files every minute");
    }
    let mut hangup = hangup();
    while !*shutdown.borrow() {
        tokio::select! {
            () = changes.notified() => reload(&parts).await,
            () = heard(&mut hangup) => {
                tracing::info!("SIGHUP received; reloading rules, runbooks and integrations");
                reload(&parts).await;
            }
            () = parts.clock.sleep_for(limits::RELOAD_POLL), if watching.is_err() => reload(&parts).await,
            _ = shutdown.changed() => {}
        }
    }
}

/// SIGHUP, as Prometheus and Alertmanager take it; without it files are noticed all the same.
fn hangup() -> Option<Signal> {
    let listening = signal(SignalKind::hangup());
    if let Err(error) = &listening {
        tracing::warn!(%error, "cannot install the SIGHUP handler");
    }
    listening.ok()
}

async fn heard(hangup: &mut Option<Signal>) {
    let Some(signal) = hangup else { return std::future::pending().await };
    if signal.recv().await.is_none() {
        *hangup = None;
    }
}

async fn note(parts: &EngineParts, kind: EntryKind) {
    if let Err(error) = parts.store.note(Actor::engine(), EntryLinks::default(), kind, parts.clock.now()).await {
        tracing::error!(%error, "cannot write to the ledger");
    }
}
