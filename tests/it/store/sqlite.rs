//! What only SQLite's side can show: settings, triggers, query plans, the lock.
//!
//! Invariant: a second connection looks at the file from outside, as an attacker or a curious admin would.

use super::fixtures::*;
use nightshift::model::{Actor, EntryKind, EntryLinks, Mode, Outcome};
use nightshift::store::{Filter, NewRun, SqliteOptions, SqliteStore, Store, StoreError};
use rusqlite::Connection;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

async fn filled(dir: &Path) -> Arc<dyn Store> {
    let store = super::sqlite(dir);
    hear(&store, &auto(), vec![event("Xid79", "gpu-3")], at(1)).await;
    store
}

#[tokio::test]
async fn a_second_process_is_told_who_has_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let first = filled(dir.path()).await;
    let second = SqliteStore::open(SqliteOptions::new(dir.path().join("store.db")), start());
    let Err(StoreError::Locked(text)) = second.map(drop) else { panic!("it opened") };
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    first.close().await.unwrap();
    assert!(matches!(first.health().await, Err(StoreError::Database(_))));
    assert!(matches!(first.counts().await, Err(StoreError::Database(_))));
    let again = super::sqlite(dir.path());
    assert_eq!(again.health().await.unwrap(), 2, "each start is a new epoch");
    assert_eq!(again.counts().await.unwrap().episodes_open, 1);
}

#[tokio::test]
async fn the_ledger_cannot_be_altered_through_sql() {
    let dir = tempfile::tempdir().unwrap();
    let _store = filled(dir.path()).await;
    let conn = Connection::open(dir.path().join("store.db")).unwrap();
    for attack in [
        "DELETE FROM entry WHERE no = 1",
        "DELETE FROM entry",
        "UPDATE entry SET at = at + 1 WHERE no = 1",
        "UPDATE entry SET body = x'00' WHERE no = 1",
        "UPDATE entry SET salt = zeroblob(16) WHERE no = 1",
        "UPDATE entry SET no = 77 WHERE no = 1",
        "UPDATE entry SET commitment = zeroblob(32), body = NULL, salt = NULL WHERE no = 1",
        "INSERT OR REPLACE INTO entry SELECT * FROM entry WHERE no = 1",
        "INSERT INTO entry SELECT 77, at, kind, incident, run, commitment, salt, body FROM entry WHERE no = 1",
        "INSERT INTO entry SELECT -1, at, kind, incident, run, commitment, salt, body FROM entry WHERE no = 1",
    ] {
        let error = conn.execute(attack, []).expect_err(attack).to_string();
        assert!(error.contains("append-only"), "{attack}: {error}");
    }
}

#[tokio::test]
async fn what_is_due_is_found_by_index_however_many_runs_sleep() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    let conn = Connection::open(dir.path().join("store.db")).unwrap();
    let queries = [
        ("SELECT id FROM run WHERE wake_at <= 1 ORDER BY wake_at LIMIT 2", "run_due"),
        ("SELECT min(wake_at) FROM run WHERE wake_at > 1", "run_due"),
        ("SELECT channel FROM outbox WHERE want > done AND next_at <= 1 ORDER BY next_at LIMIT 2", "outbox_due"),
        ("SELECT min(next_at) FROM outbox WHERE want > done AND next_at > 1", "outbox_due"),
        ("SELECT min(expires_at) FROM approval WHERE state = 'open' AND expires_at > 1", "approval_open"),
        (
            "SELECT e.id FROM complaint c JOIN episode e ON e.id = c.episode WHERE c.key = 1 AND e.fingerprint = 'a' \
             AND e.source = 'b' ORDER BY c.episode DESC LIMIT 1",
            "SEARCH c USING PRIMARY KEY (key=?)",
        ),
        ("SELECT id FROM run WHERE incident = 1 AND rule = 'a' AND bucket = 'b' AND final = 0", "run_open"),
        ("SELECT id FROM run WHERE rule = 'a' AND episode = 1 AND episode IS NOT NULL", "run_episode"),
        ("SELECT id FROM incident WHERE key = 'a' AND closed_at IS NULL", "incident_open"),
        ("SELECT count(*) FROM episode WHERE state = 0", "episode_open"),
        (
            "SELECT min(resolves_at) FROM incident WHERE resolves_at IS NOT NULL AND resolves_at > 1",
            "incident_resolving",
        ),
        ("SELECT id FROM incident WHERE storm = 'a' AND closed_at IS NULL AND opened_at >= 1", "incident_storm"),
    ];
    for (sql, index) in queries {
        let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let plan: Vec<String> = explain.query_map([], |row| row.get(3)).unwrap().collect::<Result<_, _>>().unwrap();
        let plan = plan.join("; ");
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{sql}: {plan}");
    }
    drop(store);
}

