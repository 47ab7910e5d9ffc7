//! An hour without Slack, and what people find there afterwards.
//!
//! Invariant: each incident has one message or is counted in the one digest; no minute has more calls than Slack takes.

use super::vendor::{Manner, Posted};
use super::{Scene, most_in_a_minute};
use nightshift::config::ChannelConfig;
use nightshift::model::{IncidentState, Time};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Slack takes so many edits a minute of a workspace, and so many posts a minute in a channel.
const EDITS: usize = 50;
const POSTS: usize = 60;

/// Slack's Web API as far as we use it.
pub fn does(board: &mut Vec<Posted>, method: &str, body: &Value, query: &str) -> (u16, Value) {
    let asked = |name: &str| {
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let listed = |posted: &Posted| json!({ "ts": posted.id, "metadata": posted.last()["metadata"] });
    let said = match method {
        "chat.postMessage" => {
            let id = format!("1700.{:06}", board.len() + 1);
            let thread = body["thread_ts"].as_str().map(str::to_owned);
            board.push(Posted { id: id.clone(), thread, editions: vec![body.clone()] });
            json!({ "ok": true, "channel": "C1", "ts": id })
        }
        "chat.update" => match board.iter_mut().find(|posted| Some(posted.id.as_str()) == body["ts"].as_str()) {
            Some(posted) => {
                posted.editions.push(body.clone());
                json!({ "ok": true, "channel": "C1", "ts": posted.id })
            }
            None => json!({ "ok": false, "error": "message_not_found" }),
        },
        "conversations.history" => {
            let top = board.iter().rev().filter(|posted| posted.thread.is_none());
            json!({ "ok": true, "messages": top.take(200).map(listed).collect::<Vec<_>>() })
        }
        "conversations.replies" => {
            let ts = asked("ts");
            let of = board.iter().filter(|posted| posted.id == ts || posted.thread.as_deref() == Some(&ts));
            json!({ "ok": true, "messages": of.map(listed).collect::<Vec<_>>() })
        }
        other => panic!("{other}"),
    };
    (200, said)
}

pub async fn scene() -> Scene {
    let channel =
        |token, url: &str| ChannelConfig::Slack { channel: "C1".into(), token, api: url.to_owned(), buttons: true };
    Scene::begin(does, channel).await
}

/// The messages of incidents, by the incident's key; two of one incident are a failure.
pub fn messages(board: &[Posted]) -> BTreeMap<String, &Posted> {
    let mut found = BTreeMap::new();
    for posted in board.iter().filter(|posted| posted.thread.is_none() && posted.about()["dedup_key"].is_string()) {
        let key = posted.about()["dedup_key"].as_str().unwrap().to_owned();
        assert!(found.insert(key.clone(), posted).is_none(), "{key} has two messages");
    }
    found
}

/// The digests there are.
pub fn digests(board: &[Posted]) -> Vec<&Posted> {
    board.iter().filter(|posted| posted.last().to_string().contains("incidents at once")).collect()
}

/// How many incidents a digest counts.
pub fn counted(digest: &Posted) -> usize {
    let words = digest.last()["text"].as_str().unwrap();
    words.split_whitespace().next().unwrap().parse().unwrap()
}

/// What a time of Slack's shows where Slack cannot: `03:12 UTC`.
pub fn utc(time: &str) -> String {
    time.rsplit_once('|').map_or(time, |(_, fallback)| fallback).trim_end_matches('>').to_owned()
}

/// The lines of a thread, oldest first.
fn thread(board: &[Posted], message: &Posted) -> Vec<String> {
    let replies = board.iter().filter(|posted| posted.thread.as_ref() == Some(&message.id));
    let blocks = replies.flat_map(|posted| posted.last()["blocks"].as_array().unwrap().clone());
    // Each minute is a block: its time, and its lines.
    let minutes = blocks.map(|block| {
        let word = |at: usize| block["elements"][at]["text"].as_str().unwrap_or_default().to_owned();
        (utc(&word(0)), word(1))
    });
    minutes.flat_map(|(time, text)| text.lines().map(|line| format!("{time}  {line}")).collect::<Vec<_>>()).collect()
}

fn word(state: IncidentState) -> &'static str {
    match state {
        IncidentState::Open => "*open*",
        IncidentState::Acknowledged => "*acknowledged*",
        IncidentState::Resolved => "*resolved*",
    }
}

/// No minute has more than Slack takes.
fn within_limits(scene: &Scene, since: Time) {
    let edits = most_in_a_minute(&scene.vendor.moments("chat.update", since));
    let posts = most_in_a_minute(&scene.vendor.moments("chat.postMessage", since));
    assert!(edits <= EDITS && posts <= POSTS, "{edits} edits and {posts} posts within a minute");
}

