//! Slack's doors from outside: who may, what a button is bound to, and where the answer goes.
//!
//! Invariant: what was done is counted by the fleet; what was said is read where Slack would show it.

mod flood;
mod forms;
mod home;
mod manifest;
mod real;
mod rig;
mod socket;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use nightshift::model::RunState;
use rig::MINUTE;
pub use rig::{Chat, SECRET, XID};
use serde_json::json;
use tower::ServiceExt;

#[tokio::test]
async fn a_command_is_answered_to_the_one_who_typed_it() {
    let chat = Chat::begin().await;
    assert!(chat.types("U0VIC", "status").await.contains("0 open incidents"));
    assert!(chat.types("U0VIC", "").await.contains("\napprove a4"), "one line a command");
    chat.asking().await;
    let open = chat.types("U0VIC", "incidents").await;
    assert!(open.starts_with("i1 "), "{open}");
    assert!(
        chat.types("U0VIC", "why i1").await.contains("matched") || !chat.types("U0VIC", "show i1").await.is_empty()
    );
    assert!(chat.types("U0ADA", "aprove a1").await.contains("did you mean `approve`?"));
    assert!(chat.types("U0ADA", "approve a9").await.contains("there is no approval a9"));
}

#[tokio::test]
async fn who_is_not_known_or_has_no_right_is_told_so_and_nothing_is_done() {
    let chat = Chat::begin().await;
    let (run, value) = chat.asking().await;
    assert!(chat.types("U0EVE", "status").await.contains("no entry of `people` has the Slack user ID U0EVE"));
    assert!(chat.types("U0VIC", "approve a1 sure").await.contains("`vic` has role viewer"));
    chat.presses("U0VIC", "approve", &value).await;
    assert!(chat.slack.answers(1).await[0].contains("`vic` has role viewer"));
    chat.night.settle().await;
    assert!(matches!(chat.night.run(run).await.state, RunState::Asking { .. }));
    assert!(chat.night.effects().is_empty());
}

#[tokio::test]
async fn a_forged_request_is_not_even_read() {
    let chat = Chat::begin().await;
    let body = "team_id=T0&user_id=U0ADA&text=freeze+now";
    let status = async |request: Request<Body>| chat.router.clone().oneshot(request).await.unwrap().status();
    let now = chat.night.now().as_second();
    for path in ["/slack/command", "/slack/interact", "/slack/events"] {
        assert_eq!(status(chat.request(path, body, "another secret")).await, StatusCode::UNAUTHORIZED);
        for (what, stamp) in [("late", now - 301), ("from the future", now + 301)] {
            assert_eq!(status(chat.request_at(path, body, SECRET, stamp)).await, StatusCode::UNAUTHORIZED, "{what}");
        }
        let whole = chat.request(path, body, SECRET);
        let signature = whole.headers()["x-slack-signature"].to_str().unwrap().to_owned();
        for cut in [3, 4, signature.len() - 1] {
            let mut request = chat.request(path, body, SECRET);
            request.headers_mut().insert("x-slack-signature", signature[..cut].parse().unwrap());
            assert_eq!(status(request).await, StatusCode::UNAUTHORIZED, "truncated");
        }
        let mut request = chat.request(path, body, SECRET);
        *request.body_mut() = Body::from(&body[1..]);
        assert_eq!(status(request).await, StatusCode::UNAUTHORIZED, "another body");
    }
    assert!(chat.night.parts.store.freezes().await.unwrap().is_empty());
    let once = || chat.request("/slack/command", body, SECRET);
    assert_eq!(chat.router.clone().oneshot(once()).await.unwrap().status(), StatusCode::OK);
    let replayed = chat.router.clone().oneshot(once()).await.unwrap().status();
    assert_eq!(replayed, StatusCode::UNAUTHORIZED, "the same bytes again are another user's");
}

