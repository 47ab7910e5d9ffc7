//! Disks that fail under the real process: an fsync that fails, a quota, a full disk.
//!
//! Invariant: either the process ends and is started again, or it goes on by itself; it never stays as one that does nothing.

use crate::harness::{Engine, Site, alertmanager_body, eventually, eventually_within};
use crate::recording::Recording;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const RULES: &str = "rules:\n  - name: tell\n    when: ['alertname=\"X\"']\n    tell: [hook]\n    group_by: [id]\n";

const EIO: &str = "5";
const ENOSPC: &str = "28";
const EDQUOT: &str = "122";

/// A site whose disk fails while `flag` exists, and how to start its engine on that disk.
struct Disk {
    site: Site,
    library: PathBuf,
}

/// The library that fails writes, compiled into that folder: preload it.
pub fn fault_library(folder: &Path) -> PathBuf {
    let library = folder.join("fault.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/disk/fault.c");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(compiled.unwrap().success(), "a C compiler is needed for the library that fails writes");
    library
}

impl Disk {
    fn new(extra: &str) -> Disk {
        let site = Site::new(&format!("sources:\n  am: {{ kind: alertmanager }}\n{extra}"), RULES, &[]);
        let library = fault_library(site.path());
        Disk { site, library }
    }

    /// `how` it will fail: `FAULT_SYNC` or `FAULT_WRITE`.
    async fn start(&self, how: &str) -> Engine {
        self.start_with(&[(how, "1".to_owned())]).await
    }

    async fn start_with(&self, more: &[(&str, String)]) -> Engine {
        let mut env =
            vec![("LD_PRELOAD", self.library.display().to_string()), ("FAULT_FLAG", self.flag().display().to_string())];
        env.extend_from_slice(more);
        self.site.start(&env).await.unwrap_or_else(|| panic!("it did not start: {}", self.site.log()))
    }

    fn flag(&self) -> PathBuf {
        self.site.path().join("flag")
    }

    fn fail(&self, errno: &str) {
        std::fs::write(self.flag(), errno).unwrap();
    }

    fn heal(&self) {
        std::fs::remove_file(self.flag()).unwrap();
    }
}

async fn fire(engine: &Engine, id: &str) -> Option<u16> {
    let body = alertmanager_body("firing", "2026-11-23T03:00:00Z", &[&[("alertname", "X"), ("id", id)]]);
    engine.post("/in/alertmanager/am", &body).await.map(|(status, _)| status)
}

async fn is_ready(engine: &Engine) -> bool {
    engine.get("/readyz").await.is_some_and(|said| said["ready"] == true)
}

#[tokio::test]
async fn after_a_failed_fsync_the_process_ends_and_the_next_one_has_all_that_was_acknowledged() {
    let disk = Disk::new("");
    let mut engine = disk.start("FAULT_SYNC").await;
    assert_eq!(fire(&engine, "before").await, Some(200));
    disk.fail(EIO);
    let answered = fire(&engine, "lost").await;
    assert_ne!(answered, Some(200), "what may not be on the disk is not acknowledged");
    let code = eventually("the end of the process", async || engine.exit()).await;
    assert_eq!(code, Some(1), "a supervisor starts it again");
    assert!(disk.site.log().contains("the store is no longer writable"), "{}", disk.site.log());
    disk.heal();
    let engine = disk.start("FAULT_SYNC").await;
    assert_eq!(fire(&engine, "after").await, Some(200));
    let open = engine.get("/api/v1/status").await.unwrap()["episodes_open"].as_u64().unwrap();
    assert!((2..=3).contains(&open), "before and after; the lost one may be there, it was never acknowledged: {open}");
}

