//! Whether it was right, said on the page of a run with one press.
//!
//! Invariant: what a verdict counts for is read from the record of the rule, and who may give one is the API's to say.

use super::browser::Page;
use super::desk::{CORDON, Desk, MINUTE, XID, given, token, tokens};
use nightshift::config::Role;
use nightshift::model::{Mode, RunId, RunState};
use nightshift::server::{ConfiguredTokens, PrincipalSet};
use serde_json::json;

/// A run that a person has approved, done.
async fn done(desk: &Desk) -> RunId {
    let run = desk.asking().await;
    let (mut ada, _) = desk.signed_in("ada").await;
    let form = desk.question(&mut ada, run).await.with("answer", "approve");
    ada.send(&form).await;
    assert_eq!(desk.night.until_rest(run, MINUTE).await.state, RunState::Done);
    run
}

async fn counts(desk: &Desk) -> (u32, u32) {
    let loaded = desk.night.parts.catalog.current();
    let content = &loaded.rules.terms("r").unwrap().content;
    let card = desk.night.parts.store.card("r", content).await.unwrap();
    (card.right, card.wrong)
}

fn has_buttons(page: &Page) -> bool {
    page.text.contains("/judge\"")
}

#[tokio::test]
async fn a_plan_that_was_only_suggested_is_shown_and_judged_with_one_press() {
    let desk = Desk::set(|config, _| config.mode_ceiling = Mode::Suggest).await;
    std::fs::write(
        desk.night.path().join("rules/test.yaml"),
        super::desk::RULE.replace("mode: approve", "mode: suggest"),
    )
    .unwrap();
    nightshift::engine::reload(&desk.night.parts).await;
    let heard = desk.night.hear("firing", XID).await;
    let run = desk.night.until_rest(heard.runs[0], MINUTE).await;
    assert_eq!(run.state, RunState::Planned);
    let (mut ada, _) = desk.signed_in("ada").await;
    let at = desk.at(&format!("/runs/{}", run.id));
    let page = ada.open(&at).await;
    let words = page.words();
    assert!(words.contains("Suggestion only: the plan") && words.contains("cordon gpu-2"), "{words}");
    assert!(words.contains("Would that have been right?") && words.contains("It counts for rule r"), "{words}");
    let form = page.form("/judge");
    let after = ada.send(&form.clone().with("verdict", "wrong").with("why", "the <b>fan</b> was loose")).await;
    assert_eq!((after.status, &after.url), (200, &at));
    assert!(after.words().contains("wrong says ada"), "{}", after.words());
    assert!(after.words().contains("the <b>fan</b> was loose") && !after.text.contains("<b>fan"), "as text alone");
    assert_eq!(counts(&desk).await, (0, 1));
    // Of one person the latest word counts, and another one's stands beside it.
    let after = ada.send(&after.form("/judge").with("verdict", "right")).await;
    let words = after.words();
    assert!(words.contains("right says ada") && !words.contains("wrong says ada"), "{words}");
    assert!(words.contains("Your latest review counts"), "{words}");
    assert_eq!(counts(&desk).await, (1, 0));
    let (mut bob, _) = desk.signed_in("bob").await;
    let page = bob.open(&at).await;
    let after = bob.send(&page.form("/judge").with("verdict", "wrong")).await;
    assert!(after.words().contains("right says ada") && after.words().contains("wrong says bob"), "{}", after.words());
    let judged = desk.night.entries().await.into_iter().filter(|entry| entry.kind.name() == "run_judged").count();
    assert_eq!(judged, 3, "each word is in the ledger");
}

