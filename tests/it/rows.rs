//! One row of the database that cannot be read: it is set aside and told, and everything else goes on.
//!
//! Invariant: rows are damaged from outside, by a second connection, as a byte on the disk would.

use crate::night::Night;
use crate::store::fixtures::*;
use nightshift::model::{ApprovalState, DeliveryReceipt, EntryKind, Mode, Plan, PlanEnd, ReasonCode, RunState};
use nightshift::store::{ControlChange, DeliveryOutcome, Filter, NewApproval, SqliteOptions, SqliteStore, Store};
use rusqlite::Connection;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

fn open(dir: &Path) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(SqliteOptions::new(dir.join("store.db")), start()).unwrap())
}

/// The first byte of a text becomes another one.
fn damage(database: &Path, table: &str, column: &str, of: &str) {
    let conn = Connection::open(database).unwrap();
    let sql = format!("UPDATE {table} SET {column} = '(' || substr({column}, 2) WHERE {of}");
    assert_eq!(conn.execute(&sql, []).unwrap(), 1, "{sql}");
}

/// What the ledger says of rows that cannot be read.
async fn troubles(store: &Arc<dyn Store>) -> Vec<String> {
    let filter = Filter { kinds: vec!["trouble"], after: Some(-1), ..all() };
    let entries = store.entries(filter).await.unwrap().into_iter();
    entries
        .filter_map(|entry| match entry.kind {
            EntryKind::Trouble { text } if !text.is_empty() => Some(text),
            _ => None,
        })
        .collect()
}

async fn is_told_once(store: &Arc<dyn Store>) {
    let open = store.incidents(Filter { open: true, ..all() }).await.unwrap();
    let told = open.iter().filter(|incident| incident.title.contains("cannot be read")).collect::<Vec<_>>();
    assert_eq!(told.len(), 1, "{open:#?}");
    let due = store.due(at(90_000), 100).await.unwrap();
    let notices =
        due.notices.iter().filter(|notice| notice.incident == told[0].id && notice.channel == "oncall").count();
    assert_eq!(notices, 1, "the channels of unmatched alerts are notified");
}

#[tokio::test]
async fn one_unreadable_receipt_keeps_no_other_notice_and_no_run_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let heard = hear(&store, &auto(), vec![event("Xid79", "gpu-3"), event("Xid79", "gpu-4")], at(1)).await;
    let incidents = store.incidents(all()).await.unwrap();
    assert_eq!((heard.runs.len(), incidents.len()), (2, 2));
    for incident in &incidents {
        let due = store.due(at(1), 10).await.unwrap().notices;
        let upto = due.iter().find(|notice| notice.incident == incident.id).unwrap().want;
        let receipt = DeliveryReceipt(json!({ "id": "1" }));
        let delivered = DeliveryOutcome::Delivered { upto, receipt };
        store.receipted("slack", incident.id, delivered, at(1)).await.unwrap();
    }
    store.note(nightshift::model::Actor::engine(), about(incidents[0].id), news(), at(100)).await.unwrap();
    store.note(nightshift::model::Actor::engine(), about(incidents[1].id), news(), at(100)).await.unwrap();
    let bad = incidents[0].id;
    damage(&dir.path().join("store.db"), "outbox", "receipt", &format!("incident = {}", bad.0));
    let due = store.due(at(1_000), 10).await.unwrap();
    assert_eq!(due.runs.len(), 2, "runs are due");
    assert_eq!(due.notices.iter().map(|notice| notice.incident).collect::<Vec<_>>(), [incidents[1].id]);
    store.tick(at(1_000)).await.unwrap();
    let said = troubles(&store).await;
    assert!(said.len() == 1 && said[0].contains("`outbox`") && said[0].contains("`receipt`"), "{said:?}");
    assert!(said[0].contains(&bad.0.to_string()), "{said:?}");
    is_told_once(&store).await;
    let due = store.due(at(1_001), 10).await.unwrap();
    let again = due.notices.iter().find(|notice| notice.incident == bad).unwrap();
    assert!(again.receipt.is_none() && again.maybe_sent, "the notice itself is sent anew, as a possible repeat");
    store.tick(at(1_002)).await.unwrap();
    assert_eq!(troubles(&store).await.len(), 1, "once");
}

#[tokio::test]
async fn a_page_is_full_although_one_of_its_rows_is_unreadable_so_that_a_walk_does_not_end_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let events = ["gpu-1", "gpu-2", "gpu-3", "gpu-4", "gpu-5"].map(|node| event("Xid79", node)).to_vec();
    hear(&store, &auto(), events, at(1)).await;
    let ids = async |filter: Filter| -> Vec<i64> {
        let incidents = store.incidents(filter).await.unwrap();
        incidents.iter().map(|incident| incident.id.0).collect()
    };
    let known = ids(all()).await;
    damage(&dir.path().join("store.db"), "incident", "subject", &format!("id = {}", known[1]));
    assert_eq!(ids(Filter { limit: 2, ..all() }).await, [known[0], known[2]], "newest first");
    assert_eq!(ids(Filter { limit: 3, after: Some(0), ..all() }).await, [known[4], known[3], known[2]]);
    assert_eq!(ids(Filter { limit: 2, after: Some(known[2]), ..all() }).await, [known[0]], "the last page");
    assert_eq!(ids(Filter { limit: 1, before: Some(known[0]), ..all() }).await, [known[2]], "past the row alone");
}

