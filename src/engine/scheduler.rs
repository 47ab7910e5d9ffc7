//! Starts runbooks on their schedule, and reconciles episodes that fell silent with their sources.
//!
//! Invariant: a tick starts at most one run however often it is seen; a silence is never taken for a recovery.

use super::EngineParts;
use crate::config::SourceConfig;
use crate::limits;
use crate::model::{Episode, EpisodeId, Rule, Time};
use crate::sources::{alertmanager_api, alertmanager_api::AlertSnapshot, alertmanager_api::EpisodeAlertState, cron};
use crate::store::{ControlChange, Filter, NewRun, StoreError};
use std::time::Duration;
use tokio::sync::watch;

pub(super) async fn run(parts: EngineParts, mut shutdown: watch::Receiver<bool>) {
    let mut looked = last_alive(&parts).await;
    let mut reconciled: Option<Duration> = None;
    let mut nudged = parts.nudge.listen();
    while !*shutdown.borrow() {
        let (now, began) = (parts.clock.now(), parts.clock.monotonic());
        // The clock was set back: later ticks are due at their time, and a tick that has its run already gets no second
        // one.
        looked = looked.min(now);
        let (next_tick, all_started) = schedule(&parts, looked, now).await;
        if all_started {
            looked = now;
        }
        if reconciled.is_none_or(|last| began >= last + limits::RECONCILE_EVERY) {
            reconcile(&parts, now).await;
            reconciled = Some(began);
        }
        let later = now + limits::SCHEDULE_POLL;
        let wake = next_tick.map_or(later, |next| next.min(later));
        // A nudge may mean that new rules were taken in; it must not make us spin, so look at most once a second.
        tokio::select! {
            () = parts.clock.sleep_until(wake) => {}
            () = async { nudged.heard().await; parts.clock.sleep_until_monotonic(began + limits::JANITOR_EVERY).await } => {}
            _ = shutdown.changed() => {}
        }
    }
}

/// Starts the schedules due in `(looked, now]`, each once, and returns when the next tick is.
///
/// `false`: the store did not take one of them; looking again from the same time starts it, and no other one twice.
async fn schedule(parts: &EngineParts, looked: Time, now: Time) -> (Option<Time>, bool) {
    let loaded = parts.catalog.current();
    let mut next: Option<Time> = None;
    let mut all_started = true;
    for (rule, at) in loaded.rules.scheduled() {
        let ticks = match cron::parse(at) {
            Ok(ticks) => ticks,
            Err(why) => {
                tracing::error!(rule = %rule.name, %why, "invalid schedule; the rule does not start");
                continue;
            }
        };
        if let Some(tick) = ticks.latest_missed(looked, now) {
            all_started &= start(parts, rule, tick, now).await;
        }
        if let Some(tick) = ticks.next_after(now) {
            next = Some(next.map_or(tick, |earlier| earlier.min(tick)));
        }
    }
    (next, all_started)
}

/// `false`: it may be started a moment later.
async fn start(parts: &EngineParts, rule: &Rule, tick: Time, now: Time) -> bool {
    let start = match parts.catalog.current().rules.start_scheduled(&rule.name) {
        Ok(start) => start,
        Err(why) => {
            tracing::error!(rule = %rule.name, %why, "scheduled run not started");
            return true;
        }
    };
    let new = NewRun {
        pin: start.pin,
        subject: start.subject,
        input: start.input,
        mode: rule.mode.min(parts.config.mode_ceiling),
        rule: Some(rule.name.clone()),
        terms: Some(start.terms),
        requested_by: "schedule".to_owned(),
        once: Some(format!("{}@{tick}", rule.name)),
        now,
    };
    match parts.store.start(new).await {
        Ok(Some(run)) => {
            tracing::info!(%run, rule = %rule.name, %tick, "scheduled run started");
            parts.nudge.nudge();
            true
        }
        Ok(None) => true,
        Err(error) => {
            tracing::error!(rule = %rule.name, %error, "cannot start a scheduled run; retrying");
            false
        }
    }
}

/// The time of the newest entry before this start, or of the start itself on a new store: ticks after it were missed.
async fn last_alive(parts: &EngineParts) -> Time {
    let now = parts.clock.now();
    let filter = Filter { kinds: vec!["started"], limit: 1, ..Filter::default() };
    let started = parts.store.entries(filter).await.unwrap_or_default();
    let Some(started) = started.first() else { return now };
    // The entry before our own `started` was written by the process before us.
    let filter = Filter { after: Some(started.no.0 - 2), limit: 1, ..Filter::default() };
    let before = parts.store.entries(filter).await.unwrap_or_default();
    // A new store has none, and its own start counts.
    before.first().unwrap_or(started).at.min(now)
}

