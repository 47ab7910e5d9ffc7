//! The plug is pulled: a child process is killed under load, and every acknowledged batch must be there afterwards.
//!
//! Invariant: the child says "ack" only after `intake` returned; nothing else makes the parent expect a batch.

use super::fixtures::*;
use nightshift::store::Store;
use nightshift::store::ledger::{SigningKey, verify_export, write_export};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

const DIR: &str = "NIGHTSHIFT_TEST_CRASH_DIR";
const ROUND: &str = "NIGHTSHIFT_TEST_CRASH_ROUND";

/// The child's side; without the variables it is a test of nothing but that it stays away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_takes_in_batches_until_it_is_killed() {
    let (Ok(dir), Ok(round)) = (std::env::var(DIR), std::env::var(ROUND)) else {
        assert!(std::env::var(DIR).is_err(), "both or none");
        return;
    };
    let store = super::sqlite(std::path::Path::new(&dir));
    let rules = auto();
    let tasks = (0..4).map(|task| {
        let (store, rules, round) = (store.clone(), rules.clone(), round.clone());
        tokio::spawn(async move {
            for no in 0.. {
                let name = format!("{round}-{task}-{no}");
                let events = (0..3).map(|part| event("Xid79", &format!("{name}-{part}"))).collect();
                hear(&store, &rules, events, at(1)).await;
                let mut out = std::io::stdout().lock();
                writeln!(out, "ack {name}").and_then(|()| out.flush()).unwrap();
            }
        })
    });
    futures::future::join_all(tasks.collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn every_acknowledged_batch_survives_the_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for (round, wanted) in [1, 7, 40, 3, 90].into_iter().enumerate() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["store::crash::a_child_takes_in_batches_until_it_is_killed", "--exact", "--nocapture"])
            .env(DIR, dir.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acks = (&mut lines).map(Result::unwrap).filter_map(|line| Some(line.split_once("ack ")?.1.to_owned()));
        acknowledged.extend((&mut acks).take(wanted));
        // SIGKILL, in the middle of whatever the writer was doing.
        child.kill().unwrap();
        acknowledged.extend(acks);
        child.wait().unwrap();
    }
    assert!(acknowledged.len() >= 141);
    let store = super::sqlite(dir.path());
    for name in &acknowledged {
        for part in 0..3 {
            let again = hear(&store, &auto(), vec![event("Xid79", &format!("{name}-{part}"))], at(2)).await;
            assert_eq!((again.refreshed, again.opened), (1, 0), "{name} was acknowledged and is gone");
        }
    }
    let counts = store.counts().await.unwrap();
    assert_eq!(counts.episodes_open % 3, 0, "a batch is whole or not at all");
    assert_eq!((counts.incidents_open, counts.runs_unfinished), (counts.episodes_open, counts.episodes_open));
    ledger_is_whole(&store, dir.path()).await;
}

async fn ledger_is_whole(store: &Arc<dyn Store>, dir: &std::path::Path) {
    let key = Arc::new(SigningKey::open_or_create(&dir.join("key"), "nightshift.test").unwrap());
    let size = store.checkpoint(key.clone(), at(3)).await.unwrap().unwrap().size;
    let mut entries = Vec::new();
    while (entries.len() as u64) < size {
        let last = entries.last().map(|entry: &nightshift::store::RawEntry| entry.no);
        entries.extend(store.raw_entries(last, 1_000).await.unwrap());
    }
    let mut export = Vec::new();
    write_export(&mut export, key.public(), size, entries, store.checkpoints(0, 1_000).await.unwrap()).unwrap();
    assert_eq!(verify_export(export.as_slice(), key.public()).unwrap().signed, size);
}
