//! Takes in changed rules, runbooks and integrations while the engine runs.
//!
//! Invariant: every change that is taken in, and every file that is refused, is an entry in the ledger; files in force
//! were kept in the store before.

use super::EngineParts;
use crate::catalog::{self, CatalogFolders, CatalogProblem, CatalogSnapshot};
use crate::limits;
use crate::model::{Actor, EntryKind, EntryLinks, Event, Rule};
use crate::store::{BatchOrigin, EventBatch, Filter, StoreError};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
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
    reconsider(parts).await;
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
    reconsider(parts).await;
}

/// Alerts that are open meet the rules that are new, or are others since: after a rule file was fixed, the alerts of the hour in
/// which it was not in force are not left alone until they end and come again.
async fn reconsider(parts: &EngineParts) {
    if let Err(error) = apply(parts).await {
        tracing::error!(%error, "changed rules were not evaluated for the alerts that are open; retrying at the next change or start");
    }
}

async fn apply(parts: &EngineParts) -> Result<(), StoreError> {
    let loaded = parts.catalog.current();
    let rules: BTreeMap<String, String> = loaded.rules.rules().map(|rule| (rule.name.clone(), hash(rule))).collect();
    let before = parts.store.applied_rules().await?;
    if before.as_ref() == Some(&rules) {
        return Ok(());
    }
    // The first time nothing is known of what open alerts have met, so nothing is done to them.
    let changed = before.map(|before| {
        rules.iter().filter(|(name, hash)| before.get(*name) != Some(*hash)).map(|(name, _)| name.clone()).collect()
    });
    if let Some(changed) = changed {
        meet(parts, &loaded, &changed).await?;
    }
    parts.store.apply_rules(rules).await
}

fn hash(rule: &Rule) -> String {
    // A rule was read from such a text, so it can be written as one.
    hex::encode(Sha256::digest(serde_json::to_vec(rule).unwrap_or_default()))
}

/// Page by page: those that no changed rule matches cost a read.
async fn meet(parts: &EngineParts, loaded: &CatalogSnapshot, changed: &BTreeSet<String>) -> Result<(), StoreError> {
    let mut after = Some(0);
    while !changed.is_empty() {
        let page = Filter { open: true, after, limit: limits::COMPLAINTS_BATCH, ..Filter::default() };
        let page = parts.store.episodes(page).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id.0);
        let mut sources: BTreeMap<String, Vec<Event>> = BTreeMap::new();
        for episode in page {
            if episode.event.is_removed() {
                // Nothing tells what it was about, nor who sent it.
                tracing::info!(episode = %episode.id, "changed rules not evaluated for an alert whose text was removed");
                continue;
            }
            let kind = kind_of(parts, &episode.event.source);
            let selected = loaded.rules.select_from(&episode.event, &kind);
            if selected.iter().any(|selected| changed.contains(&selected.rule.name)) {
                sources.entry(episode.event.source.clone()).or_default().push(episode.event);
            }
        }
        for (source, events) in sources {
            let origin = BatchOrigin::of_kind(&kind_of(parts, &source));
            let (rules, now, count) = (loaded.rules.clone(), parts.clock.now(), events.len());
            let batch = EventBatch { source: source.clone(), events, gaps: Vec::new(), rules, now, origin };
            let heard = parts.store.reconsider(batch, changed.clone()).await?;
            tracing::info!(%source, alerts = count, runs = heard.runs.len(), "changed rules evaluated for open alerts");
        }
    }
    Ok(())
}

fn kind_of(parts: &EngineParts, source: &str) -> String {
    match parts.config.sources.get(source) {
        Some(configured) => configured.kind.as_str().to_owned(),
        None if source == crate::sources::agent::SOURCE => BatchOrigin::AGENT.to_owned(),
        None => source.to_owned(),
    }
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
