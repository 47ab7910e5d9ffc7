//! Socket Mode against a Slack that is pretended, over real WebSockets: what arrives there is the same as over HTTP, once.
//!
//! Invariant: nothing here waits on the wall clock but for words on a socket; outages pass on the simulated clock.

use super::rig::{Chat, MINUTE};
use nightshift::model::RunState;
use serde_json::{Value, json};
use std::time::Duration;

const OPEN: &str = "apps.connections.open";

#[tokio::test]
async fn a_command_over_the_socket_is_acknowledged_first_and_answered_at_its_own_address() {
    let mut chat = Chat::begin().await;
    chat.connect();
    let waiting = chat.stands(false).await;
    assert_eq!(waiting["why"], "it is connecting");
    let mut line = chat.line().await;
    assert_eq!(chat.slack.calls(OPEN)[0].0, "Bearer xapp-first", "the app's token, not the bot's");
    let standing = chat.stands(true).await;
    assert!(standing["why"].is_null() && standing["since"].is_string(), "{standing}");
    chat.asking().await;
    let ack = line.deliver("e1", "slash_commands", chat.slash("U0VIC", "incidents")).await;
    assert_eq!(ack, json!({ "envelope_id": "e1" }), "the words come afterwards, whatever they take");
    assert!(chat.slack.answers(1).await[0].starts_with("i1 "));
    // Who may not, may not here.
    line.deliver("e2", "slash_commands", chat.slash("U0VIC", "approve a1")).await;
    line.deliver("e3", "slash_commands", chat.slash("U0EVE", "status")).await;
    let mut foreign = chat.slash("U0ADA", "approve a1");
    foreign["team_id"] = json!("T9");
    line.deliver("e4", "slash_commands", foreign).await;
    let mut foreign = chat.slash("U0ADA", "approve a1");
    foreign["api_app_id"] = json!("A9");
    line.deliver("e5", "slash_commands", foreign).await;
    let answers = chat.slack.answers(5).await;
    for words in ["`vic` has role viewer", "no entry of `people`", "this workspace, or this app"] {
        assert!(answers.iter().any(|answer| answer.contains(words)), "{words}: {answers:?}");
    }
    assert!(chat.night.effects().is_empty());
    let page = chat.night.parts.metrics.render();
    assert!(page.contains("nightshift_slack_connected 1"), "{page}");
    assert!(page.contains("nightshift_slack_connections_total{outcome=\"ok\"} 1"), "{page}");
}

#[tokio::test]
async fn a_button_that_slack_delivers_again_is_acknowledged_again_and_acted_on_once() {
    let mut chat = Chat::begin().await;
    chat.connect();
    let mut line = chat.line().await;
    let (run, value) = chat.asking().await;
    let press = chat.press("U0ADA", "approve", &value);
    line.deliver("e1", "interactive", press.clone()).await;
    // The same envelope, and the same press in another one.
    line.deliver("e1", "interactive", press.clone()).await;
    line.deliver("e2", "interactive", press.clone()).await;
    // … and over HTTP as well.
    assert_eq!(chat.interacts(&press).await, Value::Null);
    let page = chat.night.parts.metrics.render();
    assert!(page.contains("nightshift_slack_answer_seconds_count{door=\"interaction\"} 1"), "{page}");
    assert_eq!(chat.slack.answers(1).await, ["a1 is approved by ada"]);
    assert_eq!(chat.night.until_rest(run, MINUTE).await.state, RunState::Done);
    assert_eq!(chat.night.effects()["patch nodes gpu-2"], 1);
    line.deliver("e3", "slash_commands", chat.slash("U0ADA", "status")).await;
    let answers = chat.slack.answers(2).await;
    assert_eq!(answers.len(), 2, "one answer to the press: {answers:?}");
}

