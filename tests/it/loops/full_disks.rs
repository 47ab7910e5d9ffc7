//! The disk of the store becomes full under load, and has room again: alerts are refused meanwhile, and everything goes on.

use super::bed::{Bed, at_a_moment};
use super::{draw, rounds};
use crate::agent::link::Disk;
use crate::harness::{Engine, eventually};
use serde_json::json;
use std::time::Duration;

async fn readiness(bed: &Bed) -> String {
    let url = format!("http://127.0.0.1:{}/readyz", bed.site.port);
    let Ok(answer) = crate::harness::client().get(url).send().await else { return String::new() };
    answer.text().await.unwrap_or_default()
}

async fn freeze(engine: &Engine, path: &str) {
    let (status, said) = engine.post(path, &json!({ "scope": "rule:post", "why": "a drill" })).await.unwrap();
    assert_eq!(status / 100, 2, "{path}: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_and_has_room_again_loses_nothing_and_says_so_each_time() {
    let (fills, mut draw) = (rounds("LOOPS_FULL_DISKS", 4), draw("full disks"));
    let bed = Bed::new("").await;
    let disk = Disk::of(&bed.site.path().join("data"), "96m");
    let mut engine = bed.start().await;
    bed.begin(3);
    let mut silent = 0;
    for round in 0..fills {
        bed.allow(6);
        at_a_moment(Duration::from_millis(draw.range(0, 150)), || false).await;
        disk.fill();
        let before = bed.refused();
        // Enough that the room in the log's file is used up as well. What a fold of it frees is taken, too: beyond
        // `INCIDENTS_PER_SOURCE` in a minute alerts share an incident, and restarts of one workload a run. Not at once, for the room of
        // the ballast is not ours.
        let mut sent = 0;
        eventually("an alert to be refused", async || {
            sent += 1;
            if sent % 50 == 0 {
                disk.fill();
            }
            bed.allow(1);
            (bed.refused() > before).then_some(())
        })
        .await;
        let told = readiness(&bed).await;
        if !told.contains("disk is full") && !bed.site.log().contains("the disk is full") {
            eprintln!("round {round} is silent: {told}");
            silent += 1;
        }
        match draw.range(0, 4) {
            // The ballast is for this.
            0 => {
                freeze(&engine, "/api/v1/freezes").await;
                disk.empty();
                eventually("ready again", async || readiness(&bed).await.contains("\"ready\":true").then_some(()))
                    .await;
                freeze(&engine, "/api/v1/unfreeze").await;
            }
            // It dies on the full disk, and may be started on it.
            1 => {
                engine.kill();
                let mut child = bed.site.spawn(&[], &[]);
                let up = eventually("a start on a full disk", async || {
                    let ended = child.try_wait().unwrap().map(|_| false);
                    ended.or((!readiness(&bed).await.is_empty()).then_some(true))
                })
                .await;
                disk.empty();
                println!("round {round}: started on a full disk: {up}");
                let _ = child.kill();
                child.wait().unwrap();
                engine = bed.start().await;
            }
            _ => disk.empty(),
        }
        assert_eq!(engine.exit(), None, "round {round}: {}", bed.last_of_log());
        bed.settle(&engine).await;
        eventually("ready again", async || readiness(&bed).await.contains("\"ready\":true").then_some(())).await;
    }
    let mut tally = bed.end(&engine).await;
    (tally.rounds, tally.silent) = (fills, silent);
    tally.report("full disks");
    assert_eq!(engine.stop(), Some(0));
    drop(disk);
}
