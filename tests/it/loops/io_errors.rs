//! One write or one fsync fails, at a random place: the process ends, and the next one has all that was acknowledged.

use super::bed::{Bed, at_a_moment};
use super::{draw, rounds};
use crate::disk::fault_library;
use crate::harness::{Draw, eventually};
use std::time::Duration;

/// The log fails, or the database itself while the log is folded into it.
fn fault(draw: &mut Draw) -> Vec<(&'static str, String)> {
    let how = ["FAULT_SYNC", "FAULT_WRITE"][usize::try_from(draw.range(0, 2)).unwrap()];
    vec![(how, "1".to_owned()), ("FAULT_AT", draw.range(1, 60).to_string()), ("FAULT_ERRNO", "5".to_owned())]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_each_io_error_the_process_ends_and_the_next_one_lacks_nothing_that_was_acknowledged() {
    let (errors, mut draw) = (rounds("LOOPS_IO_ERRORS", 8), draw("I/O errors"));
    let bed = Bed::new("").await;
    let library = fault_library(bed.site.path()).display().to_string();
    // The first start makes the token that the senders use.
    let first = bed.start().await;
    bed.begin(3);
    bed.allow(6);
    bed.taken(6).await;
    assert_eq!(first.stop(), Some(0));
    let mut silent = 0;
    for round in 0..errors {
        let mut env = fault(&mut draw);
        env.push(("LD_PRELOAD", library.clone()));
        let said = bed.site.log().len();
        bed.allow(2);
        if let Some(mut engine) = bed.site.start(&env).await {
            let code = eventually("the end of the process", async || {
                at_a_moment(Duration::from_millis(50), || false).await;
                bed.allow(2);
                engine.exit()
            })
            .await;
            assert_eq!(code, Some(1), "round {round}, {env:?}: {}", bed.last_of_log());
        }
        let new = bed.site.log()[said..].to_owned();
        if !(new.contains("the store is no longer writable") || new.contains("error:")) {
            eprintln!("round {round}, {env:?} is silent:\n{new}");
            silent += 1;
        }
    }
    let engine = bed.start().await;
    let mut tally = bed.end(&engine).await;
    (tally.rounds, tally.silent) = (errors, silent);
    tally.report("I/O errors");
    assert_eq!(engine.stop(), Some(0));
}

/// The log is folded into the database at an orderly end. What fails then is in the log still.
#[tokio::test]
async fn an_io_error_while_the_log_is_folded_into_the_database_loses_nothing() {
    let mut draw = draw("I/O errors while folding");
    let bed = Bed::new("").await;
    let library = fault_library(bed.site.path()).display().to_string();
    let first = bed.start().await;
    bed.begin(1);
    assert_eq!(first.stop(), Some(0));
    for (how, at) in [("FAULT_SYNC", 1), ("FAULT_WRITE", 1), ("FAULT_WRITE", draw.range(2, 8))] {
        let env = [
            (how, "1".to_owned()),
            ("FAULT_AT", at.to_string()),
            ("FAULT_FILE", "nightshift.db".to_owned()),
            ("LD_PRELOAD", library.clone()),
        ];
        bed.allow(5);
        if let Some(mut engine) = bed.site.start(&env).await {
            // The log may be folded before that, and then the process has ended.
            at_a_moment(Duration::from_secs(3), || engine.is_dead() || bed.is_acknowledged()).await;
            // With which code it ends is not the question: all that it acknowledged is in the log.
            if !engine.is_dead() {
                engine.stop();
            }
        }
    }
    let engine = bed.start().await;
    let mut tally = bed.end(&engine).await;
    tally.rounds = 3;
    tally.report("I/O, folding");
}
