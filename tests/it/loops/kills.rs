//! The process is killed at random moments under load, also while it starts.

use super::bed::{Bed, at_a_moment, entries};
use super::{draw, rounds};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_random_moments_under_load_lose_nothing_and_double_nothing() {
    let (kills, mut draw) = (rounds("LOOPS_KILLS", 8), draw("kills"));
    let bed = Bed::new("").await;
    let mut engine = bed.start().await;
    bed.begin(3);
    // Each start that was waited for has an entry; one that was killed on its way may have come before it.
    let (mut done, mut starts) = (0, 1);
    while done < kills {
        bed.allow(8);
        at_a_moment(Duration::from_millis(draw.range(5, 700)), || false).await;
        engine.kill();
        done += 1;
        if draw.range(0, 4) == 0 && done < kills {
            let mut child = bed.site.spawn(&[], &[]);
            at_a_moment(Duration::from_millis(draw.range(5, 500)), || false).await;
            child.kill().unwrap();
            child.wait().unwrap();
            done += 1;
        }
        engine = bed.start().await;
        starts += 1;
    }
    let mut tally = bed.end(&engine).await;
    tally.rounds = done;
    let started = entries(&engine, "started").await.len();
    tally.silent = starts_without_entry(starts, started);
    tally.report("kills");
    assert_eq!(engine.stop(), Some(0));
}

fn starts_without_entry(starts: usize, entries: usize) -> usize {
    starts.saturating_sub(entries)
}