#[tokio::test]
async fn a_write_that_fails_ends_the_process() {
    let disk = Disk::new("");
    let mut engine = disk.start("FAULT_WRITE").await;
    disk.fail(EIO);
    assert_ne!(fire(&engine, "lost").await, Some(200));
    let code = eventually("the end of the process", async || engine.exit()).await;
    assert_eq!(code, Some(1));
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_a_full_disk_and_is_got_over_without_a_restart() {
    let disk = Disk::new("");
    let mut engine = disk.start("FAULT_WRITE").await;
    disk.fail(EDQUOT);
    assert_ne!(fire(&engine, "refused").await, Some(200));
    eventually("not ready", async || (!is_ready(&engine).await).then_some(())).await;
    assert_eq!(engine.exit(), None, "it lives: {}", disk.site.log());
    disk.heal();
    eventually("alerts to be taken again", async || (fire(&engine, "later").await == Some(200)).then_some(())).await;
    eventually("ready", async || is_ready(&engine).await.then_some(())).await;
    assert_eq!(engine.exit(), None);
}

#[tokio::test]
async fn on_a_full_disk_a_freeze_and_one_last_notice_get_through() {
    let hook = Recording::start(200, |_, _| json!({})).await;
    let extra = format!(
        "channels:\n  hook: {{ kind: webhook, shape: webhook-json, url: {{ env: HOOK_URL }} }}\n\
         default: {{ tell: [hook] }}\nhttp_allow: ['private+{}/']\n",
        hook.url
    );
    let disk = Disk::new(&extra);
    let shape = disk.site.path().join("integrations/webhook-json");
    std::fs::create_dir_all(&shape).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("integrations/webhook-json/encode.rhai");
    std::fs::copy(shipped, shape.join("encode.rhai")).unwrap();
    let ballast = disk.site.path().join("data/ballast");
    let env = [("HOOK_URL", format!("{}/hook", hook.url)), ("FAULT_FULL", ballast.display().to_string())];
    let mut engine = disk.start_with(&env).await;
    assert!(std::fs::metadata(&ballast).unwrap().len() > 0);
    disk.fail(ENOSPC);
    assert_ne!(fire(&engine, "refused").await, Some(200));
    let frozen = engine.post("/api/v1/freezes", &json!({ "scope": "all", "why": "the disk" })).await.unwrap();
    assert_eq!(frozen.0 / 100, 2, "{frozen:?}\n{}", disk.site.log());
    assert!(!is_ready(&engine).await, "who takes no alerts is not ready");
    let told = || hook.seen().into_iter().filter(|seen| seen.text.contains("disk of the store is full")).count();
    eventually("the notice of the full disk", async || (told() > 0).then_some(())).await;
    assert_ne!(fire(&engine, "refused").await, Some(200), "the room is kept for what matters more");
    disk.heal();
    eventually("alerts to be taken again", async || (fire(&engine, "later").await == Some(200)).then_some(())).await;
    assert!(std::fs::metadata(&ballast).unwrap().len() > 0, "the ballast is made again before");
    assert_eq!(engine.exit(), None);
    let freezes: Value = engine.get("/api/v1/freezes").await.unwrap();
    assert!(freezes.to_string().contains("the disk"), "{freezes}");
}

/// A restart in the night on which the disk is full must not be the one after which nothing starts any more.
#[tokio::test]
async fn a_start_on_a_full_disk_gives_up_the_ballast_and_takes_alerts_once_there_is_room() {
    let disk = Disk::new("");
    let ballast = disk.site.path().join("data/ballast");
    let env = [("FAULT_FULL", ballast.display().to_string())];
    let engine = disk.start_with(&env).await;
    assert_eq!(fire(&engine, "before").await, Some(200));
    engine.kill();
    disk.fail(ENOSPC);
    let healing = async {
        eventually("the ballast to be given up", async || {
            disk.site.log().contains("the ballast file is emptied").then_some(())
        })
        .await;
        disk.heal();
    };
    let (mut engine, ()) = tokio::join!(disk.start_with(&env), healing);
    eventually("alerts to be taken", async || (fire(&engine, "after").await == Some(200)).then_some(())).await;
    assert_eq!((open_alerts(&engine).await, engine.exit()), (Some(2), None), "{}", disk.site.log());
}

fn log_size(disk: &Disk) -> u64 {
    std::fs::metadata(disk.site.path().join("data/nightshift.db-wal")).map_or(0, |found| found.len())
}

async fn open_alerts(engine: &Engine) -> Option<u64> {
    engine.get("/api/v1/status").await.unwrap()["episodes_open"].as_u64()
}

/// Killed with acknowledged alerts in the log; the next start folds it at once.
async fn killed_with_a_log(disk: &Disk, how: &str) {
    let engine = disk.start(how).await;
    for id in ["a", "b", "c"] {
        assert_eq!(fire(&engine, id).await, Some(200));
    }
    engine.kill();
    assert!(log_size(disk) > 0);
}

#[tokio::test]
async fn an_fsync_that_fails_while_the_log_is_folded_ends_the_process_and_loses_nothing() {
    let disk = Disk::new("");
    killed_with_a_log(&disk, "FAULT_FOLD_SYNC").await;
    disk.fail(EIO);
    let env = [
        ("LD_PRELOAD", disk.library.display().to_string()),
        ("FAULT_FLAG", disk.flag().display().to_string()),
        ("FAULT_FOLD_SYNC", "1".to_owned()),
    ];
    // It may get as far as being ready.
    if let Some(mut engine) = disk.site.start(&env).await {
        // SQLite syncs the database only when nothing was written meanwhile; else the next fold does, a minute later.
        let minutes = Duration::from_secs(180);
        let code = eventually_within(minutes, "the end of the process", async || engine.exit()).await;
        assert_eq!(code, Some(1), "a supervisor starts it again");
    }
    let log = disk.site.log();
    assert!(log.contains("folding the write-ahead log into the database failed"), "{log}");
    disk.heal();
    let engine = disk.start("FAULT_FOLD_SYNC").await;
    assert_eq!(open_alerts(&engine).await, Some(3), "the log was kept");
    assert_eq!(engine.stop(), Some(0));
}

#[tokio::test]
async fn a_log_that_cannot_be_folded_is_told_once_loses_nothing_and_is_over_when_it_can() {
    for errno in [EIO, ENOSPC] {
        let disk = Disk::new("");
        killed_with_a_log(&disk, "FAULT_FOLD_WRITE").await;
        disk.fail(errno);
        let mut engine = disk.start("FAULT_FOLD_WRITE").await;
        eventually("the incident", async || {
            let incidents = engine.get("/api/v1/incidents").await?.to_string();
            incidents.contains("The log of the store cannot be folded into its database").then_some(())
        })
        .await;
        let entries = engine.get("/api/v1/entries?kind=trouble").await.unwrap().to_string();
        assert!(entries.contains("nothing is lost, the log keeps everything and grows"), "{entries}");
        assert_eq!(fire(&engine, "d").await, Some(200), "alerts are taken: the log is where they are safe");
        assert_eq!((open_alerts(&engine).await, engine.exit()), (Some(4), None));
        assert_eq!(engine.stop(), Some(0));
        assert!(log_size(&disk) > 0, "what was not folded at the end is kept");
        assert!(disk.site.log().contains("was not folded into the database at the end"), "{}", disk.site.log());
        disk.heal();
        let engine = disk.start("FAULT_FOLD_WRITE").await;
        assert_eq!(open_alerts(&engine).await, Some(4), "and nothing is lost");
        eventually("the end of the incident", async || {
            let open = engine.get("/api/v1/incidents?open=true").await?;
            open["incidents"].as_array()?.iter().all(|one| one["key"] != "store/fold").then_some(())
        })
        .await;
    }
}

/// The kernel says once that it could not write, and drops the pages; the next fsync has nothing to do and succeeds.
#[tokio::test]
async fn a_log_whose_last_fold_failed_is_not_removed_by_a_second_try_that_succeeds() {
    let disk = Disk::new("");
    let more = [("FAULT_FOLD_SYNC", "1".to_owned()), ("FAULT_ONCE", "1".to_owned())];
    let engine = disk.start_with(&more).await;
    for id in ["a", "b", "c"] {
        assert_eq!(fire(&engine, id).await, Some(200));
    }
    disk.fail(EIO);
    engine.stop();
    assert!(!disk.flag().exists(), "it failed");
    assert!(log_size(&disk) > 0, "the only good copy is kept");
    let engine = disk.start_with(&more).await;
    assert_eq!(open_alerts(&engine).await, Some(3));
    assert_eq!(engine.stop(), Some(0));
}

#[tokio::test]
async fn a_log_that_is_no_file_is_refused_in_words_and_left_alone() {
    let disk = Disk::new("");
    let engine = disk.start("FAULT_FOLD_SYNC").await;
    assert_eq!(engine.stop(), Some(0));
    let log = disk.site.path().join("data/nightshift.db-wal");
    let _ = std::fs::remove_file(&log);
    std::fs::create_dir(&log).unwrap();
    assert!(disk.site.start(&[]).await.is_none(), "{}", disk.site.log());
    let words = disk.site.log();
    // What is wrong, and what to look at.
    assert!(words.contains("unable to open database file") && words.contains("`data_dir`"), "{words}");
    assert!(log.is_dir());
    std::fs::remove_dir(&log).unwrap();
    assert!(disk.site.start(&[]).await.is_some(), "{}", disk.site.log());
}