#[tokio::test]
async fn an_incident_that_recovers_is_resolved_at_its_time_whatever_process_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let mut options = SqliteOptions::new(dir.path().join("store.db"));
        options.resolve_after = nightshift::limits::RESOLVE_AFTER;
        Arc::new(SqliteStore::open(options, start()).unwrap()) as Arc<dyn Store>
    };
    let store = open();
    hear(&store, &auto(), vec![event("Xid79", "gpu-3")], at(1)).await;
    hear(&store, &auto(), vec![resolved(event("Xid79", "gpu-3"))], at(10)).await;
    let incident = store.incidents(all()).await.unwrap().remove(0);
    assert_eq!((incident.firing, incident.closed_at, incident.resolves_at), (0, None, Some(at(310))));
    assert_eq!(incident.recovery().as_deref(), Some("recovering, closes 03:05 UTC"));
    assert_eq!(store.due(at(20), 10).await.unwrap().next, Some(at(310)));
    store.close().await.unwrap();
    drop(store);
    let store = open();
    assert_eq!(store.tick(at(309)).await.unwrap(), 0);
    assert_eq!(store.tick(at(311)).await.unwrap(), 1);
    let incident = store.incidents(all()).await.unwrap().remove(0);
    assert_eq!((incident.closed_at, incident.resolves_at, incident.recovery()), (Some(at(311)), None, None));
    let last = store.entries(Filter { kinds: vec!["incident_resolved"], ..all() }).await.unwrap().remove(0);
    assert!(format!("{:?}", last.kind).contains("none fired again within 5m"), "{last:?}");
    assert_eq!(store.tick(at(400)).await.unwrap(), 0, "once");
}

#[tokio::test]
async fn no_rule_goes_further_than_the_ceiling() {
    let dir = tempfile::tempdir().unwrap();
    let options = SqliteOptions { ceiling: Mode::Observe, ..SqliteOptions::new(dir.path().join("store.db")) };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(options, start()).unwrap());
    let heard = hear(&store, &auto(), vec![event("Xid79", "gpu-3")], at(1)).await;
    assert_eq!(store.runs(of_run(heard.runs[0])).await.unwrap()[0].mode, Mode::Observe);
    assert_eq!(store.due(at(1), 10).await.unwrap().notices.len(), 1, "and people are notified all the same");
    let by_hand = NewRun {
        pin: pin(),
        input: Default::default(),
        subject: Default::default(),
        mode: Mode::Auto,
        rule: None,
        terms: None,
        requested_by: "rule".to_owned(),
        once: None,
        now: at(2),
    };
    let run = store.start(by_hand).await.unwrap().unwrap();
    assert_eq!(store.runs(of_run(run)).await.unwrap()[0].mode, Mode::Observe, "nor does a person");
    let last = store.entries(Filter { limit: 1, ..Filter::default() }).await.unwrap().remove(0);
    assert_eq!(last.actor.0, "person:rule", "a name is never taken for a rule");
}

#[tokio::test]
async fn a_database_of_a_newer_program_or_with_another_history_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await.close().await.unwrap();
    let conn = Connection::open(dir.path().join("store.db")).unwrap();
    let open = || SqliteStore::open(SqliteOptions::new(dir.path().join("store.db")), start()).map(drop);
    conn.execute("INSERT INTO migration SELECT 99, 'later', sha256, at FROM migration LIMIT 1", []).unwrap();
    assert!(matches!(open(), Err(StoreError::Refused(text)) if text.contains("newer")));
    conn.execute("DELETE FROM migration WHERE version = 99", []).unwrap();
    conn.execute("UPDATE migration SET sha256 = 'x'", []).unwrap();
    assert!(matches!(open(), Err(StoreError::Damaged(_))));
}

#[tokio::test]
async fn an_operation_that_fails_is_undone_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path()).await;
    let claimed = running(&store, "z").await;
    store.begin(cordon(&claimed, "z"), guards(), at(1)).await.unwrap();
    let before = store.counts().await.unwrap().entries;
    let mut tasks = Vec::new();
    for no in 0..100 {
        let (store, claimed) = (store.clone(), claimed.clone());
        tasks.push(tokio::spawn(async move {
            if no % 2 == 0 {
                let note = EntryKind::Trouble { text: no.to_string() };
                return store.note(Actor::engine(), EntryLinks::default(), note, at(2)).await.map(drop);
            }
            let told = vec![("c".repeat(no), "x".to_owned())];
            store.end(claimed.run.id, claimed.run.epoch, 7, Outcome::Ok(json!(no)), told, at(2)).await
        }));
    }
    let results = futures::future::join_all(tasks).await;
    assert_eq!(results.into_iter().filter(|result| matches!(result, Ok(Ok(())))).count(), 50);
    assert_eq!(store.counts().await.unwrap().entries, before + 50);
    assert_eq!(store.health().await.unwrap(), 1);
}

#[tokio::test]
async fn a_run_that_names_no_cluster_counts_for_the_cluster_that_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let options = SqliteOptions { home: "eu-1".to_owned(), ..SqliteOptions::new(dir.path().join("store.db")) };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(options, start()).unwrap());
    for (second, node) in ["gpu-1", "gpu-2", "gpu-3"].into_iter().enumerate() {
        super::breakers::fails(&store, node, 10 + 700 * second as u64, true).await;
    }
    let scopes: Vec<String> = store.breakers().await.unwrap().into_iter().map(|breaker| breaker.scope).collect();
    assert_eq!(scopes, ["cluster:eu-1", "rule:xid"]);
    let next = running(&store, "gpu-4").await;
    let begun = store.begin(cordon(&next, "gpu-4"), guards(), at(1_500)).await.unwrap();
    let nightshift::store::BeginOutcome::Held { reason, .. } = begun else { panic!("{begun:?}") };
    assert!(reason.text.starts_with("breaker cluster:eu-1 has tripped"), "{reason}");
}
