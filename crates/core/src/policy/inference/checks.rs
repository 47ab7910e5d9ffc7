//! The table of an inference engine's faults: each line a condition, when it begins, and when it is over.
//! `docs/inference.md` is this table.
//!
//! Invariant: a check decides from two looks alone; a value that it cannot see leaves its condition as it is.

use super::{EngineLimits, EngineLook, EngineQueue, EngineReading, FirstTokens};
use crate::limits;
use crate::model::{Severity, Span};
use std::fmt::Write as _;

/// The result of one check on one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EngineCheckResult {
    /// In words for a user.
    Unhealthy(String),
    Healthy,
    /// Well beyond doubt: the condition is over at once.
    Over,
    /// Neither: the condition stays as it was.
    Same,
}

/// The input of a check.
pub(super) struct EngineCheckInput<'a> {
    pub look: &'a EngineLook,
    /// The last reading before this one, unless the engine has begun anew since.
    pub before: Option<&'a EngineReading>,
    /// It has begun anew since the last reading.
    pub is_anew: bool,
    /// First tokens since enough of them were counted the last time.
    pub first_tokens: Option<&'a FirstTokens>,
    pub limits: &'a EngineLimits,
}

/// The source of a signal. Signals of one group are one signal: they would err together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum SignalGroup {
    /// Counters of steps and tokens.
    Progress,
    /// The readiness endpoint, and the kubelet that probes it.
    Readiness,
    /// How long first tokens take.
    Latency,
    /// The KV cache.
    Cache,
    /// A request of one token that was sent to it.
    Request,
    /// Values from Prometheus, a query each.
    Prometheus,
}

impl SignalGroup {
    /// The group's name in reasons.
    pub const fn word(self) -> &'static str {
        self.into_str()
    }
}

/// When a condition begins.
#[derive(Clone, Copy)]
pub(super) enum OnsetThreshold {
    /// After so many looks in a row.
    Looks(fn(&EngineLimits) -> u32),
    /// Once it has lasted for so long.
    After(fn(&EngineLimits) -> Span),
}

/// One line of the table.
pub struct EngineCheck {
    pub key: &'static str,
    pub alertname: &'static str,
    pub severity: Severity,
    /// Which kind of signal for a restart it is, if it is one.
    pub group: Option<SignalGroup>,
    pub(super) begins: OnsetThreshold,
    /// The setting of its threshold, for the page.
    setting: &'static str,
    /// Looks in a row that must be well before it is over.
    pub(super) ends: u32,
    /// Skipped for an engine that was never ready, while it may be starting.
    pub(super) waits_for_start: bool,
    when: &'static str,
    pub(super) judge: fn(&EngineCheckInput) -> EngineCheckResult,
}

/// One line a check.
#[rustfmt::skip]
pub(super) static CHECKS: [EngineCheck; 6] = [
    EngineCheck { key: "no-progress", alertname: "InferenceNoProgress", severity: Severity::Critical, group: Some(SignalGroup::Progress),
        begins: OnsetThreshold::After(|limits| limits.frozen_for), setting: "frozen_for", ends: 4, waits_for_start: false,
        when: "requests run or wait, and no counter of steps or tokens has grown; over at once when one grows, or when no request waits for some polls", judge: no_progress },
    EngineCheck { key: "not-ready", alertname: "InferenceNotReady", severity: Severity::Error, group: Some(SignalGroup::Readiness),
        begins: OnsetThreshold::Looks(|limits| limits.looks), setting: "looks", ends: 2, waits_for_start: true,
        when: "its readiness endpoint reports not ready, or does not answer in time", judge: not_ready },
    EngineCheck { key: "slow-first-token", alertname: "InferenceSlowFirstToken", severity: Severity::Warning, group: Some(SignalGroup::Latency),
        begins: OnsetThreshold::After(|limits| limits.first_token_for), setting: "first_token_for", ends: 2, waits_for_start: false,
        when: "the quantile `first_token_quantile` of the time to the first token is above `first_token`, of ten requests or more", judge: slow_first_token },
    EngineCheck { key: "cache-full", alertname: "InferenceCacheFull", severity: Severity::Warning, group: Some(SignalGroup::Cache),
        begins: OnsetThreshold::After(|limits| limits.cache_for), setting: "cache_for", ends: 2, waits_for_start: false,
        when: "more than the share `cache` of the KV cache is in use", judge: cache_full },
    EngineCheck { key: "queue", alertname: "InferenceQueueLong", severity: Severity::Warning, group: None,
        begins: OnsetThreshold::After(|limits| limits.queue_for), setting: "queue_for", ends: 2, waits_for_start: false,
        when: "more than `queue` requests wait", judge: queue },
    EngineCheck { key: "unreadable", alertname: "InferenceUnreadable", severity: Severity::Warning, group: None,
        begins: OnsetThreshold::Looks(|limits| limits.looks), setting: "looks", ends: 2, waits_for_start: true,
        when: "its metrics page is not reached, silent, over 4 MiB, of another status than 200, or no page of that engine", judge: unreadable },
];