#[tokio::test]
async fn a_connection_that_slack_calls_off_hears_on_until_its_successor_is_there() {
    let mut chat = Chat::begin().await;
    chat.connect();
    let mut first = chat.line().await;
    chat.stands(true).await;
    let (run, value) = chat.asking().await;
    chat.night.pass(MINUTE).await;
    first.say(json!({ "type": "disconnect", "reason": "refresh_requested", "debug_info": { "host": "x" } })).await;
    let mut second = chat.line().await;
    // Slack may still use the old one for a while.
    first.deliver("e1", "slash_commands", chat.slash("U0ADA", "status")).await;
    assert_eq!(chat.standing().await["connected"], true);
    drop(first);
    second.deliver("e2", "interactive", chat.press("U0ADA", "approve", &value)).await;
    assert_eq!(chat.slack.answers(2).await.len(), 2);
    assert_eq!(chat.night.until_rest(run, MINUTE).await.state, RunState::Done);
    assert_eq!(chat.standing().await["connected"], true);
    assert_eq!(chat.slack.calls(OPEN).len(), 2, "the end of the old one asks for no third");
}

#[tokio::test]
async fn after_an_hour_without_slack_the_engine_is_back_and_has_not_hammered_it() {
    let mut chat = Chat::begin().await;
    chat.connect();
    let line = chat.line().await;
    chat.stands(true).await;
    let (run, value) = chat.asking().await;
    chat.slack.down(Some(503));
    drop(line);
    let lost = chat.stands(false).await;
    assert!(lost["why"].as_str().is_some_and(|why| !why.is_empty()), "{lost}");
    let before = chat.slack.calls(OPEN).len();
    for _ in 0..720 {
        chat.night.pass(Duration::from_secs(5)).await;
        tokio::time::sleep(Duration::from_millis(2)).await; // polls
    }
    let attempts = chat.slack.calls(OPEN).len() - before;
    assert!((20..=250).contains(&attempts), "{attempts} attempts in an hour");
    let why = chat.standing().await["why"].as_str().unwrap().to_owned();
    assert!(why.contains("503"), "{why}");
    chat.slack.down(None);
    chat.night.pass(Duration::from_secs(30)).await;
    let mut line = chat.line().await;
    chat.stands(true).await;
    // The question has waited no longer than it may: it says so, and nothing is done by an old button.
    chat.night.settle().await;
    line.deliver("e1", "interactive", chat.press("U0ADA", "approve", &value)).await;
    assert!(chat.slack.answers(1).await[0].contains("is expired already"), "{:?}", chat.slack.answers(1).await);
    assert!(!matches!(chat.night.run(run).await.state, RunState::Done));
    assert!(chat.night.effects().is_empty());
}

#[tokio::test]
async fn a_revoked_token_says_what_to_do_and_a_new_one_works_without_a_restart() {
    let mut chat = Chat::begin().await;
    chat.slack.then(OPEN, 200, None, json!({ "ok": false, "error": "token_revoked" }));
    chat.connect();
    let why = crate::harness::eventually("what to do", async || {
        let why = chat.standing().await["why"].as_str().unwrap_or_default().to_owned();
        why.contains("token_revoked").then_some(why)
    })
    .await;
    assert!(why.contains("connections:write") && why.contains("slack.app_token"), "{why}");
    assert!(!why.contains("xapp-first"), "{why}");
    // It waits for a person, so it does not ask every second.
    chat.night.pass(Duration::from_secs(100)).await;
    assert_eq!(chat.slack.calls(OPEN).len(), 1);
    std::fs::write(chat.night.path().join("app-token"), "xapp-second\n").unwrap();
    chat.night.pass(Duration::from_secs(200)).await;
    let _line = chat.line().await;
    chat.stands(true).await;
    assert_eq!(chat.slack.calls(OPEN)[1].0, "Bearer xapp-second");
}

