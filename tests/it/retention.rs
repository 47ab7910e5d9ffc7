//! What upkeep removes and what it must leave: checkpoints, texts of runbooks, and the journal of a run that holds a node.
//!
//! Invariant: rows are made old from outside, and upkeep runs as it does each hour.

use crate::store::fixtures::*;
use nightshift::model::{ImpactScope, Reason, ReasonCode, RunState, RunbookPin, Span};
use nightshift::store::{BeginOutcome, SqliteOptions, SqliteStore, Store};
use rusqlite::Connection;
use std::path::Path;
use std::sync::Arc;

const DAY: u64 = 86_400;

fn open(dir: &Path) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(SqliteOptions::new(dir.join("store.db")), start()).unwrap())
}

/// As maintenance does: until nothing is left.
async fn sweep(store: &Arc<dyn Store>, day: u64) {
    let kept = Span::seconds(30 * 86_400);
    while store.sweep(kept, kept, at(day * DAY)).await.unwrap() > 0 {}
}

fn count(dir: &Path, sql: &str) -> i64 {
    Connection::open(dir.join("store.db")).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn of_old_checkpoints_the_last_of_each_hour_stays_and_pages_return_them_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let conn = Connection::open(dir.path().join("store.db")).unwrap();
    // One a minute for two days and a bit.
    let first = start().as_microsecond();
    conn.execute(
        "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2999) \
         INSERT INTO checkpoint (size, at, note) SELECT i + 10, ?1 + i * 60000000, 'note' FROM n",
        [first],
    )
    .unwrap();
    let (mut all, mut after) = (0, 0);
    loop {
        let page = store.checkpoints(after, usize::MAX).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= nightshift::limits::READ_LIMIT, "a read is bounded");
        (all, after) = (all + page.len(), last.size);
    }
    assert_eq!(all, 3_000);
    sweep(&store, 10).await;
    assert_eq!(count(dir.path(), "SELECT count(*) FROM checkpoint"), 3_000, "none is past its retention");
    sweep(&store, 40).await;
    assert_eq!(count(dir.path(), "SELECT count(*) FROM checkpoint"), 50, "3,000 minutes are 50 hours");
    assert_eq!(count(dir.path(), "SELECT max(size) FROM checkpoint"), 3_009, "the newest is never removed");
    let removed = conn.execute("DELETE FROM checkpoint WHERE size = 3009", []).unwrap_err().to_string();
    assert!(removed.contains("append-only"), "{removed}");
}

#[tokio::test]
async fn the_journal_of_a_stuck_run_stays_as_long_as_it_holds_its_node() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let claimed = running(&store, "gpu-3").await;
    let begun = store.begin(cordon(&claimed, "gpu-3"), guards(), at(1)).await.unwrap();
    assert!(matches!(begun, BeginOutcome::Step(_)), "{begun:?}");
    let reason = Reason::new(ReasonCode::InDoubt, "a crash in the middle".to_owned());
    store.finish(claimed.run.id, claimed.run.epoch, RunState::Stuck { reason }, at(2)).await.unwrap();
    sweep(&store, 100).await;
    assert_eq!(store.holds().await.unwrap().len(), 1);
    assert_eq!(store.steps(claimed.run.id).await.unwrap().len(), 1, "the evidence stays with the lock");
}

#[tokio::test]
async fn a_text_that_no_run_and_no_catalog_has_goes_and_one_that_is_in_force_stays() {
    use nightshift::model::{CatalogFile, FileKind};
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let pin = |name: &str| RunbookPin { name: name.to_owned(), hash: name.repeat(32) };
    store.pin(&pin("aa"), "gone", ImpactScope::None, start()).await.unwrap();
    store.pin(&pin("bb"), "in force", ImpactScope::None, start()).await.unwrap();
    let path = "runbooks/bb.rhai".to_owned();
    let file = CatalogFile { kind: FileKind::Runbook, path, name: "bb".into(), text: "in force".into() };
    store.keep_catalog(vec![file]).await.unwrap();
    sweep(&store, 40).await;
    assert_eq!(store.pinned(&pin("aa").hash).await.unwrap(), None);
    assert_eq!(store.pinned(&pin("bb").hash).await.unwrap().as_deref(), Some("in force"));
}