fn no_progress(view: &EngineCheckInput) -> EngineCheckResult {
    let Some(now) = view.look.reading() else { return EngineCheckResult::Same };
    if view.is_anew {
        return EngineCheckResult::Over;
    }
    let Some(before) = view.before else { return EngineCheckResult::Same };
    let mut moved = false;
    for (name, lane) in &now.lanes {
        let Some(was) = before.lanes.get(name) else { continue };
        let Some((had, has)) = was.steps.zip(lane.steps) else { continue };
        moved |= has != had;
        if has == had && lane.has_work() && was.has_work() {
            return EngineCheckResult::Unhealthy(stuck(name, lane));
        }
    }
    match (moved, now.lanes.values().any(EngineQueue::has_work)) {
        (true, _) => EngineCheckResult::Over,
        (false, false) => EngineCheckResult::Healthy,
        (false, true) => EngineCheckResult::Same,
    }
}

fn stuck(name: &str, lane: &EngineQueue) -> String {
    let of = if name.is_empty() { String::new() } else { format!(" of {name}") };
    format!("{} requests wait and {} run{of}, and no step was made", lane.waiting, lane.running)
}

fn not_ready(view: &EngineCheckInput) -> EngineCheckResult {
    view.look
        .unready
        .as_ref()
        .map_or(EngineCheckResult::Healthy, |why| EngineCheckResult::Unhealthy(format!("it is not ready: {why}")))
}

fn slow_first_token(view: &EngineCheckInput) -> EngineCheckResult {
    let Some(tokens) = view.first_tokens else { return EngineCheckResult::Same };
    let (limit, quantile) = (view.limits.first_token.0.as_secs_f64(), view.limits.first_token_quantile);
    // The bucket that holds the limit counts as within it, so that only certainly late tokens count as late.
    let within = tokens.buckets.iter().find(|(bound, _)| *bound >= limit).map_or(tokens.total, |(_, count)| *count);
    if within >= quantile * tokens.total {
        return EngineCheckResult::Healthy;
    }
    EngineCheckResult::Unhealthy(format!(
        "{:.0} of {:.0} requests waited more than {} for their first token",
        tokens.total - within,
        tokens.total,
        view.limits.first_token
    ))
}

fn cache_full(view: &EngineCheckInput) -> EngineCheckResult {
    match view.look.reading().and_then(|reading| reading.cache) {
        Some(share) if share > view.limits.cache => {
            EngineCheckResult::Unhealthy(format!("{:.0} % of its KV cache is in use", share * 100.0))
        }
        Some(_) => EngineCheckResult::Healthy,
        None => EngineCheckResult::Same,
    }
}

fn queue(view: &EngineCheckInput) -> EngineCheckResult {
    match view.look.reading().map(EngineReading::waiting) {
        Some(waiting) if waiting > view.limits.queue => {
            EngineCheckResult::Unhealthy(format!("{waiting} requests wait"))
        }
        Some(_) => EngineCheckResult::Healthy,
        None => EngineCheckResult::Same,
    }
}

fn unreadable(view: &EngineCheckInput) -> EngineCheckResult {
    match &view.look.page {
        Ok(_) => EngineCheckResult::Healthy,
        Err((kind, words)) => {
            EngineCheckResult::Unhealthy(format!("its metrics page cannot be read ({}): {words}", kind.word()))
        }
    }
}

/// First tokens that came between two counts; none of a counter that fell, or where too few came.
pub(super) fn came(now: &FirstTokens, before: &FirstTokens) -> Option<FirstTokens> {
    let total = now.total - before.total;
    if now.buckets.len() != before.buckets.len() || total < limits::ENGINE_FIRST_TOKENS {
        return None;
    }
    let pairs = now.buckets.iter().zip(&before.buckets);
    Some(FirstTokens { buckets: pairs.map(|((bound, is), (_, was))| (*bound, is - was)).collect(), total })
}

/// The page of all findings of the probes, for users who write rules.
pub fn inference_page() -> String {
    let mut page = String::from(
        "# Alerts of the probes about inference engines\n\nGenerated from `crates/core/src/policy/inference/checks.rs`. A source of kind `inference` polls \
         each engine's readiness and metrics every 15 s; how to set it up: `integrations/inference/README.md`. *begins*: the setting under \
         `probe.limits` for how long it must last (or how many polls), with its default. *ends*: healthy polls in a row. A value that a page \
         does not report leaves an alert as it is. *signal*: what `inference::restart` and `inference::health` count it as; \
         two signals of one kind are one.\n\n\
         | alert | alertname | severity | begins | ends | signal | when |\n|---|---|---|---|---|---|---|\n",
    );
    let defaults = EngineLimits::default();
    for check in &CHECKS {
        let begins = match check.begins {
            OnsetThreshold::Looks(looks) => format!("{} looks", looks(&defaults)),
            OnsetThreshold::After(span) => span(&defaults).to_string(),
        };
        let signal = check.group.map_or("–", SignalGroup::word);
        let _ = writeln!(
            page,
            "| `{}` | `{}` | {} | `{}` ({begins}) | {} | {signal} | {} |",
            check.key, check.alertname, check.severity, check.setting, check.ends, check.when
        );
    }
    page += "\nAbout the probes themselves:\n\n| alertname | severity | when |\n|---|---|---|\n\
         | `InferenceProbeWrong` | warning | a pod's label `nightshift.dev/probe` or its port annotation is invalid |\n\
         | `InferenceProbesLeftOut` | warning | there are more engines than one installation polls |\n";
    page
}