#[tokio::test]
async fn after_an_hour_without_slack_everything_is_told_once_in_order_and_within_its_limits() {
    let scene = scene().await;
    // Forty that Slack knows already.
    for no in 0..40 {
        scene.hear("firing", "GpuXid", [no]).await;
        scene.pass(4).await;
    }
    assert_eq!(messages(&scene.vendor.board()).len(), 40);
    let began = scene.now();
    // Replies get lost, then errors, then silence, then nobody is there.
    scene.vendor.is(Manner::LosesReplies);
    let mut away = false;
    for step in 0..240_usize {
        match step {
            4 => scene.vendor.is(Manner::Refuses(503, None)),
            80 => scene.vendor.is(Manner::Hangs),
            160 => {
                scene.vendor.goes_away().await;
                away = true;
            }
            _ => {}
        }
        if step < 200 {
            // One new each quarter of a minute; older ones move, and every other one of those ends.
            scene.hear("firing", "GpuXid", [40 + step]).await;
            scene.hear("firing", "GpuHot", [step]).await;
            scene.acknowledge(step).await;
            if step % 2 == 0 {
                scene.hear("resolved", "GpuXid", [step]).await;
                scene.hear("resolved", "GpuHot", [step]).await;
            }
        }
        scene.night.pass(Duration::from_secs(15)).await;
        scene.tell().await;
    }
    assert!(away);
    let tries: Vec<Time> = scene.vendor.calls().iter().filter(|call| call.at >= began).map(|call| call.at).collect();
    assert!(most_in_a_minute(&tries) <= 12, "{} calls in a minute of the outage", most_in_a_minute(&tries));
    let (back, before) = (scene.now(), scene.vendor.board().len());
    scene.vendor.comes_back().await;
    scene.pass(75).await;
    assert!(scene.vendor.board().len() > before, "the first word comes within a minute and a quarter");
    for _ in 0..120 {
        if scene.nothing_is_due().await {
            break;
        }
        scene.pass(15).await;
    }
    assert!(scene.nothing_is_due().await, "nothing is lost, and nothing waits for ever");
    within_limits(&scene, back);
    let board = scene.vendor.board();
    let (messages, digests) = (messages(&board), digests(&board));
    assert_eq!(digests.len(), 1, "one digest, edited");
    assert!(digests[0].last().to_string().contains("The storm is over"), "{}", digests[0].last());
    let incidents = scene.incidents().await;
    assert_eq!(incidents.len(), 240);
    let untold = incidents.iter().filter(|incident| !messages.contains_key(&Scene::key(incident)));
    let untold = untold.count();
    assert!(untold <= counted(digests[0]), "{untold} have no message, {} are counted", counted(digests[0]));
    assert!(messages.len() <= 40 + 20 + 120, "a digest, and no flood: {}", messages.len());
    for incident in &incidents {
        let Some(message) = messages.get(&Scene::key(incident)) else { continue };
        let now = message.last().to_string();
        assert!(now.contains(word(incident.state)), "{} is {:?}: {now}", incident.id, incident.state);
        let lines = thread(&board, message);
        let mut once = lines.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), lines.len(), "{} has a line twice: {lines:#?}", incident.id);
        let times: Vec<&str> = lines.iter().map(|line| &line[..5]).collect();
        assert!(times.is_sorted(), "{}: {lines:#?}", incident.id);
    }
    let ended = messages[&Scene::key(&scene.incident(0).await)];
    assert!(thread(&board, ended).last().unwrap().contains("resolved"), "{:#?}", thread(&board, ended));
}

#[tokio::test]
async fn what_slack_asks_to_wait_is_waited_by_everybody_and_nobody_is_told_twice() {
    let scene = scene().await;
    scene.hear("firing", "GpuXid", [0]).await;
    scene.pass(1).await;
    scene.vendor.is(Manner::Refuses(429, Some(90)));
    scene.hear("firing", "GpuXid", [1]).await;
    scene.tell().await;
    let asked = scene.vendor.calls().last().unwrap().at;
    scene.vendor.is(Manner::Up);
    for no in 2..12 {
        scene.hear("firing", "GpuXid", [no]).await;
        scene.acknowledge(0).await;
        scene.pass(8).await;
    }
    let early = scene.vendor.calls().iter().filter(|call| call.at > asked).count();
    assert_eq!(early, 0, "not a word within the ninety seconds, whoever has something to say");
    scene.pass(60).await;
    let board = scene.vendor.board();
    assert_eq!(messages(&board).len(), 12);
    let first = messages(&board)[&Scene::key(&scene.incident(0).await)].last().to_string();
    assert!(first.contains("*acknowledged*"), "{first}");
    assert!(scene.nothing_is_due().await);
}

#[tokio::test]
async fn a_message_that_slack_never_takes_keeps_nobody_else_waiting() {
    fn one_is_poison(board: &mut Vec<Posted>, method: &str, body: &Value, query: &str) -> (u16, Value) {
        match body["metadata"]["event_payload"]["dedup_key"]
            .as_str()
            .is_some_and(|key| key.starts_with("nightshift/test/i1/"))
        {
            true => (200, json!({ "ok": false, "error": "internal_error" })),
            false => does(board, method, body, query),
        }
    }
    let channel =
        |token, url: &str| ChannelConfig::Slack { channel: "C1".into(), token, api: url.to_owned(), buttons: true };
    let scene = Scene::begin(one_is_poison, channel).await;
    scene.hear("firing", "GpuXid", 0..10).await;
    scene.pass(10).await;
    assert_eq!(messages(&scene.vendor.board()).len(), 9, "all but the first");
    scene.pass(590).await;
    let tries = scene.vendor.moments("chat.postMessage", scene.now() - Duration::from_secs(300)).len();
    assert!((1..=12).contains(&tries), "{tries} tries in five minutes");
}

#[tokio::test]
async fn two_hundred_that_move_at_once_are_edited_within_the_limits_and_a_question_does_not_wait_for_them() {
    let scene = scene().await;
    for no in 0..200 {
        scene.hear("firing", "GpuXid", [no]).await;
        scene.pass(4).await;
    }
    let began = scene.now();
    for no in 0..200 {
        scene.acknowledge(no).await;
    }
    scene.pass(10).await;
    let edits = |since: Time| scene.vendor.moments("chat.update", since).len();
    assert!((10..=20).contains(&edits(began)), "{} edits in ten seconds", edits(began));
    // A new one does not wait behind the edits.
    scene.hear("firing", "GpuXid", [200]).await;
    scene.tell().await;
    assert_eq!(messages(&scene.vendor.board()).len(), 201, "told at once");
    scene.pass(420).await;
    assert_eq!(edits(began), 200, "each is edited once");
    within_limits(&scene, began);
    assert!(scene.nothing_is_due().await);
}