#[tokio::test]
async fn a_question_is_answered_first_and_what_was_done_is_judged_after() {
    let desk = Desk::set(|_, _| {}).await;
    let waiting = desk.asking().await;
    let (mut ada, _) = desk.signed_in("ada").await;
    let page = ada.open(&desk.at(&format!("/runs/{waiting}"))).await;
    assert!(page.text.contains("/web/approvals/a1") && !has_buttons(&page), "one question at a time");
    for page in [&page, &ada.open(&desk.at("/incidents/i1")).await] {
        assert!(
            !page.text.contains("nightshift approve"),
            "where there are buttons nothing is typed: {}",
            page.words()
        );
    }
    ada.send(&page.form("/web/approvals/a1").with("answer", "approve")).await;
    desk.night.until_rest(waiting, MINUTE).await;
    let page = ada.open(&desk.at(&format!("/runs/{waiting}"))).await;
    assert!(page.words().contains("Was that right?"), "{}", page.words());
    ada.send(&page.form("/judge").with("verdict", "wrong").with("why", "it was the switch")).await;
    assert_eq!(counts(&desk).await, (0, 1), "a wrong outweighs the yes");
}

#[tokio::test]
async fn who_may_not_judge_sees_the_verdict_without_buttons_and_a_forged_form_is_refused_in_place() {
    let desk = Desk::set(|_, _| {}).await;
    let run = done(&desk).await;
    let at = desk.at(&format!("/runs/{run}"));
    let (mut ada, _) = desk.signed_in("ada").await;
    let form = ada.open(&at).await.form("/judge").with("verdict", "wrong");
    for broken in [form.clone().without("csrf"), form.clone().with("csrf", "x")] {
        assert_eq!(ada.send(&broken).await.status, 403);
    }
    assert_eq!(ada.send(&form.clone().with("verdict", "perhaps")).await.status, 400);
    assert_eq!(ada.send(&form.clone().with("why", &"x".repeat(3_000))).await.status, 400);
    assert_eq!(ada.send_from(&form, &[("origin", "https://evil.example")]).await.status, 403);
    let (mut vic, _) = desk.signed_in("vic").await;
    let page = vic.open(&at).await;
    assert!(!has_buttons(&page), "{}", page.words());
    let csrf = page.form("/logout").get("csrf").to_owned();
    let refused = vic.send(&form.clone().with("csrf", &csrf)).await;
    assert_eq!(refused.status, 403);
    assert!(refused.words().contains("`vic` has role viewer"), "{}", refused.words());
    assert_eq!(counts(&desk).await, (1, 0), "the approval alone");
    assert!(desk.remarks().await[0].starts_with("denied for vic: POST /api/v1/runs/r1/judge"));
    // Somebody who may act elsewhere alone.
    let far =
        nightshift::server::GivenToken { clusters: Some(vec!["elsewhere".into()]), ..given("far", Role::Operator) };
    let all = tokens().into_iter().chain([far]).collect();
    desk.app.roster.replace(PrincipalSet::new(Vec::new(), ConfiguredTokens::new(all).unwrap()));
    ada.send(&form.with("why", "the fan")).await;
    let (mut far, _) = desk.signed_in_by(&token("far")).await;
    let page = far.open(&at).await;
    assert!(page.words().contains("wrong says ada") && !has_buttons(&page), "{}", page.words());
}

#[tokio::test]
async fn what_nobody_can_judge_has_no_buttons() {
    let desk = Desk::set(|_, _| {}).await;
    let by_hand = desk.night.start("cordon", Mode::Observe, json!({ "node": "gpu-2" })).await;
    desk.night.until_rest(by_hand, MINUTE).await;
    let (mut ada, _) = desk.signed_in("ada").await;
    let page = ada.open(&desk.at(&format!("/runs/{by_hand}"))).await;
    assert!(page.words().contains("Suggestion only: the plan") && !has_buttons(&page), "{}", page.words());
    // A rule's run that has planned nothing yet.
    let heard = desk.night.hear("firing", &[("alertname", "GpuXid"), ("node", "gpu-3")]).await;
    let page = ada.open(&desk.at(&format!("/runs/{}", heard.runs[0]))).await;
    assert!(!has_buttons(&page), "{}", page.words());
    assert!(CORDON.contains("scope: node"), "it is not for want of an effect");
}
