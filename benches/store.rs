//! How many new events a second the store makes durable, beside what a bare SQLite insert of the same bytes does.
//!
//! Invariant: both sides write to the same folder, with the same durability, in the same run; only new events count.

use nightshift::model::{Event, EventStatus, Labels, Severity, Subject, Time};
use nightshift::policy::RuleSet;
use nightshift::store::{EventBatch, Intake, SqliteOptions, SqliteStore};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SPAN: Duration = Duration::from_secs(3);

fn event(no: u64) -> Event {
    let node = format!("gpu-{}", no % 1_000);
    let labels: Labels = [
        ("alertname", "GpuXid".to_owned()),
        ("cluster", "eu-1".to_owned()),
        ("severity", "critical".to_owned()),
        ("Hostname", node.clone()),
        ("gpu", (no % 8).to_string()),
        ("UUID", format!("GPU-{no:032x}")),
        ("job", "dcgm-exporter".to_owned()),
        ("instance", format!("10.0.0.{}:9400", no % 250)),
    ]
    .into_iter()
    .collect();
    let annotations: Labels =
        [("summary", format!("XID 79 on {node}")), ("runbook_url", "https://example.org/xid/79".to_owned())]
            .into_iter()
            .collect();
    Event {
        source: "bench".to_owned(),
        fingerprint: format!("{:016x}", labels.fingerprint()),
        status: EventStatus::Firing,
        starts_at: Time::UNIX_EPOCH,
        ends_at: None,
        labels,
        annotations,
        subject: Subject { cluster: Some("eu-1".to_owned()), ..Subject::node(node) },
        severity: Severity::Critical,
        summary: "GPU fell off the bus".to_owned(),
        url: "https://prometheus.example.org/graph?g0.expr=x".to_owned(),
    }
}

fn rules(names: &[&str]) -> Arc<RuleSet> {
    let rule = |name: &&str| {
        let json = serde_json::json!({ "name": name, "when": [format!("alertname=\"{name}\"")], "tell": ["log"] });
        serde_json::from_value(json).expect("a rule")
    };
    Arc::new(RuleSet::compile(names.iter().map(rule).collect(), HashMap::new()).expect("rules that compile"))
}

/// Events a second and the 50th and 99th percentile of a batch's time.
async fn store(rules: Arc<RuleSet>, batch: u64, tasks: u64) -> (f64, Duration, Duration) {
    let dir = tempfile::tempdir_in(".").expect("a folder");
    let options = SqliteOptions::new(dir.path().join("store.db"));
    let store = Arc::new(SqliteStore::open(options, Time::now()).expect("a store"));
    let next = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let workers: Vec<_> = (0..tasks)
        .map(|_| {
            let (store, next, rules) = (store.clone(), next.clone(), rules.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                while begun.elapsed() < SPAN {
                    let from = next.fetch_add(batch, Ordering::Relaxed);
                    let events: Vec<Event> = (from..from + batch).map(event).collect();
                    let asked = Instant::now();
                    let batch = EventBatch {
                        source: "bench".to_owned(),
                        events,
                        gaps: Vec::new(),
                        rules: rules.clone(),
                        now: Time::now(),
                        origin: Default::default(),
                    };
                    store.intake(batch).await.expect("room in the queue");
                    times.push(asked.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for worker in workers {
        times.extend(worker.await.expect("a worker that ends"));
    }
    let rate = (times.len() as u64 * batch) as f64 / begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    (rate, at(0.5), at(0.99))
}

/// One thread, one table, one insert an event, a commit for each batch: as fast as this disk and SQLite go.
fn bare(batch: u64) -> f64 {
    let dir = tempfile::tempdir_in(".").expect("a folder");
    let mut conn = rusqlite::Connection::open(dir.path().join("bare.db")).expect("a database");
    conn.pragma_update(None, "journal_mode", "WAL").expect("a log");
    conn.pragma_update(None, "synchronous", "FULL").expect("durability");
    conn.execute_batch("CREATE TABLE event (id INTEGER PRIMARY KEY, json BLOB NOT NULL)").expect("a table");
    let json: Vec<Vec<u8>> = (0..batch).map(|no| serde_json::to_vec(&event(no)).expect("JSON")).collect();
    let begun = Instant::now();
    let mut rows = 0;
    while begun.elapsed() < SPAN {
        let change = conn.transaction().expect("a transaction");
        for bytes in &json {
            let sql = "INSERT INTO event (json) VALUES (?1)";
            change.prepare_cached(sql).and_then(|mut insert| insert.execute([bytes])).expect("an insert");
            rows += 1;
        }
        change.commit().expect("a commit");
    }
    f64::from(rows) / begun.elapsed().as_secs_f64()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    println!("event of {} bytes; {SPAN:?} each", serde_json::to_vec(&event(7)).expect("JSON").len());
    let cases = [("no rule matches", rules(&["Other"])), ("a rule tells, 1,000 incidents", rules(&["GpuXid"]))];
    for (batch, tasks) in [(1, 256), (100, 4), (1_000, 4)] {
        // What can share a commit: as many events as are under way at once.
        let alone = bare(batch.max(batch * tasks / 4));
        println!("batch {batch:>5} x {tasks:>3} tasks: bare SQLite {alone:>9.0}/s");
        for (name, rules) in &cases {
            let (rate, median, slow) = store(rules.clone(), batch, tasks).await;
            let share = rate / alone;
            println!("    {name:<30} {rate:>9.0}/s = {share:.2} of bare; ack p50 {median:.1?} p99 {slow:.1?}");
        }
    }
}