#[tokio::test]
async fn what_slack_asks_us_to_wait_is_waited() {
    let mut chat = Chat::begin().await;
    chat.slack.then(OPEN, 429, Some(120), json!({ "ok": false, "error": "ratelimited" }));
    chat.connect();
    chat.slack.called(OPEN, 1).await;
    crate::harness::eventually("that it is said", async || {
        chat.standing().await["why"].as_str().is_some_and(|why| why.contains("limits our rate")).then_some(())
    })
    .await;
    chat.night.pass(Duration::from_secs(119)).await;
    assert_eq!(chat.slack.calls(OPEN).len(), 1);
    chat.night.pass(Duration::from_secs(5)).await;
    let _line = chat.line().await;
    assert_eq!(chat.slack.calls(OPEN).len(), 2);
}

#[tokio::test]
async fn too_many_connections_a_switched_off_app_and_a_foreign_token_are_said_with_what_to_do() {
    for (frame, words) in [
        (json!({ "type": "disconnect", "reason": "too_many_websockets" }), "another engine"),
        (json!({ "type": "disconnect", "reason": "link_disabled" }), "switch it on"),
        (json!({ "type": "hello", "connection_info": { "app_id": "A9<!channel>" } }), "`slack.app` is A0"),
    ] {
        let mut chat = Chat::begin().await;
        chat.connect();
        let mut line = chat.lines.recv().await.unwrap();
        line.say(frame.clone()).await;
        crate::harness::eventually(words, async || {
            chat.standing().await["why"].as_str().is_some_and(|why| why.contains(words)).then_some(())
        })
        .await;
        chat.night.pass(Duration::from_secs(100)).await;
        assert_eq!(chat.slack.calls(OPEN).len(), 1, "{frame}: only a person can mend it");
        line.gone().await;
    }
}

#[tokio::test]
async fn a_slack_that_falls_silent_is_left_and_one_that_answers_pings_is_not() {
    let mut chat = Chat::begin().await;
    chat.connect();
    let mut line = chat.line().await;
    chat.stands(true).await;
    // An hour in which nothing happens but pings, which the other end answers while it reads.
    for _ in 0..3 {
        chat.night.pass(Duration::from_secs(1_200)).await;
        line.deliver("e", "nothing_we_know", Value::Null).await;
        assert_eq!(chat.standing().await["connected"], true);
    }
    // From here on nobody reads on the other end.
    crate::harness::eventually("that the silence is noticed", async || {
        chat.night.pass(Duration::from_secs(20)).await;
        (chat.slack.calls(OPEN).len() >= 2).then_some(())
    })
    .await;
    let mut second = chat.line().await;
    second.deliver("e1", "slash_commands", chat.slash("U0ADA", "status")).await;
    assert_eq!(chat.slack.answers(1).await.len(), 1);
}

#[tokio::test]
async fn frames_that_are_none_are_passed_over_and_one_that_is_too_large_ends_the_connection() {
    let mut chat = Chat::begin().await;
    chat.connect();
    let mut line = chat.line().await;
    chat.stands(true).await;
    chat.night.pass(MINUTE).await;
    line.say(json!([1, 2])).await;
    line.say(json!({ "type": "interactive" })).await;
    line.deliver("e1", "interactive", json!({ "type": "block_actions" })).await;
    line.deliver("e2", "slash_commands", json!("freeze")).await;
    line.deliver("e3", "events_api", json!({ "event": 7 })).await;
    line.deliver("e4", "interactive", json!({ "type": "view_submission", "view": 7 })).await;
    line.deliver("e5", "slash_commands", chat.slash("U0ADA", "status")).await;
    assert_eq!(chat.slack.answers(1).await.len(), 1);
    assert!(chat.night.parts.store.freezes().await.unwrap().is_empty());
    let mut large = chat.slash("U0ADA", "freeze");
    large["text"] = json!("x".repeat(2 << 20));
    line.say(json!({ "type": "slash_commands", "envelope_id": "e6", "payload": large })).await;
    let mut second = chat.line().await;
    drop(line);
    second.deliver("e7", "slash_commands", chat.slash("U0ADA", "status")).await;
    assert_eq!(chat.slack.answers(2).await.len(), 2);
}