#[tokio::test]
async fn a_button_approves_the_plan_that_was_shown_and_no_other() {
    let chat = Chat::begin().await;
    let (run, value) = chat.asking().await;
    let (id, _) = value.split_once(' ').unwrap();
    for stale in [id.to_owned(), format!("{id} {}", "0".repeat(64)), "a9 x".to_owned(), "<!channel> x".to_owned()] {
        chat.presses("U0ADA", "approve", &stale).await;
    }
    let refusals = chat.slack.answers(4).await;
    assert!(
        refusals.iter().all(|text| text.contains("is not the request")
            || text.contains("there is no")
            || text.contains("is not an approval")),
        "{refusals:?}"
    );
    assert!(matches!(chat.night.run(run).await.state, RunState::Asking { .. }));
    chat.presses("U0ADA", "approve", &value).await;
    assert_eq!(chat.slack.answers(5).await[4], format!("{id} is approved by ada"));
    assert_eq!(chat.night.until_rest(run, MINUTE).await.state, RunState::Done);
    assert_eq!(chat.night.effects()["patch nodes gpu-2"], 1);
}

#[tokio::test]
async fn two_who_press_in_the_same_moment_hear_who_was_first() {
    let chat = Chat::begin().await;
    let (run, value) = chat.asking().await;
    tokio::join!(chat.presses("U0ADA", "approve", &value), chat.presses("U0BOB", "approve", &value));
    let answers = chat.slack.answers(2).await;
    assert_eq!(answers.iter().filter(|text| text.contains("is approved already (by ")).count(), 1, "{answers:?}");
    assert_eq!(chat.night.until_rest(run, MINUTE).await.state, RunState::Done);
    assert_eq!(chat.night.effects()["patch nodes gpu-2"], 1);
}

#[tokio::test]
async fn an_incident_is_given_to_a_person_and_a_silence_that_cannot_be_made_says_why() {
    let chat = Chat::begin().await;
    chat.asking().await;
    assert_eq!(chat.types("U0ADA", "assign i1 <@U0BOB>").await, "i1 is bob's");
    assert!(chat.types("U0VIC", "incidents").await.contains("bob's"));
    assert_eq!(chat.types("U0BOB", "assign i1 me").await, "i1 is bob's");
    for (user, line, words) in [
        ("U0VIC", "assign i1 me", "viewer"),
        ("U0ADA", "assign i1 <!channel>", "no person"),
        ("U0ADA", "assign i1 <@U0MALLORY>", "no person"),
        ("U0ADA", "silence i1 2h", "a reason is missing"),
        ("U0ADA", "silence i1 soon \"new fan\"", "no length of time"),
        ("U0ADA", "silence i1 2h \"new fan\"", "has no Alertmanager API"),
        ("U0ADA", "silence i1 900h why", "a silence lasts from"),
    ] {
        let said = chat.types(user, line).await;
        assert!(said.contains(words), "{line}: {said}");
    }
    let kinds: Vec<&str> = chat.night.entries().await.iter().map(|entry| entry.kind.name()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "incident_assigned").count(), 1, "{kinds:?}");
}

#[tokio::test]
async fn who_asked_for_a_run_cannot_approve_it_as_somebody_else() {
    let chat = Chat::begin().await;
    let night = &chat.night;
    let loaded = night.parts.catalog.current();
    let runbook = &loaded.runbooks["cordon"];
    let params = json!({ "node": "gpu-2" }).as_object().unwrap().clone();
    let input = nightshift::policy::RuleSet::bind(&runbook.header, &params, None).unwrap();
    // Asked for with a token, which bears the same name as the person in Slack.
    let new = nightshift::store::NewRun {
        pin: runbook.pin.clone(),
        subject: nightshift::policy::subject_of(&runbook.header, &input.params, None),
        input,
        mode: nightshift::model::Mode::Approve,
        rule: None,
        terms: None,
        requested_by: "ada".into(),
        once: None,
        now: night.now(),
    };
    let run = night.parts.store.start(new).await.unwrap().unwrap();
    assert!(matches!(night.until_rest(run, MINUTE).await.state, RunState::Asking { .. }));
    let said = chat.types("U0ADA", "approve a1 go").await;
    assert!(said.contains("cannot approve it too"), "{said}");
    assert!(night.effects().is_empty(), "{:?}", night.effects());
    chat.types("U0BOB", "approve a1 go").await;
    night.until_rest(run, MINUTE).await;
    assert_eq!(night.effects().get("patch nodes gpu-2"), Some(&1));
}

