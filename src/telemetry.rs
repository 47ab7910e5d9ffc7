//! Logs and metrics: one list of every metric, labels only from closed enums and the names of configured sources.
//!
//! Invariant: no label value comes from outside the program and its configuration.

mod exposition;
mod logs;
mod table;
mod words;

pub use exposition::ExpositionFormat;
pub use logs::{init, printable};
pub use table::{Metric, MetricKind, Metrics, TABLE, reference};
pub use words::{
    Budget, ChannelKind, Delivered, Ended, Fence, Phase, ProbeLevels, ProbeResult, Refused, Settled, Shed, SlackDoor,
    StoreGauges, Verdict, Via,
};

use crate::model::{EffectClass, ReasonCode, RunState};
use crate::policy::EngineKind;
use std::time::Duration;

/// Sources that no configuration names; and the label of an unknown name.
const OWN_SOURCES: [&str; 1] = ["agent"];
const OTHER: &str = "other";

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    /// All metrics at zero; counters by closed lists have their series from the start.
    pub fn new() -> Metrics {
        let metrics = Metrics::unset();
        // An alert on an increase sees the first one only where the series was there before it.
        for state in RunState::FINAL_NAMES {
            drop(metrics.runs_ended.get_or_create(&[("state", state)]));
        }
        for reason in [Shed::Bytes, Shed::Busy, Shed::Store] {
            drop(metrics.ingest_shed.get_or_create(&[("reason", reason.word())]));
        }
        metrics
    }

    /// OpenMetrics text of everything.
    pub fn render(&self) -> String {
        self.page(ExpositionFormat::OpenMetrics)
    }

    /// Everything in that format.
    pub fn page(&self, format: ExpositionFormat) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail; half a page would be noticed by its missing `# EOF`.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        match format {
            ExpositionFormat::OpenMetrics => text,
            ExpositionFormat::Text => exposition::to_text(&text),
        }
    }

    // ── ingest ──
    /// Events of one request were committed and are about to be acknowledged.
    pub fn acked(&self, events: usize, took: Duration) {
        self.events_acked.inc_by(events as u64);
        self.ingest_seconds.observe(took.as_secs_f64());
    }

    /// Counts a batch of `said` events: stored, refreshed and late.
    pub fn heard(&self, said: usize, refreshed: usize, late: usize) {
        self.events_stored.inc_by(said.saturating_sub(refreshed + late) as u64);
        self.events_duplicate.inc_by(refreshed as u64);
        self.events_late.inc_by(late as u64);
    }

    /// The sources of the configuration, and those of the engine's own: names that may be a label. Once, at the start.
    pub fn know_sources<'n>(&self, names: impl IntoIterator<Item = &'n str>) {
        for name in names.into_iter().chain(OWN_SOURCES) {
            drop(self.events_unmatched.get_or_create(&[("source", name.to_owned())]));
        }
    }

    /// Events of a source that no rule matched.
    pub fn unmatched(&self, source: &str, count: usize) {
        if count == 0 {
            return;
        }
        // No label value comes from outside: a name that is not configured is none.
        let known = self.events_unmatched.get(&[("source", source.to_owned())]).is_some();
        let label = if known { source } else { OTHER };
        self.events_unmatched.get_or_create(&[("source", label.to_owned())]).inc_by(count as u64);
    }

    /// Counts gaps in bodies.
    pub fn gap(&self, count: usize) {
        self.gaps.inc_by(count as u64);
    }

    /// Counts a batch that was turned away because of load.
    pub fn shed(&self, why: Shed) {
        self.ingest_shed.get_or_create(&[("reason", why.word())]).inc();
    }

    /// Counts a request that was refused.
    pub fn refused(&self, why: Refused) {
        self.ingest_refused.get_or_create(&[("reason", why.word())]).inc();
    }

    /// Counts a request without the right to it.
    pub fn forbidden(&self) {
        self.forbidden.inc();
    }

    /// Counts a request whose authentication failed.
    pub fn auth_failed(&self) {
        self.auth_failures.inc();
    }

    /// Counts a connection that was opened.
    pub fn connection_opened(&self) {
        self.connections.inc();
    }

    /// Counts a connection that was closed.
    pub fn connection_closed(&self) {
        self.connections.dec();
    }

    // ── store ──
    /// One commit: how many operations shared it and how long the disk took.
    pub fn committed(&self, operations: usize, fsync: Duration) {
        self.commit_batch_size.observe(operations as f64);
        self.fsync_seconds.observe(fsync.as_secs_f64());
    }

    /// Counts a write of a superseded engine that was rejected.
    pub fn fenced(&self, at: Fence) {
        self.fencing_rejected.get_or_create(&[("where", at.word())]).inc();
    }

    // ── engine ──
    /// Observes the time from an event to the start of its run.
    pub fn run_started(&self, after: Duration) {
        self.run_start_latency_seconds.observe(after.as_secs_f64());
    }

    /// `state` is `RunState::name()`, a closed list.
    pub fn run_ended(&self, state: &'static str) {
        self.runs_ended.get_or_create(&[("state", state)]).inc();
    }

    /// Counts a user's review of a run.
    pub fn judged(&self, verdict: Verdict) {
        self.judgements.get_or_create(&[("verdict", verdict.word())]).inc();
    }

    /// Observes the duration of one phase of a step.
    pub fn step(&self, phase: Phase, took: Duration) {
        self.step_seconds.get_or_create(&[("phase", phase.word())]).observe(took.as_secs_f64());
    }

    /// Counts an effect by its class and outcome.
    pub fn effect(&self, class: EffectClass, outcome: Ended) {
        self.effects.get_or_create(&[("class", class.name()), ("outcome", outcome.word())]).inc();
    }

    /// Counts an effect in doubt by its class and resolution.
    pub fn ambiguous(&self, class: EffectClass, resolution: Settled) {
        self.effects_ambiguous.get_or_create(&[("class", class.name()), ("resolution", resolution.word())]).inc();
    }

    /// Observes how late a timer fired.
    pub fn timer(&self, late: Duration) {
        self.timer_lateness_seconds.observe(late.as_secs_f64());
    }

    /// A guard held or denied.
    pub fn action_refused(&self, guard: ReasonCode) {
        self.actions_refused.get_or_create(&[("guard", guard.name())]).inc();
    }

    /// Sets a budget's use and limit.
    pub fn budget(&self, scope: Budget, used: f64, limit: f64) {
        self.budget_used.get_or_create(&[("scope", scope.word())]).set(used);
        self.budget_limit.get_or_create(&[("scope", scope.word())]).set(limit);
    }

    /// Counts an attempt to deliver a message.
    pub fn delivery(&self, channel: ChannelKind, outcome: Delivered) {
        self.deliveries.get_or_create(&[("channel", channel.word()), ("outcome", outcome.word())]).inc();
    }

    // ── Slack ──
    /// From a request of Slack at hand to its answer.
    pub fn slack_answered(&self, door: SlackDoor, took: Duration) {
        self.slack_answer_seconds.get_or_create(&[("door", door.word())]).observe(took.as_secs_f64());
    }

    /// An attempt to connect for Socket Mode.
    pub fn slack_opened(&self, good: bool) {
        let outcome = if good { Ended::Ok } else { Ended::Failed };
        self.slack_connections.get_or_create(&[("outcome", outcome.word())]).inc();
    }

    /// Sets whether the Socket Mode connection to Slack is up.
    pub fn set_slack_connected(&self, connected: bool) {
        self.slack_connected.set(i64::from(connected));
    }

    /// Counts a replay that differed from its journal; must stay 0.
    pub fn replay_mismatch(&self) {
        self.replay_mismatch.inc();
    }

    /// Counts a failed verification of the ledger; must stay 0.
    pub fn audit_verify_failed(&self) {
        self.audit_verify_failures.inc();
    }

    /// Counts a violated invariant; must stay 0.
    pub fn invariant_violated(&self) {
        self.invariant_violation.inc();
    }

    /// Counts a file of the catalog that was refused.
    pub fn catalog_refused(&self) {
        self.catalog_refused.inc();
    }

    // ── inference engines ──
    /// Counts a probe of an inference engine.
    pub fn probed(&self, engine: EngineKind, outcome: ProbeResult) {
        self.probe_looks.get_or_create(&[("engine", engine.word()), ("outcome", outcome.word())]).inc();
    }

    /// Sets the state of the probes of one kind of engine.
    pub fn set_probes(&self, engine: EngineKind, levels: &ProbeLevels) {
        let labels = [("engine", engine.word())];
        let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.probe_targets.get_or_create(&labels).set(whole(levels.targets));
        self.probe_up.get_or_create(&labels).set(whole(levels.up));
        self.probe_age_seconds.get_or_create(&labels).set(levels.oldest_seconds);
    }

    /// Agents that have joined, by whether they report now.
    pub fn set_agents(&self, reporting: usize, silent: usize) {
        for (state, count) in [("reporting", reporting), ("silent", silent)] {
            self.agents.get_or_create(&[("state", state)]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A warm has ended; `resident` is the share in memory of the model that is least there.
    pub fn warmed(&self, via: Via, outcome: Ended, seconds: f64, read_bytes: u64, resident: Option<f64>) {
        self.cache_warms.get_or_create(&[("via", via.word()), ("outcome", outcome.word())]).inc();
        if let Some(resident) = resident {
            self.cache_warm_seconds.observe(seconds);
            self.cache_warm_read_bytes.inc_by(read_bytes);
            self.cache_warm_resident_ratio.set(resident);
        }
    }

    // ── levels ──
    /// Sets the gauges that are read from the store.
    pub fn set_levels(&self, levels: &StoreGauges) {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.killswitch_state.set(whole(levels.freezes));
        self.approvals_open.set(whole(levels.approvals_open));
        self.episodes_open.set(whole(levels.episodes_open));
        self.incidents_open.set(whole(levels.incidents_open));
        self.runs_unfinished.set(whole(levels.runs_unfinished));
        self.outbox_due.set(whole(levels.notices_due));
        self.outbox_oldest_seconds.set(levels.oldest_notice_seconds);
        self.audit_entries.set(whole(levels.entries));
        self.audit_unanchored_leaves.set(whole(levels.unsigned));
        self.nodes_held.set(whole(levels.nodes_held));
        self.cache_warming.set(whole(levels.warming));
        self.cache_warming_bytes.set(whole(levels.warming_bytes));
        self.cache_warming_done_bytes.set(whole(levels.warming_done));
        self.clusters_lost.set(whole(levels.clusters_lost));
        for (mode, count) in ["observe", "suggest", "approve", "auto"].into_iter().zip(levels.rules) {
            self.rules.get_or_create(&[("mode", mode)]).set(whole(count));
        }
        self.rules_lowered.set(whole(levels.rules_lowered));
    }
}

#[cfg(test)]
mod tests;
