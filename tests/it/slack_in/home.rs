//! A person's page: what it shows to whom, when it is published, and what its buttons do.
//!
//! Invariant: a label on the page is a text, and nobody's page is published more often than its pace allows.

use super::rig::{Chat, MINUTE};
use crate::night::seal;
use nightshift::model::RunState;
use serde_json::{Value, json};
use std::time::Duration;

const PUBLISH: &str = "views.publish";

fn opened(user: &str, id: &str) -> Value {
    let event = json!({ "type": "app_home_opened", "user": user, "tab": "home", "channel": "D1" });
    json!({ "type": "event_callback", "team_id": "T0", "api_app_id": "A0", "event_id": id, "event": event })
}

/// The page as text, and its buttons as (action, what they carry).
fn page(call: &Value) -> (String, Vec<(String, String)>) {
    assert_eq!(call["view"]["type"], "home");
    let blocks = call["view"]["blocks"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let elements = blocks.iter().filter(|block| block["type"] == "actions");
    let elements = elements.flat_map(|block| block["elements"].as_array().unwrap().clone());
    let buttons = elements.map(|button| (text(&button["action_id"]), text(&button["value"]))).collect();
    let words: Vec<String> = blocks.iter().map(|block| text(&block["text"]["text"])).collect();
    (words.join("\n"), buttons)
}

#[tokio::test]
async fn who_opens_the_page_sees_what_waits_for_them_and_decides_there() {
    let chat = Chat::begin().await;
    let (run, value) = chat.asking_about(&[("alertname", "GpuXid"), ("node", "gpu-2"), ("team", "<!channel>")]).await;
    chat.event(&opened("U0ADA", "Ev1")).await;
    let call = chat.slack.called(PUBLISH, 1).await.remove(0);
    assert_eq!(call["user_id"], "U0ADA");
    let (words, buttons) = page(&call);
    for expected in ["*Waiting for you*", "*Open incidents: 1*", "i1 ", "nodes out of service"] {
        assert!(words.contains(expected), "{expected}: {words}");
    }
    assert!(!call.to_string().contains("<!channel>"));
    let (_, approve) = buttons.iter().find(|(action, _)| action == "approve").expect("a button to approve");
    let (id, hash) = value.split_once(' ').unwrap();
    let carried = seal().open("approve", approve, chat.night.now()).unwrap();
    assert_eq!((carried.id.as_str(), carried.shown.as_str()), (id, hash));
    // The same event again is no second page.
    chat.event(&opened("U0ADA", "Ev1")).await;
    // Pressed on the page: there is no message to answer at, so the page says it.
    let mut press = chat.press_as_it_is("U0ADA", "approve", approve);
    press["response_url"] = json!("");
    chat.interacts(&press).await;
    chat.night.pass(MINUTE).await;
    let calls = chat.slack.called(PUBLISH, 2).await;
    let (words, buttons) = page(&calls[1]);
    assert!(words.contains("a1 is approved by ada") && words.contains("Nothing."), "{words}");
    assert!(buttons.iter().all(|(action, _)| action != "approve"), "{buttons:?}");
    assert_eq!(chat.night.until_rest(run, MINUTE).await.state, RunState::Done);
    assert_eq!(chat.slack.said(), 0);
    assert_eq!(chat.slack.calls(PUBLISH).len(), 2);
}

#[tokio::test]
async fn who_may_not_answer_sees_no_button_and_a_stranger_sees_how_to_be_known() {
    let chat = Chat::begin().await;
    chat.asking().await;
    chat.event(&opened("U0VIC", "Ev1")).await;
    let (words, buttons) = page(&chat.slack.called(PUBLISH, 1).await[0]);
    assert!(words.contains("No requests for you; 1 for others"), "{words}");
    assert!(buttons.iter().all(|(action, _)| action != "approve" && action != "deny"), "{buttons:?}");
    chat.event(&opened("U0EVE", "Ev2")).await;
    let call = chat.slack.called(PUBLISH, 2).await.remove(1);
    let (words, buttons) = page(&call);
    assert!(words.contains("is not linked") && words.contains("slack: U0EVE"), "{words}");
    assert!(!words.contains("i1") && buttons.is_empty(), "{words}");
    let mut foreign = opened("U0ADA", "Ev3");
    foreign["team_id"] = json!("T9");
    chat.event(&foreign).await;
    let (words, _) = page(&chat.slack.called(PUBLISH, 3).await[2]);
    assert!(words.contains("is not linked"), "another workspace's U0ADA is not ours: {words}");
}

#[tokio::test]
async fn a_page_that_is_opened_all_the_time_is_published_at_its_pace_and_the_last_one_is_current() {
    let mut chat = Chat::begin().await;
    chat.connect();
    let mut line = chat.line().await;
    for no in 0..50 {
        line.deliver(&format!("e{no}"), "events_api", opened("U0ADA", &format!("Ev{no}"))).await;
    }
    chat.slack.called(PUBLISH, 1).await;
    chat.asking().await;
    chat.night.pass(Duration::from_secs(2)).await;
    let calls = chat.slack.called(PUBLISH, 2).await;
    assert!(calls.len() <= 4, "{}", calls.len());
    line.deliver("last", "events_api", opened("U0ADA", "EvLast")).await;
    chat.night.pass(Duration::from_secs(2)).await;
    let calls = chat.slack.called(PUBLISH, calls.len() + 1).await;
    assert!(page(&calls[calls.len() - 1]).0.contains("*Open incidents: 1*"));
}

#[tokio::test]
async fn slack_may_verify_the_address_of_events_and_other_events_are_nothing() {
    let chat = Chat::begin().await;
    let answer = chat.event(&json!({ "type": "url_verification", "challenge": "3eZbrw1a" })).await;
    assert_eq!(answer, json!({ "challenge": "3eZbrw1a" }));
    let mut messages = opened("U0ADA", "Ev1");
    messages["event"]["tab"] = json!("messages");
    chat.event(&messages).await;
    let mention = json!({ "type": "app_mention", "user": "U0ADA", "text": "freeze" });
    chat.event(&json!({ "type": "event_callback", "team_id": "T0", "api_app_id": "A0", "event": mention })).await;
    chat.event(&opened("U0ADA", "Ev2")).await;
    chat.slack.called(PUBLISH, 1).await;
    assert_eq!(chat.slack.calls(PUBLISH).len(), 1);
    assert!(chat.night.parts.store.freezes().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_button_that_freezes_asks_why_first() {
    let chat = Chat::begin().await;
    let mut press = chat.press("U0ADA", "freeze", "all");
    press["response_url"] = json!("");
    chat.interacts(&press).await;
    let view = chat.slack.called("views.open", 1).await.remove(0)["view"].clone();
    let send = |why: Option<&str>| {
        json!({
            "type": "view_submission", "user": { "id": "U0ADA" }, "team": { "id": "T0" }, "api_app_id": "A0",
            "view": { "private_metadata": view["private_metadata"],
                "state": { "values": { "why": { "value": { "value": why } } } } },
        })
    };
    assert_eq!(chat.interacts(&send(None)).await["errors"]["why"], "a reason is missing");
    assert!(chat.night.parts.store.freezes().await.unwrap().is_empty());
    chat.interacts(&send(Some("the room is on fire"))).await;
    let freezes = chat.night.parts.store.freezes().await.unwrap();
    assert_eq!((freezes[0].scope.as_str(), freezes[0].by.as_str()), ("all", "ada"));
    let (words, _) = page(&chat.slack.called(PUBLISH, 1).await[0]);
    assert!(words.contains("frozen: all by ada: the room is on fire"), "{words}");
}
