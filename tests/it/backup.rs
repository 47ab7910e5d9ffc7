//! docs/backup.md, walked section by section with the real program: backup, restore, what a start refuses, and the way back.
//!
//! Invariant: what must survive is looked at through the API of the engine that was started afterwards.

use crate::harness::{Engine, Site, alertmanager_body, eventually};
use nightshift::world::sim::{SimFleet, SimOptions};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const RULES: &str = "rules:\n  - name: tell\n    when: ['alertname=\"X\"']\n    tell: [oncall]\n    group_by: [id]\n";

fn site() -> Site {
    Site::new("sources:\n  am: { kind: alertmanager }\n", RULES, &[])
}

fn nightshift(site: &Site, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
    command.arg("--config").arg(site.path().join("nightshift.yaml")).args(args);
    command.env_remove("NIGHTSHIFT_TOKEN").env_remove("NIGHTSHIFT_SERVER").output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn good(site: &Site, args: &[&str]) -> String {
    let output = nightshift(site, args);
    assert!(output.status.success(), "{args:?}: {}", said(&output));
    said(&output)
}

/// Starts on a site whose start is refused, and returns what it said.
fn refused(site: &Site, args: &[&str]) -> String {
    let all: Vec<&str> = ["serve"].iter().chain(args).copied().collect();
    let output = nightshift(site, &all);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    said(&output)
}

async fn start(site: &Site, args: &[&str]) -> Engine {
    site.start_with(args, &[]).await.unwrap_or_else(|| panic!("it did not start: {}", site.log()))
}

async fn fire(engine: &Engine, id: &str) {
    let body = alertmanager_body("firing", "2026-11-23T03:00:00Z", &[&[("alertname", "X"), ("id", id)]]);
    assert_eq!(engine.post("/in/alertmanager/am", &body).await.unwrap().0, 200);
}

/// Three alerts and a freeze.
async fn live(engine: &Engine) {
    for id in ["a", "b", "c"] {
        fire(engine, id).await;
    }
    let frozen = engine.post("/api/v1/freezes", &json!({ "scope": "all", "why": "the upgrade" })).await.unwrap();
    assert_eq!(frozen.0 / 100, 2, "{frozen:?}");
}

async fn status(engine: &Engine) -> Value {
    engine.get("/api/v1/status").await.unwrap()
}

fn database(site: &Site) -> PathBuf {
    site.path().join("data/nightshift.db")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

#[tokio::test]
async fn a_backup_of_a_running_engine_brings_everything_back_on_an_empty_disk() {
    let site = site();
    let engine = start(&site, &[]).await;
    live(&engine).await;
    let file = site.path().join("night.backup");
    let name = file.display().to_string();
    let made = good(&site, &["backup", &name]);
    assert!(made.contains("signing.key") && made.contains("entries") && made.contains("signed, root"), "{made}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "it holds the signing key");
    assert!(good(&site, &["backup", "--check", &name]).contains("good"));
    let twice = nightshift(&site, &["backup", &name]);
    assert!(!twice.status.success() && said(&twice).contains("exists"), "{}", said(&twice));
    fire(&engine, "after the backup").await;
    let before = status(&engine).await["epoch"].as_i64().unwrap();
    let running = nightshift(&site, &["restore", &name]);
    assert!(!running.status.success() && said(&running).contains("stop the engine first"), "{}", said(&running));
    assert_eq!(engine.stop(), Some(0));
    // The disk is lost.
    std::fs::remove_dir_all(site.path().join("data")).unwrap();
    let restored = good(&site, &["restore", &name]);
    assert!(restored.contains("restored"), "{restored}");
    let engine = start(&site, &[]).await;
    let now = status(&engine).await;
    assert_eq!((now["episodes_open"].as_u64(), now["freezes"].as_u64()), (Some(3), Some(1)), "{now:#}");
    assert!(now["epoch"].as_i64().unwrap() > before + 100_000, "older writers and agents are fenced: {now:#}");
    assert!(good(&site, &["audit", "verify"]).contains("good"));
    let entries = engine.get("/api/v1/entries?kind=trouble").await.unwrap().to_string();
    assert!(entries.contains("restored from backup night.backup"), "{entries}");
    let incidents = engine.get("/api/v1/incidents").await.unwrap().to_string();
    assert!(incidents.contains("restored from a backup"), "people are notified: {incidents}");
}

#[tokio::test]
async fn a_restore_keeps_what_it_replaces_and_says_what_is_missing() {
    let site = site();
    let engine = start(&site, &[]).await;
    live(&engine).await;
    let name = site.path().join("night.backup").display().to_string();
    good(&site, &["backup", &name]);
    fire(&engine, "d").await;
    assert_eq!(engine.stop(), Some(0));
    let restored = good(&site, &["restore", &name]);
    assert!(restored.contains("before-restore-1") && restored.contains("missing:"), "{restored}");
    assert!(site.path().join("data/before-restore-1/nightshift.db").exists());
    let engine = start(&site, &[]).await;
    assert_eq!(status(&engine).await["episodes_open"], 3);
    assert!(good(&site, &["audit", "verify"]).contains("good"));
}

#[tokio::test]
async fn a_damaged_or_foreign_file_is_no_backup_and_changes_nothing() {
    let site = site();
    let engine = start(&site, &[]).await;
    live(&engine).await;
    let file = site.path().join("night.backup");
    good(&site, &["backup", &file.display().to_string()]);
    assert_eq!(engine.stop(), Some(0));
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(9).position(|window| window == b"alertname").unwrap();
    bytes[at] ^= 1;
    let flipped = site.path().join("flipped.backup");
    std::fs::write(&flipped, &bytes).unwrap();
    let text = site.path().join("text.backup");
    std::fs::write(&text, "not a database at all, but long enough to be looked at ".repeat(100)).unwrap();
    for (bad, why) in [
        (&flipped, "differs from the entry that was written"),
        (&text, "is not a valid backup"),
        (&database(&site), "is not a valid backup"),
    ] {
        let output = nightshift(&site, &["restore", &bad.display().to_string()]);
        assert!(!output.status.success() && said(&output).contains(why), "{}: {}", bad.display(), said(&output));
    }
    let engine = start(&site, &[]).await;
    assert_eq!(status(&engine).await["episodes_open"], 3);
}

#[tokio::test]
async fn a_lost_emptied_or_older_database_is_refused_until_the_loss_is_accepted() {
    let site = site();
    let engine = start(&site, &[]).await;
    live(&engine).await;
    assert_eq!(engine.stop(), Some(0));
    let (data, old) = (site.path().join("data"), site.path().join("old"));
    copy(&data, &old);
    let engine = start(&site, &[]).await;
    fire(&engine, "d").await;
    assert_eq!(engine.stop(), Some(0));
    // An older copy of the database alone.
    let newest = std::fs::read(database(&site)).unwrap();
    std::fs::copy(old.join("nightshift.db"), database(&site)).unwrap();
    let words = refused(&site, &[]);
    assert!(
        words.contains("are missing") && words.contains("--accept-loss") && words.contains("nightshift restore"),
        "{words}"
    );
    std::fs::write(database(&site), "").unwrap();
    assert!(refused(&site, &[]).contains("is empty, although"));
    std::fs::remove_file(database(&site)).unwrap();
    assert!(refused(&site, &[]).contains("does not exist, although"));
    assert!(!database(&site).exists(), "a refused start makes nothing");
    // What was refused is as good as before.
    std::fs::write(database(&site), newest).unwrap();
    let engine = start(&site, &[]).await;
    assert_eq!(status(&engine).await["episodes_open"], 4);
    assert_eq!(engine.stop(), Some(0));
    std::fs::remove_file(database(&site)).unwrap();
    let engine = start(&site, &["--accept-loss"]).await;
    let entries = engine.get("/api/v1/entries?kind=trouble").await.unwrap().to_string();
    assert!(entries.contains("the loss was accepted by"), "{entries}");
    assert_eq!(engine.stop(), Some(0));
    let engine = start(&site, &[]).await;
    assert!(good(&site, &["audit", "verify"]).contains("good"), "and from then on it is an ordinary start");
    drop(engine);
}

#[tokio::test]
async fn a_lost_signing_key_is_not_replaced_silently() {
    let site = site();
    let engine = start(&site, &[]).await;
    live(&engine).await;
    let name = site.path().join("night.backup").display().to_string();
    good(&site, &["backup", &name]);
    assert_eq!(engine.stop(), Some(0));
    let key = site.path().join("data/signing.key");
    std::fs::remove_file(&key).unwrap();
    let words = refused(&site, &[]);
    assert!(words.contains("signing key") && words.contains("--accept-loss"), "{words}");
    assert!(!key.exists(), "none was made");
    let engine = start(&site, &["--accept-loss"]).await;
    assert_eq!(status(&engine).await["episodes_open"], 3, "everything else is there");
    assert!(good(&site, &["audit", "verify"]).contains("good"), "the new key covers the whole ledger");
    assert!(site.path().join("data/signing.pub.old").exists(), "for exports of before");
}

#[tokio::test]
async fn every_fault_of_opening_says_what_is_wrong_and_what_to_do() {
    let site = site();
    let engine = start(&site, &[]).await;
    assert_eq!(engine.stop(), Some(0));
    let whole = std::fs::read(database(&site)).unwrap();
    let mut bytes = whole.clone();
    bytes[3] ^= 0x20;
    std::fs::write(database(&site), &bytes).unwrap();
    let words = refused(&site, &[]);
    assert!(words.contains("nightshift restore") && !words.contains("another engine"), "{words}");
    std::fs::write(database(&site), &whole).unwrap();
    let conn = rusqlite::Connection::open(database(&site)).unwrap();
    conn.execute("INSERT INTO migration SELECT 99, 'later', sha256, at FROM migration LIMIT 1", []).unwrap();
    drop(conn);
    let words = refused(&site, &[]);
    assert!(words.contains("newer Nightshift") && words.contains("Downgrade"), "{words}");
}

/// The code block of that section of the page, a line each.
fn block(section: &str) -> Vec<String> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/backup.md")).unwrap();
    let section = page.split(&format!("## {section}\n")).nth(1).unwrap_or_else(|| panic!("no section {section}"));
    let block = section.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    block.lines().map(str::to_owned).collect()
}

fn change(site: &Site, sql: &str) {
    assert_eq!(rusqlite::Connection::open(database(site)).unwrap().execute(sql, []).unwrap(), 1, "{sql}");
}

/// This program plays both versions: it is the older one wherever the database has one more migration than it knows.
#[tokio::test]
async fn the_way_back_from_a_newer_version_is_walked_as_the_page_says() {
    let site = site();
    let engine = start(&site, &[]).await;
    live(&engine).await;
    assert_eq!(engine.stop(), Some(0));
    // What an upgrade keeps.
    let copy = site.path().join("data/nightshift.db.before-upgrade");
    std::fs::copy(database(&site), &copy).unwrap();
    // The newer version runs for a while, and takes in a fourth alert.
    let engine = start(&site, &[]).await;
    fire(&engine, "d").await;
    assert_eq!(engine.stop(), Some(0));
    let becomes_newer = "INSERT INTO migration SELECT max(version) + 1, 'later', sha256, at FROM migration";
    change(&site, becomes_newer);
    // "To lose nothing: install the newer version again."
    assert!(refused(&site, &[]).contains("newer Nightshift"));
    change(&site, "DELETE FROM migration WHERE name = 'later'");
    let engine = start(&site, &[]).await;
    assert_eq!(status(&engine).await["episodes_open"], 4);
    assert_eq!(engine.stop(), Some(0));
    change(&site, becomes_newer);
    let newer = std::fs::read(database(&site)).unwrap();

    // "An older version refuses a database that a newer one has opened."
    for args in [&[][..], &["--accept-loss"]] {
        let words = refused(&site, args);
        for part in ["newer Nightshift", "Downgrade", "install that version again"] {
            assert!(words.contains(part), "{part}: {words}");
        }
        assert_eq!(std::fs::read(database(&site)).unwrap(), newer, "and leaves it as it is");
    }
    // "To lose what came after the upgrade: put the copy in place, and accept the loss once."
    let mut lines = block("Downgrade");
    assert_eq!(lines.pop().as_deref(), Some("nightshift serve --accept-loss"));
    let script = lines.join("\n").replace("/var/lib/nightshift", &site.path().join("data").display().to_string());
    let walked = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(walked.status.success(), "{}", said(&walked));
    assert_eq!(std::fs::read(site.path().join("data/newer/nightshift.db")).unwrap(), newer, "nothing is thrown away");
    let words = refused(&site, &[]);
    assert!(words.contains("are missing") && words.contains("--accept-loss"), "the loss is accepted in words: {words}");
    let engine = start(&site, &["--accept-loss"]).await;
    let now = status(&engine).await;
    assert_eq!((now["episodes_open"].as_u64(), now["freezes"].as_u64()), (Some(3), Some(1)), "{now:#}");
    let entries = engine.get("/api/v1/entries?kind=trouble").await.unwrap().to_string();
    assert!(entries.contains("the loss was accepted by"), "{entries}");
    let incidents = engine.get("/api/v1/incidents").await.unwrap().to_string();
    assert!(incidents.contains("Entries of the ledger are lost"), "people are notified: {incidents}");
    assert!(good(&site, &["audit", "verify"]).contains("good"));
    // The fourth alert still fires: its source sends it again.
    fire(&engine, "d").await;
    assert_eq!(status(&engine).await["episodes_open"], 4);
    assert_eq!(engine.stop(), Some(0));
    let engine = start(&site, &[]).await;
    assert_eq!(status(&engine).await["episodes_open"], 4, "and from then on it is an ordinary start");
    assert_eq!(engine.stop(), Some(0));
}

#[tokio::test]
async fn the_database_alone_is_near_complete_once_its_log_was_folded() {
    use nightshift::store::{Ledger, SqliteOptions, SqliteStore};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let store = SqliteStore::open(SqliteOptions::new(&path), crate::store::fixtures::start()).unwrap();
    let kind = nightshift::model::EntryKind::Trouble { text: "a line".to_owned() };
    let (actor, about) = (nightshift::model::Actor::engine(), nightshift::model::EntryLinks::default());
    store.note(actor, about, kind, crate::store::fixtures::start()).await.unwrap();
    store.fold(crate::store::fixtures::start()).await.unwrap();
    std::fs::copy(&path, dir.path().join("copy.db")).unwrap();
    let copy = rusqlite::Connection::open(dir.path().join("copy.db")).unwrap();
    let entries: i64 = copy.query_row("SELECT count(*) FROM entry", [], |row| row.get(0)).unwrap();
    assert_eq!(entries, 2, "what was written a moment ago is in the file itself");
}

/// The page names both commands and each section that the tests above walk.
#[test]
fn the_page_has_a_section_for_each_walk() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/backup.md")).unwrap();
    for part in [
        "## Backup",
        "## Restore",
        "## Disaster recovery",
        "## A ledger that is too short",
        "## A lost key",
        "## Downgrade",
        "nightshift backup",
        "nightshift restore",
        "--accept-loss",
        "nightshift.db.before-upgrade",
        "before-restore-1",
    ] {
        assert!(page.contains(part), "docs/backup.md has no `{part}`");
    }
}

/// How many entries the mark beside the database says are signed.
fn marked(site: &Site) -> u64 {
    let mark = std::fs::read_to_string(site.path().join("data/signing.mark")).unwrap();
    mark.lines().nth(1).unwrap().parse().unwrap()
}

async fn newest(engine: &Engine, kind: &str) -> u64 {
    let entries = engine.get(&format!("/api/v1/entries?kind={kind}&limit=1")).await.unwrap();
    let no = entries["entries"][0]["no"].as_str().unwrap_or_else(|| panic!("no entry {kind}: {entries}"));
    no.trim_start_matches('#').parse().unwrap()
}

/// Puts the copy of a data folder in the place of the present one, which is killed; these files of it are left out.
fn put_back(site: &Site, engine: Engine, from: &Path, without: &[&str]) {
    engine.kill();
    let data = site.path().join("data");
    std::fs::remove_dir_all(&data).unwrap();
    copy(from, &data);
    without.iter().for_each(|name| std::fs::remove_file(data.join(name)).unwrap());
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
}

/// A copy of the database that was made a second before a freeze started with its freeze gone, and no one was told.
#[tokio::test]
async fn a_copy_from_before_a_freeze_is_refused_although_the_freeze_is_a_moment_old() {
    let site = site();
    let engine = start(&site, &[]).await;
    fire(&engine, "a").await;
    let (data, before) = (site.path().join("data"), site.path().join("before"));
    copy(&data, &before);
    let frozen = engine.post("/api/v1/freezes", &json!({ "scope": "all", "why": "maintenance" })).await.unwrap();
    assert_eq!(frozen.0, 201, "{frozen:?}");
    let mark = std::fs::read(data.join("signing.mark")).unwrap();
    // The database alone is put back; its mark stayed where it was.
    put_back(&site, engine, &before, &[]);
    std::fs::write(data.join("signing.mark"), mark).unwrap();
    let words = refused(&site, &[]);
    assert!(words.contains("were signed at the last checkpoint") && words.contains("are missing"), "{words}");
    let engine = start(&site, &["--accept-loss"]).await;
    let entries = engine.get("/api/v1/entries?kind=trouble").await.unwrap().to_string();
    assert!(entries.contains("the loss was accepted by"), "{entries}");
    drop(engine);
}

/// As above, with database and keys in the copy and no mark: nothing shows how old it is, and that is reason enough.
#[tokio::test]
async fn a_copy_of_database_and_keys_without_the_mark_is_refused() {
    let site = site();
    let engine = start(&site, &[]).await;
    let (data, before) = (site.path().join("data"), site.path().join("before"));
    // The newest entries are in the log still.
    copy(&data, &before);
    live(&engine).await;
    put_back(&site, engine, &before, &["signing.mark", "nightshift.db-wal", "nightshift.db-shm"]);
    assert!(refused(&site, &[]).contains("--accept-loss"));
    // Nor are the keys alone, with a database of nothing.
    for content in [Some(""), None] {
        std::fs::remove_file(database(&site)).unwrap();
        if let Some(content) = content {
            std::fs::write(database(&site), content).unwrap();
        }
        let words = refused(&site, &[]);
        assert!(
            words.contains("a key is made only after the first entry") && words.contains("--accept-loss"),
            "{words}"
        );
    }
    // A copy that has entries and signatures.
    std::fs::remove_dir_all(&data).unwrap();
    let engine = start(&site, &[]).await;
    live(&engine).await;
    std::fs::remove_dir_all(&before).unwrap();
    copy(&data, &before);
    put_back(&site, engine, &before, &["signing.mark"]);
    let words = refused(&site, &[]);
    assert!(words.contains("signing.mark") && words.contains("may lack the newest entries"), "{words}");
    let engine = start(&site, &["--accept-loss"]).await;
    assert_eq!(status(&engine).await["freezes"], 1);
    assert_eq!(engine.stop(), Some(0));
    let engine = start(&site, &[]).await;
    drop(engine);
}

/// Nothing within the folder can show that all of it is older: a mark on another disk can.
#[tokio::test]
async fn a_data_folder_that_is_older_as_a_whole_is_refused_by_the_mark_on_another_disk() {
    let site = site();
    let outside = site.path().join("other-disk");
    std::fs::create_dir(&outside).unwrap();
    site.edit(|config| format!("mark_file: {}\n{config}", outside.join("nightshift.mark").display()));
    let engine = start(&site, &[]).await;
    fire(&engine, "a").await;
    let (data, before) = (site.path().join("data"), site.path().join("before"));
    copy(&data, &before);
    let frozen = engine.post("/api/v1/freezes", &json!({ "scope": "all", "why": "maintenance" })).await.unwrap();
    assert_eq!(frozen.0, 201, "{frozen:?}");
    put_back(&site, engine, &before, &[]);
    let words = refused(&site, &[]);
    assert!(words.contains("were signed at the last checkpoint") && words.contains("are missing"), "{words}");
    // A restore writes both marks.
    std::fs::remove_file(outside.join("nightshift.mark")).unwrap();
    let engine = start(&site, &["--accept-loss"]).await;
    let name = site.path().join("night.backup").display().to_string();
    good(&site, &["backup", &name]);
    live(&engine).await;
    assert_eq!(engine.stop(), Some(0));
    assert!(good(&site, &["restore", &name]).contains("missing:"));
    let marks = [data.join("signing.mark"), outside.join("nightshift.mark")].map(|path| std::fs::read(path).unwrap());
    assert_eq!(marks[0], marks[1]);
    let engine = start(&site, &[]).await;
    assert_eq!(status(&engine).await["freezes"], 0);
    live(&engine).await;
    assert_eq!(engine.stop(), Some(0));
    // A volume that is not mounted shows nothing, and must not be taken for a mark that was never made.
    std::fs::remove_file(outside.join("nightshift.mark")).unwrap();
    let words = refused(&site, &[]);
    assert!(words.contains("nightshift.mark") && words.contains("is its volume mounted?"), "{words}");
    std::fs::remove_dir(&outside).unwrap();
    let words = refused(&site, &[]);
    assert!(words.contains("mark_file") && words.contains("mount its volume, or create the folder"), "{words}");
    std::fs::create_dir(&outside).unwrap();
    let engine = start(&site, &["--accept-loss"]).await;
    assert_eq!(engine.stop(), Some(0));
    assert!(outside.join("nightshift.mark").exists(), "made again");
}

/// An alert that comes back lowers its rule while it is taken in; an older copy must not raise it again.
#[tokio::test]
async fn a_demotion_by_an_alert_that_came_back_is_signed_before_the_alert_is_answered() {
    let fleet = SimFleet::start(SimOptions { nodes: 40, ..SimOptions::default() }).unwrap();
    let label = "//! Labels.\n//!\n//! params:\n//!   node: Node\n//! scope: node\n//! undo: never\n\nk8s::label(node, \"a.b/c\", \"d\");\n";
    let rules =
        "rules:\n  - { name: act, when: ['alertname=\"X\"', 'node!=\"\"'], run: label, mode: auto, cooldown: 0s }\n";
    let extra = format!(
        "sources:\n  am: {{ kind: alertmanager }}\nmode_ceiling: auto\nclusters:\n  sim: {{ url: '{}' }}\n",
        fleet.url()
    );
    let site = Site::new(&extra, rules, &[("label", label)]);
    let engine = start(&site, &[]).await;
    let alert = async |status: &str| {
        let labels: &[(&str, &str)] = &[("alertname", "X"), ("node", "gpu-1")];
        let body = alertmanager_body(status, "2026-11-23T03:00:00Z", &[labels]);
        assert_eq!(engine.post("/in/alertmanager/am", &body).await.unwrap().0, 200);
    };
    alert("firing").await;
    eventually("the run to act", async || {
        let runs = engine.get("/api/v1/runs").await?;
        (runs["runs"][0]["state"]["is"] == "done").then_some(())
    })
    .await;
    alert("resolved").await;
    alert("firing").await;
    let no = newest(&engine, "rule_demoted").await;
    let signed = marked(&site);
    assert!(signed > no, "it is entry #{no}, and {signed} entries are signed");
}

#[tokio::test]
async fn what_changes_who_may_what_is_signed_before_it_is_answered() {
    let site = site();
    let engine = start(&site, &[]).await;
    assert!(marked(&site) > 0, "with the first entries");
    let token = json!({ "name": "ci", "role": "operator", "expires": "1h" });
    let mut id = String::new();
    for (path, body, kind) in [
        ("freezes", json!({ "scope": "all", "why": "x" }), "frozen"),
        ("unfreeze", json!({ "scope": "all", "why": "x" }), "unfrozen"),
        ("tokens", token, "token_made"),
        ("tokens/ID/revoke", json!({ "why": "x" }), "token_revoked"),
        ("break-glass", json!({ "reason": "x", "expires": "2m" }), "break_glass"),
    ] {
        let path = format!("/api/v1/{}", path.replace("ID", &id));
        let (status, said) = engine.post(&path, &body).await.unwrap();
        assert_eq!(status / 100, 2, "{path}: {status} {said}");
        let signed = marked(&site);
        let no = newest(&engine, kind).await;
        assert!(signed > no, "{kind} is entry #{no}, and {signed} entries are signed");
        if kind == "token_made" {
            id = said["made"]["id"].as_str().unwrap().to_owned();
        }
    }
    assert!(good(&site, &["audit", "verify"]).contains("good"));
}
