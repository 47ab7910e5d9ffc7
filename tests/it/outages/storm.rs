//! Ten thousand incidents within a minute, in Slack as it is: a digest, not a flood.
//!
//! Invariant: each incident has a message of its own or is counted in the digest, and the channel stays readable.

use super::slack::{counted, digests, messages, scene};
use nightshift::limits::NOTICES_PER_MINUTE;
use std::time::Duration;

#[tokio::test]
async fn ten_thousand_incidents_within_a_minute_are_twenty_messages_and_one_digest() {
    let scene = scene().await;
    let began = scene.now();
    for second in 0..50 {
        scene.hear("firing", "GpuXid", second * 200..(second + 1) * 200).await;
        scene.tell().await;
        scene.night.pass(Duration::from_secs(1)).await;
    }
    scene.pass(15).await;
    assert!(scene.nothing_is_due().await);
    let posts = scene.vendor.moments("chat.postMessage", began).len();
    let edits = scene.vendor.moments("chat.update", began).len();
    assert_eq!(posts, NOTICES_PER_MINUTE + 1, "twenty messages and a digest");
    assert!(edits <= 14, "{edits} editions of the digest in its first minute");
    let board = scene.vendor.board();
    assert_eq!(messages(&board).len(), NOTICES_PER_MINUTE);
    assert_eq!(counted(digests(&board)[0]), 10_000, "each is told or counted");
    let bytes = digests(&board)[0].last().to_string();
    assert!(bytes.contains("More may follow") && bytes.len() < 16_000, "{bytes}");
    // A minute later it says that it is over, once, and nothing follows.
    scene.pass(120).await;
    let board = scene.vendor.board();
    assert_eq!((board.len(), digests(&board).len()), (posts, 1));
    assert!(digests(&board)[0].last().to_string().contains("The storm is over"));
}
