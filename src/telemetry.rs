//! Logs and metrics: one table of every metric, labels only from closed enums and the names of configured sources.
//!
//! Invariant: no label value comes from outside the program and its configuration.

mod exposition;
mod logs;
mod table;
mod words;

pub use exposition::Format;
pub use logs::{init, printable};
pub use table::{Kind, Metric, TABLE, reference};
pub use words::{
    Budget, ChannelKind, Delivered, Ended, Fence, Levels, Phase, ProbeLevels, Probed, Refused, Settled, Shed,
    SlackDoor, Verdict, Via,
};

use crate::model::{Effect, ReasonCode, RunState};
use crate::policy::EngineKind;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric as Registrable, Registry};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Sources that no configuration names; and the label of an unknown name.
const OWN_SOURCES: [&str; 1] = ["agent"];
const OTHER: &str = "other";

/// Words for one label.
type One = [(&'static str, &'static str); 1];
type Two = [(&'static str, &'static str); 2];
type Level = Gauge<f64, AtomicU64>;

/// Every metric. Cheap to update from any thread; build it once.
pub struct Metrics {
    registry: Registry,
    events_acked: Counter,
    events_stored: Counter,
    events_duplicate: Counter,
    events_late: Counter,
    events_unmatched: Family<[(&'static str, String); 1], Counter>,
    gaps: Counter,
    ingest_seconds: Histogram,
    ingest_shed: Family<One, Counter>,
    ingest_refused: Family<One, Counter>,
    auth_failures: Counter,
    forbidden: Counter,
    connections: Gauge,
    commit_batch_size: Histogram,
    fsync_seconds: Histogram,
    run_start_latency: Histogram,
    step_seconds: Family<One, Histogram, fn() -> Histogram>,
    effects: Family<Two, Counter>,
    effects_ambiguous: Family<Two, Counter>,
    fencing_rejected: Family<One, Counter>,
    timer_lateness: Histogram,
    budget_used: Family<One, Level>,
    budget_limit: Family<One, Level>,
    actions_refused: Family<One, Counter>,
    runs_ended: Family<One, Counter>,
    deliveries: Family<Two, Counter>,
    slack_seconds: Family<One, Histogram, fn() -> Histogram>,
    slack_connections: Family<One, Counter>,
    slack_connected: Gauge,
    replay_mismatch: Counter,
    audit_verify_failures: Counter,
    invariant_violation: Counter,
    catalog_refused: Counter,
    warms: Family<Two, Counter>,
    warm_seconds: Histogram,
    warm_read_bytes: Counter,
    warm_resident: Level,
    // levels
    killswitch: Gauge,
    approvals_open: Gauge,
    episodes_open: Gauge,
    incidents_open: Gauge,
    runs_unfinished: Gauge,
    outbox_due: Gauge,
    outbox_oldest: Level,
    audit_entries: Gauge,
    audit_unanchored: Gauge,
    nodes_held: Gauge,
    probe_looks: Family<Two, Counter>,
    probe_targets: Family<One, Gauge>,
    probe_up: Family<One, Gauge>,
    probe_age: Family<One, Level>,
    warming: Gauge,
    warming_bytes: Gauge,
    warming_done: Gauge,
    clusters_lost: Gauge,
    agents: Family<One, Gauge>,
    judgements: Family<One, Counter>,
    rules: Family<One, Gauge>,
    rules_lowered: Gauge,
}

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

    fn unset() -> Metrics {
        let mut registry = Registry::with_prefix("nightshift");
        let r = &mut registry;
        Metrics {
            events_acked: add(r, "events_acked", Counter::default()),
            events_stored: add(r, "events_stored", Counter::default()),
            events_duplicate: add(r, "events_duplicate", Counter::default()),
            events_late: add(r, "events_late", Counter::default()),
            events_unmatched: add(r, "events_unmatched", Family::default()),
            gaps: add(r, "gaps", Counter::default()),
            ingest_seconds: add(r, "ingest_seconds", seconds()),
            ingest_shed: add(r, "ingest_shed", Family::default()),
            ingest_refused: add(r, "ingest_refused", Family::default()),
            auth_failures: add(r, "auth_failures", Counter::default()),
            forbidden: add(r, "forbidden", Counter::default()),
            connections: add(r, "connections", Gauge::default()),
            commit_batch_size: add(r, "commit_batch_size", sizes()),
            fsync_seconds: add(r, "fsync_seconds", seconds()),
            run_start_latency: add(r, "run_start_latency_seconds", seconds()),
            step_seconds: add(r, "step_seconds", Family::new_with_constructor(seconds as fn() -> Histogram)),
            effects: add(r, "effects", Family::default()),
            effects_ambiguous: add(r, "effects_ambiguous", Family::default()),
            fencing_rejected: add(r, "fencing_rejected", Family::default()),
            timer_lateness: add(r, "timer_lateness_seconds", seconds()),
            budget_used: add(r, "budget_used", Family::default()),
            budget_limit: add(r, "budget_limit", Family::default()),
            actions_refused: add(r, "actions_refused", Family::default()),
            runs_ended: add(r, "runs_ended", Family::default()),
            deliveries: add(r, "deliveries", Family::default()),
            slack_seconds: add(r, "slack_answer_seconds", Family::new_with_constructor(seconds as fn() -> Histogram)),
            slack_connections: add(r, "slack_connections", Family::default()),
            slack_connected: add(r, "slack_connected", Gauge::default()),
            replay_mismatch: add(r, "replay_mismatch", Counter::default()),
            audit_verify_failures: add(r, "audit_verify_failures", Counter::default()),
            invariant_violation: add(r, "invariant_violation", Counter::default()),
            catalog_refused: add(r, "catalog_refused", Counter::default()),
            warms: add(r, "cache_warms", Family::default()),
            warm_seconds: add(r, "cache_warm_seconds", minutes()),
            warm_read_bytes: add(r, "cache_warm_read_bytes", Counter::default()),
            warm_resident: add(r, "cache_warm_resident_ratio", Gauge::default()),
            killswitch: add(r, "killswitch_state", Gauge::default()),
            approvals_open: add(r, "approvals_open", Gauge::default()),
            episodes_open: add(r, "episodes_open", Gauge::default()),
            incidents_open: add(r, "incidents_open", Gauge::default()),
            runs_unfinished: add(r, "runs_unfinished", Gauge::default()),
            outbox_due: add(r, "outbox_due", Gauge::default()),
            outbox_oldest: add(r, "outbox_oldest_seconds", Gauge::default()),
            audit_entries: add(r, "audit_entries", Gauge::default()),
            audit_unanchored: add(r, "audit_unanchored_leaves", Gauge::default()),
            nodes_held: add(r, "nodes_held", Gauge::default()),
            probe_looks: add(r, "probe_looks", Family::default()),
            probe_targets: add(r, "probe_targets", Family::default()),
            probe_up: add(r, "probe_up", Family::default()),
            probe_age: add(r, "probe_age_seconds", Family::default()),
            warming: add(r, "cache_warming", Gauge::default()),
            warming_bytes: add(r, "cache_warming_bytes", Gauge::default()),
            warming_done: add(r, "cache_warming_done_bytes", Gauge::default()),
            clusters_lost: add(r, "clusters_lost", Gauge::default()),
            agents: add(r, "agents", Family::default()),
            judgements: add(r, "judgements", Family::default()),
            rules: add(r, "rules", Family::default()),
            rules_lowered: add(r, "rules_lowered", Gauge::default()),
            registry,
        }
    }

    /// OpenMetrics text of everything.
    pub fn render(&self) -> String {
        self.page(Format::OpenMetrics)
    }

    /// Everything in that format.
    pub fn page(&self, format: Format) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail; half a page would be noticed by its missing `# EOF`.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        match format {
            Format::OpenMetrics => text,
            Format::Text => exposition::to_text(&text),
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
        self.run_start_latency.observe(after.as_secs_f64());
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
    pub fn effect(&self, class: Effect, outcome: Ended) {
        self.effects.get_or_create(&[("class", effect(class)), ("outcome", outcome.word())]).inc();
    }

    /// Counts an effect in doubt by its class and resolution.
    pub fn ambiguous(&self, class: Effect, resolution: Settled) {
        self.effects_ambiguous.get_or_create(&[("class", effect(class)), ("resolution", resolution.word())]).inc();
    }

    /// Observes how late a timer fired.
    pub fn timer(&self, late: Duration) {
        self.timer_lateness.observe(late.as_secs_f64());
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
        self.slack_seconds.get_or_create(&[("door", door.word())]).observe(took.as_secs_f64());
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
    pub fn probed(&self, engine: EngineKind, outcome: Probed) {
        self.probe_looks.get_or_create(&[("engine", engine.word()), ("outcome", outcome.word())]).inc();
    }

    /// Sets the state of the probes of one kind of engine.
    pub fn set_probes(&self, engine: EngineKind, levels: &ProbeLevels) {
        let labels = [("engine", engine.word())];
        let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.probe_targets.get_or_create(&labels).set(whole(levels.targets));
        self.probe_up.get_or_create(&labels).set(whole(levels.up));
        self.probe_age.get_or_create(&labels).set(levels.oldest_seconds);
    }

    /// Agents that have joined, by whether they report now.
    pub fn set_agents(&self, reporting: usize, silent: usize) {
        for (state, count) in [("reporting", reporting), ("silent", silent)] {
            self.agents.get_or_create(&[("state", state)]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A warm has ended; `resident` is the share in memory of the model that is least there.
    pub fn warmed(&self, via: Via, outcome: Ended, seconds: f64, read_bytes: u64, resident: Option<f64>) {
        self.warms.get_or_create(&[("via", via.word()), ("outcome", outcome.word())]).inc();
        if let Some(resident) = resident {
            self.warm_seconds.observe(seconds);
            self.warm_read_bytes.inc_by(read_bytes);
            self.warm_resident.set(resident);
        }
    }

    // ── levels ──
    /// Sets the gauges that are read from the store.
    pub fn set_levels(&self, levels: &Levels) {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.killswitch.set(whole(levels.freezes));
        self.approvals_open.set(whole(levels.approvals_open));
        self.episodes_open.set(whole(levels.episodes_open));
        self.incidents_open.set(whole(levels.incidents_open));
        self.runs_unfinished.set(whole(levels.runs_unfinished));
        self.outbox_due.set(whole(levels.notices_due));
        self.outbox_oldest.set(levels.oldest_notice_seconds);
        self.audit_entries.set(whole(levels.entries));
        self.audit_unanchored.set(whole(levels.unsigned));
        self.nodes_held.set(whole(levels.nodes_held));
        self.warming.set(whole(levels.warming));
        self.warming_bytes.set(whole(levels.warming_bytes));
        self.warming_done.set(whole(levels.warming_done));
        self.clusters_lost.set(whole(levels.clusters_lost));
        for (mode, count) in ["observe", "suggest", "approve", "auto"].into_iter().zip(levels.rules) {
            self.rules.get_or_create(&[("mode", mode)]).set(whole(count));
        }
        self.rules_lowered.set(whole(levels.rules_lowered));
    }
}

fn add<M: Registrable + Clone>(registry: &mut Registry, name: &'static str, metric: M) -> M {
    registry.register(name, table::help(name), metric.clone());
    metric
}

/// From half a millisecond to a minute.
fn seconds() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    ])
}

/// From a second to an hour.
fn minutes() -> Histogram {
    Histogram::new([1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_200.0, 1_800.0, 3_600.0])
}

fn sizes() -> Histogram {
    Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0])
}

fn effect(class: Effect) -> &'static str {
    match class {
        Effect::Read => "read",
        Effect::Converge => "converge",
        Effect::Keyed => "keyed",
        Effect::Witnessed => "witnessed",
        Effect::Probed => "probed",
        Effect::Blind => "blind",
    }
}

#[cfg(test)]
mod tests;
