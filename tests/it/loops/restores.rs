//! A backup while the engine runs under load, a life after it, and the way back: numbers are given twice, and nothing is taken
//! for done that was done in the other life.

use super::bed::{Bed, entries};
use super::{draw, rounds};
use std::path::Path;
use std::process::Command;

fn nightshift(bed: &Bed, verb: &str, file: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
    command.arg("--config").arg(bed.site.path().join("nightshift.yaml")).arg(verb).arg(file);
    let output = command.env_remove("NIGHTSHIFT_TOKEN").env_remove("NIGHTSHIFT_SERVER").output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&said));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_each_restore_what_is_recorded_was_done_and_nothing_is_done_twice() {
    let (restores, mut draw) = (rounds("LOOPS_RESTORES", 3), draw("restores"));
    let bed = Bed::new("").await;
    let mut engine = bed.start().await;
    bed.begin(3);
    let (mut silent, mut unfounded) = (0, 0);
    for round in 0..restores {
        bed.allow(8);
        bed.settle(&engine).await;
        // What cannot be repeated is at rest at that moment: no backup can hold what is done after it.
        bed.only_labels(true);
        bed.allow(20);
        let file = bed.site.path().join(format!("{round}.backup"));
        let (of, to) = (bed.clone(), file.clone());
        tokio::task::spawn_blocking(move || nightshift(&of, "backup", &to)).await.unwrap();
        bed.settle(&engine).await;
        bed.only_labels(false);
        // The life that is lost.
        bed.allow(usize::try_from(draw.range(8, 17)).unwrap());
        bed.settle(&engine).await;
        unfounded += bed.count(&engine).await.unfounded;
        if draw.range(0, 2) == 0 {
            engine.kill();
        } else {
            assert_eq!(engine.stop(), Some(0));
        }
        nightshift(&bed, "restore", &file);
        std::fs::remove_file(&file).unwrap();
        std::fs::remove_dir_all(bed.site.path().join("data/before-restore-1")).unwrap();
        engine = bed.start().await;
        let told = entries(&engine, "trouble")
            .await
            .iter()
            .filter(|entry| entry.to_string().contains("restored from"))
            .count();
        silent += usize::from(told == 0);
    }
    bed.allow(8);
    let mut tally = bed.end(&engine).await;
    (tally.rounds, tally.silent) = (restores, silent);
    tally.unfounded += unfounded;
    tally.report("restores");
    assert_eq!(engine.stop(), Some(0));
}