#[tokio::test]
async fn one_press_judges_a_plan_and_only_a_word_changes_it() {
    let chat = Chat::begin().await;
    let (run, _) = chat.asking().await;
    chat.presses("U0VIC", "right", &run.to_string()).await;
    assert!(chat.slack.answers(1).await[0].contains("`vic` has role viewer"));
    chat.presses("U0ADA", "wrong", &run.to_string()).await;
    chat.slack.answers(2).await;
    // A second press, of whomever, hears who was first.
    for (no, (user, action)) in [("U0ADA", "right"), ("U0BOB", "wrong")].into_iter().enumerate() {
        chat.presses(user, action, &run.to_string()).await;
        let answers = chat.slack.answers(3 + no).await;
        assert!(answers[1].starts_with(&format!("{run}: wrong, says ada")), "{answers:?}");
        assert!(answers[2 + no].starts_with(&format!("{run} is already reviewed as wrong (by ada)")), "{answers:?}");
    }
    let typed = chat.types("U0ADA", &format!("judge {run} right it was the fan after all")).await;
    assert!(typed.contains("statistics: 1 matches, 1 right, 0 wrong"), "{typed}");
    let typed = chat.types("U0BOB", &format!("judge {run} wrong the fan was loose")).await;
    assert!(typed.contains("0 right, 1 wrong"), "one who says wrong is enough: {typed}");
    assert!(chat.types("U0BOB", "judge r1 perhaps").await.contains("write `right` or `wrong`"));
    assert!(
        chat.types("U0VIC", "scorecard r").await.contains("rule r is in approve because of its file's mode approve")
    );
}

#[tokio::test]
async fn of_two_who_judge_in_the_same_moment_one_word_counts() {
    let chat = Chat::begin().await;
    let (run, _) = chat.asking().await;
    let run = run.to_string();
    tokio::join!(chat.presses("U0ADA", "right", &run), chat.presses("U0BOB", "wrong", &run));
    let answers = chat.slack.answers(2).await;
    assert_eq!(answers.iter().filter(|text| text.contains("is already reviewed")).count(), 1, "{answers:?}");
    let judged = chat.night.entries().await.iter().filter(|entry| entry.kind.name() == "run_judged").count();
    assert_eq!(judged, 1);
}

#[tokio::test]
async fn a_button_that_is_not_ours_or_too_old_does_nothing_says_so_and_is_written_down() {
    let chat = Chat::begin().await;
    let (run, value) = chat.asking().await;
    let (id, hash) = value.split_once(' ').unwrap();
    let now = chat.night.now();
    let theirs =
        nightshift::notifiers::slack::ButtonSeal::new(&[8; 32], "test").close("approve", id, hash, now + MINUTE);
    let renamed =
        nightshift::notifiers::slack::ButtonSeal::new(&[7; 32], "other").close("approve", id, hash, now + MINUTE);
    let (denies, late) = (chat.sealed("deny", &value), crate::night::seal().close("approve", id, hash, now - MINUTE));
    let foreign = "of another installation or of another version";
    for (no, (carried, words)) in [
        (theirs.as_str(), foreign),
        (&renamed, foreign),
        (&denies, foreign),
        (&value, foreign),
        ("r1", foreign),
        ("", foreign),
        (&late, "has expired"),
    ]
    .into_iter()
    .enumerate()
    {
        chat.interacts(&chat.press_as_it_is("U0ADA", "approve", carried)).await;
        assert!(chat.slack.answers(no + 1).await[no].contains(words), "{carried}");
    }
    // A stranger hears nothing of what a button is.
    chat.interacts(&chat.press_as_it_is("U0EVE", "approve", &theirs)).await;
    assert!(chat.slack.answers(8).await[7].contains("no entry of `people`"));
    chat.night.settle().await;
    assert!(matches!(chat.night.run(run).await.state, RunState::Asking { .. }));
    assert!(chat.night.effects().is_empty());
    let refusals = chat.refusals().await;
    assert!(
        refusals.iter().any(|words| words.starts_with("denied for ada: this button is of another")),
        "{refusals:?}"
    );
}
