//! The table of every metric: name, kind, labels, help. The page and the reference are both made from it.
//!
//! Invariant: a metric that is not in the table cannot be registered.

use std::fmt::Write as _;

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name on the page ends in `_total`.
    Counter,
    Gauge,
    Histogram,
}

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Without the prefix `nightshift_` and without `_total`.
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

const fn row(name: &'static str, kind: Kind, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind, labels, help }
}

/// Every metric, in the order of the documentation.
pub const TABLE: &[Metric] = &[
    row("events_acked", Kind::Counter, &[], "Events answered with 2xx: they are on stable storage"),
    row("events_stored", Kind::Counter, &[], "Events that changed an episode"),
    row("events_duplicate", Kind::Counter, &[], "Repeated events without a change"),
    row("events_late", Kind::Counter, &[], "Resolves of something that was not open"),
    row("events_unmatched", Kind::Counter, &["source"], "Events that no rule matched, by source of the configuration"),
    row("gaps", Kind::Counter, &[], "Things that a source left out or that could not be read"),
    row("ingest_seconds", Kind::Histogram, &[], "From a body at hand to its commit"),
    row("ingest_shed", Kind::Counter, &["reason"], "Requests answered with 503 because of load or the store"),
    row("ingest_refused", Kind::Counter, &["reason"], "Request bodies rejected with 4xx; their events are lost"),
    row("auth_failures", Kind::Counter, &[], "Requests without a valid token"),
    row("forbidden", Kind::Counter, &[], "Requests denied for lack of rights"),
    row("connections", Kind::Gauge, &[], "Open connections"),
    row("commit_batch_size", Kind::Histogram, &[], "Operations that shared one commit"),
    row("fsync_seconds", Kind::Histogram, &[], "How long a commit took"),
    row("run_start_latency_seconds", Kind::Histogram, &[], "From the creation of a run to its first turn"),
    row("step_seconds", Kind::Histogram, &["phase"], "The parts of a step"),
    row("effects", Kind::Counter, &["class", "outcome"], "Steps performed, by class of effect"),
    row(
        "effects_ambiguous",
        Kind::Counter,
        &["class", "resolution"],
        "Steps that a crash left open, and how they were settled",
    ),
    row("fencing_rejected", Kind::Counter, &["where"], "Writes under an old epoch that were turned away"),
    row("timer_lateness_seconds", Kind::Histogram, &[], "Delay between a waiting run's due time and its turn"),
    row(
        "budget_used",
        Kind::Gauge,
        &["scope"],
        "Nodes of the default cluster that are out of service, as the blast radius guard counts them",
    ),
    row("budget_limit", Kind::Gauge, &["scope"], "Nodes of the default cluster that may be out of service"),
    row("actions_refused", Kind::Counter, &["guard"], "Steps that a guard held or denied"),
    row("runs_ended", Kind::Counter, &["state"], "Runs that ended, by final state, and by the engine or an operator"),
    row(
        "deliveries",
        Kind::Counter,
        &["channel", "outcome"],
        "Attempts to deliver a notification; empty ones do not count",
    ),
    row("slack_answer_seconds", Kind::Histogram, &["door"], "From a request of Slack at hand to its answer"),
    row("slack_connections", Kind::Counter, &["outcome"], "Attempts to connect to Slack (Socket Mode)"),
    row("slack_connected", Kind::Gauge, &[], "1 while Slack is connected (Socket Mode)"),
    row("replay_mismatch", Kind::Counter, &[], "Runs whose runbook made a call that differs from the journal"),
    row("audit_verify_failures", Kind::Counter, &[], "Checks of the ledger that found damage; must stay 0"),
    row("invariant_violation", Kind::Counter, &[], "Things that cannot be; must stay 0"),
    row("catalog_refused", Kind::Counter, &[], "Rule and runbook files that were refused on reload"),
    row("cache_warms", Kind::Counter, &["via", "outcome"], "Warms of models' weights that ended"),
    row("cache_warm_seconds", Kind::Histogram, &[], "Duration of successful cache warms"),
    row("cache_warm_read_bytes", Kind::Counter, &[], "Bytes that warms read from disks"),
    row(
        "cache_warm_resident_ratio",
        Kind::Gauge,
        &[],
        "Share in memory after the last warm, of its model that is least there",
    ),
    row("killswitch_state", Kind::Gauge, &[], "Freezes in force; 0 means none"),
    row("approvals_open", Kind::Gauge, &[], "Questions that wait for a human"),
    row("episodes_open", Kind::Gauge, &[], "Alerts that are firing now"),
    row("incidents_open", Kind::Gauge, &[], "Incidents that are open now"),
    row("runs_unfinished", Kind::Gauge, &[], "Runs that have not ended"),
    row("outbox_due", Kind::Gauge, &[], "Notices that wait to be delivered"),
    row("outbox_oldest_seconds", Kind::Gauge, &[], "Age of the oldest notice that waits"),
    row("audit_entries", Kind::Gauge, &[], "Entries in the ledger"),
    row("audit_unanchored_leaves", Kind::Gauge, &[], "Entries that no checkpoint covers yet"),
    row("judgements", Kind::Counter, &["verdict"], "Runs of rules that a person reviewed as right or wrong"),
    row("rules", Kind::Gauge, &["mode"], "Rules with a runbook, by how far they go now"),
    row(
        "rules_lowered",
        Kind::Gauge,
        &[],
        "Rules demoted below the mode in their file, after a failure or by an operator",
    ),
    row("clusters_lost", Kind::Gauge, &[], "Clusters whose nodes cannot be watched now"),
    row("agents", Kind::Gauge, &["state"], "Agents that have joined, by whether they report now"),
    row("nodes_held", Kind::Gauge, &[], "Nodes that runs hold for themselves"),
    row("probe_looks", Kind::Counter, &["engine", "outcome"], "Polls of inference engines, by result"),
    row("probe_targets", Kind::Gauge, &["engine"], "Inference engines that are polled"),
    row("probe_up", Kind::Gauge, &["engine"], "Inference engines that were ready and readable at their last poll"),
    row("probe_age_seconds", Kind::Gauge, &["engine"], "Age of the oldest last poll of an engine"),
    row("cache_warming", Kind::Gauge, &[], "Warms that agents are at now"),
    row("cache_warming_bytes", Kind::Gauge, &[], "Bytes of the models that are being warmed"),
    row("cache_warming_done_bytes", Kind::Gauge, &[], "Bytes of these that are in memory by now"),
];

/// The help of a metric; asking for one that is not in the table is a bug.
pub(super) fn help(name: &str) -> &'static str {
    let row = TABLE.iter().find(|metric| metric.name == name);
    assert!(row.is_some(), "the metric {name} is missing in telemetry::TABLE");
    row.map_or("", |metric| metric.help)
}

/// The table as Markdown, for the documentation.
pub fn reference() -> String {
    let mut text = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for metric in TABLE {
        let (kind, suffix) = match metric.kind {
            Kind::Counter => ("counter", "_total"),
            Kind::Gauge => ("gauge", ""),
            Kind::Histogram => ("histogram", ""),
        };
        let _ = writeln!(
            text,
            "| `nightshift_{}{suffix}` | {kind} | {} | {} |",
            metric.name,
            metric.labels.join(", "),
            metric.help
        );
    }
    text
}
