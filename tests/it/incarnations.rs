//! A store that was put back from a copy counts from the same numbers, and never takes what its first life did for its own.
//! Effects are counted at the fleet.

use crate::night::Night;
use nightshift::engine::Runner;
use nightshift::model::{Mode, RunId, RunState};
use nightshift::store::{SqliteOptions, SqliteStore};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const RESTART: &str = "//! restarts\n//!\n//! scope: workload\n//! undo: never\n\n\
                       k8s::rollout_restart(\"inference/llama-70b\", #{ within: \"10m\" });\n";

impl Night {
    /// The process ends, something is done to its files, and another one starts on them.
    async fn restart_after(&mut self, change: impl FnOnce(&std::path::Path)) {
        self.parts.store.close().await.unwrap();
        let path = self.path().join("nightshift.db");
        change(&path);
        self.parts.store = Arc::new(SqliteStore::open(SqliteOptions::new(path), self.now()).unwrap());
        nightshift::engine::take_in(&self.parts).await;
        self.runner = Runner::new(self.parts.clone());
    }

    fn restarts(&self) -> usize {
        self.effects().get("patch deployments llama-70b").copied().unwrap_or(0)
    }
}

async fn restart(night: &Night) -> RunId {
    let run = night.start("restart", Mode::Auto, json!({})).await;
    let ended = night.until_rest(run, Duration::from_secs(900)).await;
    assert_eq!(ended.state, RunState::Done);
    run
}

#[tokio::test]
async fn after_a_restore_the_same_step_of_the_same_run_really_restarts_once_more() {
    let mut night = Night::fall("rules: []\n", &[("restart", RESTART)]).await;
    let copy = night.path().join("copy.db");
    night
        .restart_after(|path| {
            std::fs::copy(path, &copy).unwrap();
        })
        .await;
    let first = restart(&night).await;
    assert_eq!(night.restarts(), 1);
    night
        .restart_after(|path| {
            // As a person puts a copy back by hand: nothing tells the database that it is one.
            for beside in ["db-wal", "db-shm"] {
                let _ = std::fs::remove_file(path.with_extension(beside));
            }
            std::fs::copy(&copy, path).unwrap();
        })
        .await;
    assert_eq!(restart(&night).await, first, "the restored store gives the same number again");
    assert_eq!(night.restarts(), 2);
}

#[tokio::test]
async fn a_step_that_was_begun_before_a_restart_is_settled_by_its_own_key_and_not_done_twice() {
    let mut night = Night::fall("rules: []\n", &[("restart", RESTART)]).await;
    let run = night.start("restart", Mode::Auto, json!({})).await;
    night.settle().await;
    assert_eq!(night.restarts(), 1, "{:?}", night.story(run).await);
    let key = night.steps(run).await[0].key();
    night.restart_after(|_| {}).await;
    assert_eq!(night.steps(run).await[0].key(), key);
    assert_eq!(night.until_rest(run, Duration::from_secs(900)).await.state, RunState::Done);
    assert_eq!(night.restarts(), 1);
}

#[tokio::test]
async fn keys_from_before_there_were_incarnations_stay_as_they_were() {
    let mut night = Night::fall("rules: []\n", &[("restart", RESTART)]).await;
    let run = night.start("restart", Mode::Auto, json!({})).await;
    night.settle().await;
    assert!(night.steps(run).await[0].key().starts_with(&format!("nightshift-{run}-0-")));
    night
        .restart_after(|path| {
            let conn = rusqlite::Connection::open(path).unwrap();
            conn.execute("UPDATE step SET incarnation = ''", []).unwrap();
        })
        .await;
    let step = &night.steps(run).await[0];
    assert_eq!((step.key(), step.command_key()), (format!("nightshift-{run}-0"), format!("{run}/0")));
}
