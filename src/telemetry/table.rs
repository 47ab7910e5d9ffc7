//! The list of every metric: name, type, labels, help, and where a test moves it. The fields that code counts with, the
//! registration, the page of the documentation and the check that each one moves are all made from it.
//!
//! Invariant: there is no metric that is not in the list.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
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
    pub kind: MetricKind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
    /// What only a special set-up moves: the file with the test that does, and words in that file. Empty: the scenarios of
    /// `tests/it/metrics.rs` move it.
    pub moved_in: &'static [(&'static str, &'static str)],
}

/// Words for one label, and for two; a name from the configuration as a label.
type OneLabel = [(&'static str, &'static str); 1];
type TwoLabels = [(&'static str, &'static str); 2];
type NamedLabel = [(&'static str, String); 1];
type FloatGauge = Gauge<f64, AtomicU64>;
type Buckets = fn() -> Histogram;

/// A metric without labels; a constructor of anything but a histogram ignores the buckets.
trait UnlabeledMetric: Sized {
    const KIND: MetricKind;
    fn constructor(buckets: Buckets) -> fn() -> Self;
}

/// Every metric, in the order of the documentation.
impl UnlabeledMetric for Counter {
    const KIND: MetricKind = MetricKind::Counter;
    fn constructor(_: Buckets) -> fn() -> Self {
        Counter::default
    }
}

impl UnlabeledMetric for Gauge {
    const KIND: MetricKind = MetricKind::Gauge;
    fn constructor(_: Buckets) -> fn() -> Self {
        Gauge::default
    }
}

impl UnlabeledMetric for FloatGauge {
    const KIND: MetricKind = MetricKind::Gauge;
    fn constructor(_: Buckets) -> fn() -> Self {
        FloatGauge::default
    }
}

impl UnlabeledMetric for Histogram {
    const KIND: MetricKind = MetricKind::Histogram;
    fn constructor(buckets: Buckets) -> fn() -> Self {
        buckets
    }
}

/// A metric with or without labels.
trait Instrument {
    const KIND: MetricKind;
    fn make(buckets: Buckets) -> Self;
}

impl<M: UnlabeledMetric> Instrument for M {
    const KIND: MetricKind = M::KIND;
    fn make(buckets: Buckets) -> Self {
        M::constructor(buckets)()
    }
}

impl<S: Clone + std::hash::Hash + Eq, M: UnlabeledMetric> Instrument for Family<S, M> {
    const KIND: MetricKind = M::KIND;
    fn make(buckets: Buckets) -> Self {
        Family::new_with_constructor(M::constructor(buckets))
    }
}

/// `name: type, buckets [labels] "help" moved in "file" by "words";` A histogram without buckets has those of `seconds`.
macro_rules! metrics {
    ($($name:ident: $type:ty $(, $buckets:ident)? [$($label:literal),*] $help:literal
       $(moved in $file:literal by $words:literal)?;)*) => {
        /// Every metric. Cheap to update from any thread; build it once.
        pub struct Metrics {
            pub(super) registry: Registry,
            $(pub(super) $name: $type,)*
        }

        impl Metrics {
            pub(super) fn unset() -> Metrics {
                let mut registry = Registry::with_prefix("nightshift");
                Metrics {
                    $($name: {
                        let metric = <$type as Instrument>::make([$($buckets as Buckets,)? seconds][0]);
                        registry.register(stringify!($name), $help, metric.clone());
                        metric
                    },)*
                    registry,
                }
            }
        }

        pub const TABLE: &[Metric] = &[$(Metric {
            name: stringify!($name),
            kind: <$type as Instrument>::KIND,
            labels: &[$($label),*],
            help: $help,
            moved_in: &[$(($file, $words))?],
        }),*];
    };
}

metrics! {
    events_acked: Counter [] "Events answered with 2xx: they are on stable storage";
    events_stored: Counter [] "Events that changed an episode";
    events_duplicate: Counter [] "Repeated events without a change";
    events_late: Counter [] "Resolves of something that was not open";
    events_unmatched: Family<NamedLabel, Counter> ["source"] "Events that no rule matched, by source of the configuration";
    gaps: Counter [] "Things that a source left out or that could not be read";
    ingest_seconds: Histogram [] "From a body at hand to its commit";
    ingest_shed: Family<OneLabel, Counter> ["reason"] "Requests answered with 503 because of load or the store"
        moved in "tests/it/ingest/bad_input.rs" by "nightshift_ingest_shed_total";
    ingest_refused: Family<OneLabel, Counter> ["reason"] "Request bodies rejected with 4xx; their events are lost";
    auth_failures: Counter [] "Requests without a valid token";
    forbidden: Counter [] "Requests denied for lack of rights";
    connections: Gauge [] "Open connections"
        moved in "tests/it/ingest/doors.rs" by "nightshift_connections";
    commit_batch_size: Histogram, sizes [] "Operations that shared one commit";
    fsync_seconds: Histogram [] "How long a commit took";
    run_start_latency_seconds: Histogram [] "From the creation of a run to its first turn";
    step_seconds: Family<OneLabel, Histogram> ["phase"] "The parts of a step";
    effects: Family<TwoLabels, Counter> ["class", "outcome"] "Steps performed, by class of effect";
    effects_ambiguous: Family<TwoLabels, Counter> ["class", "resolution"]
        "Steps that a crash left open, and how they were settled";
    fencing_rejected: Family<OneLabel, Counter> ["where"] "Writes under an old epoch that were turned away"
        moved in "src/telemetry/tests.rs" by "metrics.fenced(Fence::Store)";
    timer_lateness_seconds: Histogram [] "Delay between a waiting run's due time and its turn";
    budget_used: Family<OneLabel, FloatGauge> ["scope"]
        "Nodes of the default cluster that are out of service, as the blast radius guard counts them";
    budget_limit: Family<OneLabel, FloatGauge> ["scope"] "Nodes of the default cluster that may be out of service";
    actions_refused: Family<OneLabel, Counter> ["guard"] "Steps that a guard held or denied";
    runs_ended: Family<OneLabel, Counter> ["state"] "Runs that ended, by final state, and by the engine or an operator";
    deliveries: Family<TwoLabels, Counter> ["channel", "outcome"]
        "Attempts to deliver a notification; empty ones do not count";
    slack_answer_seconds: Family<OneLabel, Histogram> ["door"] "From a request of Slack at hand to its answer"
        moved in "tests/it/slack_in/socket.rs" by "nightshift_slack_answer_seconds";
    slack_connections: Family<OneLabel, Counter> ["outcome"] "Attempts to connect to Slack (Socket Mode)"
        moved in "tests/it/slack_in/socket.rs" by "nightshift_slack_connections";
    slack_connected: Gauge [] "1 while Slack is connected (Socket Mode)"
        moved in "tests/it/slack_in/socket.rs" by "nightshift_slack_connected";
    replay_mismatch: Counter [] "Runs whose runbook made a call that differs from the journal";
    audit_verify_failures: Counter [] "Checks of the ledger that found damage; must stay 0";
    invariant_violation: Counter [] "Things that cannot be; must stay 0"
        moved in "src/telemetry/tests.rs" by "metrics.invariant_violated()";
    catalog_refused: Counter [] "Rule and runbook files that were refused on reload";
    cache_warms: Family<TwoLabels, Counter> ["via", "outcome"] "Warms of models' weights that ended"
        moved in "tests/it/agent/warm.rs" by "nightshift_cache_warms";
    cache_warm_seconds: Histogram, minutes [] "Duration of successful cache warms"
        moved in "tests/it/agent/warm.rs" by "nightshift_cache_warms";
    cache_warm_read_bytes: Counter [] "Bytes that warms read from disks"
        moved in "tests/it/agent/warm.rs" by "nightshift_cache_warm_read_bytes";
    cache_warm_resident_ratio: FloatGauge [] "Share in memory after the last warm, of its model that is least there"
        moved in "tests/it/agent/warm.rs" by "nightshift_cache_warm_resident_ratio";
    killswitch_state: Gauge [] "Freezes in force; 0 means none";
    approvals_open: Gauge [] "Questions that wait for a human";
    episodes_open: Gauge [] "Alerts that are firing now";
    incidents_open: Gauge [] "Incidents that are open now";
    runs_unfinished: Gauge [] "Runs that have not ended";
    outbox_due: Gauge [] "Notices that wait to be delivered";
    outbox_oldest_seconds: FloatGauge [] "Age of the oldest notice that waits";
    audit_entries: Gauge [] "Entries in the ledger";
    audit_unanchored_leaves: Gauge [] "Entries that no checkpoint covers yet";
    judgements: Family<OneLabel, Counter> ["verdict"] "Runs of rules that a person reviewed as right or wrong";
    rules: Family<OneLabel, Gauge> ["mode"] "Rules with a runbook, by how far they go now";
    rules_lowered: Gauge []
        "Rules demoted below the mode in their file, after a failure or by an operator";
    clusters_lost: Gauge [] "Clusters whose nodes cannot be watched now"
        moved in "src/server/metrics_page.rs" by "clusters_lost: app.parts.world.lost_clusters()";
    agents: Family<OneLabel, Gauge> ["state"] "Agents that have joined, by whether they report now"
        moved in "tests/it/agent/link.rs" by "nightshift_agents";
    nodes_held: Gauge [] "Nodes that runs hold for themselves";
    probe_looks: Family<TwoLabels, Counter> ["engine", "outcome"] "Polls of inference engines, by result"
        moved in "tests/it/probes.rs" by "nightshift_probe_targets";
    probe_targets: Family<OneLabel, Gauge> ["engine"] "Inference engines that are polled"
        moved in "tests/it/probes.rs" by "nightshift_probe_targets";
    probe_up: Family<OneLabel, Gauge> ["engine"] "Inference engines that were ready and readable at their last poll"
        moved in "tests/it/probes.rs" by "nightshift_probe_up";
    probe_age_seconds: Family<OneLabel, FloatGauge> ["engine"] "Age of the oldest last poll of an engine"
        moved in "tests/it/probes.rs" by "nightshift_probe_up";
    cache_warming: Gauge [] "Warms that agents are at now"
        moved in "tests/it/agent/warm.rs" by "nightshift_cache_warming";
    cache_warming_bytes: Gauge [] "Bytes of the models that are being warmed"
        moved in "tests/it/agent/warm.rs" by "nightshift_cache_warming";
    cache_warming_done_bytes: Gauge [] "Bytes of these that are in memory by now"
        moved in "tests/it/agent/warm.rs" by "nightshift_cache_warming";
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

/// The table as Markdown, for the documentation.
pub fn reference() -> String {
    let mut text = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for metric in TABLE {
        let (kind, suffix) = match metric.kind {
            MetricKind::Counter => ("counter", "_total"),
            MetricKind::Gauge => ("gauge", ""),
            MetricKind::Histogram => ("histogram", ""),
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
