//! A hundred thousand runs that sleep: what they cost in memory, how fast a restart is, how late they wake.
//!
//! Invariant: one run is put to sleep by the engine itself; the others are copies of its rows.

use crate::rig::{Rig, block_on, folder, memory, until};
use crate::{row, share, time_row};
use nightshift::limits;
use nightshift::model::{Mode, RunInput, Subject, Time};
use nightshift::policy::GuardLimits;
use nightshift::store::{Ledger, NewRun, Outbox, SqliteOptions, SqliteStore};
use std::time::{Duration, Instant};

const SLEEPING: i64 = 100_000;
/// Of these, so many wake within the time that we watch; as many a second as a busy fleet has.
const WAKING: i64 = 2_000;
const WATCHED: Duration = Duration::from_secs(20);

const NAP: &str = "//! Waits, then says so.
//!
//! scope: none

sleep(\"1h\");
note(\"awake\");
";

pub fn measure() {
    block_on(async {
        let rig = asleep().await;
        let Rig { parts, folder, .. } = rig;
        parts.store.close().await.expect("it closes");
        drop(parts);
        let begun = Instant::now();
        let store =
            SqliteStore::open(SqliteOptions::new(folder.path().join("bench.db")), Time::now()).expect("a store");
        store.due(Time::now(), limits::DUE_BATCH).await.expect("what is due");
        time_row(
            "100,000 sleeping runs: restart to the first look at what is due",
            begun.elapsed(),
            Duration::from_secs(2),
        );
        store.close().await.expect("it closes");
        drop(store);
        let empty = memory("self", "VmRSS");
        let rig = Rig::on(folder, 4, GuardLimits::default(), "rules: []\n", &[("nap", NAP)]).await;
        wake_at(&rig);
        let (_, stop) = rig.start().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let each = (memory("self", "VmRSS").saturating_sub(empty) * 1024) as f64 / SLEEPING as f64;
        row(
            "100,000 sleeping runs: resident each, the whole engine counted as theirs",
            format!("{each:.0} bytes"),
            "2,048 bytes",
            Some(each / 2048.0),
        );
        tokio::time::sleep(WATCHED).await;
        let ended =
            until(Duration::from_secs(60), async || number(&rig, "SELECT count(*) FROM step WHERE no = 1") >= WAKING)
                .await;
        assert!(ended, "not all of them woke: {}", number(&rig, "SELECT count(*) FROM step WHERE no = 1"));
        let mut late = lateness(&rig);
        let _ = stop.send(true);
        let at = |late: &mut Vec<i64>, of| Duration::from_micros(share(late, of).unsigned_abs());
        row("100,000 sleeping runs: lateness of 100 timers a second, p50", crate::ms(at(&mut late, 0.5)), "", None);
        time_row("100,000 sleeping runs: lateness, p99", at(&mut late, 0.99), Duration::from_secs(1));
    });
}

/// A store with so many runs in it that sleep.
async fn asleep() -> Rig {
    let rig = Rig::on(folder(), 4, GuardLimits::default(), "rules: []\n", &[("nap", NAP)]).await;
    let loaded = rig.parts.catalog.current();
    let new = NewRun {
        pin: loaded.runbooks["nap"].pin.clone(),
        input: RunInput::default(),
        subject: Subject::default(),
        mode: Mode::Auto,
        rule: None,
        terms: None,
        requested_by: "bench".to_owned(),
        once: None,
        now: Time::now(),
    };
    let run = rig.parts.store.start(new).await.expect("a run").expect("a new one");
    nightshift::engine::Runner::new(rig.parts.clone()).drain().await;
    let mut conn = rig.database();
    let copy = conn.transaction().expect("a transaction");
    for (table, key) in [("run", "id"), ("step", "run")] {
        let columns: Vec<String> = {
            let mut names = copy.prepare("SELECT name FROM pragma_table_info(?1)").expect("columns");
            let names = names.query_map([table], |row| row.get(0)).expect("columns");
            names.collect::<Result<_, _>>().expect("columns")
        };
        let values: Vec<String> = columns
            .iter()
            .map(|name| if name == key { format!("{key} + n.value") } else { format!("\"{name}\"") })
            .collect();
        let sql = format!(
            "WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < {}) \
             INSERT INTO {table} SELECT {} FROM {table} JOIN n WHERE {key} = {}",
            SLEEPING - 1,
            values.join(", "),
            run.0
        );
        copy.execute(&sql, []).expect("copies");
    }
    copy.commit().expect("a commit");
    assert_eq!(number(&rig, "SELECT count(*) FROM run WHERE wake_at IS NOT NULL AND final = 0"), SLEEPING);
    rig
}

/// All sleep until tomorrow, but for those that wake one after another while we watch. (The sleep itself counts from
/// when its step began, so that is moved with it.)
fn wake_at(rig: &Rig) {
    let conn = rig.database();
    let now = Time::now().as_microsecond();
    let (hour, first, step) = (3_600_000_000_i64, now + 3_000_000, WATCHED.as_micros() as i64 / WAKING);
    let wake = format!(
        "CASE WHEN id % {} = 0 THEN {first} + (id / {}) * {step} ELSE {now} + 24 * {hour} END",
        SLEEPING / WAKING,
        SLEEPING / WAKING
    );
    conn.execute(&format!("UPDATE run SET wake_at = {wake}"), []).expect("an update");
    conn.execute(&format!("UPDATE step SET begun_at = (SELECT wake_at FROM run WHERE id = run) - {hour}"), [])
        .expect("an update");
}

/// From when a sleep should have ended to when its end was recorded, in microseconds.
fn lateness(rig: &Rig) -> Vec<i64> {
    let conn = rig.database();
    let sql = "SELECT ended_at - begun_at - 3600000000 FROM step WHERE no = 0 AND ended_at IS NOT NULL";
    let mut select = conn.prepare(sql).expect("a query");
    let rows = select.query_map([], |row| row.get(0)).expect("rows");
    rows.collect::<Result<_, _>>().expect("numbers")
}

fn number(rig: &Rig, sql: &str) -> i64 {
    rig.database().query_row(sql, [], |row| row.get(0)).expect("a number")
}