async fn reconcile(parts: &EngineParts, now: Time) {
    for (name, source) in &parts.config.sources {
        let asked = if source.api.is_some() { limits::RECONCILE_GRACE } else { source.stale_after };
        // The answer of the source, read once for all pages; none until an episode needs it.
        let mut answer = None;
        let mut unseen = StaleEpisodes::new(name, now - asked.0);
        loop {
            let open = match unseen.page(parts).await {
                Ok(open) if open.is_empty() => break,
                Ok(open) => open,
                Err(error) => {
                    tracing::error!(source = %name, %error, "cannot read the silent episodes");
                    break;
                }
            };
            let Some(api) = &source.api else {
                end(parts, stale(open, source, now), true, &silence(source)).await;
                continue;
            };
            if answer.is_none() {
                answer = Some(ask_source(parts, name, source, api).await);
            }
            if let Some(answer) = &answer {
                compare(parts, name, source, answer, open, now).await;
            }
        }
    }
}

/// Open episodes that fell silent, page by page. Those that stay open do not hide the ones behind them.
pub(super) struct StaleEpisodes<'a> {
    source: &'a str,
    before: Time,
    after: Option<(Time, EpisodeId)>,
    is_last: bool,
}

impl<'a> StaleEpisodes<'a> {
    pub(super) fn new(source: &'a str, before: Time) -> StaleEpisodes<'a> {
        StaleEpisodes { source, before, after: None, is_last: false }
    }

    /// The next page; empty after the last one.
    pub(super) async fn page(&mut self, parts: &EngineParts) -> Result<Vec<Episode>, StoreError> {
        if self.is_last {
            return Ok(Vec::new());
        }
        let page = parts.store.unseen(self.source, self.before, self.after, limits::READ_LIMIT).await?;
        self.after = page.last().map(|last| (last.last_seen, last.id));
        self.is_last = page.is_empty();
        Ok(page)
    }
}

/// The alerts that the source lists at this moment, or why it cannot be read.
async fn ask_source(
    parts: &EngineParts,
    name: &str,
    source: &SourceConfig,
    api: &str,
) -> Result<AlertSnapshot, String> {
    let token = source.api_token.as_ref().map(crate::config::SecretSource::read).transpose();
    let answer = match token {
        Ok(token) => {
            alertmanager_api::fetch(&parts.world.http, api, token.as_deref()).await.map_err(|error| error.to_string())
        }
        Err(why) => Err(why),
    };
    if let Err(why) = &answer {
        tracing::warn!(source = %name, %why, "cannot read the source's open alerts");
    }
    answer
}

/// Ends those of a page that the source no longer lists.
async fn compare(
    parts: &EngineParts,
    name: &str,
    source: &SourceConfig,
    answer: &Result<AlertSnapshot, String>,
    open: Vec<Episode>,
    now: Time,
) {
    match answer {
        Ok(snapshot) => {
            let findings = alertmanager_api::reconcile(&open, snapshot, now);
            let gone = |episode: &Episode| {
                findings.iter().any(|finding| finding.episode == episode.id && finding.found == EpisodeAlertState::Gone)
            };
            let gone = open.into_iter().filter(gone).collect();
            let why = format!("Alertmanager \"{name}\" no longer lists this alert");
            end(parts, gone, false, &why).await;
        }
        Err(_) => {
            // Not knowing is not "resolved": only a long silence makes an episode stale.
            end(parts, stale(open, source, now), true, &silence(source)).await;
        }
    }
}

fn stale(open: Vec<Episode>, source: &SourceConfig, now: Time) -> Vec<Episode> {
    open.into_iter().filter(|episode| episode.last_seen + source.stale_after.0 <= now).collect()
}

fn silence(source: &SourceConfig) -> String {
    format!("the source has not repeated it for {}: its state is unknown", source.stale_after)
}

async fn end(parts: &EngineParts, episodes: Vec<Episode>, stale: bool, why: &str) {
    if episodes.is_empty() {
        return;
    }
    let ids: Vec<_> = episodes.iter().map(|episode| episode.id).collect();
    tracing::info!(episodes = ids.len(), stale, why, "episodes ended without a resolved event from the webhook");
    let control = ControlChange::EndEpisodes { episodes: ids, stale, why: why.to_owned() };
    if let Err(error) = parts.store.control(control, parts.clock.now()).await {
        tracing::error!(%error, "cannot end episodes");
    }
    parts.nudge.nudge();
}