/// More damage than a statement has room for terms, and a page of one.
#[tokio::test]
async fn a_page_is_read_past_thousands_of_unreadable_rows_in_a_few_reads() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    hear(&store, &auto(), vec![event("Xid79", "gpu-1")], at(1)).await;
    let conn = Connection::open(dir.path().join("store.db")).unwrap();
    conn.execute_batch(
        "CREATE TEMP TABLE copy AS SELECT * FROM incident LIMIT 1; UPDATE copy SET subject = '(';
         CREATE TEMP TABLE number AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) SELECT i FROM n;",
    )
    .unwrap();
    let ids: Vec<i64> = conn
        .prepare("SELECT i FROM number")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    for id in ids {
        conn.execute("UPDATE copy SET id = ?1, key = 'copy ' || ?1", [1_000 + id]).unwrap();
        conn.execute("INSERT INTO incident SELECT * FROM copy", []).unwrap();
    }
    conn.execute_batch("COMMIT").unwrap();
    let found = store.incidents(Filter { limit: 1, ..all() }).await.unwrap();
    assert_eq!(found.iter().map(|incident| incident.id.0).collect::<Vec<_>>(), [1]);
}

fn about(incident: nightshift::model::IncidentId) -> nightshift::model::EntryLinks {
    nightshift::model::EntryLinks { incident: Some(incident), run: None }
}

fn news() -> EntryKind {
    EntryKind::Trouble { text: String::new() }
}

fn question() -> NewApproval {
    let plan = Plan { calls: Vec::new(), end: PlanEnd::Done, hash: "cd".repeat(32) };
    NewApproval {
        question: "Cordon?".to_owned(),
        plan_hash: plan.hash.clone(),
        plan: Some(plan),
        foretold: Vec::new(),
        step: None,
        approvers: Vec::new(),
        needed: 1,
        expires_at: at(600),
    }
}

#[tokio::test]
async fn one_unreadable_plan_keeps_no_question_open_not_even_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut runs = Vec::new();
    for node in ["gpu-1", "gpu-2", "gpu-3"] {
        let claimed = running(&store, node).await;
        store.ask(claimed.run.id, claimed.run.epoch, question(), at(1)).await.unwrap();
        runs.push(claimed.run.id);
    }
    damage(&dir.path().join("store.db"), "approval", "plan", "id = 1");
    let listed = store.approvals(Filter { open: true, ..all() }).await.unwrap();
    assert_eq!(listed.len(), 2, "the list shows the others");
    store.tick(at(2)).await.unwrap();
    let said = troubles(&store).await;
    assert!(said.len() == 1 && said[0].contains("row 1 of table `approval`") && said[0].contains("`plan`"), "{said:?}");
    is_told_once(&store).await;
    store.tick(at(600)).await.unwrap();
    for run in runs {
        let state = store.runs(of_run(run)).await.unwrap().remove(0).state;
        assert!(
            matches!(&state, RunState::Denied { reason } if reason.code == ReasonCode::ApprovalExpired),
            "{run}: {state:?}"
        );
    }
    let listed = store.approvals(all()).await.unwrap();
    assert!(listed.iter().all(|approval| approval.state == ApprovalState::Expired), "{listed:?}");
}

const RULES: &str = r#"
rules:
  - name: act
    when: ['alertname="X"']
    run: act
    mode: auto
    group_by: [node]
    tell: [oncall]
"#;

const ACT: &str = "//! Labels a node.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n//! undo: never\n\n\
                   k8s::label(node, \"nightshift.dev/test\", \"yes\");\n";

#[tokio::test]
async fn one_unreadable_run_is_set_aside_and_the_others_run_to_their_end() {
    let night = Night::fall(RULES, &[("act", ACT)]).await;
    for node in ["gpu-1", "gpu-2", "gpu-3"] {
        night.hear("firing", &[("alertname", "X"), ("node", node)]).await;
    }
    damage(&night.path().join("nightshift.db"), "run", "state", "id = 2");
    night.settle().await;
    night.settle().await;
    let store = &night.parts.store;
    let done: Vec<_> = night.runs().await.into_iter().map(|run| (run.id.0, run.state.name().to_owned())).collect();
    assert_eq!(done, [(1, "done".to_owned()), (3, "done".to_owned())]);
    assert_eq!(night.effects().len(), 2, "counted at the fleet");
    assert!(store.due(night.now(), 10).await.unwrap().runs.is_empty(), "it is not tried again each second");
    let said = troubles(store).await;
    assert!(said.iter().any(|text| text.contains("row 2 of table `run`")), "{said:?}");
    // A person ends it, and its nodes are free.
    let cancel = ControlChange::Cancel { run: nightshift::model::RunId(2), by: "kim".into(), why: "unreadable".into() };
    store.control(cancel, night.now()).await.unwrap();
    let ended = night.run(nightshift::model::RunId(2)).await;
    assert!(ended.state.is_final(), "{ended:?}");
    assert_eq!(ended.mode, Mode::Auto);
    // Upkeep reads it again, and the incident about it is resolved.
    store.sweep(hour(), hour(), night.now()).await.unwrap();
    let open = store.incidents(Filter { open: true, ..all() }).await.unwrap();
    assert!(open.iter().all(|incident| !incident.title.contains("cannot be read")), "{open:#?}");
}
